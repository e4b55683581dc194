"""The contract of reading histories and whole tables, and of types and versions."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel

from oms_events.errors import EventUnreadableError
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.store import EventStore
from oms_events.testing.event_store_contract.support import (
    Changed,
    fill,
    history,
    new_id,
    sequences,
    with_types,
)


async def scanned(store: EventStore, **options: Any) -> list[RecordedEvent]:
    """All events, or those of a part."""
    page = await store.scan(**options)
    found = list(page.events)
    while page.next is not None:
        page = await store.scan(start=page.next, **options)
        found += page.events
    return found


class ReadingContract:
    # ------------------------------------------------------------------ histories

    async def test_a_history_is_read_from_and_up_to_a_sequence(self, store: EventStore) -> None:
        aggregate = new_id()
        await fill(with_types(store), aggregate, 5)
        wanted = list(range(1, 6))
        for after in range(7):
            for up_to in (None, *range(7)):
                found = await sequences(store, aggregate, after=after, up_to=up_to)
                assert found == [number for number in wanted if after < number <= (5 if up_to is None else up_to)]

    async def test_an_aggregate_without_events_has_an_empty_history(self, store: EventStore) -> None:
        aggregate = new_id()
        assert await history(store, aggregate) == []
        assert await history(store, aggregate, after=3, up_to=9) == []
        assert await store.last_sequence(aggregate) == 0

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
    async def test_pages_have_a_limit(self, store: EventStore, limit: int) -> None:
        aggregate = new_id()
        await fill(with_types(store), aggregate, 6)
        pages = [[event.sequence for event in page] async for page in store.pages(aggregate, limit=limit)]
        assert [number for page in pages for number in page] == [1, 2, 3, 4, 5, 6]
        assert all(1 <= len(page) <= limit for page in pages)
        some = [page async for page in store.pages(aggregate, after=1, up_to=4, limit=limit)]
        assert [event.sequence for page in some for event in page] == [2, 3, 4]

    async def test_a_history_may_be_longer_than_a_page(self, store: EventStore) -> None:
        aggregate = new_id()
        writer = with_types(store)
        for expected in range(0, 12, 4):
            large = [Changed(number=expected + number, text="x" * 240_000) for number in range(4)]
            await writer.append(aggregate, large, expected_sequence=expected)
        found = await history(writer, aggregate)
        assert [event.domain_event.number for event in found] == list(range(12))  # type: ignore[attr-defined]
        assert await sequences(store, aggregate, after=2, up_to=11) == list(range(3, 12))

    async def test_who_stops_reading_leaves_nothing_behind(self, store: EventStore) -> None:
        aggregate = new_id()
        await fill(with_types(store), aggregate, 3)
        before = asyncio.all_tasks()
        async with aclosing(store.read(aggregate)) as events:
            async for event in events:
                assert event.sequence == 1
                break
        assert asyncio.all_tasks() == before

    async def test_what_was_appended_is_read_at_once(self, store: EventStore) -> None:
        aggregate = new_id()
        writer, reader = with_types(store), with_types(store)
        for expected in range(4):
            await writer.append(aggregate, [Changed()], expected_sequence=expected)
            assert await reader.last_sequence(aggregate) == expected + 1
            assert len(await history(reader, aggregate)) == expected + 1

    @pytest.mark.parametrize("bounds", [{"after": -1}, {"up_to": -1}])
    async def test_bounds_that_cannot_be_are_refused(self, store: EventStore, bounds: Any) -> None:
        with pytest.raises(ValueError, match="or more"):
            await history(store, new_id(), **bounds)
        with pytest.raises(ValueError, match="limit = 0"):
            _ = [page async for page in store.pages(new_id(), limit=0)]
        with pytest.raises(ValueError, match="segment = 2"):
            await store.scan(segment=2, segments=2)
        with pytest.raises(ValueError, match="limit = 0"):
            await store.scan(limit=0)

    # ------------------------------------------------------------------ the whole table

    @pytest.mark.parametrize("limit", [None, 31])
    async def test_a_scan_gives_each_event_once_and_each_aggregate_together(
        self, store: EventStore, limit: int | None
    ) -> None:
        writer = with_types(store)
        mine = {new_id(): count for count in (1, 3, 10)}
        for aggregate, count in mine.items():
            await fill(writer, aggregate, count)
            await writer.append(aggregate, [], expected_sequence=count, command_id="nothing")
        found = [event for event in await scanned(store, limit=limit) if event.aggregate_id in mine]
        wanted = [(aggregate, number + 1) for aggregate, count in mine.items() for number in range(count)]
        assert sorted((event.aggregate_id, event.sequence) for event in found) == sorted(wanted)
        borders = [one.aggregate_id != other.aggregate_id for one, other in pairwise(found)]
        assert sum(borders) == len(mine) - 1

    async def test_segments_share_the_aggregates_among_them(self, store: EventStore) -> None:
        mine = [new_id() for _ in range(8)]
        for aggregate in mine:
            await fill(with_types(store), aggregate, 2)
        parts = [await scanned(store, segment=number, segments=3, limit=50) for number in range(3)]
        owners = [
            number
            for aggregate in mine
            for number, part in enumerate(parts)
            if [event.sequence for event in part if event.aggregate_id == aggregate] == [1, 2]
        ]
        assert len(owners) == len(mine)
        places = [(event.aggregate_id, event.sequence) for part in parts for event in part]
        assert len(places) == len(set(places))

    # ------------------------------------------------------------------ types and versions

    async def test_old_versions_are_read_as_the_newest(self, store: EventStore) -> None:
        name = new_id("Paid")
        old, new = EventRegistry(), EventRegistry()

        class PaidOnce(BaseModel):
            amount: int

        class Paid(BaseModel):
            cents: int
            currency: str

        old.event(type=name)(PaidOnce)
        new.event(type=name, version=3)(Paid)
        new.upcaster(name, from_version=1)(lambda data: {"cents": data["amount"] * 100})
        new.upcaster(name, from_version=2)(lambda data: {**data, "currency": "EUR"})
        aggregate = new_id()
        await with_types(store, old).append(aggregate, [PaidOnce(amount=7)], expected_sequence=0)
        paid = Paid(cents=5, currency="USD")
        await with_types(store, new).append(aggregate, [paid], expected_sequence=1)
        first, second = await history(with_types(store, new), aggregate)
        assert (first.version, first.domain_event) == (1, Paid(cents=700, currency="EUR"))
        assert (second.version, second.domain_event) == (3, paid)
        # What is stored stays as it was.
        assert (first.data, first.event.get_data()) == ({"amount": 7}, {"amount": 7})
        older = (await history(with_types(store, old), aggregate))[1]
        with pytest.raises(EventUnreadableError, match=r"version 3 is newer than this code") as refused:
            _ = older.domain_event
        assert (refused.value.event_type, refused.value.version) == (name, 3)
        assert refused.value.position == f"{aggregate}@2"
        assert str(refused.value).startswith(f"{aggregate}@2: ")

    async def test_an_unknown_type_is_read_as_json(self, store: EventStore) -> None:
        aggregate = new_id()
        await fill(with_types(store), aggregate, 1)
        [event] = await history(with_types(store, EventRegistry()), aggregate)
        assert (event.type, event.version, event.data) == ("contract.Changed", 1, {"number": 1, "text": ""})
        assert event.event.get_data() == event.data
        with pytest.raises(EventUnreadableError, match=r"'contract.Changed' is not registered"):
            _ = event.domain_event
