"""At most one run per key at a time: leases with a fence, and the run that keeps one."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from oms_events._aio import Clock, SystemClock, cancel_and_wait, in_parting_time, seen_through
from oms_events.errors import LeaseHeldError, LeaseLostError
from oms_events.triggers.guards.rate import check_name
from oms_events.triggers.guards.times import seconds_of, since_epoch, span

_log = logging.getLogger("oms_events")

MAX_SECONDS: Final = 86_400.0
_RENEWED: Final = 1 / 3
"""The part of a lease after which it is renewed."""
_AGAIN: Final = 1 / 12
"""The part of a lease after which a renewal that failed is tried again."""
_USED: Final = 0.9
"""The part of a lease after which its run is stopped: the rest is for the run to end."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A key that is held. `fence` rises each time that the key is taken, for ever.

    What a run writes to can remember the highest fence it saw, and refuse a run that has a lower one: a run whose
    lease was lost may not know it yet.
    """

    key: str
    token: str
    fence: int


class Leases(Protocol):
    """Keys that one at a time may hold, all instances together.

    Raises `ValueError` for a key or time that no lease has, and a `StorageError` when it cannot be known who holds
    a key: then nothing may run. When hosts' clocks differ by d, one may take a key d before the lease of another
    ends: make leases longer than that.
    """

    async def open(self) -> None:
        """Connects; idempotent. The first call does it too."""
        ...

    async def close(self) -> None:
        """Closes what was opened here; idempotent. Leases that are held stay."""
        ...

    async def take(self, key: str, *, seconds: float) -> Lease | float:
        """Takes the key for so long, or says after how many seconds it is free, if not before.

        After a `StorageError`, and cancelled, it may be held until `seconds` are over.
        """
        ...

    async def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Keeps the key for so long from now; false when another has taken it, or it was released."""
        ...

    async def release(self, lease: Lease) -> None:
        """Lets the next one take the key; harmless when the lease was lost."""
        ...


def check_lease(key: str, seconds: float) -> None:
    """Raises `ValueError` for what no lease is."""
    check_name("key", key)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"seconds = {seconds!r}: give more than 0 and at most {MAX_SECONDS:g}")


class MemoryLeases:
    """Leases of this process only: for tests, and services of one instance. Fences are never forgotten."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._held: dict[str, tuple[str, int]] = {}
        self._fences: dict[str, int] = {}

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def take(self, key: str, *, seconds: float) -> Lease | float:
        check_lease(key, seconds)
        now = since_epoch(self._clock.now())
        _, until = self._held.get(key, ("", now))
        if until > now:
            return seconds_of(until - now)
        lease = Lease(key, uuid.uuid4().hex, self._fences.get(key, 0) + 1)
        self._fences[key] = lease.fence
        self._held[key] = (lease.token, now + span(seconds))
        return lease

    async def renew(self, lease: Lease, *, seconds: float) -> bool:
        check_lease(lease.key, seconds)
        token, until = self._held.get(lease.key, ("", 0))
        if token != lease.token:
            return False
        self._held[lease.key] = (token, max(until, since_epoch(self._clock.now()) + span(seconds)))
        return True

    async def release(self, lease: Lease) -> None:
        if self._held.get(lease.key, ("", 0))[0] == lease.token:
            del self._held[lease.key]


class Exclusive:
    """Holds a key while its body runs: `async with Exclusive(leases, "market:prices") as lease: ...`.

    The lease is renewed each third of `seconds`. Once it was lost, or could not be renewed in nine tenths of its
    time, the body is cancelled and `LeaseLostError` raised in its place; threads that it started go on, which is
    what `lease.fence` is for. A body that blocked the event loop for so long cannot be cancelled: once it has
    ended well the lease is renewed, and `LeaseLostError` raised where that fails. So who ends without it held the
    key all the time, and who ends with it may have run beside another. The body's own errors, and cancellations
    from outside, are raised as they are.

    Each exit releases the key, in up to 5 s, also when it is cancelled, and leaves no task behind; a run that
    crashes holds the key for `seconds` at most. Entering raises `LeaseHeldError` when another holds the key, and a
    `StorageError`. For one use; `leases` stay open.
    """

    def __init__(self, leases: Leases, key: str, *, seconds: float = 60.0, clock: Clock | None = None) -> None:
        check_lease(key, seconds)
        self._leases = leases
        self._key = key
        self._seconds = seconds
        self._clock = clock or SystemClock()
        self._body: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._lease: Lease | None = None
        self._deadline = 0.0
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._is_over = False
        self._lost: str | None = None

    async def __aenter__(self) -> Lease:
        if self._body is not None:
            raise RuntimeError(f"this run of {self._key!r} has been: make an Exclusive for each")
        self._body = asyncio.current_task()
        asked = self._clock.monotonic()
        taking = self._leases.take(self._key, seconds=self._seconds)
        lease = await seen_through(taking, undo=self._give_back, name=f"take the lease of {self._key}")
        if not isinstance(lease, Lease):
            raise LeaseHeldError(
                f"another run holds {self._key!r}; it may be free in {lease:g} s", key=self._key, retry_after=lease
            )
        self._lease = lease
        self._keep_from(asked)
        self._cancelling = 0 if self._body is None else self._body.cancelling()
        self._tasks = (
            asyncio.create_task(self._renew(lease), name=f"renew the lease of {self._key}"),
            asyncio.create_task(self._watch(), name=f"watch the lease of {self._key}"),
        )
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        lost, ours = self._lost, kind is None
        if lost is not None and self._body is not None:
            # A cancellation of somebody else's, besides ours, goes on as such.
            only_ours = self._body.uncancel() <= self._cancelling
            ours = ours or (only_ours and kind is not None and issubclass(kind, asyncio.CancelledError))
        try:
            await cancel_and_wait(*self._tasks)
            if kind is None and lost is None:
                lost = await self._lost_unseen()
        finally:
            await self._release()
        if lost is not None and ours:
            raise LeaseLostError(f"the lease of {self._key!r} was lost, {lost}") from error

    async def _give_back(self, taken: Lease | float) -> None:
        if isinstance(taken, Lease):
            await self._leases.release(taken)

    async def _release(self) -> None:
        if self._lease is None:
            return
        name = f"release the lease of {self._key}"
        try:
            await seen_through(in_parting_time(self._leases.release(self._lease)), name=name)
        except Exception as error:
            _log.warning("the lease of %r could not be released, and ends by itself: %r", self._key, error)

    async def _lost_unseen(self) -> str | None:
        """Why the lease of a body that ended well was lost all the same; None when it was held throughout."""
        if self._lease is None or self._clock.monotonic() < self._deadline:
            return None
        try:
            is_held = await in_parting_time(self._leases.renew(self._lease, seconds=self._seconds))
        except Exception as error:
            why = f"it cannot be known who held it ({error!r})"
        else:
            if is_held:
                return None
            why = "another run took it"
        _log.error("the lease of %r ran out while its run blocked the event loop: %s", self._key, why)
        return f"while its run blocked the event loop: {why}"

    def _keep_from(self, asked: float) -> None:
        # From when it was asked for: the answer may have taken its time.
        self._deadline = asked + self._seconds * _USED

    async def _renew(self, lease: Lease) -> None:
        pause = _RENEWED
        while True:
            await self._clock.sleep(self._seconds * pause)
            asked = self._clock.monotonic()
            try:
                is_held = await self._leases.renew(lease, seconds=self._seconds)
            except Exception as error:
                _log.warning("the lease of %r could not be renewed yet: %s", self._key, error)
                pause = _AGAIN
                continue
            if not is_held:
                self._stop("another run has taken it")
                return
            self._keep_from(asked)
            pause = _RENEWED

    async def _watch(self) -> None:
        while (left := self._deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        self._stop("it could not be renewed in time")

    def _stop(self, why: str) -> None:
        if self._is_over or self._lost is not None or self._body is None:
            return
        self._lost = f"and its run stopped: {why}"
        _log.error("the lease of %r is lost, its run is stopped: %s", self._key, why)
        self._body.cancel()
