from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, PrivateAttr

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError
from oms_events.eventstore.config import EventStoreConfig, SnapshotConfig
from oms_events.eventstore.dynamodb import DynamoEventTable
from oms_events.eventstore.dynamodb_snapshots import DynamoDBSnapshotStore
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.repository import Loaded, RepositoryConfig
from oms_events.eventstore.schema import EVENT_STORE, READ_MODEL, SNAPSHOTS
from oms_events.eventstore.snapshots import MemorySnapshotStore, Snapshot, SnapshotStore
from oms_events.eventstore.store import EventStore
from oms_events.instrumentation.hooks import Detail, SnapshotFailed
from tests.eventstore.accounts import TransactionProcessed, deposit, registry
from tests.eventstore.banking import (
    ACCOUNT,
    Account,
    AccountRepository,
    CountingTable,
    deposited,
    domain_events,
    folded,
    history,
    initial,
    withdrawn,
)
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings

EVERY_5 = RepositoryConfig(snapshot_every=5)


@pytest.fixture
def kept() -> MemorySnapshotStore:
    return MemorySnapshotStore()


@pytest.fixture
async def dynamodb_kept(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBSnapshotStore]:
    async with (
        fresh_table(dynamo, SNAPSHOTS, "snapshots") as name,
        DynamoDBSnapshotStore(SnapshotConfig(table_name=name, **aws)) as store,
    ):
        yield store


def counted(table: CountingTable | None = None) -> tuple[EventStore, CountingTable]:
    table = table or CountingTable()
    return EventStore(table, EventStoreConfig(table_name=table.name), registry=registry), table


async def sequences(kept: SnapshotStore, account_id: str = "a") -> list[int]:
    """Those of all snapshots, newest first."""
    found: list[int] = []
    while (one := await kept.latest(account_id, up_to=found[-1] - 1 if found else None)) is not None:
        found.append(one.sequence)
    return found


# ---------------------------------------------------------------------- when there is one


async def test_an_append_that_crosses_a_multiple_keeps_a_snapshot(
    memory_store: MemoryEventStore, kept: MemorySnapshotStore
) -> None:
    accounts = AccountRepository(memory_store, ACCOUNT, snapshots=kept, config=EVERY_5)
    for parts in (4, 1, 3, 1, 20, 1):
        executed = await accounts.execute("a", deposited(parts=parts))
    assert (executed.sequence, await sequences(kept)) == (30, [30, 29, 5])
    last = await kept.latest("a")
    assert last is not None
    assert (last.aggregate, last.version, last.event_id) == ("Account", 1, executed.events[-1].id)
    assert Account.model_validate_json(last.state) == executed.state
    assert await sequences(kept, "b") == []


async def test_by_default_there_is_one_every_hundred_events(
    memory_store: MemoryEventStore, kept: MemorySnapshotStore
) -> None:
    accounts = AccountRepository(memory_store, ACCOUNT, snapshots=kept)
    for _ in range(5):
        await accounts.execute("a", deposited(parts=45))
    assert await sequences(kept) == [225, 135]


@pytest.mark.parametrize("every", [0, None])
async def test_who_only_reads_writes_none(
    memory_store: MemoryEventStore, kept: MemorySnapshotStore, every: int | None
) -> None:
    class ReadOnly(MemorySnapshotStore):
        async def put(self, snapshot: Snapshot) -> None:
            pytest.fail("it must not write")

    accounts = AccountRepository(
        memory_store, ACCOUNT, snapshots=ReadOnly(), config=RepositoryConfig(snapshot_every=every)
    )
    for _ in range(3):
        await accounts.execute("a", deposited(parts=45))
    await accounts.load("a")


async def test_a_load_that_read_much_keeps_one(memory_store: MemoryEventStore, kept: MemorySnapshotStore) -> None:
    await memory_store.append("a", [deposit()] * 6, expected_sequence=0)
    await memory_store.append("b", [deposit()] * 5, expected_sequence=0)
    for config in (
        RepositoryConfig(snapshot_every=5, snapshot_on_load=False),
        RepositoryConfig(snapshot_every=6),
        RepositoryConfig(snapshot_every=None),
    ):
        await AccountRepository(memory_store, ACCOUNT, snapshots=kept, config=config).load("a")
    accounts = AccountRepository(memory_store, ACCOUNT, snapshots=kept, config=EVERY_5)
    # One of the past would be of use to nobody else.
    await accounts.load("a", up_to_sequence=6)
    await accounts.load("b")
    assert await sequences(kept) == await sequences(kept, "b") == []
    await accounts.load("a")
    assert await sequences(kept) == [6]
    await memory_store.append("a", [deposit()] * 5, expected_sequence=6)
    await accounts.load("a")
    assert await sequences(kept) == [6]


# ---------------------------------------------------------------------- what it saves


@pytest.mark.parametrize("newer", [0, 1, 37])
async def test_with_a_snapshot_loading_does_not_grow_with_history(kept: MemorySnapshotStore, newer: int) -> None:
    costs = set()
    for length in (100, 1_000, 4_000):
        store, table = counted()
        account = f"a-{length}"
        for start in range(0, length, 50):
            await store.append(account, [deposit()] * 50, expected_sequence=start)
        accounts = AccountRepository(store, ACCOUNT, snapshots=kept)
        await accounts.load(account)
        if newer:
            await store.append(account, [deposit(3)] * newer, expected_sequence=length)
        table.items = table.calls = 0
        state, sequence = await accounts.load_with_sequence(account)
        assert (state.balance, sequence) == (Decimal(10 * length + 3 * newer), length + newer)
        costs.add((table.items, table.calls))
    # The event of the snapshot is read too: it shows that the snapshot is of this history.
    assert costs == {(newer + 1, 1)}


class CountingDynamoTable(DynamoEventTable):
    items = 0

    async def read(self, aggregate_id: str, **options: Any) -> ItemPage:
        page = await super().read(aggregate_id, **options)
        self.items += len(page.items)
        return page


async def test_with_a_snapshot_loading_does_not_grow_on_dynamodb(
    aws: Settings, dynamo: DynamoClient, dynamodb_kept: DynamoDBSnapshotStore
) -> None:
    async with fresh_table(dynamo, EVENT_STORE, "event-store") as name:
        config = EventStoreConfig(table_name=name, **aws)
        table = CountingDynamoTable(config, name, EVENT_STORE)
        async with EventStore(table, config, registry=registry) as store:
            accounts = AccountRepository(store, ACCOUNT, snapshots=dynamodb_kept)
            costs = set()
            for _ in range(3):
                for _ in range(4):
                    executed = await accounts.execute("a", deposited(parts=40))
                before = table.items
                assert await accounts.load("a") == executed.state
                costs.add(table.items - before)
            assert executed.state == folded("a", await domain_events(store, "a"))
            assert await sequences(dynamodb_kept) == [480, 400, 320, 200, 120]
            # From the last snapshot on, its own event included: 120 or 200 to 160, to 320, and to 480.
            assert costs == {41, 1}


async def test_pages_are_folded_as_they_come() -> None:
    class SmallPages(CountingTable):
        async def read(self, aggregate_id: str, **options: Any) -> Any:
            return await super().read(aggregate_id, **{**options, "limit": 20})

    store, table = counted(SmallPages())
    for start in range(0, 1_000, 50):
        await store.append("a", [deposit()] * 50, expected_sequence=start)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Watched(BaseModel, frozen=True):
        count: int = 0

    def evolve(state: Watched, event: TransactionProcessed) -> Watched:
        nonlocal most
        alive.add(_Held(event))
        most = max(most, len(alive))
        return Watched(count=state.count + 1)

    class _Held:
        """Lives as long as the event that has it."""

        def __init__(self, event: TransactionProcessed) -> None:
            object.__setattr__(event, "_held", self)

    watched = replace(ACCOUNT, state=Watched, initial=lambda account_id: Watched(), evolve=evolve)  # type: ignore[arg-type]
    loaded = await AccountRepository(store, watched).load_with_sequence("a")
    assert loaded == Loaded(Watched(count=1_000), 1_000)  # type: ignore[comparison-overlap]
    assert table.calls >= 50
    assert 20 <= most <= 40


# ---------------------------------------------------------------------- what is not used


async def with_history(length: int = 12) -> tuple[EventStore, CountingTable, Account]:
    store, table = counted()
    await store.append("a", [deposit(amount) for amount in range(1, length + 1)], expected_sequence=0)
    table.items = 0
    return store, table, folded("a", await domain_events(store, "a"))


async def real_snapshot(store: EventStore, sequence: int) -> Snapshot:
    """The one that a repository keeps at a sequence."""
    kept = MemorySnapshotStore()
    events = await history(store, "a")
    state = folded("a", [event.domain_event for event in events[:sequence]])
    snapshot = Snapshot(
        aggregate_id="a",
        sequence=sequence,
        event_id=events[sequence - 1].id,
        aggregate="Account",
        version=1,
        state=state.model_dump_json().encode(),
        time=events[0].time,
    )
    await kept.put(snapshot)
    assert await AccountRepository(store, ACCOUNT, snapshots=kept).load("a", up_to_sequence=sequence) == state
    return snapshot


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"aggregate": "Customer"}, "it is of Customer version 1, and so may be others"),
        ({"version": 2}, "it is of Account version 2, and so may be others"),
        ({"state": b"{"}, "it does not fit Account: state: Invalid JSON"),
        ({"state": b'{"account_id":"a","balance":"much"}'}, "it does not fit Account: balance: Input should"),
        ({"state": b"\xff"}, "it does not fit Account: state: Invalid JSON"),
        ({"event_id": "another"}, "the history has another event there, or none"),
        ({"sequence": 13}, "the history has another event there, or none"),
        ({"sequence": 2_000}, "the history has another event there, or none"),
    ],
)
async def test_a_snapshot_that_does_not_fit_is_ignored(
    kept: MemorySnapshotStore, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], why: str
) -> None:
    store, _, state = await with_history()
    bad = replace(await real_snapshot(store, 9), **wrong)
    # What it says is wrong, so that it would show.
    await kept.put(bad if "state" in wrong else replace(bad, state=initial("x").model_dump_json().encode()))
    accounts = AccountRepository(store, ACCOUNT, snapshots=kept, config=EVERY_5)
    assert await accounts.load("a") == state
    assert f"the snapshot of 'a' at {bad.sequence} is ignored: {why}" in caplog.text
    assert (await accounts.execute("a", withdrawn(5))).sequence == 13
    assert await accounts.load("a", up_to_sequence=11) == folded("a", (await domain_events(store, "a"))[:11])


async def test_an_older_one_that_fits_is_used_instead(kept: MemorySnapshotStore) -> None:
    store, table, state = await with_history()
    good = await real_snapshot(store, 6)
    await kept.put(good)
    await kept.put(replace(good, sequence=11, version=2))
    await kept.put(replace(good, sequence=500, event_id="gone"))
    table.items = 0
    accounts = AccountRepository(store, ACCOUNT, snapshots=kept, config=RepositoryConfig(snapshot_every=None))
    assert await accounts.load("a") == state
    assert table.items == 7


async def test_it_does_not_look_at_all_that_do_not_fit(kept: MemorySnapshotStore) -> None:
    store, _, state = await with_history()
    looks = 0

    class Counted(MemorySnapshotStore):
        async def latest(self, aggregate_id: str, *, up_to: int | None = None) -> Snapshot | None:
            nonlocal looks
            looks += 1
            return await super().latest(aggregate_id, up_to=up_to)

    counting = Counted()
    for sequence in range(1, 13):
        await counting.put(replace(await real_snapshot(store, sequence), version=7))
    accounts = AccountRepository(store, ACCOUNT, snapshots=counting, config=EVERY_5)
    assert await accounts.load("a") == state
    assert looks == 3
    # Now there is one that fits.
    assert await accounts.load("a") == state
    assert looks == 4


async def test_after_the_version_was_raised_it_is_said_once_and_mended(
    kept: MemorySnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, table, state = await with_history()
    for account in "bcd":
        await store.append(account, [deposit()] * 12, expected_sequence=0)
    old = AccountRepository(store, ACCOUNT, snapshots=kept, config=EVERY_5)
    new = AccountRepository(
        store, replace(ACCOUNT, snapshot_version=2), snapshots=kept, config=RepositoryConfig(snapshot_every=10)
    )
    for account in "abcd":
        await old.load(account)
    for account in "abcd":
        await new.load(account)
    assert caplog.text.count("is ignored: it is of Account version 1, and so may be others") == 1
    table.items = 0
    assert await new.load("a") == state
    assert table.items == 1


async def test_after_a_restore_to_an_earlier_time_states_are_right_and_snapshots_mend(
    kept: MemorySnapshotStore,
) -> None:
    lost, _, _ = await with_history(23)
    restored = MemoryEventStore(registry=registry)
    # The first seven events of the same history, with their ids.
    restored.table._aggregates["a"] = {  # type: ignore[attr-defined]
        sequence: item
        for sequence, item in lost.table._aggregates["a"].items()  # type: ignore[attr-defined]
        if sequence <= 7
    }
    for sequence in (5, 10, 15, 20):
        await kept.put(await real_snapshot(lost, sequence))
    accounts = AccountRepository(restored, ACCOUNT, snapshots=kept, config=EVERY_5)
    assert await accounts.load("a") == folded("a", map(deposit, range(1, 8)))
    for length in (8, 9, 10, 11, 12, 16, 21, 30):
        while (await accounts.load_with_sequence("a")).sequence < length:
            await accounts.execute("a", withdrawn(1))
        events = await domain_events(restored, "a")
        for up_to in range(length + 1):
            assert await accounts.load("a", up_to_sequence=up_to) == folded("a", events[:up_to])


# ---------------------------------------------------------------------- what goes wrong


async def test_when_a_snapshot_cannot_be_kept_the_command_was_carried_out_all_the_same(
    memory_store: MemoryEventStore,
    dynamodb_kept: DynamoDBSnapshotStore,
    dynamo: DynamoClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    details: list[Detail] = []
    accounts = AccountRepository(
        memory_store, ACCOUNT, snapshots=dynamodb_kept, config=EVERY_5, hooks=[details.append]
    )
    await accounts.execute("a", deposited())
    name = dynamodb_kept.name
    await dynamo.call("DeleteTable", {"TableName": name}, table=name)
    try:
        executed = await accounts.execute("a", deposited(parts=4))
        assert executed.sequence == 5
        assert await accounts.load("a") == executed.state
    finally:
        await dynamodb_kept.create()
    failed = [detail for detail in details if isinstance(detail, SnapshotFailed)]
    assert [detail.aggregate_id for detail in failed] == ["a"] * 3
    assert "the snapshot at 5 was not kept: PutItem" in failed[1].reason
    assert "no snapshot could be read: Query" in failed[2].reason
    assert "aggregate 'a': the snapshot at 5 was not kept" in caplog.text


async def test_a_table_that_cannot_be_of_snapshots_is_told(
    memory_store: MemoryEventStore, aws: Settings, dynamo: DynamoClient
) -> None:
    async with fresh_table(dynamo, READ_MODEL, "no-snapshots") as name:
        snapshots = DynamoDBSnapshotStore(SnapshotConfig(table_name=name, **aws))
        accounts = AccountRepository(memory_store, ACCOUNT, snapshots=snapshots)
        with pytest.raises(ConfigurationError, match=r"its keys are"):
            await accounts.execute("a", deposited())
        assert await history(memory_store, "a") == []


async def test_an_item_that_is_no_snapshot_is_ignored(
    memory_store: MemoryEventStore, dynamodb_kept: DynamoDBSnapshotStore, dynamo: DynamoClient
) -> None:
    details: list[Detail] = []
    name, item = dynamodb_kept.name, {"AggregateId": {"S": "a"}, "EventSequence": {"N": "1"}}
    await dynamo.call("PutItem", {"TableName": name, "Item": item}, table=name)
    accounts = AccountRepository(
        memory_store, ACCOUNT, snapshots=dynamodb_kept, config=EVERY_5, hooks=[details.append]
    )
    assert (await accounts.execute("a", deposited())).sequence == 1
    (failed,) = (detail for detail in details if isinstance(detail, SnapshotFailed))
    assert failed.reason == "no snapshot could be read: the item has no attribute 'EventId'"


async def test_a_state_that_does_not_survive_json_is_not_kept(
    memory_store: MemoryEventStore, kept: MemorySnapshotStore
) -> None:
    class Counter(BaseModel):
        total: Decimal = Decimal(0)
        _calls: int = PrivateAttr(default=0)

    def evolve(state: Counter, event: TransactionProcessed) -> Counter:
        after = Counter(total=state.total + event.amount)
        after._calls = state._calls + 1
        return after

    details: list[Detail] = []
    aggregate: Any = replace(ACCOUNT, state=Counter, initial=lambda _: Counter(), evolve=evolve)  # type: ignore[arg-type]
    await memory_store.append("a", [deposit()] * 6, expected_sequence=0)
    accounts = AccountRepository(memory_store, aggregate, snapshots=kept, config=EVERY_5, hooks=[details.append])
    state: Any = await accounts.load("a")
    assert state._calls == 6
    (failed,) = details
    assert isinstance(failed, SnapshotFailed)
    assert failed.reason.startswith(
        "the snapshot at 6 was not kept: Counter is another after it was written as JSON"
    )
    assert await sequences(kept) == []


# ---------------------------------------------------------------------- whatever snapshots there are


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], set[int], dict[int, str], int | None]:
    """Amounts; the sequences of the snapshots that are there; what is wrong with some; the end of the load."""
    amounts = draw(st.lists(st.integers(1, 9), max_size=30))
    places = st.integers(1, max(1, len(amounts)))
    there = draw(st.sets(places, max_size=8))
    wrong = draw(
        st.dictionaries(
            st.integers(1, len(amounts) + 5), st.sampled_from(["version", "name", "state", "event"]), max_size=8
        )
    )
    return amounts, there, wrong, draw(st.none() | st.integers(0, len(amounts) + 3))


@settings(max_examples=150)
@given(histories(), st.integers(0, 7), st.booleans())
def test_a_state_is_the_fold_of_all_events_whatever_snapshots_there_are(
    drawn: tuple[list[int], set[int], dict[int, str], int | None], every: int, on_load: bool
) -> None:
    amounts, there, wrong, up_to = drawn

    async def check() -> None:
        kept, events = MemorySnapshotStore(), [deposit(amount) for amount in amounts]
        store = MemoryEventStore(registry=registry)
        # Snapshots at all places, as a repository keeps them; then all but some are deleted.
        always = AccountRepository(store, ACCOUNT, snapshots=kept, config=RepositoryConfig(snapshot_every=1))
        for amount in amounts:
            await always.execute("a", deposited(amount))
        assert await sequences(kept) == list(range(len(amounts), 0, -1))
        for sequence in range(1, len(amounts) + 1):
            if sequence not in there:
                kept.delete("a", sequence)
        for sequence, what in wrong.items():
            await kept.put(spoiled(sequence, what))
        config = RepositoryConfig(snapshot_every=every, snapshot_on_load=on_load)
        accounts = AccountRepository(store, ACCOUNT, snapshots=kept, config=config)
        end = len(amounts) if up_to is None else min(up_to, len(amounts))
        for _ in range(2):
            loaded = await accounts.load_with_sequence("a", up_to_sequence=up_to)
            assert loaded == (folded("a", events[:end]), end)
        executed = await accounts.execute("a", deposited(7))
        assert executed.state == folded("a", [*events, deposit(7)]) == await accounts.load("a")

    asyncio.run(check())


def spoiled(sequence: int, what: str) -> Snapshot:
    state = Account(account_id="a", balance=Decimal(-1)).model_dump_json().encode()
    return Snapshot(
        aggregate_id="a",
        sequence=sequence,
        event_id="another",
        aggregate="Customer" if what == "name" else "Account",
        version=2 if what == "version" else 1,
        state=b"[]" if what == "state" else state,
        time=datetime(2026, 1, 31, tzinfo=UTC),
    )
