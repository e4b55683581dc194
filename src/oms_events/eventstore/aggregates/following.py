"""Following a history: an aggregate's events, page by page, folded into its state."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Generic, NamedTuple, cast

from oms_events.eventstore.aggregates.aggregate import Aggregate, E, S
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.store import EventStore


class Folded(NamedTuple, Generic[S]):
    """A state after the event at `sequence`, which has `event_id`; `events` were read for it."""

    state: S
    sequence: int
    event_id: str
    events: int = 0


class OtherHistoryError(Exception):
    """The event that a state was made after is not in the history. Never leaves the repository."""


async def follow(
    store: EventStore,
    aggregate: Aggregate[S, Any, E],
    aggregate_id: str,
    start: Folded[S],
    *,
    up_to: int | None = None,
    verify: bool = False,
) -> Folded[S]:
    """The state after the events behind `start`, `up_to` at most; it holds one page of them at a time.

    With `verify` the event of `start` is read too: raises `OtherHistoryError` when it is another, or not there.
    Also raises `EventUnreadableError`, a `StorageError`, and what `Aggregate.evolved` does.
    """
    state, sequence, event_id, count = start
    evolved = aggregate.evolved
    last: RecordedEvent | None = None
    async with aclosing(store.pages(aggregate_id, after=sequence - verify, up_to=up_to)) as pages:
        async for events in pages:
            if verify:
                if events[0].id != event_id:
                    raise OtherHistoryError
                verify, events = False, events[1:]
            for event in events:
                # An aggregate's history has its own events.
                domain_event = cast("E", event.domain_event)
                try:
                    state = evolved(state, domain_event)
                except Exception as error:
                    error.add_note(f"at event {event.position}")
                    raise
            if events:
                last = events[-1]
            count += len(events)
    if verify:
        raise OtherHistoryError
    return start if last is None else Folded(state, last.sequence, last.id, count)
