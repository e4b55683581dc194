"""The contract of the events of a type by time, over all aggregates."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest

from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.store import EventStore
from oms_events.testing.clock import ManualClock
from oms_events.testing.event_store_contract.support import START, new_id, new_type, with_types

_TIMEOUT = 30.0


class Place(NamedTuple):
    """Where an event is in the order of time: at the same time by its aggregate, and then by its sequence."""

    time: datetime
    aggregate_id: str
    sequence: int


def places(events: Sequence[RecordedEvent]) -> list[Place]:
    return [Place(event.time, event.aggregate_id, event.sequence) for event in events]


class Timeline:
    """Events of a type of their own, and where they are in the order of time."""

    def __init__(self, store: EventStore) -> None:
        self.clock = ManualClock(START)
        types, self._model, self.type = new_type()
        self.store = with_types(store, types, self.clock)
        self.places: list[Place] = []
        self._last: dict[str, int] = {}

    async def append(self, *aggregates: str) -> None:
        for aggregate in aggregates:
            last = self._last.get(aggregate, 0)
            events = [self._model(number=last), self._model(number=last + 1)]
            self.places += places(await self.store.append(aggregate, events, expected_sequence=last))
            self._last[aggregate] = last + 2
        self.places.sort()

    async def read(self, **options: Any) -> list[RecordedEvent]:
        async with asyncio.timeout(_TIMEOUT):
            return [event async for event in self.store.events_by_type(self.type, **options)]


class ByTimeContract:
    @pytest.fixture
    async def timeline(self, store: EventStore) -> Timeline:
        """30 events in 3 seconds: 10 of each second in 5 aggregates, which are in some of the index's shards."""
        timeline = Timeline(store)
        aggregates = [new_id(f"by-time-{number}") for number in range(5)]
        for _ in range(3):
            await timeline.append(*aggregates)
            await timeline.clock.advance(1)
        return timeline

    async def test_events_of_a_type_come_by_time_whatever_the_pages(self, timeline: Timeline) -> None:
        for size in (None, 1, 2, 5):
            assert places(await timeline.read(page_size=size)) == timeline.places, size
            newest = places(await timeline.read(page_size=size, newest_first=True))
            assert newest == timeline.places[::-1], size

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_a_range_has_its_start_and_not_its_end(self, timeline: Timeline, newest_first: bool) -> None:
        second, moment = timedelta(seconds=1), timedelta(microseconds=1)
        for start, end, size in (
            (START, START + second, None),
            (START, START + 2 * second, 1),
            (START + moment, START + 2 * second + moment, 2),
            (START + second, None, 2),
            (None, START + second, 3),
            (START + second, START + second + moment, 1),
            (START - second, START, None),
            (START + 9 * second, None, None),
            (START + second, START + second, None),
            (START + second, START, None),
        ):
            found = await timeline.read(start=start, end=end, page_size=size, newest_first=newest_first)
            wanted = [
                place
                for place in timeline.places
                if (start is None or place.time >= start) and (end is None or place.time < end)
            ]
            assert places(found) == (wanted[::-1] if newest_first else wanted), (start, end, size)

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_it_goes_on_after_any_event(self, timeline: Timeline, newest_first: bool) -> None:
        options: dict[str, Any] = {
            "start": START + timedelta(seconds=1),
            "end": START + timedelta(seconds=2, microseconds=1),
            "newest_first": newest_first,
        }
        events = await timeline.read(**options)
        assert len(events) == 20
        for number, size in ((0, 1), (9, 1), (9, None), (10, 2), (18, 1), (19, 1), (19, None)):
            found = await timeline.read(after=events[number].time_key, page_size=size, **options)
            assert places(found) == places(events[number + 1 :]), (number, size)

    async def test_other_types_and_commands_are_not_among_them(self, timeline: Timeline) -> None:
        other = Timeline(timeline.store)
        await other.append(*{place.aggregate_id + "x" for place in timeline.places})
        await timeline.store.append(new_id(), [], expected_sequence=0, command_id="c")
        assert places(await timeline.read()) == timeline.places
        assert places(await other.read()) == other.places
        # One that begins alike.
        assert [event async for event in timeline.store.events_by_type(timeline.type[:-1])] == []

    async def test_zones_are_no_matter(self, timeline: Timeline) -> None:
        east = timezone(timedelta(hours=9))
        found = await timeline.read(
            start=(START + timedelta(seconds=1)).astimezone(east),
            end=(START + timedelta(seconds=2)).astimezone(UTC),
        )
        assert len(found) == 10

    async def test_who_stops_reading_need_not_read_all(self, timeline: Timeline) -> None:
        async with aclosing(timeline.store.events_by_type(timeline.type, page_size=1)) as events:
            found = [await anext(events) for _ in range(3)]
        assert places(found) == timeline.places[:3]

    async def test_what_cannot_be_asked_is_refused(self, store: EventStore) -> None:
        naive = START.replace(tzinfo=None)
        for options in ({"start": naive}, {"end": naive}, {"page_size": 0}):
            with pytest.raises(ValueError, match=r"zone|page_size"):
                _ = [event async for event in store.events_by_type("contract.Any", **options)]
