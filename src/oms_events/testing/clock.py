"""A clock that goes only when it is told to."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count


class ManualClock:
    """Time for tests: starts at `start`, moves by `advance`, and wakes sleepers in the order of their times."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = count()
        self._someone_sleeps = asyncio.Event()

    def monotonic(self) -> float:
        return self._elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        """Returns once `advance` has moved the clock far enough; zero only yields to the loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._tickets), waiter))
        self._someone_sleeps.set()
        await waiter

    @property
    def sleeping(self) -> list[float]:
        """When those that sleep will wake, in seconds of this clock."""
        return sorted(until for until, _, waiter in self._sleepers if not waiter.done())

    async def someone_sleeps(self) -> None:
        """Waits until at least one sleeper is there."""
        while not self.sleeping:
            self._someone_sleeps.clear()
            await self._someone_sleeps.wait()

    async def advance(self, seconds: float) -> None:
        """Moves the clock, waking each sleeper at its own time and letting it run."""
        target = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            until, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():
                continue
            self._elapsed = until
            waiter.set_result(None)
            await self._settle()
        self._elapsed = target
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
