"""How many starts a quota lets through: the port, what it decides, and one in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from oms_events._aio import Clock, SystemClock
from oms_events.instrumentation.hooks import Hook, Hooks, QuotaUsedUp
from oms_events.triggers.config import MAX_QUOTA, Quota
from oms_events.triggers.guards.times import seconds_of, since_epoch, span

MAX_NAME: Final = 1_024
"""Bytes of a name; a partition key takes 2,048 (DynamoDB developer guide, "Quotas")."""


class RateLimiter(Protocol):
    """Lets at most `quota.limit` starts of a name through in any `quota.window` seconds, all instances together.

    A limit or window that changes holds at once, for the starts that were counted before too. Raises `ValueError`
    for a name or count that no quota has, and a `StorageError` when it cannot be known: then nothing may start.
    """

    async def open(self) -> None:
        """Connects; idempotent. The first call does it too."""
        ...

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        ...

    async def take(self, name: str, quota: Quota, *, count: int = 1) -> float:
        """Counts `count` starts and says 0.0; or counts nothing and says after how many seconds to try again.

        `count` is at most `quota.limit`: all of them start, or none. After a `StorageError`, and cancelled, they
        may be counted.
        """
        ...

    async def look(self, name: str, quota: Quota) -> float:
        """What `take` would say to one start, without counting it."""
        ...


def check_taken(name: str, quota: Quota, count: int) -> None:
    """Raises `ValueError` for what no quota could ever let through."""
    check_name("name", name)
    if not 1 <= count <= quota.limit:
        raise ValueError(f"count = {count!r}: take 1 to {quota.limit} at once, as the quota's limit is")


def check_name(field: str, name: str) -> None:
    """Raises `ValueError` for text that no key can have."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{field} = {name!r} has half a character; give whole ones") from None
    if not 1 <= size <= MAX_NAME:
        raise ValueError(f"{field} = {name[:50]!r} has {size} bytes; give 1 to {MAX_NAME}")


def wait_for(starts: Sequence[int], quota: Quota, count: int, now: int) -> float:
    """Seconds until `count` more fit into the window; 0.0: now. `starts` are those before, newest first.

    All times in microseconds. When the start that is `limit - count` before the newest has left the window, at
    most `limit - count` are in it.
    """
    place = quota.limit - count
    if len(starts) <= place:
        return 0.0
    return seconds_of(starts[place] + span(quota.window) - now)


class MemoryRateLimiter:
    """Counts in this process only: for tests, and services of one instance. Names are never forgotten."""

    def __init__(self, *, clock: Clock | None = None, hooks: Iterable[Hook] = ()) -> None:
        self._clock = clock or SystemClock()
        self._hooks = Hooks(hooks)
        self._starts: dict[str, deque[int]] = {}

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

    async def take(self, name: str, quota: Quota, *, count: int = 1) -> float:
        check_taken(name, quota, count)
        starts = self._starts.setdefault(name, deque(maxlen=MAX_QUOTA))
        now = since_epoch(self._clock.now())
        wait = wait_for(starts, quota, count, now)
        if wait:
            self._hooks(QuotaUsedUp(name, wait))
        else:
            starts.extendleft([now] * count)
        return wait

    async def look(self, name: str, quota: Quota) -> float:
        check_taken(name, quota, 1)
        return wait_for(self._starts.get(name, ()), quota, 1, since_epoch(self._clock.now()))
