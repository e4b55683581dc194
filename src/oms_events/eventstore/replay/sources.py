"""Where a replay reads: by type, by aggregate, or the whole table; in streams that can be gone on with."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, NamedTuple, Protocol

from oms_events._aio import Clock
from oms_events.eventstore.by_type import items_by_type, time_key
from oms_events.eventstore.history import EventTable
from oms_events.eventstore.items import Item, is_event, sequence_of
from oms_events.eventstore.replay.config import ReplayConfig, ReplaySelection
from oms_events.eventstore.replay.window import Position
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE, EVENT_TIME, EVENT_TYPE, time_bound
from oms_events.eventstore.time_ranges import TimeRange

_LOOK_AGAIN: Final = 1.0
"""Seconds before a gap is believed: reads beside an append may see a part of it."""


class Missing(NamedTuple):
    """Events of an aggregate that are not there, though a later one is; and those around them, as far as known."""

    aggregate_id: str
    first: int
    last: int
    before: Item | None
    after: Item


class Page(NamedTuple):
    """Events in order, each with its position, and where the page ended when that is behind the last one."""

    items: Sequence[tuple[Item | Missing, Position]]
    end: Position | None = None


class Stream(Protocol):
    """A part of what is read, always in the same order, so that it can be gone on with."""

    @property
    def name(self) -> str:
        """What it is called in a checkpoint."""
        ...

    def pages(self, after: Position | None) -> AsyncGenerator[Page]:
        """What comes after a position, or all. Raises a `StorageError`."""
        ...


class Streams(NamedTuple):
    """All streams of a replay, and how many of them are read at once."""

    each: Iterator[Stream]
    at_once: int


class Filter:
    """Whether an item is of a selection. What misses the attributes for that is damaged, and shall be seen."""

    def __init__(self, selection: ReplaySelection, time_range: TimeRange) -> None:
        self._types: Collection[str] = frozenset(selection.types)
        self._aggregates: Collection[str] = frozenset(selection.aggregate_ids)
        self._since = "" if time_range.start is None else time_bound(time_range.start)
        self._until = None if time_range.end is None else time_bound(time_range.end)

    def takes(self, item: Item) -> bool:
        try:
            time = item[EVENT_TIME]["S"]
            return (
                (not self._types or item[EVENT_TYPE]["S"] in self._types)
                and (not self._aggregates or item[AGGREGATE_ID]["S"] in self._aggregates)
                and self._since <= time
                and (self._until is None or time < self._until)
            )
        except KeyError:
            return True

    def takes_between(self, before: Item | None, after: Item) -> bool:
        """Whether an event between these two of its aggregate may be of the selection, by its time."""
        try:
            is_later = before is not None and self._until is not None and before[EVENT_TIME]["S"] >= self._until
            return not is_later and self._since <= after[EVENT_TIME]["S"]
        except KeyError:
            return True


def streams_of(
    table: EventTable,
    selection: ReplaySelection,
    time_range: TimeRange,
    config: ReplayConfig,
    *,
    segments: int | None = None,
    clock: Clock,
) -> Streams:
    """The cheapest way to a selection: its aggregates, else the index of its types, else the whole table.

    `segments` is into how many parts the whole table was split before.
    """
    if selection.aggregate_ids:
        each: Iterator[Stream] = (
            AggregateStream(table, aggregate_id, config.page_size, clock)
            for aggregate_id in selection.aggregate_ids
        )
        return Streams(each, min(config.readers, len(selection.aggregate_ids)))
    if selection.types:
        return Streams(iter([TypeStream(table, selection.types, time_range, config.page_size)]), 1)
    parts = segments or config.readers
    return Streams((ScanStream(table, part, parts, config.page_size, clock) for part in range(parts)), parts)


class AggregateStream:
    """The history of an aggregate, and what is missing in it; positions are sequences."""

    def __init__(self, table: EventTable, aggregate_id: str, page_size: int, clock: Clock) -> None:
        self.name = aggregate_id
        self._table = table
        self._page_size = page_size
        self._clock = clock

    async def pages(self, after: Position | None) -> AsyncGenerator[Page]:
        sequence: int = after or 0
        before: Item | None = None
        # Up to there a gap was there a while ago already.
        believed = sequence
        while True:
            page = await self._table.read(self.name, after=sequence, limit=self._page_size)
            ready: list[tuple[Item | Missing, Position]] = []
            has_doubts = False
            for item in page.items:
                number = sequence_of(item)
                if number > sequence + 1:
                    if has_doubts := number > believed:
                        break
                    ready.append((Missing(self.name, sequence + 1, number - 1, before, item), sequence))
                ready.append((item, number))
                sequence, before = number, item
            if ready:
                yield Page(ready)
            if has_doubts:
                believed = sequence_of(page.items[-1])
                await self._clock.sleep(_LOOK_AGAIN)
            elif page.next is None:
                return


class TypeStream:
    """The events of some types by time; positions are keys of the index."""

    name = "types"

    def __init__(self, table: EventTable, types: Sequence[str], time_range: TimeRange, page_size: int) -> None:
        self._table = table
        self._types = types
        self._range = time_range
        self._page_size = page_size

    async def pages(self, after: Position | None) -> AsyncGenerator[Page]:
        async with AsyncExitStack() as stack:
            batches = [
                await stack.enter_async_context(
                    aclosing(
                        items_by_type(
                            self._table,
                            event_type,
                            start=self._range.start,
                            end=self._range.end,
                            after=after,
                            newest_first=False,
                            page_size=self._page_size,
                        )
                    )
                )
                for event_type in self._types
            ]
            merged = await stack.enter_async_context(aclosing(_merged(batches)))
            async for items in merged:
                yield Page([(item, time_key(item)) for item in items])


class ScanStream:
    """One part of the whole table: aggregates in no order, each one's events in theirs.

    DynamoDB gives an aggregate's items in their order, but promises it nowhere: one that comes otherwise is read
    by itself. A position is an item's key; of an aggregate that is read by itself its sequence, with the key where
    the page began on which it was found.
    """

    def __init__(self, table: EventTable, segment: int, segments: int, page_size: int, clock: Clock) -> None:
        self.name = str(segment)
        self._table = table
        self._segment = segment
        self._segments = segments
        self._page_size = page_size
        self._clock = clock
        self._aggregate = ""
        self._sequence = 0
        self._is_read = False
        """Whether the aggregate was read by itself, to its end."""

    async def pages(self, after: Position | None) -> AsyncGenerator[Page]:
        start: Position | None = after
        if after is not None and "Aggregate" in after:
            start = after["Start"]
            alone = aclosing(self._read_alone(after["Aggregate"], after["Sequence"], start))
            async with alone as pages:
                async for page in pages:
                    yield page
            is_before = True
        else:
            is_before = False
            if after is not None:
                self._aggregate, self._sequence = after[AGGREGATE_ID]["S"], int(after[EVENT_SEQUENCE]["N"])
        while True:
            found = await self._table.scan(
                start=start, segment=self._segment, segments=self._segments, limit=self._page_size
            )
            ready: list[tuple[Item | Missing, Position]] = []
            for item in filter(is_event, found.items):
                name, sequence = item[AGGREGATE_ID]["S"], int(item[EVENT_SEQUENCE]["N"])
                # What stands before the aggregate that was read by itself was done before it.
                is_before = is_before and name != self._aggregate
                if is_before or (name == self._aggregate and self._is_read):
                    continue
                if name != self._aggregate:
                    self._aggregate, self._sequence, self._is_read = name, 0, False
                if sequence == self._sequence + 1:
                    self._sequence = sequence
                    ready.append((item, _key_of(item)))
                    continue
                if ready:
                    yield Page(ready)
                    ready = []
                async with aclosing(self._read_alone(name, self._sequence, start)) as pages:
                    async for page in pages:
                        yield page
            # The end of a page must not hide where an aggregate is read by itself: it may go on behind it.
            yield Page(ready, None if self._is_read or is_before else found.next)
            start = found.next
            if start is None:
                return

    async def _read_alone(self, name: str, after: int, start: Position | None) -> AsyncGenerator[Page]:
        self._aggregate, self._is_read = name, True
        alone = AggregateStream(self._table, name, self._page_size, self._clock)
        async with aclosing(alone.pages(after)) as pages:
            async for page in pages:
                items = [
                    (item, {"Aggregate": name, "Sequence": sequence, "Start": start})
                    for item, sequence in page.items
                ]
                yield Page(items)


async def _merged(sources: Sequence[AsyncGenerator[list[Item]]]) -> AsyncGenerator[list[Item]]:
    """The items of all sources by time, in batches."""
    queues: dict[int, deque[Item]] = {number: deque() for number in range(len(sources))}
    while queues:
        for number, queue in list(queues.items()):
            if not queue:
                items = await anext(sources[number], None)
                if items is None:
                    del queues[number]
                else:
                    queue.extend(items)
        batch = []
        while queues and all(queues.values()):
            first = min(queues.values(), key=lambda queue: time_key(queue[0]))
            batch.append(first.popleft())
        if batch:
            yield batch


def _key_of(item: Item) -> Position:
    return {name: dict(item[name]) for name in (AGGREGATE_ID, EVENT_SEQUENCE)}
