"""Time and tasks: an injected clock, a periodic task, and an orderly way to end tasks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

_log = logging.getLogger("oms_events")


class Clock(Protocol):
    """The source of time: seconds that never go back, and a way to wait."""

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock and the running loop's timers."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def cancel_and_wait(*tasks: asyncio.Task[object] | None) -> None:
    """Cancels tasks and waits until they have ended; their errors were theirs to report."""
    live = [task for task in tasks if task is not None and not task.done()]
    for task in live:
        task.cancel()
    if live:
        await asyncio.wait(live)


class PeriodicTask:
    """Calls an async function every `interval` seconds after it was started, until stopped.

    An error in one call is logged and does not end the task.
    """

    def __init__(
        self, call: Callable[[], Awaitable[None]], *, interval: float, name: str, clock: Clock
    ) -> None:
        self._call = call
        self._interval = interval
        self._name = name
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        await cancel_and_wait(task)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            try:
                await self._call()
            except Exception:
                _log.exception("%s failed", self._name)
