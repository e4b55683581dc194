"""Gathers concurrent single publishes into full calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from oms_events._aio import cancel_and_wait
from oms_events.errors import SkippedError, UnknownOutcomeError
from oms_events.events import EncodedEvent
from oms_events.publishing import PublisherTraits
from oms_events.routing.progress import Answer, NotSentError

_log = logging.getLogger("oms_events")

Send = Callable[[Sequence[EncodedEvent], float, float], Awaitable[Sequence[Answer]]]
"""Sends events in one attempt: events, the time by which they must be on the wire, the deadline of the answer."""


@dataclass(slots=True, eq=False)
class Waiting:
    """An event in the batcher, the caller's deadline, and where its answer will be."""

    event: EncodedEvent
    deadline: float
    answer: asyncio.Future[Answer]


class Batcher:
    """Collects events until a call is full in number or bytes, or the first has waited `linger` seconds.

    The queue holds less than one call: full ones are handed to `send` at once, each in a task of its own. No
    event of a call is put on the wire after the earliest deadline among them, so that none is sent after its
    caller was told that it was not; the answer may come until the latest.
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

    def withdraw(self, waiting: Waiting) -> bool:
        """Takes an event back if its call has not begun, and says whether it did; else it may have been sent."""
        if waiting not in self._queue:
            return False
        self._queue.remove(waiting)
        self._bytes -= waiting.event.size
        return True

    async def close(self) -> None:
        """Ends the calls under way; whoever still waits in the queue is told that the event was not sent."""
        self._stop_timer()
        for waiting in self._take_queue():
            _answer(waiting, SkippedError("the router was closed before the event was sent"))
        await cancel_and_wait(*self._calls)

    def _flush(self) -> None:
        self._stop_timer()
        batch = self._take_queue()
        if batch:
            task = asyncio.create_task(self._call(batch), name=f"{self._name}-call")
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_queue(self) -> list[Waiting]:
        batch, self._queue, self._bytes = self._queue, [], 0
        return batch

    async def _call(self, batch: list[Waiting]) -> None:
        left = batch
        try:
            while left:
                left = await self._send_once(left)
        except Exception:
            _log.exception("%s: a gathered call failed", self._name)
        finally:
            for waiting in left:
                _answer(waiting, UnknownOutcomeError("the call ended before the platform answered"))

    async def _send_once(self, batch: list[Waiting]) -> list[Waiting]:
        """Sends and answers; gives those that were not sent for an earlier deadline than their own."""
        deadlines = [waiting.deadline for waiting in batch]
        earliest = min(deadlines)
        answers = await self._send([waiting.event for waiting in batch], earliest, max(deadlines))
        left = []
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, NotSentError) and waiting.deadline > earliest:
                left.append(waiting)
            else:
                _answer(waiting, answer)
        return left


def _answer(waiting: Waiting, answer: Answer) -> None:
    if not waiting.answer.done():
        waiting.answer.set_result(answer)
