"""A pipeline as an AWS Lambda function.

pipeline = TriggerPipeline(handler, config=TriggerConfig.of("prod"), ...)
lambda_handler = pipeline.lambda_handler
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from oms_events.errors import TriggerFailedError
from oms_events.triggers.responses import TriggerResponse

_DEFAULT_MS: Final = 60_000
_RESERVE: Final = 3.0
"""Seconds of a function's time that are left for giving the guards back and answering."""
_LARGEST_SHARE: Final = 0.2
"""Of the time that is left, so that functions with little time have some for their work."""


class Handled(NamedTuple):
    """How an input ended. `has_caller`: somebody gets the answer; else only an error makes AWS deliver it again.

    `failed_messages` are the ids of those messages of a batch that have to come again; None: it was no batch.
    """

    response: TriggerResponse
    has_caller: bool
    failed_messages: Sequence[str] | None = None


class Pipeline(Protocol):
    """What `LambdaHandler` needs of a `TriggerPipeline`."""

    async def run(
        self, raw: object, *, seconds: float | None = None, grace: float = 0.0, delivery_id: str | None = None
    ) -> Handled: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...


class LambdaHandler:
    """A Lambda handler that starts what comes in; `TriggerPipeline.lambda_handler` is one.

    Called with an event and Lambda's context, one call at a time, and not inside an event loop. Its loop, and what
    the pipeline opens at the first invocation, live as long as the execution environment; `close` is for tests and
    for other hosts, as Lambda ends an environment without a word.

    A start without an id has that of the invocation, which is the same when Lambda tries it again.

    A manual call always gets `{"statusCode", "body"}`, unless it came in a message or an envelope. So do all
    others that are done with, also those that were rejected; what may go well later raises `TriggerFailedError`,
    so that AWS delivers it again. A batch of messages gets `{"batchItemFailures": [...]}`. Before the function's
    time is over (3 s, or a fifth of a short time) the handler is cancelled and counts as failed, and the guards
    are given back.
    """

    def __init__(self, pipeline: Pipeline, *, reserve: float = _RESERVE) -> None:
        self._pipeline = pipeline
        self._reserve = reserve
        self._runner: asyncio.Runner | None = None
        self._was_closed = False

    def __call__(self, event: object, context: Any = None) -> dict[str, Any]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        if self._was_closed:
            self._runner.run(self._reopen())
            self._was_closed = False
        left: float = getattr(context, "get_remaining_time_in_millis", lambda: _DEFAULT_MS)() / 1000
        reserve = min(self._reserve, left * _LARGEST_SHARE)
        request_id = getattr(context, "aws_request_id", None)
        delivery_id = request_id if isinstance(request_id, str) else None
        handled = self._runner.run(
            self._pipeline.run(event, seconds=left - reserve, grace=reserve / 2, delivery_id=delivery_id)
        )
        if handled.failed_messages is not None:
            return {"batchItemFailures": [{"itemIdentifier": one} for one in handled.failed_messages]}
        response = handled.response
        if response.retryable and not handled.has_caller:
            raise TriggerFailedError(_what_failed(response), response=response)
        return dict(response.document())

    def close(self) -> None:
        """Closes the pipeline, and the loop that it lived on. Idempotent; the next call opens both again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._was_closed = True
            with runner:
                runner.run(self._pipeline.close())

    async def _reopen(self) -> None:
        # What does not open is tried again by the start, and answered.
        with suppress(Exception):
            await self._pipeline.open()


def _what_failed(response: TriggerResponse) -> str:
    """One line about what has to come again."""
    failed = [one for one in response.results or (response,) if one.retryable]
    return "; ".join(
        f"start {one.correlation_id} is {one.status} ({one.status_code}): {' '.join(map(str, one.problems))}"
        for one in failed
    )
