"""Following a history: an aggregate's events, without gaps and page by page, folded into its state."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Generic, NamedTuple, cast

from oms_events._aio import Clock
from oms_events.errors import EventUnreadableError
from oms_events.eventstore.aggregates import Aggregate, E, S
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.store import EventStore
from oms_events.resilience.backoff import RetryConfig

_LOOKS: Final = RetryConfig(max_attempts=5, initial=0.05, maximum=0.5)
"""So often a history with a gap is read again: a query beside a transaction may see its later events only."""


class Folded(NamedTuple, Generic[S]):
    """A state after the event at `sequence`, which has `event_id`; `events` were read for it."""

    state: S
    sequence: int
    event_id: str
    events: int = 0


class OtherHistoryError(Exception):
    """The event that a state was made after is not in the history. Never leaves the repository."""


class Follower(Generic[S, E]):
    """Brings states up to date. It holds one page of events at a time."""

    def __init__(
        self, store: EventStore, aggregate: Aggregate[S, Any, E], *, clock: Clock, rng: random.Random
    ) -> None:
        self._store = store
        self._aggregate = aggregate
        self._clock = clock
        self._rng = rng

    async def follow(
        self, aggregate_id: str, start: Folded[S], *, up_to: int | None = None, verify: bool = False
    ) -> Folded[S]:
        """The state after the events behind `start`, `up_to` at most.

        With `verify` the event of `start` is read too; raises `OtherHistoryError` when it is another, or none.
        """
        state, sequence, event_id, count = start
        anchor = event_id if verify else None
        last: RecordedEvent | None = None
        evolve = self._aggregate.evolve
        async with aclosing(self._whole_pages(aggregate_id, sequence, up_to, anchor)) as pages:
            async for events in pages:
                for event in events:
                    # What the history has is what the aggregate decided on: its own events.
                    state = evolve(state, cast("E", event.domain_event))
                last = events[-1]
                count += len(events)
        return (
            Folded(state, sequence, event_id, count)
            if last is None
            else Folded(state, last.sequence, last.id, count)
        )

    async def _whole_pages(
        self, aggregate_id: str, after: int, up_to: int | None, anchor: str | None
    ) -> AsyncGenerator[Sequence[RecordedEvent]]:
        """Pages of events that follow each other; raises `EventUnreadableError` for a gap that stays."""
        attempt = 1
        while True:
            first = after if anchor is None else after - 1
            async with aclosing(self._store.pages(aggregate_id, after=first, up_to=up_to)) as pages:
                gap: RecordedEvent | None = None
                async for events in pages:
                    if anchor is not None:
                        if (events[0].sequence, events[0].id) != (after, anchor):
                            raise OtherHistoryError
                        anchor, events = None, events[1:]
                    whole = [event for place, event in enumerate(events, after + 1) if event.sequence == place]
                    if whole:
                        after, attempt = whole[-1].sequence, 1
                        yield whole
                    if len(whole) < len(events):
                        gap = events[len(whole)]
                        break
            if anchor is not None:
                raise OtherHistoryError
            if gap is None:
                return
            if attempt >= _LOOKS.max_attempts:
                raise EventUnreadableError(
                    f"it is not there, but event {gap.sequence} is: the history has a gap",
                    event_type="?",
                    version=0,
                    position=f"{aggregate_id}@{after + 1}",
                )
            await self._clock.sleep(_LOOKS.delay(attempt, self._rng.random))
            attempt += 1
