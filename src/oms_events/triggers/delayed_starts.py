"""Runs the starts of a delay queue where Lambda does not: in a service, beside its pipeline."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from oms_events._aio import Clock, SystemClock, cancel_and_wait, cancelled_from_outside
from oms_events.errors import ConfigurationError, QueueError
from oms_events.resilience.backoff import RetryConfig
from oms_events.triggers.lambda_entry import Handled
from oms_events.triggers.sending.delay import QueuedStarts
from oms_events.triggers.start import Queued

_log = logging.getLogger("oms_events")

CLOSING: Final = 30.0
"""Seconds that a start has to end when its service stops."""
_LONGEST: Final = 840.0
"""Seconds: with what follows less than the 15 minutes that holding a message allows for a run."""
_GRACE: Final = 5.0
"""Seconds after the handler's time in which the guards are given back."""
_MARGIN: Final = 55.0
"""Seconds that a message stays hidden after that, for holding and deleting it."""
_BACKOFF: Final = RetryConfig(initial=1.0, maximum=60.0)
"""How long to wait after the queue failed, again and again."""


class Runner(Protocol):
    """What runs starts: a `TriggerPipeline`."""

    async def run(self, raw: object, *, seconds: float | None = None, grace: float = 0.0) -> Handled: ...


class DelayedStarts:
    """Runs the starts that wait in a delay queue, one after the other, while its body runs.

    `async with pipeline, DelayedStarts(pipeline, delay): ...`, where `delay` is the pipeline's own queue, or
    another object for the same one; it is neither opened nor closed here. Do not read a queue that another
    service or a Lambda function reads: each message goes to one of them, whichever asks first.

    A start's handler has `time_limit` seconds (to 840). A start that ended is deleted; one that has to come again
    stays, for as long as it is held, or else for a minute longer than `time_limit`. When nothing waits, the queue
    is asked again after `poll` seconds; while it fails, after 1 to 60 s, and the log says so. Nothing is lost: a
    message is deleted after its start has ended, and at least once means that it may come again, as a duplicate.

    Leaving the body finishes the start that runs, for 30 s (`close`). Then it is cancelled, and its message given
    back. Several at a time, also in several processes, share the work: those of one domain and table keep their
    order. Raises `ConfigurationError` for times outside of their limits.
    """

    def __init__(
        self,
        pipeline: Runner,
        delay: QueuedStarts,
        *,
        time_limit: float = 300.0,
        poll: float = 5.0,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        _check(time_limit, poll)
        self._pipeline = pipeline
        self._delay = delay
        self._time_limit = time_limit
        self._hidden_for = math.ceil(time_limit + _GRACE + _MARGIN)
        self._poll = poll
        self._clock = clock or SystemClock()
        self._draw = draw
        self._task: asyncio.Task[None] | None = None
        self._batch: Mapping[str, Any] | None = None
        self._is_closing = False
        self._is_resting = False

    async def open(self) -> None:
        """Begins to run what waits; idempotent, also after `close`. Does not wait for the queue."""
        if self._task is None:
            self._is_closing = False
            self._task = asyncio.create_task(self._run(), name=f"oms-events-delayed-starts-{self._delay.name}")

    async def close(self, *, timeout: float = CLOSING) -> None:
        """Takes no more starts, and ends when the one that runs has ended; idempotent.

        After `timeout` seconds, and when this is cancelled, that one is cancelled too: it leaves no guard taken,
        and its message comes again: at once, or when it was hidden for long enough.
        """
        self._is_closing = True
        task, self._task = self._task, None
        if task is None:
            return
        try:
            if not self._is_resting:
                await asyncio.wait({task}, timeout=timeout)
        finally:
            await cancel_and_wait(task)
        await self._give_back()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self) -> None:
        failures = 0
        # A call may swallow the cancellation that was to end this task.
        while not self._is_closing and not cancelled_from_outside():
            pause = 0.0
            try:
                if not await self._run_next():
                    pause = self._poll
                failures = 0
            except QueueError as error:
                failures += 1
                pause = _BACKOFF.delay(failures, self._draw)
                _log.warning("delay queue %s: %s; asked again in %.1f s", self._delay.name, error, pause)
            except Exception:
                failures += 1
                pause = _BACKOFF.delay(failures, self._draw)
                _log.exception("delay queue %s: its starts cannot be run now", self._delay.name)
            await self._rest(pause)

    async def _run_next(self) -> bool:
        """Whether there was a start."""
        # Only one: those behind it would lose of the time that they are hidden.
        batch = await self._delay.receive_batch(limit=1, hidden_for=self._hidden_for)
        if batch is None:
            return False
        self._batch = batch
        handled = await self._pipeline.run(batch, seconds=self._time_limit, grace=_GRACE)
        # What says nothing of its messages has not understood them: they stay.
        failed = [""] if handled.failed_messages is None else handled.failed_messages
        self._batch = None
        await self._delay.settle(batch, failed)
        return True

    async def _rest(self, seconds: float) -> None:
        if self._is_closing or seconds <= 0:
            return
        self._is_resting = True
        try:
            await self._clock.sleep(seconds)
        finally:
            self._is_resting = False

    async def _give_back(self) -> None:
        batch, self._batch = self._batch, None
        if batch is None:
            return
        for record in batch["Records"]:
            try:
                await self._delay.hold(Queued(record["messageId"], record["receiptHandle"]), 0)
            except QueueError as error:
                _log.warning(
                    "delay queue %s: message %s comes again when it was hidden for long enough: %s",
                    self._delay.name,
                    record["messageId"],
                    error,
                )


def _check(time_limit: float, poll: float) -> None:
    problems = []
    if not 1 <= time_limit <= _LONGEST:
        problems.append(f"time_limit = {time_limit!r}: give 1 to {_LONGEST:g} seconds")
    if not 0 < poll <= 3_600:
        problems.append(f"poll = {poll!r}: give more than 0 seconds, and at most 3600")
    if problems:
        raise ConfigurationError("DelayedStarts", problems)
