"""Calls functions at their times, on one task, so that nothing else needs a timer of its own."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from itertools import count

from oms_events._aio import Clock, cancel_and_wait

_log = logging.getLogger("oms_events")


class Alarm:
    """Plain functions, called when the clock reaches their times; from `start` until `stop`."""

    def __init__(self, clock: Clock, *, name: str) -> None:
        self._clock = clock
        self._name = name
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = count()
        self._earlier = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        await cancel_and_wait(task)
        self._heap.clear()

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Calls `call` once the monotonic clock shows `when`."""
        entry = (when, next(self._tickets), call)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._earlier.set()

    async def _run(self) -> None:
        while True:
            self._earlier.clear()
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                _, _, call = heapq.heappop(self._heap)
                try:
                    call()
                except Exception:
                    _log.exception("%s: a call failed", self._name)
            if not self._heap:
                await self._earlier.wait()
                continue
            sleep = asyncio.ensure_future(self._clock.sleep(self._heap[0][0] - now))
            earlier = asyncio.ensure_future(self._earlier.wait())
            try:
                await asyncio.wait((sleep, earlier), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(sleep, earlier)
