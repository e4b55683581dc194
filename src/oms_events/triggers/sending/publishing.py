"""The handler that publishes a start's chunks as events, through a router or an outbox."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from cloudevents.core.v1.event import CloudEvent

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ConfigurationError, InvalidEventError, StartRefusedError, TriggerError
from oms_events.events import build_event
from oms_events.instrumentation.hooks import ChunksSent, Hook, Hooks
from oms_events.publishing import EventPublisher, OutboxWriter, Outcome, PublishResults
from oms_events.triggers.sending.chunks import Chunk, chunks_of, group_of
from oms_events.triggers.start import Start

EVENT_TYPE: Final = "ingestion.chunk.requested"
SOURCE: Final = "ingestion.triggers"


class EventSender:
    """Publishes one event per chunk of a start, whose data is the chunk's document.

    `publisher` is an open router, which has delivered the events when a start ends, or an outbox, which has stored
    them: all of them or none, where it has `commit`. Both are borrowed. An event's id is its chunk's
    `deduplication_id`: a start that runs again publishes the same ids, so that consumers and platforms that
    deduplicate have each once; one of an exclusive key, with a higher fence, publishes others.
    `correlationid` is the flow's, else the start's; `causationid` what started it; `partitionkey` its domain and
    table. `timeout`, in seconds, is the router's deadline for all of them.
    """

    def __init__(
        self,
        publisher: EventPublisher | OutboxWriter,
        *,
        event_type: str = EVENT_TYPE,
        source: str = SOURCE,
        timeout: float | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
    ) -> None:
        if not (hasattr(publisher, "publish_events") or hasattr(publisher, "add")):
            problem = f"{type(publisher).__name__} has neither publish_events nor add; give a router or an outbox"
            raise ConfigurationError("EventSender", [problem])
        self._publisher: Any = publisher
        self._stores = not hasattr(publisher, "publish_events")
        self._type = event_type
        self._source = source
        self._timeout = timeout
        self._hooks = Hooks(hooks)
        self._clock = clock or SystemClock()

    async def __call__(self, start: Start) -> dict[str, Any]:
        """Publishes the chunks: how many they and their symbols are, and the ids of the events, in order.

        Raises `TriggerError` when not all of them were delivered, which fails the start, so that it runs again;
        `StartRefusedError` when a platform refused one for good, or it can be no event; and what the outbox
        raises. Cancelled, some may be published.
        """
        chunks = chunks_of(start)
        events = self._events(start, chunks)
        if self._stores:
            await self._store(events)
        else:
            self._check(await self._publisher.publish_events(events, timeout=self._timeout))
        self._hooks(ChunksSent(len(chunks), 0))
        return {
            "chunks": len(chunks),
            "symbols": len(start.request.symbols),
            "events": [chunk.deduplication_id for chunk in chunks],
        }

    def plan(self, start: Start) -> dict[str, Any]:
        """What would be published; does no I/O. Raises `StartRefusedError` for what can be no event."""
        chunks = chunks_of(start)
        self._events(start, chunks)
        return {
            "event_type": self._type,
            "source": self._source,
            "chunks": len(chunks),
            "symbols": len(start.request.symbols),
            "documents": [dict(chunk.document) for chunk in chunks],
        }

    def _events(self, start: Start, chunks: Sequence[Chunk]) -> list[CloudEvent]:
        try:
            return [
                build_event(
                    self._type,
                    self._source,
                    dict(chunk.document),
                    id=chunk.deduplication_id,
                    time=self._clock.now(),
                    datacontenttype="application/json",
                    partitionkey=group_of(start),
                    correlationid=start.flow_id or start.correlation_id,
                    causationid=start.cause_id,
                )
                for chunk in chunks
            ]
        except InvalidEventError as error:
            remedy = f"no event can be made of this start: {error}"
            raise StartRefusedError("INVALID_EVENT", remedy, field=error.field) from error

    async def _store(self, events: Sequence[CloudEvent]) -> None:
        # One transaction, where the outbox has them: a start whose chunks are half stored runs again as a whole.
        if hasattr(self._publisher, "commit"):
            await self._publisher.commit([], events)
            return
        for event in events:
            await self._publisher.add(event)

    def _check(self, results: Sequence[PublishResults]) -> None:
        missing = [result for result in results if not result.delivered]
        if not missing:
            return
        self._hooks(ChunksSent(len(results) - len(missing), len(missing)))
        outcomes = [outcome for results_of_one in missing for outcome in results_of_one.values()]
        told = "; ".join(sorted({f"{one.platform} {one.outcome}: {one.error}" for one in outcomes if one.error}))
        text = f"{len(missing)} of {len(results)} chunks were not delivered: {told or 'nobody says why'}"
        cause = next((one.error for one in outcomes if one.error is not None), None)
        if any(_is_refused(result) for result in missing):
            raise StartRefusedError("EVENT_REJECTED", f"{text}; change the event, or the platform") from cause
        raise TriggerError(text) from cause


def _is_refused(results: PublishResults) -> bool:
    """Whether nothing is left that a later try could change."""
    return bool(results) and all(one.outcome in (Outcome.DELIVERED, Outcome.REJECTED) for one in results.values())
