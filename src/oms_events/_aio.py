"""Time, tasks and slots: an injected clock, tasks that end in order or are seen through, a weighted semaphore."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Generic, Protocol, TypeVar

Given = TypeVar("Given")

_log = logging.getLogger("oms_events")

PARTING: Final = 5.0
"""Seconds that a cancellation waits for what must not be left half done."""

_parting_until: ContextVar[float | None] = ContextVar("oms_events_parting_until", default=None)


class Clock(Protocol):
    """The source of time: seconds that never go back, the date (aware, UTC), and a way to wait."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock and the running loop's timers."""

    # No method of our own around it: it is asked several times per event.
    monotonic = staticmethod(time.monotonic)

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


_PATIENCE = 1.0
_TRIES = 3


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks and waits until they have ended; their errors were theirs to report.

    A task may lose a cancellation to a race inside a library: it is cancelled again each second, three times.
    """
    live = {task for task in tasks if task is not None and not task.done()}
    for _ in range(_TRIES):
        if not live:
            return
        for task in live:
            task.cancel()
        _, live = await asyncio.wait(live, timeout=_PATIENCE)
    for task in live:
        _log.error("task %s does not end", task.get_name())


def cancelled_from_outside() -> bool:
    """In an `except CancelledError`: whether somebody cancelled this task, and not something that it awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


@contextmanager
def parting_until(deadline: float | None) -> Iterator[None]:
    """Within its body nothing takes leave after this moment, in the loop's time; None: each has `PARTING`."""
    token = _parting_until.set(deadline)
    try:
        yield
    finally:
        _parting_until.reset(token)


def parting_time() -> float:
    """Seconds to take leave in, at most `PARTING`: half of what is left, so that those who come next have some."""
    deadline = _parting_until.get()
    if deadline is None:
        return PARTING
    return min(PARTING, max(0.0, deadline - asyncio.get_running_loop().time()) / 2)


async def in_parting_time(call: Awaitable[Given]) -> Given:
    """What the call gives; raises `TimeoutError` when it takes longer than `parting_time`."""
    async with asyncio.timeout(parting_time()):
        return await call


async def seen_through(
    call: Coroutine[Any, Any, Given],
    *,
    name: str,
    undo: Callable[[Given], Awaitable[None]] | None = None,
    patience: float = PARTING,
) -> Given:
    """What the call gives. Cancelled meanwhile, it still waits for the call's end, and undoes what it did.

    That is tried for `patience` seconds in all, but no longer than `parting_time`, or until the next cancellation;
    when it does not succeed that is logged. The cancellation goes on in any case, and no task stays behind.
    """
    task = asyncio.create_task(call, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if cancelled_from_outside():
            try:
                async with asyncio.timeout(min(patience, parting_time())):
                    given = await asyncio.shield(task)
                    if undo is not None:
                        await undo(given)
            except Exception as error:
                _log.warning("%s: cancelled, and left half done: %r", name, error)
        raise
    finally:
        await cancel_and_wait(task)


class PeriodicTask:
    """Calls an async function every `interval` seconds from `start` until `stop`, first after one interval.

    An error in one call is logged and does not end the task.
    """

    def __init__(self, call: Callable[[], Awaitable[None]], *, interval: float, name: str, clock: Clock) -> None:
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
        # Not for ever: a call may swallow the cancellation that was to end this task.
        while not cancelled_from_outside():
            await self._clock.sleep(self._interval)
            try:
                await self._call()
            except Exception:
                _log.exception("%s failed", self._name)


class LoopBound(Generic[Given]):
    """Something of asyncio's, which stays with the event loop that it waited in: made anew when another runs."""

    def __init__(self, make: Callable[[], Given]) -> None:
        self._make = make
        self._made: tuple[asyncio.AbstractEventLoop, Given] | None = None

    def __call__(self) -> Given:
        """The one of the running loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            self._made = loop, self._make()
        return self._made[1]


class Slots:
    """A semaphore that is taken several at a time, first come first served, so that a queue stays bounded."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = capacity
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def in_use(self) -> int:
        return self.capacity - self._free

    def take_now(self, count: int) -> bool:
        """Takes `count` slots if they are free and nobody waits; says whether it did."""
        if self._waiters or count > self._free:
            return False
        self._free -= count
        return True

    async def take(self, count: int) -> None:
        """Takes `count` slots, at most `capacity`. A cancelled waiter holds none."""
        if self.take_now(count):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (count, waiter)
        self._waiters.append(entry)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give(count)
            else:
                # Whoever gave slots in the same turn of the loop has dropped this waiter already.
                if entry in self._waiters:
                    self._waiters.remove(entry)
                self._wake()
            raise

    def give(self, count: int) -> None:
        self._free += count
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._free:
            count, waiter = self._waiters.popleft()
            if not waiter.done():
                self._free -= count
                waiter.set_result(None)
