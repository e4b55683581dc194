"""Snapshots that do not fit, cannot be read or cannot be kept: states are right all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, PrivateAttr, model_validator

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError, PersonalDataError
from oms_events.eventstore.aggregates.aggregate import Aggregate
from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
from oms_events.eventstore.aggregates.repository import Repository, RepositoryConfig
from oms_events.eventstore.aggregates.snapshots import MemorySnapshotStore, Snapshot
from oms_events.eventstore.config import SnapshotConfig
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import READ_MODEL
from oms_events.eventstore.store import EventStore
from oms_events.instrumentation.hooks import Detail, SnapshotFailed
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
    history,
    initial,
    sequences,
    store_on,
    withdrawn,
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


# ---------------------------------------------------------------------- what is not used


async def with_history(length: int = 12) -> tuple[EventStore, CountingTable, Account]:
    table = CountingTable()
    store = store_on(table)
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


class Fussy(Account):
    """A later state, whose validation fails on earlier ones as it should not."""

    @model_validator(mode="before")
    @classmethod
    def _joined(cls, data: Any) -> Any:
        raise KeyError(f"secret of {data['account_id']}")


async def test_a_validator_that_fails_on_an_older_snapshot_stops_no_load(
    kept: MemorySnapshotStore, caplog: pytest.LogCaptureFixture
) -> None:
    store, _, state = await with_history()
    await kept.put(await real_snapshot(store, 9))
    fussy: Aggregate[Account, Any, Any] = Aggregate(
        name="Account",
        state=Fussy,
        initial=lambda account_id: Fussy.model_construct(account_id=account_id),
        decide=ACCOUNT.decide,
        evolve=ACCOUNT.evolve,
    )
    loaded = await Repository(store, fussy, snapshots=kept, config=EVERY_5).load("a")
    assert dict(loaded) == dict(state)
    assert "it does not fit Fussy: its validation failed with KeyError" in caplog.text
    assert "secret" not in caplog.text


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


async def test_nobody_waits_long_for_a_snapshot(memory_store: MemoryEventStore) -> None:
    class Stuck(MemorySnapshotStore):
        async def put(self, snapshot: Snapshot) -> None:
            await asyncio.Event().wait()

    details: list[Detail] = []
    config = RepositoryConfig(snapshot_every=5, snapshot_timeout=0.01)
    accounts = AccountRepository(memory_store, ACCOUNT, snapshots=Stuck(), config=config, hooks=[details.append])
    assert (await accounts.execute("a", deposited(parts=6))).sequence == 6
    assert (await accounts.load_with_sequence("a")).sequence == 6
    reasons = [detail.reason for detail in details if isinstance(detail, SnapshotFailed)]
    assert reasons == ["the snapshot at 6 was not kept in 0.01 s"] * 2


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

    def evolve(state: Any, event: Any) -> Any:
        after = Counter(total=state.total + event.amount)
        after._calls = state._calls + 1
        return after

    details: list[Detail] = []
    aggregate: Any = Aggregate[Any, Any, Any](
        name="Counter", state=Counter, initial=lambda _: Counter(), decide=ACCOUNT.decide, evolve=evolve
    )
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


# ---------------------------------------------------------------------- personal data


people = EventRegistry()


@people.event
class Registered(BaseModel, frozen=True):
    name: Annotated[str, Personal()]


class Person(BaseModel, frozen=True):
    name: Annotated[str, Personal()] = ""
    events: int = 0


PERSON = Aggregate[Person, Registered, Registered](
    name="Person",
    state=Person,
    initial=lambda person_id: Person(),
    decide=lambda person, command: [command] * 3,
    evolve=lambda person, event: Person(name=event.name, events=person.events + 1),
)


async def test_personal_data_in_states_is_encrypted_and_can_be_forgotten(kept: MemorySnapshotStore) -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys())
    store = MemoryEventStore(registry=people, cipher=cipher)
    persons = Repository(store, PERSON, snapshots=kept, config=EVERY_5)
    for _ in range(2):
        executed = await persons.execute("p", Registered(name="Ann Smith"))
    assert executed.state == Person(name="Ann Smith", events=6)
    snapshot = await kept.latest("p")
    assert snapshot is not None
    assert b"Ann" not in snapshot.state
    assert await persons.load("p") == executed.state

    await cipher.forget("p")
    assert await persons.load("p") == Person(name="[forgotten]", events=6)
    with pytest.raises(PersonalDataError, match=r"was forgotten"):
        await persons.execute("p", Registered(name="Ann Smith"))
    await persons.execute("p", Registered(name="[forgotten]"))
    await persons.execute("p", Registered(name="[forgotten]"))
    assert await sequences(kept, "p") == [12, 6]
    assert await persons.load("p") == Person(name="[forgotten]", events=12)


async def test_a_command_of_a_forgotten_person_is_still_known() -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys())
    persons = Repository(MemoryEventStore(registry=people, cipher=cipher), PERSON)
    await persons.execute("p", Registered(name="Ann"), command_id="c")
    await cipher.forget("p")
    again = await persons.execute("p", Registered(name="Ann"), command_id="c")
    assert (again.replayed, len(again.events), again.state) == (True, 3, Person(name="[forgotten]", events=3))


async def test_a_state_that_cannot_be_revealed_is_made_of_events(kept: MemorySnapshotStore) -> None:
    details: list[Detail] = []
    cipher = PersonalDataCipher(MemorySubjectKeys())
    store = MemoryEventStore(registry=people, cipher=cipher)
    persons = Repository(store, PERSON, snapshots=kept, config=EVERY_5, hooks=[details.append])
    for _ in range(2):
        executed = await persons.execute("p", Registered(name="Ann Smith"))
    snapshot = await kept.latest("p")
    assert snapshot is not None
    await kept.put(replace(snapshot, state=snapshot.state.replace(b'"c":"', b'"c":"AAAA')))
    details.clear()
    assert await persons.load("p") == executed.state
    (failed,) = details
    assert isinstance(failed, SnapshotFailed)
    assert "the snapshot at 6 could not be read" in failed.reason
