"""How many starts a quota lets through: the port, what it decides, and one in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from oms_events._aio import Clock, SystemClock
from oms_events.instrumentation.hooks import Hook, Hooks, QuotaUsedUp
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.times import seconds_of, since_epoch, span

MAX_NAME: Final = 1_024
"""Bytes of a name; a partition key takes 2,048 (DynamoDB developer guide, "Quotas")."""
MAX_MARK: Final = 86_400.0
"""Seconds that a mark of `mark_waiting` lasts at most, as no quota has a longer window."""
SPARE: Final = 50
"""So many starts stay beyond those that a quota needs: each trim costs a write."""


class Behind(float):
    """Seconds after which to try again, though the quota has room: others, who wait for it, come first."""

    __slots__ = ()


class RateLimiter(Protocol):
    """Lets at most `quota.limit` starts of a name through in any `quota.window` seconds, all instances together.

    Those that were refused, and wait outside, are not overtaken by fresh ones as long as the name is marked
    (`mark_waiting`): who has waited says so (`waited=True`), and is let through as the quota has room.

    A limit or window that changes holds at once, for the starts that were counted before too. Only when a window
    becomes longer may some of them be forgotten: at least as many of the newest are known as the lowest limit
    since. Raises `ValueError` for a name or count that no quota has, and a `StorageError` when it cannot be known:
    then nothing may start.
    """

    async def open(self) -> None:
        """Connects; idempotent. The first call does it too."""
        ...

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        ...

    async def take(self, name: str, quota: Quota, *, count: int = 1, waited: bool = False) -> float:
        """Counts `count` starts and says 0.0; or counts nothing and says after how many seconds to try again.

        What it says is a `Behind` when only the mark keeps them back, which is for fresh ones. `count` is at most
        `quota.limit`: all of them start, or none. After a `StorageError`, and cancelled, they may be counted.
        Hooks are told of fresh ones that were refused.
        """
        ...

    async def look(self, name: str, quota: Quota, *, waited: bool = False) -> float:
        """What `take` would say to one start, without counting it."""
        ...

    async def used(self, name: str, quota: Quota) -> int:
        """How many starts are in the window now: over the limit, where that was higher before."""
        ...

    async def reset(self, name: str) -> bool:
        """Forgets all starts of the name, and its mark; False when there is nothing to forget.

        The quota is free at once, so that more than its limit may start in a window. After an answer that was lost
        it may say False, though it forgot.
        """
        ...

    async def mark_waiting(self, name: str, seconds: float) -> None:
        """Says that starts wait for the name's quota: for so long, at most a day, fresh ones stay behind them.

        A mark is never shortened. Mark for a refusal of the quota, and for no longer than it said, not for a
        `Behind`: marks that come from marks never end.
        """
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


def mark_until(name: str, seconds: float, now: int) -> int:
    """When a mark ends; raises `ValueError` for one that never began."""
    check_name("name", name)
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds!r}: give more than 0")
    return now + span(min(seconds, MAX_MARK))


def wait_for(starts: Sequence[int], quota: Quota, count: int, now: int, *, behind: int = 0) -> float:
    """Seconds until `count` more fit into the window; 0.0: now. `starts` are those before, newest first.

    All times in microseconds; `behind` is when the mark ends that they heed. When the start that is
    `limit - count` before the newest has left the window, at most `limit - count` are in it.
    """
    place, marked = quota.limit - count, seconds_of(behind - now)
    full = seconds_of(starts[place] + span(quota.window) - now) if len(starts) > place else 0.0
    if full:
        return max(full, marked)
    return Behind(marked) if marked else 0.0


def used_of(starts: Sequence[int], quota: Quota, now: int) -> int:
    """How many of the starts are in the window; all times in microseconds."""
    return sum(start + span(quota.window) > now for start in starts)


def superfluous(found: int, quota: Quota) -> bool:
    """Whether so many starts of a name are to be trimmed to `limit`, which are what the quota needs."""
    return found >= quota.limit + SPARE


class MemoryRateLimiter:
    """Counts in this process only: for tests, and services of one instance. Names are never forgotten."""

    def __init__(self, *, clock: Clock | None = None, hooks: Iterable[Hook] = ()) -> None:
        self._clock = clock or SystemClock()
        self._hooks = Hooks(hooks)
        self._starts: dict[str, list[int]] = {}
        self._marks: dict[str, int] = {}

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

    async def take(self, name: str, quota: Quota, *, count: int = 1, waited: bool = False) -> float:
        check_taken(name, quota, count)
        wait = self._wait(name, quota, count, waited=waited)
        if wait:
            if not waited:
                self._hooks(QuotaUsedUp(name, wait))
            return wait
        starts = self._starts.setdefault(name, [])
        starts[:0] = [since_epoch(self._clock.now())] * count
        if superfluous(len(starts), quota):
            del starts[quota.limit :]
        return 0.0

    async def look(self, name: str, quota: Quota, *, waited: bool = False) -> float:
        check_taken(name, quota, 1)
        return self._wait(name, quota, 1, waited=waited)

    async def used(self, name: str, quota: Quota) -> int:
        check_name("name", name)
        return used_of(self._starts.get(name, ()), quota, since_epoch(self._clock.now()))

    async def reset(self, name: str) -> bool:
        check_name("name", name)
        forgotten = self._starts.pop(name, None), self._marks.pop(name, None)
        return forgotten != (None, None)

    async def mark_waiting(self, name: str, seconds: float) -> None:
        until = mark_until(name, seconds, since_epoch(self._clock.now()))
        self._marks[name] = max(until, self._marks.get(name, 0))

    def _wait(self, name: str, quota: Quota, count: int, *, waited: bool) -> float:
        behind = 0 if waited else self._marks.get(name, 0)
        return wait_for(self._starts.get(name, ()), quota, count, since_epoch(self._clock.now()), behind=behind)
