"""What an event store holds: exactly, which costs a read of all, or about and for nothing."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.inspection.scanning import OnItems, read_table
from oms_events.eventstore.items import Item, is_event
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_TIME, EVENT_TYPE
from oms_events.eventstore.store import EventStore
from oms_events.outbox.schema import item_size


class TypeStats(NamedTuple):
    """The events of one type: how many, and their bytes."""

    events: int
    bytes: int


class HistoryStats(NamedTuple):
    """One aggregate's history: how many events, and their bytes."""

    aggregate_id: str
    events: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What an event store holds. Bytes are as DynamoDB counts items, without their copies in the index.

    `types` has the events by type; `longest` the aggregates with most events, the longest first; `oldest` and
    `newest` are the times of events, None without any; `markers` are the commands that are remembered. An item
    without a type, which no append has put, counts as an event of type "?": `verify` says what is wrong with it.
    """

    table: str
    events: int
    aggregates: int
    bytes: int
    markers: int
    marker_bytes: int
    types: Mapping[str, TypeStats]
    longest: Sequence[HistoryStats]
    oldest: datetime | None
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class StoreEstimate:
    """What DynamoDB says of a table: its numbers are up to about six hours old (API_TableDescription).

    `items` are events and command markers together; `bytes` are the table's, `index_bytes` those of its index.
    """

    table: str
    items: int
    bytes: int
    index_bytes: int


async def stats(
    store: EventStore,
    *,
    top: int = 10,
    segments: int = 4,
    page_size: int | None = None,
    on_items: OnItems | None = None,
) -> StoreStats:
    """Counts all of a store's events, by type, and finds the `top` longest histories.

    Costs a consistent read of the whole table, in `segments` parts side by side; holds one page (1 MB, or
    `page_size` items) of each. Events that are appended meanwhile may be counted or not. `on_items` is told how
    many more items were read. Raises a `StorageError`.
    """
    counts: defaultdict[int, _Count] = defaultdict(lambda: _Count(top))

    async def count(segment: int, items: Sequence[Item]) -> None:
        for item in items:
            counts[segment].add(item)
        if on_items is not None:
            on_items(len(items))

    await read_table(store.table, count, segments=segments, page_size=page_size)
    return _sum(store.table.name, list(counts.values()), top)


async def estimate(store: DynamoDBEventStore) -> StoreEstimate:
    """What DynamoDB itself says of the table, at once and for nothing. Raises a `StorageError`."""
    answer = await store.table.repeat("DescribeTable", TableName=store.table.name)
    described = answer["Table"]
    indexes = described.get("GlobalSecondaryIndexes", ())
    return StoreEstimate(
        store.table.name,
        items=int(described.get("ItemCount", 0)),
        bytes=int(described.get("TableSizeBytes", 0)),
        index_bytes=sum(int(index.get("IndexSizeBytes", 0)) for index in indexes),
    )


class _Tally:
    """How many, and their bytes."""

    __slots__ = ("bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0

    def add(self, size: int) -> None:
        self.count += 1
        self.bytes += size


class _Count:
    """What one segment holds, as it is read: the events of an aggregate come together."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._aggregate_id: str | None = None
        self._history = _Tally()
        self._longest: list[tuple[int, int, str]] = []
        self.aggregates = 0
        self.markers = _Tally()
        self.types: defaultdict[str, _Tally] = defaultdict(_Tally)
        self.oldest: str | None = None
        self.newest: str | None = None

    def add(self, item: Item) -> None:
        size = item_size(item)
        if not is_event(item):
            self.markers.add(size)
            return
        aggregate_id = item[AGGREGATE_ID]["S"]
        if aggregate_id != self._aggregate_id:
            self._end_history()
            self._aggregate_id = aggregate_id
            self.aggregates += 1
        self._history.add(size)
        self.types[item.get(EVENT_TYPE, {}).get("S", "?")].add(size)
        if (key := item.get(EVENT_TIME, {}).get("S")) is not None:
            time = key.partition("#")[0]
            self.oldest = time if self.oldest is None else min(self.oldest, time)
            self.newest = time if self.newest is None else max(self.newest, time)

    def longest(self) -> list[tuple[int, int, str]]:
        """The longest histories; call it at the end."""
        self._end_history()
        return self._longest

    def _end_history(self) -> None:
        history, self._history = self._history, _Tally()
        if self._aggregate_id is None or not self._top:
            return
        entry = (history.count, history.bytes, self._aggregate_id)
        self._aggregate_id = None
        if len(self._longest) < self._top:
            heapq.heappush(self._longest, entry)
        else:
            heapq.heappushpop(self._longest, entry)


def _sum(table: str, counts: Sequence[_Count], top: int) -> StoreStats:
    types: defaultdict[str, _Tally] = defaultdict(_Tally)
    for count in counts:
        for event_type, tally in count.types.items():
            types[event_type].count += tally.count
            types[event_type].bytes += tally.bytes
    longest = heapq.nlargest(top, (entry for count in counts for entry in count.longest()))
    return StoreStats(
        table=table,
        events=sum(tally.count for tally in types.values()),
        aggregates=sum(count.aggregates for count in counts),
        bytes=sum(tally.bytes for tally in types.values()),
        markers=sum(count.markers.count for count in counts),
        marker_bytes=sum(count.markers.bytes for count in counts),
        types={
            event_type: TypeStats(tally.count, tally.bytes)
            for event_type, tally in sorted(types.items(), key=lambda pair: (-pair[1].count, pair[0]))
        },
        longest=[HistoryStats(aggregate_id, events, size) for events, size, aggregate_id in longest],
        oldest=_time(min(_known(count.oldest for count in counts), default=None)),
        newest=_time(max(_known(count.newest for count in counts), default=None)),
    )


def _known(times: Iterable[str | None]) -> list[str]:
    return [time for time in times if time is not None]


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        # The key of an item that no append has put.
        return None
