"""The events that come next for an aggregate: those that were delivered, and from the store what was not."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from typing import Final

from oms_events._aio import Clock
from oms_events.errors import EventUnreadableError, PersonalDataError, ProjectionError
from oms_events.eventstore.items import Item, position_of, read_item
from oms_events.eventstore.projections.folding import BrokenEvent, HistoryEvent
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.schema import EVENT_SEQUENCE, EVENT_TYPE
from oms_events.eventstore.store import EventStore, reveal
from oms_events.resilience.backoff import RetryConfig

_LOOKS: Final = RetryConfig(max_attempts=5, initial=0.02, maximum=0.5)
"""How often a gap is looked at: beside an append of several events DynamoDB may show a later one alone."""
_NO_DATA: Final = (b"", b"null")
"""The payloads of events without data; a domain event always has some."""


class Runs:
    """An aggregate's events without a gap, as far as they were delivered or are asked for."""

    def __init__(
        self,
        store: EventStore,
        aggregate_id: str,
        delivered: Iterable[RecordedEvent],
        *,
        page_size: int,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._aggregate_id = aggregate_id
        self._page_size = page_size
        self._clock = clock
        self._rng = rng
        self.delivered = deque(delivered)

    async def after(self, position: int, *, to_end: bool) -> Sequence[HistoryEvent]:
        """The events after a position, some of them; nothing when all that was delivered is behind it.

        With `to_end`, nothing only at the end of the history. Raises `ProjectionError` for an event that is not
        in the store, while later ones are, and a `StorageError`.
        """
        delivered = self.delivered
        while delivered and delivered[0].sequence <= position:
            delivered.popleft()
        if delivered and (run := _consecutive(delivered, position)):
            return run
        if delivered:
            return await self._read(position, up_to=delivered[0].sequence)
        return await self._read(position, up_to=None) if to_end else []

    async def one(self, sequence: int) -> Sequence[HistoryEvent]:
        """The event at a position. Raises as `after`."""
        return await self._read(sequence - 1, up_to=sequence)

    async def revealed(self, events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
        """The events with personal data in clear text, where there is a key. Raises a `StorageError`."""
        cipher = self._store.cipher
        if cipher is None:
            return list(events)
        readable = [event for event in events if isinstance(event, RecordedEvent)]
        try:
            clear = iter(await reveal(readable, cipher))
        except PersonalDataError as error:
            if len(events) == 1:
                return [BrokenEvent(event.sequence, event.type, str(error)) for event in events]
            # Which of them is damaged shows one by one.
            return [found for event in events for found in await self.revealed([event])]
        return [next(clear) if isinstance(event, RecordedEvent) else event for event in events]

    async def _read(self, after: int, *, up_to: int | None) -> Sequence[HistoryEvent]:
        looks = 1
        while True:
            page = await self._store.table.read(
                self._aggregate_id, after=after, up_to=up_to, limit=self._page_size
            )
            found = [_read_event(item, self._store) for item in page.items]
            run = _consecutive(found, after, complete=False)
            if run or (up_to is None and not page.items and page.next is None):
                return run
            if looks >= _LOOKS.max_attempts:
                missing = f"{self._aggregate_id}@{after + 1}"
                raise ProjectionError(
                    f"the event store {self._store.table.name!r} has no event {missing}, but there are later "
                    "ones: does the source give another store's events, or was history deleted?"
                )
            await self._clock.sleep(_LOOKS.delay(looks, self._rng.random))
            looks += 1


def _consecutive(events: Iterable[HistoryEvent], position: int, *, complete: bool = True) -> list[HistoryEvent]:
    """The first events, as far as each follows the one before it; with `complete`, and has its data."""
    expected = count(position + 1)
    run = takewhile(lambda event: event.sequence == next(expected), events)
    return list(takewhile(_has_data, run) if complete else run)


def _has_data(event: HistoryEvent) -> bool:
    """Whether an event came whole: the outbox's claim check leaves the data of large ones behind."""
    return isinstance(event, RecordedEvent) and event.payload not in _NO_DATA


def _read_event(item: Item, store: EventStore) -> HistoryEvent:
    try:
        return read_item(item, store.registry)
    except EventUnreadableError as error:
        try:
            sequence = int(item[EVENT_SEQUENCE]["N"])
        except (KeyError, ValueError):
            raise ProjectionError(
                f"the event store has an item without a sequence: {position_of(item)}"
            ) from error
        return BrokenEvent(sequence, item.get(EVENT_TYPE, {}).get("S", "?"), str(error))
