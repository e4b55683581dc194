"""Projections as an AWS Lambda function on the event store's stream.

    @asynccontextmanager
    async def open_projector():           # gives a Projector
        ...

    handler = create_projection_handler(open_projector)

The function answers which records it has not handled, so its mapping needs ReportBatchItemFailures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, NamedTuple

from oms_events.errors import ConfigurationError, EventUnreadableError, StorageUnavailableError
from oms_events.eventstore.items import COMMAND_PREFIX, read_item
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.sources import Told, project
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE

_log = logging.getLogger("oms_events")

_DEFAULT_MS: Final = 60_000
_RESERVE: Final = 2.0
"""Seconds of a function's time that are left for its answer; a quarter, where that is less."""

OpenProjector = Callable[[], AbstractAsyncContextManager[Projector]]


class StreamedEvent(NamedTuple):
    """One record of the stream: its number there, and the event that it tells of."""

    number: str
    told: Told


class ProjectionHandler:
    """A Lambda handler for the event store's stream; made by `create_projection_handler`.

    Called with an event and Lambda's context, one call at a time, and not inside an event loop. `close` is for
    tests and for other hosts: Lambda ends an execution environment without a word; the batch comes again then.
    """

    def __init__(self, open_projector: OpenProjector) -> None:
        self._open_projector = open_projector
        self._runner: asyncio.Runner | None = None
        self._stack = AsyncExitStack()
        self._projector: Projector | None = None

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        remaining = getattr(context, "get_remaining_time_in_millis", lambda: _DEFAULT_MS)() / 1000
        failed = self._runner.run(self._handle(event, remaining - min(_RESERVE, remaining / 4)))
        return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}

    def close(self) -> None:
        """Closes what `open_projector` opened, and the loop that it lived on. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._stack.aclose())
            self._projector = None

    async def _handle(self, event: Mapping[str, Any], seconds: float) -> list[str]:
        if self._projector is None:
            self._projector = await self._stack.enter_async_context(self._open_projector())
        projector = self._projector
        records = streamed_events(event, projector.store.registry)
        try:
            async with asyncio.timeout(seconds):
                failures = await project(projector, [record.told for record in records])
        except TimeoutError:
            text = "the function's time is over; what was done stays, and the batch comes again"
            failures = [StorageUnavailableError(text)] * len(records)
        failed = []
        for record, failure in zip(records, failures, strict=True):
            if failure is not None:
                failed.append(record.number)
                _log.warning("stream record %s of %r: %s", record.number, record.told.aggregate_id, failure)
        return failed


def create_projection_handler(open_projector: OpenProjector) -> ProjectionHandler:
    """Makes a Lambda handler for the event store's stream: with new images, or with keys only, which costs reads.

    `open_projector` is entered at the first invocation and stays open for the life of the execution environment.
    Its answer names the records that were not handled, for ReportBatchItemFailures: Lambda goes on from the first
    of them. Poison events are parked, and count as handled. Raises what opening raises, and `ConfigurationError`
    for what is no batch of an event store's stream: Lambda gives the whole batch again then.
    """
    return ProjectionHandler(open_projector)


def streamed_events(event: Mapping[str, Any], registry: EventRegistry) -> list[StreamedEvent]:
    """The events that a batch of the stream tells of, in its order; pure.

    Command markers are left out. So is what was changed or removed, which never happens to events: it is logged,
    and changes no read model. Raises `ConfigurationError` for what is no batch of an event store's stream.
    """
    records = event.get("Records")
    if not isinstance(records, list):
        raise _no_batch(f"it has no list of Records, but {sorted(event)}")
    found = []
    for record in records:
        change = record.get("dynamodb", {}) if isinstance(record, dict) else {}
        try:
            number: str = change["SequenceNumber"]
            aggregate_id: str = change["Keys"][AGGREGATE_ID]["S"]
            sequence: str = change["Keys"][EVENT_SEQUENCE]["N"]
        except (KeyError, TypeError) as error:
            raise _no_batch(f"a record lacks {error}") from error
        if aggregate_id.startswith(COMMAND_PREFIX):
            continue
        if (kind := record.get("eventName")) != "INSERT":
            _log.error(
                "event %s@%s: %s in the event store, where events never change", aggregate_id, sequence, kind
            )
            continue
        found.append(StreamedEvent(number, Told(aggregate_id, _event(change.get("NewImage"), registry))))
    return found


def _event(image: Any, registry: EventRegistry) -> RecordedEvent | None:
    if not image:
        return None
    try:
        return read_item(image, registry)
    except EventUnreadableError:
        # The projector reads it again, and parks it.
        return None


def _no_batch(what: str) -> ConfigurationError:
    return ConfigurationError(
        "stream batch", [f"{what}; map the stream of an event store's table to this function, and nothing else"]
    )
