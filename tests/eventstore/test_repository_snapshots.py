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

from oms_events._aws.dynamodb import DynamoClient
from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
from oms_events.eventstore.aggregates.repository import RepositoryConfig
from oms_events.eventstore.aggregates.snapshots import MemorySnapshotStore, Snapshot
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoEventTable
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.schema import EVENT_STORE
from oms_events.eventstore.store import EventStore
from tests.eventstore.accounts import deposit, registry
from tests.eventstore.banking import (
    ACCOUNT,
    Account,
    AccountRepository,
    CountingTable,
    deposited,
    domain_events,
    dynamodb_snapshots,
    folded,
    sequences,
    store_on,
)
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings

EVERY_5 = RepositoryConfig(snapshot_every=5)


@pytest.fixture
async def dynamodb_kept(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBSnapshotStore]:
    async with dynamodb_snapshots(aws, dynamo) as store:
        yield store


@pytest.fixture
def kept() -> MemorySnapshotStore:
    return MemorySnapshotStore()


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


async def test_with_a_snapshot_loading_does_not_grow_with_history(kept: MemorySnapshotStore) -> None:
    table = CountingTable()
    store = store_on(table)
    accounts = AccountRepository(store, ACCOUNT, snapshots=kept)
    for length in (200, 600, 1_800):
        account = f"a-{length}"
        for start in range(0, length, 50):
            await store.append(account, [deposit()] * 50, expected_sequence=start)
        await accounts.load(account)
        for newer in (0, 1, 37):
            events = [deposit(3)] * newer
            last = await store.last_sequence(account)
            await store.append(account, events, expected_sequence=last)
            since_snapshot = last + newer - length
            table.items = table.calls = 0
            state, sequence = await accounts.load_with_sequence(account)
            assert state.balance == 10 * length + 3 * since_snapshot
            assert sequence == length + since_snapshot
            # The event of the snapshot is read too: it shows that the snapshot is of this history.
            assert (table.items, table.calls) == (1 + since_snapshot, 1)


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
                    executed = await accounts.execute("a", deposited(parts=25))
                before = table.items
                assert await accounts.load("a") == executed.state
                costs.add(table.items - before)
            assert executed.state == folded("a", await domain_events(store, "a"))
            assert await sequences(dynamodb_kept) == [300, 200, 100]
            assert costs == {1}


async def test_pages_are_folded_as_they_come() -> None:
    class SmallPages(CountingTable):
        async def read(self, aggregate_id: str, **options: Any) -> Any:
            return await super().read(aggregate_id, **{**options, "limit": 20})

    table = SmallPages()
    store = store_on(table)
    events = [deposit(amount) for amount in range(1_000)]
    for start in range(0, 1_000, 50):
        await store.append("a", events[start : start + 50], expected_sequence=start)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def evolve(state: Account, event: Any) -> Account:
        nonlocal most
        alive.add(event)
        most = max(most, len(alive))
        return ACCOUNT.evolve(state, event)

    watching = replace(ACCOUNT, evolve=evolve)
    state, sequence = await AccountRepository(store, watching).load_with_sequence("a")
    assert (state, sequence, table.calls) == (folded("a", events), 1_000, 50)
    assert 20 <= most <= 40


# ---------------------------------------------------------------------- whatever snapshots there are


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], set[int], dict[int, str], int | None]:
    """Amounts; the sequences of the snapshots that are there; what is wrong with some; the end of the load."""
    amounts = draw(st.lists(st.integers(1, 9), max_size=20))
    places = st.integers(1, max(1, len(amounts)))
    there = draw(st.sets(places, max_size=8))
    wrong = draw(
        st.dictionaries(
            st.integers(1, len(amounts) + 5), st.sampled_from(["version", "name", "state", "event"]), max_size=8
        )
    )
    return amounts, there, wrong, draw(st.none() | st.integers(0, len(amounts) + 3))


@settings(max_examples=60)
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
