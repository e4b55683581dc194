"""The contract of read models as tests: subclass it beside your own tables' tests."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from oms_events.eventstore.config import ProjectorConfig
from oms_events.eventstore.history import Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.items import (
    ABSENT,
    Checkpoint,
    ItemKey,
    ParkedEvent,
    TableRole,
    Write,
    checkpoint_key,
    checkpoint_write,
    dump_row,
    parked_list,
    parked_write,
    row_item,
    row_key,
    row_write,
)
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import ReadModels
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.resilience.backoff import RetryConfig

_NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_TIMEOUT = 60.0
_MANY = 130
"""More than one BatchGetItem and five BatchWriteItem calls take."""

registry = EventRegistry()


@registry.event
class Counted(BaseModel, frozen=True):
    """Something of which there are `number`, in a group."""

    number: int
    group: str


class Count(BaseModel, frozen=True):
    """How many there were."""

    number: int = 0
    events: int = 0


class Everything(BaseModel, frozen=True):
    """A row with all that JSON has, and more."""

    text: str = "ü\n"
    empty: str = ""
    whole: int = 10**30
    half: float = 0.1 + 0.2
    tiny: float = 1e-100
    exact: Decimal = Decimal("1.10")
    time: datetime = _NOW
    flag: bool = True
    nothing: None = None
    raw: bytes = b"raw"
    things: list[Any] = [1, 1.5, "a", None, {"deep": [False, -0.25]}]
    names: Mapping[str, float] = {"one": 1.0, "Size": 2.5}
    size: int = 3
    Version: str = "a word that expressions have"


def key(name: str = "row") -> ItemKey:
    """Where nobody has put anything."""
    return row_key("Contract@1", f"{name}-{uuid.uuid4()}")


def item(place: ItemKey, revision: str = "a@1", row: BaseModel | None = None) -> Item:
    """A row there."""
    return row_item(place, dump_row(row or Count()), revision=revision, now=_NOW)


class ReadModelsContract:
    """Subclass as `class TestMine(ReadModelsContract)` and give it a fixture `read_models`: open ones."""

    pytestmark = pytest.mark.asyncio

    # ------------------------------------------------------------------ items

    async def test_gets_what_is_there_in_the_order_asked_for(self, read_models: ReadModels) -> None:
        places = [key(str(number)) for number in range(_MANY)]
        there = places[::2]
        for start in range(0, len(there), 50):
            assert await read_models.tables.commit(
                [Write(at, item(at), ABSENT) for at in there[start : start + 50]]
            )
        found = await read_models.tables.get([*places, places[0]])
        assert found == [item(at) if at in there else None for at in [*places, places[0]]]
        assert await read_models.tables.get([]) == []

    async def test_both_tables_are_got_at_once(self, read_models: ReadModels) -> None:
        row, mark = key(), checkpoint_key("Contract@1", f"a-{uuid.uuid4()}")
        writes = [Write(row, item(row), ABSENT), checkpoint_write(mark, None, Checkpoint(3), _NOW)]
        assert await read_models.tables.commit(writes)
        assert await read_models.tables.get([mark, row]) == [writes[1].item, writes[0].item]

    async def test_a_write_takes_only_where_all_is_as_expected(self, read_models: ReadModels) -> None:
        commit, at = read_models.tables.commit, key()
        first, second = item(at, "a@1"), item(at, "a@2")
        assert await commit([row_write(at, None, first)])
        assert not await commit([row_write(at, None, second)])
        assert not await commit([row_write(at, second, second)])
        assert not await commit([row_write(at, second, None)])
        assert await read_models.tables.get([at]) == [first]
        assert await commit([row_write(at, first, second)])
        assert await commit([row_write(at, second, None)])
        assert not await commit([row_write(at, second, first)])
        assert await read_models.tables.get([at]) == [None]

    async def test_an_attribute_may_be_expected_to_be_missing(self, read_models: ReadModels) -> None:
        mark = checkpoint_key("Contract@1", f"a-{uuid.uuid4()}")
        free, held = Checkpoint(3), Checkpoint(3, 4)
        commit = read_models.tables.commit
        assert not await commit([checkpoint_write(mark, free, held, _NOW)])
        assert await commit([checkpoint_write(mark, None, free, _NOW)])
        assert not await commit([checkpoint_write(mark, held, free, _NOW)])
        assert await commit([checkpoint_write(mark, free, held, _NOW)])
        assert not await commit([checkpoint_write(mark, free, Checkpoint(4), _NOW)])
        assert await commit([checkpoint_write(mark, held, Checkpoint(9), _NOW)])

    async def test_what_is_expected_to_lack_all_must_be_there(self, read_models: ReadModels) -> None:
        at = key()
        assert not await read_models.tables.commit([Write(at, item(at), {"Parked": None})])
        assert await read_models.tables.get([at]) == [None]

    async def test_a_write_may_expect_nothing(self, read_models: ReadModels) -> None:
        at = key()
        for revision in ("a@1", "a@1", "b@7"):
            assert await read_models.tables.commit([Write(at, item(at, revision), None)])
        assert await read_models.tables.get([at]) == [item(at, "b@7")]
        for _ in range(2):
            assert await read_models.tables.commit([Write(at, None, None)])

    async def test_one_refused_write_refuses_all(self, read_models: ReadModels) -> None:
        one, two, three = key("one"), key("two"), key("three")
        await read_models.tables.commit([Write(three, item(three), ABSENT)])
        writes = [
            Write(one, item(one), ABSENT),
            Write(two, None, None),
            row_write(three, item(three, "z@1"), item(three)),
        ]
        assert not await read_models.tables.commit(writes)
        assert await read_models.tables.get([one]) == [None]

    async def test_what_is_kept_is_only_looked_at(self, read_models: ReadModels) -> None:
        kept, other = key("kept"), key("other")
        there = item(kept)
        put = Write(other, item(other), None)
        assert await read_models.tables.commit([put, row_write(kept, None, None)])
        assert not await read_models.tables.commit([row_write(kept, there, there)])
        assert await read_models.tables.commit([Write(kept, there, ABSENT)])
        assert not await read_models.tables.commit([put, row_write(kept, None, None)])
        assert await read_models.tables.commit([put, row_write(kept, there, there)])
        assert await read_models.tables.get([kept]) == [there]

    async def test_a_hundred_writes_are_one_transaction(self, read_models: ReadModels) -> None:
        places = [key(str(number)) for number in range(100)]
        assert await read_models.tables.commit([Write(at, item(at), ABSENT) for at in places])
        assert None not in await read_models.tables.get(places)

    async def test_one_of_many_writers_at_once_is_first(self, read_models: ReadModels) -> None:
        at = key()
        async with asyncio.timeout(_TIMEOUT):
            took = await asyncio.gather(
                *(read_models.tables.commit([Write(at, item(at, f"a@{number}"), ABSENT)]) for number in range(20))
            )
        assert took.count(True) == 1
        assert await read_models.tables.get([at]) == [item(at, f"a@{took.index(True)}")]

    async def test_deletes_whatever_is_there(self, read_models: ReadModels) -> None:
        places = [key(str(number)) for number in range(60)]
        mark = checkpoint_key("Contract@1", f"a-{uuid.uuid4()}")
        await read_models.tables.commit(
            [
                *(Write(at, item(at), ABSENT) for at in places[:50]),
                checkpoint_write(mark, None, Checkpoint(1), _NOW),
            ]
        )
        await read_models.tables.delete([*places, mark])
        await read_models.tables.delete([])
        assert await read_models.tables.get([*places, mark]) == [None] * 61

    async def test_the_items_of_a_version_are_found_page_by_page(self, read_models: ReadModels) -> None:
        name = f"Scanned-{uuid.uuid4()}"
        tables: Sequence[TableRole] = ("rows", "checkpoints")
        for version in (1, 2):
            rows = [row_key(f"{name}@{version}", f"key-{number}") for number in range(7)]
            marks = [checkpoint_key(f"{name}@{version}", f"key-{number}") for number in range(7)]
            await read_models.tables.commit([Write(at, item(at), ABSENT) for at in rows])
            await read_models.tables.commit([checkpoint_write(at, None, Checkpoint(1), _NOW) for at in marks])
        for table in tables:
            found: list[str] = []
            start: Token | None = None
            while True:
                page = await read_models.tables.scan(table, range_key=f"{name}@1", start=start, limit=3)
                assert len(page.items) <= 3
                hash_name = "AccountId" if table == "rows" else "CheckpointKey"
                found += (one[hash_name]["S"] for one in page.items)
                if (start := page.next) is None:
                    break
            assert sorted(found) == [f"key-{number}" for number in range(7)]

    async def test_removing_a_version_leaves_the_others(self, read_models: ReadModels) -> None:
        name = f"Removed-{uuid.uuid4()}"
        for version in (1, 2):
            rows = [row_key(f"{name}@{version}", f"key-{number}") for number in range(30)]
            marks = [checkpoint_key(f"{name}@{version}", f"key-{number}") for number in range(30)]
            await read_models.tables.commit([Write(at, item(at), ABSENT) for at in rows])
            await read_models.tables.commit(
                [
                    *(checkpoint_write(at, None, Checkpoint(1), _NOW) for at in marks),
                    *(parked_write(parked(f"{name}@{version}", "a", number)) for number in range(1, 6)),
                ]
            )
        for table in ("rows", "checkpoints"):
            count, start = await read_models.delete_page(f"{name}@1", table)
            while start is not None:
                more, start = await read_models.delete_page(f"{name}@1", table, start=start)
                count += more
            assert count == 30
        assert await read_models.delete_partition(parked_list(f"{name}@1"), limit=2) == 5
        assert (await read_models.parked_page(f"{name}@1")).events == []
        assert await read_models.rows(name, ["key-3"], version=1) == {"key-3": None}
        assert len((await read_models.parked_page(f"{name}@2")).events) == 5
        kept = await read_models.rows(name, [f"key-{number}" for number in range(30)], version=2)
        assert None not in kept.values()

    # ------------------------------------------------------------------ rows

    async def test_gives_the_fields_of_rows_back(self, read_models: ReadModels) -> None:
        name = f"Rows-{uuid.uuid4()}"
        places = [row_key(f"{name}@1", text) for text in ("a", "ü b", "x" * 2048)]
        await read_models.tables.commit([Write(at, item(at, row=Everything()), ABSENT) for at in places])
        expected = Everything().model_dump(mode="json")
        found = await read_models.rows(name, [*(at.hash for at in places), "absent", "a"], version=1)
        assert found == {**{at.hash: expected for at in places}, "absent": None}
        # Not a float that equals an int, nor the other way round.
        assert found["a"] is not None
        assert {type(value) for value in found["a"]["names"].values()} <= {int, float}
        assert Everything.model_validate(found["a"]) == Everything()

    async def test_readers_get_the_active_version(self, read_models: ReadModels) -> None:
        name = f"Active-{uuid.uuid4()}"
        for version in (1, 2):
            at = row_key(f"{name}@{version}", "a")
            await read_models.tables.commit([Write(at, item(at, row=Count(number=version)), ABSENT)])
        assert await read_models.active_version(name) is None
        assert await read_models.row(name, "a") is None
        assert await read_models.set_active_version(name, 1, expected=None)
        assert await read_models.row(name, "a") == {"number": 1, "events": 0}
        assert not await read_models.set_active_version(name, 2, expected=None)
        assert not await read_models.set_active_version(name, 2, expected=3)
        assert await read_models.active_version(name) == 1
        assert await read_models.set_active_version(name, 2, expected=1)
        assert await read_models.active_version(name) == 2
        assert await read_models.row(name, "a") == {"number": 2, "events": 0}
        # Its answer may have been lost the first time.
        assert await read_models.set_active_version(name, 2, expected=1)
        assert await read_models.row(name, "a", version=1) == {"number": 1, "events": 0}

    # ------------------------------------------------------------------ parked events

    async def test_lists_parked_events_by_aggregate_and_page(self, read_models: ReadModels) -> None:
        name = f"Parked-{uuid.uuid4()}@1"
        events = [parked(name, one, number) for one in ("a", "a@b", "b") for number in (2, 10, 300)]
        await read_models.tables.commit([parked_write(event) for event in reversed(events)])
        found: list[ParkedEvent] = []
        start: Token | None = None
        while True:
            page = await read_models.parked_page(name, start=start, limit=2)
            assert len(page.events) <= 2
            found += page.events
            if (start := page.next) is None:
                break
        assert sorted(found, key=_place) == sorted(events, key=_place)
        for one in ("a", "a@b", "b"):
            mine = [event for event in events if event.aggregate_id == one]
            assert [event for event in found if event.aggregate_id == one] == mine
            assert (await read_models.parked_page(name, aggregate_id=one)).events == mine
        assert (await read_models.parked_page(f"{name}0")).events == []

    # ------------------------------------------------------------------ projectors upon it

    async def test_racing_projectors_count_each_event_once(self, read_models: ReadModels) -> None:
        counts = counting()
        store = MemoryEventStore(registry=registry)
        histories = [await self._history(store, f"thing-{number}", 6) for number in range(4)]
        batches = [events[start:] + events[:start] for events in histories for start in (0, 2, 5)]
        config = ProjectorConfig(conflicts=RetryConfig(max_attempts=60, initial=0.002, maximum=0.1))
        projectors = [Projector([counts], store, read_models, config=config) for _ in range(3)]
        async with asyncio.timeout(_TIMEOUT):
            results = await asyncio.gather(
                *(projector.handle(batch) for projector in projectors for batch in batches)
            )
        assert not [error for result in results for error in result if error is not None]
        expected = {f"thing-{number}": {"number": 21, "events": 6} for number in range(4)}
        assert await read_models.rows(counts, [*expected], version=1) == expected
        shared = await read_models.rows(counts, ["group-0", "group-1"], version=1)
        # Every event is counted for its group, and half of them are of each.
        assert shared == {"group-0": {"number": 48, "events": 12}, "group-1": {"number": 36, "events": 12}}

    async def test_a_parked_event_holds_its_aggregate_until_it_is_retried(self, read_models: ReadModels) -> None:
        bad = {4}
        counts = counting(bad)
        store = MemoryEventStore(registry=registry)
        events = await self._history(store, "held", 6)
        async with Projector([counts], store, read_models) as projector:
            assert await projector.handle(events) == [None] * 6
            assert await read_models.row(counts, "held", version=1) == {"number": 6, "events": 3}
            assert await read_models.checkpoint(counts, "held") == Checkpoint(3, 4)
            [mark] = [event async for event in projector.parked(counts)]
            assert (mark.position, mark.event_type, mark.held, mark.attempts) == ("held@4", "Counted", True, 1)
            assert await projector.retry_parked(counts) == (0, 1)
            [mark] = [event async for event in projector.parked(counts)]
            assert mark.attempts == 2
            bad.clear()
            assert await projector.retry_parked(counts) == (1, 0)
            assert [event async for event in projector.parked(counts)] == []
        assert await read_models.row(counts, "held", version=1) == {"number": 21, "events": 6}
        assert await read_models.checkpoint(counts, "held") == Checkpoint(6)

    async def _history(self, store: MemoryEventStore, aggregate_id: str, length: int) -> list[RecordedEvent]:
        events = [Counted(number=number, group=f"group-{number % 2}") for number in range(1, length + 1)]
        return await store.append(aggregate_id, events, expected_sequence=0)


def counting(bad: set[int] | None = None) -> Projection[Count]:
    """Counts by aggregate and by group; numbers in `bad` are poison. Each has a name of its own."""
    counts = Projection(f"Counts-{uuid.uuid4()}", Count, registry=registry)

    def count(row: Count | None, event: Counted, recorded: RecordedEvent) -> Count:
        if bad is not None and event.number in bad:
            raise ValueError("no good number")
        row = row or Count()
        return Count(number=row.number + event.number, events=row.events + 1)

    def group(recorded: RecordedEvent) -> str:
        return str(recorded.data["group"])

    counts.on(Counted)(count)
    counts.on(Counted, key=group)(count)
    return counts


def parked(projection: str, aggregate_id: str, sequence: int) -> ParkedEvent:
    """A parked event."""
    return ParkedEvent(
        projection=projection,
        aggregate_id=aggregate_id,
        sequence=sequence,
        event_type="Counted",
        reason="ValueError: ü",
        parked_at=_NOW,
        held=True,
    )


def _place(event: ParkedEvent) -> tuple[str, int]:
    return event.aggregate_id, event.sequence
