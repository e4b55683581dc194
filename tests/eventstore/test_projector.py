"""What a projector does with events, poison, gaps and failures; see also the kills and the races."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from oms_events.errors import (
    ConfigurationError,
    PersonalDataError,
    ProjectionError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionConflictError,
)
from oms_events.events import build_event, encode
from oms_events.eventstore.config import ProjectorConfig
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.items import ABSENT, Checkpoint, Write, checkpoint_key, row_key
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels, ReadModels
from oms_events.eventstore.records import RecordedEvent, recorded_of
from oms_events.eventstore.registry import EventRegistry
from oms_events.instrumentation.hooks import EventParked, Projected
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, deposit, registry
from tests.eventstore.ledgers import (
    Breaking,
    Total,
    behind,
    checkpoints,
    folded,
    population,
    rows_of,
    summaries,
    totals,
    waiting,
)

OPENED = AccountCreated(customer_id="c-1")
QUICK = RetryConfig(max_attempts=5, initial=1e-6, maximum=1e-6)


async def append(store: MemoryEventStore, name: str, *events: BaseModel) -> list[RecordedEvent]:
    return await store.append(name, events, expected_sequence=await store.last_sequence(name))


class Counting(Breaking):
    """Tables whose calls are counted by name; those of `fails` fail."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Sequence[Write]] = []
        self.calls: list[str] = []
        self.fails: set[str] = set()

    async def call(self, method: Any, *args: Any, **options: Any) -> Any:
        self.calls.append(method.__name__)
        if method.__name__ == "commit":
            self.writes.append(args[0])
            if any(write.key.hash in self.fails for write in args[0]):
                raise StorageUnavailableError("throttled")
        return await super().call(method, *args, **options)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def read_models() -> MemoryReadModels:
    return MemoryReadModels()


def projector_of(
    store: MemoryEventStore, read_models: ReadModels, *projections: Projection[Any], **options: Any
) -> Projector:
    config = {name: options.pop(name) for name in list(options) if name in ProjectorConfig.model_fields}
    return Projector(
        projections, store, read_models, config=ProjectorConfig(**{"conflicts": QUICK, **config}), **options
    )


# ---------------------------------------------------------------------- order, gaps and duplicates


async def test_events_that_were_seen_change_nothing(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(5), deposit(7))
    projector = projector_of(memory_store, read_models, summaries())
    assert await projector.handle(events) == [None] * 3
    before = dict(read_models.tables._items)
    for again in (events, events[1:2], [*events, *events]):
        assert await projector.handle(again) == [None] * len(again)
    assert dict(read_models.tables._items) == before
    assert await read_models.row("Summary", "a") == {"balance": "12", "events": [1, 2, 3]}


async def test_no_events_are_handled_at_once(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    assert await projector_of(memory_store, read_models, summaries()).handle([]) == []


async def test_a_gap_is_read_from_the_store_page_by_page(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED, *(deposit(1) for _ in range(10)))
    projector = projector_of(memory_store, read_models, summaries(), page_size=3)
    assert await projector.handle([events[10], events[4]]) == [None, None]
    assert await read_models.row("Summary", "a") == {"balance": "10", "events": list(range(1, 12))}


async def test_consecutive_events_of_an_aggregate_are_one_transaction(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = await append(memory_store, "a", OPENED, *(deposit(1) for _ in range(20)))
    store, seen = behind(counting, memory_store, read_models)
    await projector_of(store, seen, summaries()).handle(events)
    [_, writes] = counting.writes
    assert [write.key.table for write in writes] == ["checkpoints", "rows"]
    assert "read" not in counting.calls


async def test_events_of_no_interest_cost_nothing_and_leave_no_gap(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = await append(memory_store, "a", OPENED, AccountClosed(), deposit(1), AccountClosed(), deposit(2))
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, totals())
    await projector.open()
    counting.calls.clear()
    assert await projector.handle(events[:2]) == [None, None]
    assert counting.calls == []
    assert await projector.handle(events[2:3]) == [None]
    assert await projector.handle(events[3:4]) == [None]
    assert await projector.handle(events[4:]) == [None]
    # Checkpoint, row, commit: nothing is read from the store, and nothing written for the others.
    assert counting.calls == ["get", "get", "commit"] * 2
    assert checkpoints(projector.projections[0], read_models) == {"a": 5}


async def test_what_is_not_remembered_is_read(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = await append(memory_store, "a", OPENED, AccountClosed(), deposit(1), AccountClosed(), deposit(2))
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, totals(), remembered_positions=0)
    for event in events:
        assert await projector.handle([event]) == [None]
    assert counting.calls.count("read") == 2
    assert rows_of(projector.projections[0], read_models) == {"deposit": {"amount": "3", "count": 2}}


async def test_memory_does_not_count_when_a_checkpoint_is_gone(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", deposit(1), OPENED, deposit(2), OPENED, deposit(4), OPENED)
    projector = projector_of(memory_store, read_models, totals())
    await projector.handle(events[:4])
    name = projector.projections[0].full_name
    await read_models.tables.delete([checkpoint_key(name, "a"), row_key(name, "deposit")])
    assert await projector.handle(events[4:5]) == [None]
    assert rows_of(projector.projections[0], read_models) == {"deposit": {"amount": "7", "count": 3}}


async def test_an_event_whose_predecessor_is_in_no_store_is_not_handled(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    here = await append(memory_store, "a", OPENED)
    elsewhere = MemoryEventStore(registry=registry)
    there = await append(elsewhere, "a", OPENED, deposit(1), deposit(2), deposit(3))
    clock = ManualClock()
    projector = projector_of(memory_store, read_models, summaries(), clock=_Hurrying(clock))
    results = await projector.handle([there[3], here[0]])
    assert results[1] is None
    assert isinstance(results[0], ProjectionError)
    assert "has no event a@2" in str(results[0])
    assert await read_models.row("Summary", "a") == {"balance": "0", "events": [1]}


async def test_only_its_own_projections_can_be_asked_for(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    projector = projector_of(memory_store, read_models, summaries(), totals())
    for unknown in ("Another", "Summary@2", population()):
        with pytest.raises(ConfigurationError, match="none of this projector's; they are Summary@1, Total@1"):
            await projector.retry_parked(unknown)
        with pytest.raises(ConfigurationError, match="none of this projector's"):
            await anext(projector.parked(unknown))
    for known in ("Total", "Total@1", projector.projections[1]):
        assert await projector.retry_parked(known) == (0, 0)


async def test_a_name_that_several_versions_have_is_refused(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    versions = [strange(Strange, version=version) for version in (1, 2)]
    both = projector_of(memory_store, read_models, *versions)
    with pytest.raises(ConfigurationError, match="several of this projector's: give one's full name"):
        await both.retry_parked("Strange")
    with pytest.raises(ConfigurationError, match="they are Strange@1, Strange@2"):
        await anext(both.parked("Strange"))
    assert await both.retry_parked("Strange@2") == (0, 0)


class _Hurrying:
    """A clock that goes on by itself when somebody sleeps."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.monotonic, self.now = clock.monotonic, clock.now

    async def sleep(self, seconds: float) -> None:
        await self._clock.advance(seconds)


class _HalfShown:
    """A table whose first pages lack an event: so may DynamoDB show an append that commits just now."""

    def __init__(self, table: Any, *hidden: int) -> None:
        self._table = table
        self._hidden = list(hidden)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    async def read(self, aggregate_id: str, **options: Any) -> ItemPage:
        page: ItemPage = await self._table.read(aggregate_id, **options)
        hidden = self._hidden.pop(0) if self._hidden else 0
        return page._replace(items=[item for item in page.items if int(item["EventSequence"]["N"]) != hidden])


@pytest.mark.parametrize("hidden", [(1,), (3,), (2, 2, 3, 3), (5, 4, 3, 2, 1)])
async def test_an_event_that_shows_late_is_waited_for(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, hidden: tuple[int, ...]
) -> None:
    events = await append(memory_store, "a", OPENED, *(deposit(1) for _ in range(4)))
    memory_store.table = _HalfShown(memory_store.table, *hidden)  # type: ignore[assignment]
    projector = projector_of(memory_store, read_models, summaries(), clock=_Hurrying(ManualClock()))
    assert await projector.handle(events[4:]) == [None]
    assert await read_models.row("Summary", "a") == {"balance": "4", "events": [1, 2, 3, 4, 5]}


async def test_an_event_without_its_data_is_read_from_the_store(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    """A claim check leaves the data of large events behind."""
    events = await append(memory_store, "a", OPENED, deposit(3), deposit(4))
    attributes = {
        name: events[1].encoded.attributes[name]
        for name in ("id", "time", "subject", "sequence", "dataschema", "partitionkey")
    }
    empty = encode(build_event("TransactionProcessed", "here", None, dataref="s3://bucket/key", **attributes))
    projector = projector_of(memory_store, read_models, summaries())
    assert await projector.handle([events[0], recorded_of(empty, registry), events[2]]) == [None] * 3
    assert await read_models.row("Summary", "a") == {"balance": "7", "events": [1, 2, 3]}


# ---------------------------------------------------------------------- limits of transactions


class Note(BaseModel):
    text: str = ""


def notes(size: int = 1) -> Projection[Note]:
    """A row per event, of about so many bytes."""
    projection = Projection("Notes", Note, registry=registry)

    @projection.on(TransactionProcessed, key=lambda recorded: recorded.position)
    def noted(row: Note | None, event: TransactionProcessed, recorded: RecordedEvent) -> Note:
        return Note(text="ü" * (size // 2))

    return projection


async def test_more_rows_than_a_transaction_takes_are_several(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = [event for _ in range(3) for event in await append(memory_store, "a", *(deposit(1),) * 90)]
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, notes())
    assert set(await projector.handle(events)) == {None}
    assert len(rows_of(projector.projections[0], read_models)) == 270
    assert [len(writes) for writes in counting.writes[1:]] == [98, 98, 77]
    assert checkpoints(projector.projections[0], read_models) == {"a": 270}


async def test_more_bytes_than_a_transaction_takes_are_several(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = await append(memory_store, "a", *(deposit(1),) * 25)
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, notes(390_000))
    assert set(await projector.handle(events)) == {None}
    assert len(rows_of(projector.projections[0], read_models)) == 25
    assert [len(writes) - 1 for writes in counting.writes[1:]] == [10, 10, 5]


async def test_an_event_that_changes_more_than_a_transaction_takes_is_poison(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    projection: Projection[Note] = Projection("Notes", Note, registry=registry)
    for number in range(98):
        projection.on(AccountCreated, key=lambda recorded, number=number: f"row-{number}")(lambda *_: Note())
    events = await append(memory_store, "a", OPENED)
    projector = projector_of(memory_store, read_models, projection)
    assert await projector.handle(events) == [None]
    [parked] = [event async for event in projector.parked(projection)]
    assert "98 rows of about" in parked.reason


# ---------------------------------------------------------------------- poison


class Strange(BaseModel):
    model_config = ConfigDict(extra="allow")
    value: float = 0.0


def strange(change: Any, key: Any = None, *, version: int = 1) -> Projection[Strange]:
    """Does something bad with deposits of 13."""
    projection = Projection("Strange", Strange, version=version, registry=registry)

    def handle(row: Strange | None, event: TransactionProcessed, recorded: RecordedEvent) -> Any:
        return change() if event.amount == 13 else Strange(value=float(event.amount))

    projection.on(TransactionProcessed, key=key)(handle)
    return projection


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("never")


def fail_mutely() -> Any:
    raise MuteError


def fail_at_length() -> Any:
    raise LookupError(f"\ud800{'x' * 2000}")


def bad_key(bad: Any) -> Any:
    def key(recorded: RecordedEvent) -> Any:
        return bad() if recorded.data["amount"] == "13" else recorded.aggregate_id

    return key


def fail() -> Any:
    raise LookupError("no such thing")


@pytest.mark.parametrize(
    ("projection", "reason"),
    [
        (strange(fail), r"LookupError: no such thing \(test_projector\.py:\d+\)"),
        (strange(fail_mutely), r"MuteError: \(its text fails itself\)"),
        (strange(fail_at_length), r"LookupError: \?x+\.\.\."),
        (strange(lambda: Strange(value="x")), r"Strange: value: Input should be a valid number.* \(.*:\d+\)"),
        (strange(lambda: {"value": 1.0}), r"strange.<locals>.handle gave dict; give Strange, or None to delete"),
        (strange(lambda: Total()), r"gave Total; give Strange"),
        (strange(lambda: Strange(value=float("inf"))), r"row\.value = inf: DynamoDB has no such number"),
        (strange(lambda: Strange(more=10**50 + 1)), r"row\.more = 1000.*: DynamoDB keeps 38 digits"),
        (strange(lambda: Strange(AccountId="x")), r"a field 'AccountId', which the read model has itself"),
        (strange(lambda: Strange(text="x" * 409_600)), r"the row has about \d+ bytes, but a DynamoDB item takes"),
        (strange(lambda: Strange(text="\ud800")), r"row\.text has a lone surrogate"),
        (strange(Strange, bad_key(fail)), r"LookupError: no such thing"),
        (strange(Strange, bad_key(lambda: "")), r"the row's key is ''; give it some text"),
        (strange(Strange, bad_key(lambda: None)), r"the row's key is None"),
        (strange(Strange, bad_key(lambda: "ü" * 1025)), r"the row's key has 2050 bytes of UTF-8; at most 2048"),
        (strange(Strange, bad_key(lambda: "\ud800")), r"UnicodeEncodeError"),
    ],
)
async def test_poison_is_parked_and_holds_its_aggregate_only(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, projection: Projection[Any], reason: str
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(1), deposit(2), deposit(13))
    others = await append(memory_store, "b", deposit(5))
    projector = projector_of(memory_store, read_models, projection, totals())
    assert await projector.handle([*events, *others]) == [None] * 5
    [parked] = [event async for event in projector.parked("Strange")]
    assert (parked.projection, parked.position, parked.event_type) == ("Strange@1", "a@4", "TransactionProcessed")
    assert (parked.held, parked.attempts) == (True, 1)
    assert re.search(reason, parked.reason), parked.reason
    assert len(parked.reason) <= 1003
    assert await read_models.checkpoint(projection, "a") == Checkpoint(3, 4)
    assert rows_of(projection, read_models) == {"a": {"value": 2}, "b": {"value": 5}}
    # The other projection is not concerned.
    assert await read_models.row("Total", "deposit") == {"amount": "21", "count": 4}
    # Later events wait in the store.
    assert await projector.handle(await append(memory_store, "a", deposit(6))) == [None]
    assert rows_of(projection, read_models)["a"] == {"value": 2}


async def test_an_event_that_cannot_be_read_is_poison_for_those_who_want_its_type(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    await append(memory_store, "a", OPENED, deposit(1))
    items = memory_store.table._aggregates["a"]  # type: ignore[attr-defined]
    items[2] = {**items[2], "Data": {"S": '{"amount":"x","kind":"deposit"}'}}
    await append(memory_store, "a", AccountClosed())
    own, other = summaries(), population()
    projector = projector_of(memory_store, read_models, own, other)
    await projector.catch_up("a")
    [parked] = [event async for event in projector.parked(own)]
    assert parked.position == "a@2"
    assert "TransactionProcessed version 2 does not fit TransactionProcessed: amount" in parked.reason
    assert [event async for event in projector.parked(other)] == []
    assert await read_models.checkpoint(other, "a") == Checkpoint(3)


@pytest.mark.parametrize(
    ("damage", "everybody"),
    [({"CloudEvent": None}, False), ({"SchemaVersion": None}, False), ({"EventType": None}, True)],
)
async def test_an_item_that_is_no_event_is_poison(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, damage: Mapping[str, Any], everybody: bool
) -> None:
    await append(memory_store, "a", OPENED, deposit(1), AccountClosed())
    items = memory_store.table._aggregates["a"]  # type: ignore[attr-defined]
    items[2] = {name: value for name, value in items[2].items() if name not in damage}
    own, other = summaries(), population()
    projector = projector_of(memory_store, read_models, own, other)
    await projector.catch_up("a")
    assert await read_models.checkpoint(own, "a") == Checkpoint(1, 2)
    assert await read_models.checkpoint(other, "a") == (Checkpoint(1, 2) if everybody else Checkpoint(3))
    [parked] = [event async for event in projector.parked(own)]
    assert "the item has no" in parked.reason


async def test_a_stored_row_that_does_not_fit_its_model_is_told(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", deposit(1))
    projection = strange(Strange)
    at = row_key(projection.full_name, "a")
    item = {"AccountId": {"S": "a"}, "ProjectionType": {"S": at.range}, "value": {"S": "secret"}}
    await read_models.tables.commit([Write(at, item, ABSENT)])
    # The function does not look at the row, but nobody can know that.
    projector = projector_of(memory_store, read_models, projection)
    assert await projector.handle(events) == [None]
    [parked] = [event async for event in projector.parked(projection)]
    assert "the stored row does not fit Strange: value: Input should be a valid number" in parked.reason
    assert "raise the projection's version" in parked.reason
    assert "secret" not in parked.reason


async def test_whatever_a_validator_raises_is_poison_and_repeats_no_value(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    rules: dict[str, bool] = {}
    strict_registry = EventRegistry()

    class Noted(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def check(cls, text: str) -> str:
            # Neither a ValueError nor an AssertionError, and its text has the value.
            return {}[text] if rules.get("event") else text  # type: ignore[no-any-return,misc]

    strict_registry.event(Noted)

    class NoteRow(BaseModel):
        text: str = ""

        @field_validator("text")
        @classmethod
        def check(cls, text: str) -> str:
            return {}[text] if rules.get("row") else text  # type: ignore[no-any-return,misc]

    projection: Projection[NoteRow] = Projection("Notes", NoteRow, registry=strict_registry)

    @projection.on(Noted)
    def noted(row: NoteRow | None, event: Noted, recorded: RecordedEvent) -> NoteRow:
        return NoteRow.model_construct(text=event.text)

    store = MemoryEventStore(registry=strict_registry)
    projector = projector_of(store, read_models, projection)
    for name in ("event", "row"):
        await projector.handle(await append(store, name, Noted(text="secret")))
        later = await append(store, name, Noted(text="secret"))
        rules[name] = True
        # Read anew: what was appended holds its domain event already.
        assert await projector.handle([await anext(store.read(name, after=1))]) == [None]
        rules[name] = False
        [parked] = [event async for event in projector.parked(projection, aggregate_id=name)]
        assert parked.position == later[0].position
        assert "KeyError (test_projector.py:" in parked.reason
        assert "secret" not in parked.reason
    assert await projector.retry_parked(projection) == (2, 0)


async def test_a_key_that_fails_is_the_reason_also_for_the_other_functions_row(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    projection: Projection[Total] = Projection("Keys", Total, registry=registry)

    def no_key(recorded: RecordedEvent) -> str:
        raise LookupError("no customer")

    # The one below is registered first.
    @projection.on(TransactionProcessed, key=no_key)
    @projection.on(TransactionProcessed)
    def processed(row: Total | None, event: TransactionProcessed, recorded: RecordedEvent) -> Total:
        return Total()

    projector = projector_of(memory_store, read_models, projection)
    await projector.handle(await append(memory_store, "a", deposit(1)))
    [parked] = [event async for event in projector.parked(projection)]
    assert parked.reason.startswith("LookupError: no customer (test_projector.py:")


@pytest.mark.parametrize("names", [{"": 1}, {"x" * 65_536: 1}, {"ü" * 32_768: 1}])
async def test_a_row_with_names_that_dynamodb_lacks_is_poison(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, names: dict[str, int]
) -> None:
    class Named(BaseModel):
        names: dict[str, int]

    projection: Projection[Named] = Projection("Named", Named, registry=registry)

    @projection.on(TransactionProcessed)
    def processed(row: Named | None, event: TransactionProcessed, recorded: RecordedEvent) -> Named:
        return Named(names=names)

    projector = projector_of(memory_store, read_models, projection)
    assert await projector.handle(await append(memory_store, "a", deposit(1))) == [None]
    [parked] = [event async for event in projector.parked(projection)]
    assert "an attribute's name has 1 to 65535 bytes" in parked.reason


async def test_events_do_not_count_again_when_only_the_checkpoint_is_gone(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(5))
    projection = summaries()
    await projector_of(memory_store, read_models, projection).handle(events)
    before = rows_of(projection, read_models)
    await read_models.tables.delete([checkpoint_key(projection.full_name, "a")])
    errors = await projector_of(memory_store, read_models, projection).handle(events)
    assert [type(error) for error in errors] == [ProjectionError] * 2
    assert "a row has event a@2, but the aggregate's checkpoint is at 0: was it deleted alone?" in str(errors[0])
    assert rows_of(projection, read_models) == before
    # With its row it is made anew.
    await read_models.tables.delete([row_key(projection.full_name, "a")])
    assert await projector_of(memory_store, read_models, projection).handle(events) == [None] * 2
    assert rows_of(projection, read_models) == before


async def test_a_row_that_is_newer_than_the_checkpoint_beside_it_is_read_again(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(5), deposit(7))
    projection = summaries()
    other = projector_of(memory_store, read_models, projection)
    await other.handle(events[:1])

    class Torn(Breaking):
        """Another projector commits while a checkpoint and a row are read, between the two."""

        async def call(self, method: Any, *args: Any, **options: Any) -> Any:
            answer = await method(*args, **options)
            if method.__name__ == "get" and len(args[0]) == 2 and not self.steps:
                self.steps += 1
                await other.handle(events[:2])
                answer[1:] = await method(args[0][1:])
            return answer

    torn = Torn()
    store, seen = behind(torn, memory_store, read_models)
    assert await projector_of(store, seen, projection).handle(events) == [None] * 3
    assert torn.steps == 1
    assert rows_of(projection, read_models) == await folded(projection, memory_store)


async def test_poison_that_is_passed_over_leaves_no_trace_in_the_row(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    poison = {"a@2", "a@4"}
    events = await append(memory_store, "a", OPENED, deposit(1), deposit(2), deposit(4), deposit(8))
    projection = summaries(poison)
    projector = projector_of(memory_store, read_models, projection, after_poison="continue")
    assert await projector.handle(events) == [None] * 5
    assert await read_models.row(projection, "a") == {"balance": "10", "events": [1, 3, 5]}
    assert await read_models.checkpoint(projection, "a") == Checkpoint(5)
    parked = [event async for event in projector.parked(projection)]
    assert [(event.position, event.held) for event in parked] == [("a@2", False), ("a@4", False)]
    poison.discard("a@2")
    assert await projector.retry_parked(projection) == (1, 1)
    [parked] = [[event async for event in projector.parked(projection)]]
    assert [(event.position, event.attempts) for event in parked] == [("a@4", 2)]
    # It takes effect late: on the row as it was by then.
    assert await read_models.row(projection, "a") == {"balance": "11", "events": [1, 3, 5, 2]}


async def test_what_was_held_is_passed_over_by_a_projector_that_continues(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    poison = {"a@2", "a@4"}
    events = await append(memory_store, "a", OPENED, deposit(1), deposit(2), deposit(4), deposit(8))
    projection = summaries(poison)
    await projector_of(memory_store, read_models, projection).handle(events)
    projector = projector_of(memory_store, read_models, projection, after_poison="continue")
    assert await projector.retry_parked(projection) == (0, 2)
    assert await read_models.row(projection, "a") == {"balance": "10", "events": [1, 3, 5]}
    assert [event.held async for event in projector.parked(projection)] == [False, False]
    assert await read_models.checkpoint(projection, "a") == Checkpoint(5)
    poison.clear()
    assert await projector.retry_parked(projection) == (2, 0)
    assert waiting(read_models) == []


async def test_a_retry_stops_at_the_next_poison(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    poison = {"a@2", "a@4"}
    events = await append(memory_store, "a", OPENED, deposit(1), deposit(2), deposit(4), deposit(8))
    projection = summaries(poison)
    projector = projector_of(memory_store, read_models, projection)
    await projector.handle(events)
    poison.discard("a@2")
    # Where the aggregate waits now counts too.
    assert await projector.retry_parked(projection) == (1, 1)
    assert await read_models.checkpoint(projection, "a") == Checkpoint(3, 4)
    assert [event.position async for event in projector.parked(projection)] == ["a@4"]
    poison.clear()
    assert await projector.retry_parked(projection, aggregate_id="b") == (0, 0)
    assert await projector.retry_parked(projection, aggregate_id="a") == (1, 0)
    assert waiting(read_models) == []
    assert rows_of(projection, read_models) == await folded(projection, memory_store)


async def test_an_entry_that_nobody_waits_for_is_removed(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    poison = {"a@2"}
    events = await append(memory_store, "a", OPENED, deposit(1))
    projection = summaries(poison)
    projector = projector_of(memory_store, read_models, projection)
    await projector.handle(events)
    await read_models.tables.delete(
        [checkpoint_key(projection.full_name, "a"), row_key(projection.full_name, "a")]
    )
    poison.clear()
    assert await projector.retry_parked(projection) == (1, 0)
    assert waiting(read_models) == []


async def test_parked_events_are_told_and_retries_only_logged(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, caplog: pytest.LogCaptureFixture
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(1))
    details: list[Any] = []
    projector = projector_of(memory_store, read_models, summaries({"a@2"}), hooks=[details.append])
    with caplog.at_level(logging.WARNING, "oms_events"):
        await projector.handle(events)
        await projector.retry_parked("Summary@1")
    [parked] = [detail for detail in details if isinstance(detail, EventParked)]
    assert (parked.projection, parked.position, parked.event_type) == ("Summary@1", "a@2", "TransactionProcessed")
    assert parked.reason.startswith("ValueError: poison (ledgers.py:")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Summary@1 parked a@2 (TransactionProcessed)"
    ] * 2


# ---------------------------------------------------------------------- lag


async def test_lag_is_from_each_events_own_time_and_never_negative(read_models: MemoryReadModels) -> None:
    clock = ManualClock()
    store = MemoryEventStore(registry=registry, clock=clock)
    events = await append(store, "a", OPENED, AccountClosed())
    await clock.advance(10)
    events += await append(store, "a", OPENED)
    await clock.advance(2.5)
    details: list[Any] = []
    projector = projector_of(store, read_models, population(), totals(), clock=clock, hooks=[details.append])
    await projector.handle(events)
    assert details == [Projected("Population@1", 3, [12.5, 12.5, 2.5])]
    early = ManualClock(clock.now() - timedelta(days=1))
    projector = projector_of(store, read_models, summaries(), clock=early, hooks=[details.append])
    await projector.handle(events)
    assert details[1:] == [Projected("Summary@1", 3, [0.0, 0.0, 0.0])]


# ---------------------------------------------------------------------- failures


async def test_a_storage_error_is_told_for_its_event_and_all_later_ones_of_its_aggregate(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = [
        event
        for name in ("a", "b")
        for event in await append(memory_store, name, OPENED, *(deposit(1) for _ in range(4)))
    ]
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, summaries(), page_size=1)
    assert await projector.handle([event for event in events if event.sequence <= 2]) == [None] * 4
    counting.fails = {"b"}
    results = await projector.handle(list(reversed(events)))
    failed = {event.position for event, error in zip(reversed(events), results, strict=True) if error is not None}
    assert failed == {"b@3", "b@4", "b@5"}
    assert {type(error) for error in results} == {StorageUnavailableError, type(None)}
    assert [event async for event in projector.parked("Summary")] == []
    counting.fails = set()
    assert set(await projector.handle(events)) == {None}
    assert rows_of(projector.projections[0], read_models) == await folded(projector.projections[0], memory_store)


async def test_one_projection_that_fails_keeps_the_event_but_not_the_others(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(3))
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, summaries(), totals())
    counting.fails = {"deposit"}
    results = await projector.handle(events)
    assert results[0] is None or isinstance(results[0], StorageUnavailableError)
    assert isinstance(results[1], StorageUnavailableError)
    assert await read_models.row("Summary", "a") == {"balance": "3", "events": [1, 2]}
    counting.fails = set()
    assert await projector.handle(events) == [None, None]
    assert await read_models.row("Total", "deposit") == {"amount": "3", "count": 1}


async def test_what_fails_at_opening_is_told_per_event_and_later_events_go_well(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED, deposit(3))
    store, seen = behind(Breaking(1, "refuses"), memory_store, read_models)
    projector = projector_of(store, seen, summaries())
    assert {type(error) for error in await projector.handle(events)} == {StorageUnavailableError}
    assert await projector.handle(events) == [None, None]


async def test_what_is_refused_once_is_decided_anew_in_the_same_call(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", deposit(1))
    breaking = Breaking()
    store, seen = behind(breaking, memory_store, read_models)
    projector = projector_of(
        store, seen, totals(), conflicts=RetryConfig(max_attempts=2, initial=1e-6, maximum=1e-6)
    )
    await projector.open()
    others = await append(memory_store, "b", deposit(2))
    breaking.other = lambda: projector_of(memory_store, read_models, totals()).handle(others)
    breaking._at, breaking._fault = breaking.steps + 3, "is overtaken"
    assert await projector.handle(events) == [None]
    assert await read_models.row("Total", "deposit") == {"amount": "3", "count": 2}


async def test_who_is_refused_at_every_attempt_gives_up_and_nothing_is_lost(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", deposit(1))
    projection = totals()
    at = row_key(projection.full_name, "deposit")

    class Busy(Breaking):
        """Somebody else changes the row each time before we do."""

        async def call(self, method: Any, *args: Any, **options: Any) -> Any:
            if method.__name__ == "commit" and len(args[0]) > 1:
                self.steps += 1
                await method([Write(at, {**(item or {}), "ProjectionRevision": {"S": str(self.steps)}}, None)])
            return await method(*args, **options)

    item = {"AccountId": {"S": "deposit"}, "ProjectionType": {"S": at.range}}
    busy = Busy()
    await projector_of(memory_store, read_models, projection).open()
    store, seen = behind(busy, memory_store, read_models)
    [error] = await projector_of(store, seen, projection).handle(events)
    assert isinstance(error, TransactionConflictError)
    assert "Total@1, aggregate 'a': others changed it or its rows at each of 5 attempts" in str(error)
    assert busy.steps == 5
    assert await projector_of(memory_store, read_models, projection).handle(events) == [None]


async def test_aggregates_of_one_process_do_not_refuse_each_other(
    memory_store: MemoryEventStore, read_models: MemoryReadModels, counting: Counting
) -> None:
    events = [event for n in range(20) for event in await append(memory_store, f"a-{n}", deposit(1))]
    store, seen = behind(counting, memory_store, read_models)
    projector = projector_of(store, seen, totals())
    assert set(await projector.handle(events)) == {None}
    assert len(counting.writes) == 1 + 20
    assert await read_models.row("Total", "deposit") == {"amount": "20", "count": 20}


async def test_so_many_aggregates_are_worked_on_at_once(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = [event for n in range(12) for event in await append(memory_store, f"a-{n}", OPENED)]
    running, most = 0, 0

    class Watching(Breaking):
        async def call(self, method: Any, *args: Any, **options: Any) -> Any:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await method(*args, **options)
            finally:
                running -= 1

    store, seen = behind(Watching(), memory_store, read_models)
    assert set(await projector_of(store, seen, summaries(), concurrency=5).handle(events)) == {None}
    assert most == 5


# ---------------------------------------------------------------------- versions


async def test_the_first_projector_of_a_projection_makes_its_version_the_active_one(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    newer = Projection("Total", Total, version=2, registry=registry)
    newer.on(TransactionProcessed)(lambda row, event, recorded: Total(count=-1))
    events = await append(memory_store, "a", deposit(3))
    async with projector_of(memory_store, read_models, totals()) as projector:
        assert await read_models.active_version("Total") == 1
        await projector.handle(events)
    async with projector_of(memory_store, read_models, newer) as projector:
        await projector.handle(events)
    assert await read_models.active_version("Total") == 1
    assert await read_models.row("Total", "deposit") == {"amount": "3", "count": 1}
    assert await read_models.row(newer, "a", version=2) == {"amount": "0", "count": -1}


async def test_readers_know_the_active_version_for_some_seconds(memory_store: MemoryEventStore) -> None:
    clock = ManualClock()
    read_models = MemoryReadModels(clock=clock)
    await projector_of(memory_store, read_models, totals()).handle(await append(memory_store, "a", deposit(3)))
    assert await read_models.row("Total", "deposit") is not None
    other = ReadModels(read_models.tables)
    assert await other.set_active_version("Total", 2, expected=1)
    assert await read_models.row("Total", "deposit") is not None
    await clock.advance(5)
    assert await read_models.row("Total", "deposit") is None


# ---------------------------------------------------------------------- personal data


class Backwards:
    """A cipher: marked data is stored backwards. What says so can be unreadable, or its key be out of reach."""

    broken = False

    async def protect(self, model: BaseModel, data: dict[str, Any], *, subject: str) -> dict[str, Any]:
        if isinstance(model, AccountCreated):
            return {**data, "customer_id": f"!{data['customer_id'][::-1]}"}
        return data

    async def reveal(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        if self.broken:
            raise StorageUnavailableError("no keys")
        if any(b"damaged" in payload for payload in payloads):
            raise PersonalDataError("customer_id is damaged")
        return [payload.replace(b'"!nna"', b'"ann"') for payload in payloads]


def customers() -> Projection[Note]:
    projection = Projection("Customers", Note, registry=registry)

    @projection.on(AccountCreated, key=lambda recorded: recorded.domain_event.customer_id)  # type: ignore[attr-defined]
    def created(row: Note | None, event: AccountCreated, recorded: RecordedEvent) -> Note:
        if event.customer_id == "bob":
            raise ValueError(event.customer_id)
        return Note(text=event.customer_id)

    return projection


async def test_personal_data_is_read_with_the_stores_cipher(read_models: MemoryReadModels) -> None:
    cipher = Backwards()
    store = MemoryEventStore(registry=registry, cipher=cipher)
    [event] = await append(store, "a", AccountCreated(customer_id="ann"))
    delivered = recorded_of(event.encoded, registry)
    assert b"ann" not in delivered.payload
    projection = customers()
    projector = projector_of(store, read_models, projection)
    cipher.broken = True
    [error] = await projector.handle([delivered])
    assert isinstance(error, StorageUnavailableError)
    cipher.broken = False
    assert await projector.handle([delivered]) == [None]
    assert rows_of(projection, read_models) == {"ann": {"text": "ann"}}


async def test_only_the_event_whose_personal_data_is_damaged_is_parked(read_models: MemoryReadModels) -> None:
    store = MemoryEventStore(registry=registry, cipher=Backwards())
    ann, bad = AccountCreated(customer_id="ann"), AccountCreated(customer_id="degamad")
    await append(store, "a", ann, ann, bad, ann)
    projection = customers()
    projector = projector_of(store, read_models, projection, after_poison="continue")
    await projector.catch_up("a")
    [parked] = [event async for event in projector.parked(projection)]
    assert (parked.position, parked.reason) == ("a@3", "customer_id is damaged")
    assert await read_models.checkpoint(projection, "a") == Checkpoint(4)


async def test_a_reason_says_nothing_that_may_be_personal(
    read_models: MemoryReadModels, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryEventStore(registry=registry, cipher=Backwards())
    await append(store, "a", AccountCreated(customer_id="bob"))
    projection: Projection[Note] = Projection("Customers", Note, registry=registry)

    @projection.on(AccountCreated)
    def created(row: Note | None, event: AccountCreated, recorded: RecordedEvent) -> Note:
        raise ValueError(event.customer_id)

    projector = projector_of(store, read_models, projection)
    await projector.catch_up("a")
    [parked] = [event async for event in projector.parked(projection)]
    assert parked.reason.startswith("ValueError (test_projector.py:")
    assert "bob" not in parked.reason
    assert "bob" not in caplog.text.replace("!bob", "")


# ---------------------------------------------------------------------- storage that refuses for good


async def test_what_storage_rejects_is_no_poison(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED)

    class Rejecting(Breaking):
        async def call(self, method: Any, *args: Any, **options: Any) -> Any:
            if method.__name__ == "commit" and len(args[0]) > 1:
                raise StorageRejectedError("no such table")
            return await method(*args, **options)

    await projector_of(memory_store, read_models, summaries()).open()
    store, seen = behind(Rejecting(), memory_store, read_models)
    projector = projector_of(store, seen, summaries())
    assert [type(error) for error in await projector.handle(events)] == [StorageRejectedError]
    assert waiting(read_models) == []


async def test_a_call_that_was_cancelled_inside_is_a_failure_of_its_events(
    memory_store: MemoryEventStore, read_models: MemoryReadModels
) -> None:
    events = await append(memory_store, "a", OPENED)

    class Cancelling(Breaking):
        async def call(self, method: Any, *args: Any, **options: Any) -> Any:
            if method.__name__ == "commit" and len(args[0]) > 1:
                raise asyncio.CancelledError
            return await method(*args, **options)

    await projector_of(memory_store, read_models, summaries()).open()
    store, seen = behind(Cancelling(), memory_store, read_models)
    assert [type(error) for error in await projector_of(store, seen, summaries()).handle(events)] == [
        StorageOutcomeUnknownError
    ]
