"""Gathers concurrent single publishes into full calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from oms_events._aio import cancel_and_wait
from oms_events.errors import OmsEventsError, SkippedError, UnknownOutcomeError
from oms_events.events import EncodedEvent
from oms_events.publishing import PublisherTraits, Receipt

Answer = Receipt | OmsEventsError
Send = Callable[[Sequence[EncodedEvent], float], Awaitable[Sequence[Answer]]]


@dataclass(slots=True, eq=False)
class Waiting:
    """An event in the batcher; `called` says that the call which carries it has begun."""

    event: EncodedEvent
    deadline: float
    answer: asyncio.Future[Answer]
    called: bool = False


class Batcher:
    """Collects events until a call is full in number or bytes, or the first has waited `linger` seconds.

    The queue holds less than one call: full ones are handed to `send` at once, each in a task of its own.
    """

    def __init__(self, send: Send, traits: PublisherTraits, *, name: str) -> None:
        self._send = send
        self._traits = traits
        self._name = name
        self._queue: list[Waiting] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def submit(self, event: EncodedEvent, deadline: float) -> Waiting:
        """Queues an event; await its `answer`, and `withdraw` it if nobody waits for that any longer."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(event, deadline, loop.create_future())
        if self._queue and self._bytes + event.size > self._traits.max_batch_bytes:
            self._flush()
        self._queue.append(waiting)
        self._bytes += event.size
        if len(self._queue) >= self._traits.max_batch:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._traits.linger, self._flush)
        return waiting

    def withdraw(self, waiting: Waiting) -> None:
        """Takes an event back whose call has not begun; afterwards it may have been sent iff `called`."""
        if not waiting.called and waiting in self._queue:
            self._queue.remove(waiting)
            self._bytes -= waiting.event.size

    async def close(self) -> None:
        """Cancels the calls under way; whoever still waits is told that the event was not attempted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiting in self._queue:
            if not waiting.answer.done():
                waiting.answer.set_result(SkippedError("the router was closed before the event was sent"))
        self._queue.clear()
        await cancel_and_wait(*self._calls)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._queue, self._bytes = self._queue, [], 0
        if batch:
            for waiting in batch:
                waiting.called = True
            task = asyncio.create_task(self._call(batch), name=f"{self._name}-call")
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, batch: list[Waiting]) -> None:
        try:
            answers = await self._send(
                [waiting.event for waiting in batch], max(waiting.deadline for waiting in batch)
            )
        except asyncio.CancelledError:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_result(UnknownOutcomeError("the router was closed during the call"))
            raise
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
