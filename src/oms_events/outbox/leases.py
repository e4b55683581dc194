"""Keeps a processor's leases: its heartbeat, what it takes and gives up, and until when it may publish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from oms_events._aio import Clock, cancel_and_wait, cancelled_from_outside
from oms_events.errors import StorageError
from oms_events.instrumentation.hooks import Hooks, LeaseChanged, OutboxAlert
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.records import Bucket, Coordination, Lease, Member
from oms_events.outbox.shares import LEAVING, Steps, Take, Watch, live_members, plan_steps
from oms_events.outbox.store import OutboxStore

_log = logging.getLogger("oms_events")
_T = TypeVar("_T")

_LAYOUT_EVERY: Final = 5
_TAKES_AT_ONCE: Final = 8
_RETRY_SHARE: Final = 1 / 3
_CALL_SHARE: Final = 1 / 4
_SHORTEST_PAUSE_SHARE: Final = 1 / 100
_FAREWELL: Final = 1.0


class LeaseKeeper:
    """Holds the leases of one processor between `join` and `leave`; nothing that the storage does ends it.

    `member_id` is unique to this object. The callbacks run on the event loop and must not block: `on_taken` starts
    to relay a bucket; `on_wake` asks to look at it again; `on_lost` ends it at once, it is another's. `release`
    stops relaying a bucket, lets what is in flight finish, and gives the number below which every sequence was
    seen; `on_taken` follows if the bucket could not be given up after all. `info` gives counts for the status.

    Before each publish call the relay asks `seconds_left`: while it is 0 nothing may be published. All processors
    of a table should have the same `lease`.
    """

    def __init__(
        self,
        store: OutboxStore,
        *,
        member_id: str,
        config: ProcessorConfig,
        clock: Clock,
        hooks: Hooks,
        on_taken: Callable[[Lease], None],
        on_wake: Callable[[Bucket], None],
        on_lost: Callable[[Bucket], None],
        release: Callable[[Bucket], Awaitable[int]],
        info: Callable[[], Mapping[str, int]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._id = member_id
        self._config = config
        self._clock = clock
        self._hooks = hooks
        self._on_taken = on_taken
        self._on_wake = on_wake
        self._on_lost = on_lost
        self._release = release
        self._info = info
        self._draw = draw
        # Not from 1 on: a processor that starts again under its old id shows another beat at once.
        self._beat = 1 + int(draw() * 2**31)
        self._watch = Watch(lease=config.lease, heartbeat=config.heartbeat)
        self._buckets: tuple[Bucket, ...] = ()
        self._cycles_to_layout = 0
        self._held: dict[Bucket, Lease] = {}
        self._giving: dict[Bucket, asyncio.Task[None]] = {}
        self._stopped: set[Bucket] = set()
        self._settled_meanwhile: set[Bucket] = set()
        self._valid_until = -math.inf
        self._next_cycle = 0.0
        self._failing = False
        self._failed_now = False
        self._leaving = False
        self._in_cycle = False
        self._tasks: list[asyncio.Task[None]] = []
        self._poked = asyncio.Event()
        self._renewed = asyncio.Event()
        self._changed = asyncio.Event()

    # ------------------------------------------------------------------ what the relay asks

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """All buckets of the layout, as last read."""
        return self._buckets

    @property
    def held(self) -> Mapping[Bucket, Lease]:
        """The leases that are ours as far as the last reading tells, those being given up among them."""
        return self._held

    def seconds_left(self) -> float:
        """For how long publishing is allowed without another renewal; 0 when it is not."""
        return max(0.0, self._valid_until - self._clock.monotonic())

    def holds(self, bucket: Bucket) -> bool:
        """Whether a bucket's events may be published now."""
        return bucket in self._held and self.seconds_left() > 0

    # ------------------------------------------------------------------ joining and leaving

    async def join(self) -> None:
        """Shows up, takes what is free and our share, and starts the heartbeat.

        When the storage cannot be used it returns all the same, and the heartbeat tries again. Cancelled, it may
        have taken leases: `leave` gives them up.
        """
        await self._attempt()
        self._tasks = [
            asyncio.create_task(self._run(), name="oms-events-outbox-heartbeat"),
            asyncio.create_task(self._watch_expiry(), name="oms-events-outbox-lease-expiry"),
        ]

    def refresh(self) -> None:
        """Reads the layout and the coordination again now, not at the next heartbeat."""
        self._cycles_to_layout = 0
        self._poked.set()

    async def leave(self, timeout: float) -> None:
        """Gives up everything at once, for at most `timeout` seconds, and ends the heartbeat.

        What could not be given up is taken by others as soon as they see this processor gone. Nothing may be
        published afterwards. Cancelled, the heartbeat has ended, and others take over after a lease.
        """
        self._leaving = True
        deadline = self._clock.monotonic() + timeout
        for bucket in self._held:
            self._begin_give_up(bucket)
        self._poked.set()
        try:
            await self._within(timeout, self._wait_until_empty())
        except TimeoutError:
            _log.warning("%d buckets could not be given up within %s s", len(self._held), timeout)
        finally:
            await cancel_and_wait(*self._tasks, *self._giving.values())
            self._valid_until = -math.inf
        try:
            left = max(_FAREWELL, deadline - self._clock.monotonic())
            await self._within(left, self._store.forget(Member(self._id, self._beat)))
        except Exception as error:
            self._report(error)

    async def _wait_until_empty(self) -> None:
        # A heartbeat under way may be taking a bucket.
        while self._held or self._in_cycle:
            self._changed.clear()
            await self._changed.wait()

    # ------------------------------------------------------------------ the heartbeat

    async def _run(self) -> None:
        while not cancelled_from_outside():
            await self._pause()
            await self._attempt()

    async def _pause(self) -> None:
        now = self._clock.monotonic()
        shortest = self._config.heartbeat * _SHORTEST_PAUSE_SHARE
        with contextlib.suppress(TimeoutError):
            await self._within(max(shortest, self._next_cycle - now), self._poked.wait())
        self._poked.clear()

    async def _attempt(self) -> None:
        started = self._clock.monotonic()
        jitter = 0.9 + 0.1 * self._draw()
        self._failed_now = False
        self._in_cycle = True
        try:
            await self._cycle(started)
        except Exception as error:
            self._report(error)
            self._next_cycle = self._clock.monotonic() + self._config.heartbeat * _RETRY_SHARE * jitter
        else:
            self._next_cycle = started + self._config.heartbeat * jitter
            if (silence := self._watch.next_silence()) is not None:
                self._next_cycle = min(self._next_cycle, self._clock.monotonic() + silence)
        finally:
            self._in_cycle = False
            self._changed.set()
        if self._failing and not self._failed_now:
            self._failing = False
            _log.info("the outbox table %s can be used again", self._store.table)

    async def _cycle(self, started: float) -> None:
        self._beat += 1
        info = {**self._info(), **({LEAVING: 1} if self._leaving else {})}
        await self._call(self._store.beat(Member(self._id, self._beat, info)))
        # Before the old lease ended nobody can have taken a bucket, so that the beat alone renews. After that
        # only a reading that began after the beat shows what is still ours.
        if self.seconds_left() > 0:
            self._renew(started)
        await self._read_layout()
        self._settled_meanwhile.clear()
        coordination = await self._call(self._store.read_coordination())
        self._watch.observe(coordination, self._clock.monotonic())
        steps = plan_steps(self._id, self._buckets, coordination, self._watch, leaving=self._leaving)
        resting = self._compare(coordination, steps)
        self._renew(started)
        for bucket in steps.give_up:
            if bucket not in resting:
                self._begin_give_up(bucket)
        await self._take_all(steps.take, until=started + self._config.heartbeat)
        for member in steps.forget:
            await self._call(self._store.forget(member))

    async def _read_layout(self) -> None:
        if self._cycles_to_layout <= 0:
            # Before the call: a `refresh` meanwhile asks for another reading.
            self._cycles_to_layout = _LAYOUT_EVERY
            try:
                layout = await self._call(self._store.read_layout())
            except Exception:
                self._cycles_to_layout = 0
                raise
            self._buckets = () if layout is None else layout.buckets
        self._cycles_to_layout -= 1

    def _compare(self, coordination: Coordination, steps: Steps) -> set[Bucket]:
        """Makes `held` what the reading says; gives the buckets that are to be looked at, not given up now."""
        resting: set[Bucket] = set()
        # What was being given up while the reading was under way may be older in it than it is.
        unsure = self._giving.keys() | self._settled_meanwhile
        mine = {bucket: lease for bucket, lease in coordination.leases.items() if lease.owner == self._id}
        for bucket in self._held.keys() - mine.keys() - unsure:
            if bucket in self._stopped:
                self._drop(bucket, "released")
            else:
                self._drop(bucket, "lost")
                self._on_lost(bucket)
        for bucket in mine.keys() - unsure:
            lease, held = mine[bucket], self._held.get(bucket)
            if held is None or bucket in self._stopped:
                # Taken without an answer, or not given up after all.
                self._start(lease)
                resting.add(bucket)
            elif held.wake != lease.wake:
                self._held[bucket] = lease
                self._on_wake(bucket)
                # Whoever takes it next looks anyway.
                if not steps.others:
                    resting.add(bucket)
        return resting

    # ------------------------------------------------------------------ taking and giving up

    async def _take_all(self, takes: Iterable[Take], *, until: float) -> None:
        free = iter([take for take in takes if take.silent is None])
        # One after the other: transactions that check the same silent owner refuse each other.
        inherited = iter([take for take in takes if take.silent is not None])
        async with asyncio.TaskGroup() as group:
            for queue in (inherited, *[free] * _TAKES_AT_ONCE):
                group.create_task(self._take_from(queue, until), name="oms-events-outbox-take")

    async def _take_from(self, takes: Iterator[Take], until: float) -> None:
        for lease, silent in takes:
            # The rest can wait for the next reading; the next heartbeat cannot.
            if self._leaving or self._clock.monotonic() >= until:
                return
            try:
                taken = await self._call(self._store.take(lease, self._id, silent=silent))
            except Exception as error:
                self._report(error)
                return
            if taken is not None:
                self._start(taken)

    def _begin_give_up(self, bucket: Bucket) -> None:
        lease = self._held.get(bucket)
        if lease is None or bucket in self._giving or bucket in self._stopped:
            return
        name = f"oms-events-outbox-give-up-{bucket.epoch}-{bucket.number}"
        self._giving[bucket] = asyncio.create_task(self._give_up(lease), name=name)

    async def _give_up(self, lease: Lease) -> None:
        bucket = lease.bucket
        # Until the lease is known to be given up, the next reading says what is to be done with it.
        self._stopped.add(bucket)
        try:
            low = await self._release(bucket)
            if await self._let_go(lease, low):
                self._drop(bucket, "released")
        except Exception as error:
            self._report(error)
        finally:
            del self._giving[bucket]
            self._settled_meanwhile.add(bucket)

    async def _let_go(self, lease: Lease, low: int) -> bool:
        if await self._call(self._store.release(lease, low=low)):
            return True
        # Somebody asked to look again meanwhile. If this happens all the time, another processor's look must do.
        coordination = await self._call(self._store.read_coordination())
        latest = coordination.leases.get(lease.bucket)
        if latest is None or latest.owner != self._id or not live_members(coordination, self._watch) - {self._id}:
            return False
        return await self._call(self._store.release(latest, low=low))

    def _start(self, lease: Lease) -> None:
        is_known = lease.bucket in self._held
        self._held[lease.bucket] = lease
        self._stopped.discard(lease.bucket)
        if not is_known:
            self._tell(lease.bucket, "taken")
        self._on_taken(lease)

    def _drop(self, bucket: Bucket, change: str) -> None:
        del self._held[bucket]
        self._stopped.discard(bucket)
        self._changed.set()
        self._tell(bucket, change)

    # ------------------------------------------------------------------ validity

    def _renew(self, started: float) -> None:
        """A lease runs from before its heartbeat was sent: others count from when they saw it, which is later."""
        until = started + self._config.lease - self._config.lease_margin
        self._valid_until = max(self._valid_until, until)
        self._renewed.set()

    async def _watch_expiry(self) -> None:
        while not cancelled_from_outside():
            if (left := self.seconds_left()) > 0:
                await self._clock.sleep(left)
                continue
            for bucket in self._held:
                self._tell(bucket, "expired")
            self._renewed.clear()
            await self._renewed.wait()

    # ------------------------------------------------------------------

    async def _call(self, call: Coroutine[Any, Any, _T]) -> _T:
        """One call of the store, ended while there is time for others before the lease ends."""
        return await self._within(max(self._config.heartbeat, self._config.lease * _CALL_SHARE), call)

    async def _within(self, seconds: float, call: Coroutine[Any, Any, _T]) -> _T:
        """Awaits `call`; raises `TimeoutError` and ends it after so long on our own clock."""
        work = asyncio.create_task(call, name="oms-events-outbox-lease-call")
        timer = asyncio.create_task(self._clock.sleep(seconds), name="oms-events-outbox-lease-timer")
        try:
            await asyncio.wait((work, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(timer, *(() if work.done() else (work,)))
        if work.cancelled():
            raise TimeoutError(f"no answer within {seconds} s")
        return work.result()

    def _tell(self, bucket: Bucket, change: str) -> None:
        self._hooks(LeaseChanged(bucket.epoch, bucket.number, change, len(self._held)))

    def _report(self, error: Exception) -> None:
        if not isinstance(error, StorageError | TimeoutError):
            _log.error("keeping the outbox's leases failed", exc_info=error)
            return
        self._failed_now = True
        if self._failing:
            return
        self._failing = True
        text = (
            f"the outbox table {self._store.table} cannot be used: {error}; events stay in it, and are relayed "
            f"when it can be used again"
        )
        _log.warning("%s", text)
        self._hooks(OutboxAlert("storage", text))
