"""Starts from a stream: what gives the events of a `JetStreamReceiver` to a pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from oms_events.errors import EventRejectedError, TriggerFailedError
from oms_events.events import EncodedEvent
from oms_events.triggers.responses import Status, TriggerResponse


class Starter(Protocol):
    """What starts something: a `TriggerPipeline`."""

    async def handle(self, raw: object) -> TriggerResponse: ...


def received_starts_handler(
    pipeline: Starter,
) -> Callable[[Sequence[EncodedEvent]], Awaitable[list[Exception | None]]]:
    """Makes a handler for a `JetStreamReceiver` that starts something with each of its events, in their order.

    What may go well later comes again. What can never be a start is dropped, as the receiver's `on_dropped` hears;
    so is what is refused, where the pipeline has no place for dead letters. Everything else is handled: also what
    waits in the delay queue, or is a dead letter.
    """

    async def handle(events: Sequence[EncodedEvent]) -> list[Exception | None]:
        return [_error_of(await pipeline.handle(event)) for event in events]

    return handle


def _error_of(response: TriggerResponse) -> Exception | None:
    told = f"{response.status_code} {response.status}: {'; '.join(map(str, response.problems))}"
    if response.retryable:
        return TriggerFailedError(told, response=response)
    if any(map(_is_lost, response.results or (response,))):
        return EventRejectedError(told)
    return None


def _is_lost(response: TriggerResponse) -> bool:
    """Whether it neither runs nor is kept."""
    is_refused = response.status is Status.REFUSED and not response.dead_letter
    return is_refused or response.status is Status.REJECTED
