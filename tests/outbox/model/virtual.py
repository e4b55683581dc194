"""An event loop whose time is counted, not waited for: when nothing is ready, its clock goes to the next timer."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

START = 1000.0
_DATE = datetime(2026, 1, 1, tzinfo=UTC)


class _NoWaiting:
    """A selector that moves the loop's clock where it would have waited."""

    def __init__(self, loop: VirtualLoop, inner: selectors.BaseSelector) -> None:
        self._loop = loop
        self._inner = inner

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing would ever wake it")
        if timeout > 0:
            self._loop.now = max(self._loop.now + timeout, math.nextafter(self._loop.now, math.inf))
        return []

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = START
        super().__init__(selectors.SelectSelector())
        self._selector = _NoWaiting(self, self._selector)

    def time(self) -> float:
        return self.now


class HostClock:
    """The clock of one host: the loop's time, a wall clock of its own, and sleeps that a pause prolongs."""

    def __init__(self, loop: VirtualLoop, *, wall_offset: float, gate: Callable[[], Awaitable[None]]) -> None:
        self._loop = loop
        self._gate = gate
        self.wall_offset = wall_offset

    def monotonic(self) -> float:
        return self._loop.now

    def now(self) -> datetime:
        return _DATE + timedelta(seconds=self._loop.now + self.wall_offset)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
        await self._gate()
