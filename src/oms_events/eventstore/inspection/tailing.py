"""New events as they come: an aggregate's, or those of some types, by looking again and again."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from typing import Final

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ConfigurationError
from oms_events.eventstore.append import check_aggregate_id
from oms_events.eventstore.by_type import items_by_type, time_key
from oms_events.eventstore.history import EventTable
from oms_events.eventstore.items import Item, sequence_of
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.schema import EVENT_TIME, EVENT_TYPE, time_bound
from oms_events.eventstore.store import EventStore

LOOK_BACK: Final = timedelta(seconds=10)
"""So late an event may show up by type: its time is its writer's, and the index follows the table."""


async def tail(
    store: EventStore,
    *,
    aggregate_id: str | None = None,
    event_types: Collection[str] | None = None,
    since: datetime | None = None,
    interval: float = 1.0,
    clock: Clock | None = None,
) -> AsyncGenerator[RecordedEvent]:
    """New events as they are appended, without an end; with `since` (an aware time) also those from then on.

    Of one aggregate, in order and without a gap, by a consistent query every `interval` seconds. Or of types, all
    that the store's registry has unless given, about by time: every `interval` seconds it asks the 8 shards of
    each type for the last 10 seconds; what a writer with a clock that is slower by more than that appends, it
    misses. Holds the keys of 10 seconds' events. `tail_stream` needs no types.

    Raises a `StorageError`, `EventUnreadableError`, `PersonalDataError`, `InvalidEventError`, `ValueError` for a
    time without its zone, and `ConfigurationError` when there are neither an aggregate nor types.
    """
    items = tail_items(
        store, aggregate_id=aggregate_id, event_types=event_types, since=since, interval=interval, clock=clock
    )
    async with aclosing(items) as batches:
        async for batch in batches:
            for event in await store.revealed(batch):
                yield event


async def tail_items(
    store: EventStore,
    *,
    aggregate_id: str | None = None,
    event_types: Collection[str] | None = None,
    since: datetime | None = None,
    interval: float = 1.0,
    clock: Clock | None = None,
) -> AsyncGenerator[Sequence[Item]]:
    """As `tail`, the items as they are stored."""
    clock = clock or SystemClock()
    if aggregate_id is not None:
        check_aggregate_id(aggregate_id)
        items = _history(store, aggregate_id, event_types, since, interval, clock)
    else:
        types = store.registry.types() if event_types is None else tuple(dict.fromkeys(event_types))
        if not types:
            problem = "there is nothing to follow; give aggregate_id or event_types, or use tail_stream"
            raise ConfigurationError("tail", [problem])
        items = _types(store.table, types, since or clock.now(), interval, clock)
    async with aclosing(items) as batches:
        async for batch in batches:
            yield batch


async def _history(
    store: EventStore,
    aggregate_id: str,
    event_types: Collection[str] | None,
    since: datetime | None,
    interval: float,
    clock: Clock,
) -> AsyncGenerator[Sequence[Item]]:
    first = "" if since is None else time_bound(since)
    after = await store.last_sequence(aggregate_id) if since is None else 0
    while True:
        page = await store.table.read(aggregate_id, after=after)
        # A query beside a transaction may show its later events only: the next look has all.
        whole = [item for place, item in enumerate(page.items, after + 1) if sequence_of(item) == place]
        after += len(whole)
        found = [item for item in whole if item[EVENT_TIME]["S"] >= first]
        if event_types is not None:
            found = [item for item in found if item[EVENT_TYPE]["S"] in event_types]
        if found:
            yield found
        if not whole or page.next is None:
            await clock.sleep(interval)


async def _types(
    table: EventTable, types: Sequence[str], since: datetime, interval: float, clock: Clock
) -> AsyncGenerator[Sequence[Item]]:
    start = since
    told: set[str] = set()
    while True:
        # From our own clock: one event of a writer that is ahead must not hide those of the others.
        recent = clock.now() - LOOK_BACK
        bound = max(time_bound(since), time_bound(recent))
        async with aclosing(_by_time(table, types, start)) as items:
            async for item in items:
                key = time_key(item)
                if key not in told:
                    if key >= bound:
                        told.add(key)
                    yield [item]
        start = max(since, recent)
        told = {key for key in told if key >= bound}
        await clock.sleep(interval)


async def _by_time(table: EventTable, types: Sequence[str], start: datetime) -> AsyncGenerator[Item]:
    """The events of some types from a time on, merged; one batch of each type is held."""
    async with AsyncExitStack() as stack:
        sources = [await stack.enter_async_context(aclosing(_of_type(table, name, start))) for name in types]
        heap = []
        for number, source in enumerate(sources):
            if (item := await anext(source, None)) is not None:
                heap.append((time_key(item), number, item))
        heapq.heapify(heap)
        while heap:
            _, number, item = heap[0]
            yield item
            following = await anext(sources[number], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (time_key(following), number, following))


async def _of_type(table: EventTable, event_type: str, start: datetime) -> AsyncGenerator[Item]:
    batches = items_by_type(
        table, event_type, start=start, end=None, after=None, newest_first=False, page_size=None
    )
    async with aclosing(batches) as found:
        async for batch in found:
            for item in batch:
                yield item
