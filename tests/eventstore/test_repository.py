from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import (
    CommandRejectedError,
    ConcurrencyError,
    ConditionFailedError,
    ConfigurationError,
    EventUnreadableError,
    InvalidEventError,
    RequestError,
)
from oms_events.eventstore.aggregates.aggregate import Aggregate
from oms_events.eventstore.aggregates.repository import Executed, Loaded, Repository, RepositoryConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.items import event_key
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.schema import READ_MODEL
from oms_events.eventstore.store import EventStore
from oms_events.instrumentation.hooks import AppendConflict, Appended, Detail
from tests.eventstore.accounts import deposit, registry
from tests.eventstore.banking import (
    ACCOUNT,
    Account,
    AccountRepository,
    CloseAccount,
    InterruptedTable,
    OpenAccount,
    QuickClock,
    appending,
    deposited,
    domain_events,
    folded,
    history,
    initial,
    store_on,
    withdrawn,
)
from tests.eventstore.support import dynamodb_event_store, fresh_table
from tests.outbox.support import Settings

CROWD = 50
PATIENT = RepositoryConfig(attempts=200)
"""On a slow machine each of a crowd may be overtaken more often than usual."""


@pytest.fixture(params=["memory", "dynamodb"])
def store(request: pytest.FixtureRequest) -> EventStore:
    found: EventStore = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def accounts(store: EventStore) -> AccountRepository:
    return AccountRepository(store, ACCOUNT)


@pytest.fixture
def table() -> InterruptedTable:
    return InterruptedTable()


@pytest.fixture
def interrupted(table: InterruptedTable) -> EventStore:
    return store_on(table)


# ---------------------------------------------------------------------- mistakes in the functions


def evolving(evolve: Any, store: EventStore) -> Repository[Any, Any, Any]:
    aggregate: Aggregate[Any, Any, Any] = replace(ACCOUNT, evolve=evolve)
    return Repository(store, aggregate)


async def test_nothing_is_stored_when_evolve_gives_no_state(memory_store: MemoryEventStore) -> None:
    for given in (None, {"balance": 1}):
        text = f"'Account': `evolve` gave {type(given).__name__} for TransactionProcessed: give the state"
        with pytest.raises(ConfigurationError, match=text) as caught:
            await evolving(lambda state, event, given=given: given, memory_store).execute("a", deposited())
        assert caught.value.__notes__ == ["command Deposit on Account a@0"]
    assert await memory_store.last_sequence("a") == 0


async def test_a_failure_says_where_it_was(memory_store: MemoryEventStore) -> None:
    await memory_store.append("a", [deposit(), deposit()], expected_sequence=0)

    def failing(state: Account, event: Any) -> Account:
        raise KeyError("gone")

    with pytest.raises(KeyError) as caught:
        await evolving(failing, memory_store).load("a")
    assert caught.value.__notes__ == ["`evolve` of Account was given TransactionProcessed", "at event a@1"]
    with pytest.raises(ConfigurationError, match="`evolve` gave NoneType") as told:
        await evolving(lambda state, event: None, memory_store).load("a")
    assert told.value.__notes__ == ["at event a@1"]
    aggregate: Aggregate[Any, Any, Any] = replace(ACCOUNT, decide=failing)  # type: ignore[arg-type]
    with pytest.raises(KeyError) as caught:
        await Repository(memory_store, aggregate).execute("a", deposited())
    assert caught.value.__notes__ == ["command Deposit on Account a@2"]


# ---------------------------------------------------------------------- loading


async def test_an_aggregate_without_events_has_its_initial_state(accounts: AccountRepository) -> None:
    assert await accounts.load("a") == initial("a")
    assert await accounts.load_with_sequence("a", up_to_sequence=7) == Loaded(initial("a"), 0)


async def test_loads_the_state_now_and_after_each_event(store: EventStore, accounts: AccountRepository) -> None:
    events = [deposit(amount) for amount in range(1, 8)]
    await store.append("a", events, expected_sequence=0)
    await store.append("ab", [deposit()], expected_sequence=0)
    assert await accounts.load("a") == folded("a", events)
    for up_to in range(10):
        state, sequence = await accounts.load_with_sequence("a", up_to_sequence=up_to)
        assert (state, sequence) == (folded("a", events[:up_to]), min(up_to, 7))


@pytest.mark.parametrize("up_to", [-1, True, 1.0, "3"])
async def test_what_is_no_sequence_is_refused(memory_store: MemoryEventStore, up_to: Any) -> None:
    with pytest.raises(RequestError, match=r"up_to_sequence = .*: give the sequence of an event") as caught:
        await AccountRepository(memory_store, ACCOUNT).load("a", up_to_sequence=up_to)
    assert caught.value.field == "up_to_sequence"


@pytest.mark.parametrize("aggregate_id", ["", "command#1", None, "x" * 901])
async def test_what_is_no_aggregate_is_refused(memory_store: MemoryEventStore, aggregate_id: Any) -> None:
    accounts = AccountRepository(memory_store, ACCOUNT)
    with pytest.raises(InvalidEventError, match=r"aggregate_id"):
        await accounts.load(aggregate_id, up_to_sequence=0)
    with pytest.raises(InvalidEventError, match=r"aggregate_id"):
        await accounts.execute(aggregate_id, deposited())


async def test_nothing_is_decided_on_a_history_with_a_gap(aws: Settings, dynamo: DynamoClient) -> None:
    async with dynamodb_event_store(aws, dynamo, clock=QuickClock()) as store:
        await store.append("a", [deposit()] * 5, expected_sequence=0)
        name = store.table.name
        await dynamo.call("DeleteItem", {"TableName": name, "Key": event_key("a", 3)}, table=name)
        accounts = AccountRepository(store, ACCOUNT)
        with pytest.raises(EventUnreadableError, match=r"a@3: the event is missing"):
            await accounts.execute("a", deposited())
        assert await accounts.load("a", up_to_sequence=2) == folded("a", [deposit()] * 2)


# ---------------------------------------------------------------------- commands


async def test_a_command_leads_to_events_and_a_state(store: EventStore, accounts: AccountRepository) -> None:
    first = await accounts.execute("a", OpenAccount(customer_id="c"))
    second = await accounts.execute("a", deposited(5, parts=3))
    assert [event.domain_event for event in second.events] == [deposit(5)] * 3
    assert (first.sequence, second.sequence, second.replayed) == (1, 4, False)
    assert second.state == folded("a", await domain_events(store, "a")) == await accounts.load("a")
    assert [event.id for event in [*first.events, *second.events]] == [e.id for e in await history(store, "a")]


async def test_a_refused_command_leaves_nothing(store: EventStore, accounts: AccountRepository) -> None:
    with pytest.raises(CommandRejectedError) as caught:
        await accounts.execute("a", withdrawn(), command_id="w")
    assert caught.value.code == "INSUFFICIENT_FUNDS"
    assert await history(store, "a") == []
    await accounts.execute("a", deposited())
    # A refusal is not remembered: now there is enough.
    assert (await accounts.execute("a", withdrawn(), command_id="w")).state.balance == 0


@pytest.mark.parametrize(
    ("given", "correlation", "causation"),
    [
        ({}, None, None),
        ({"command_id": "c"}, "c", "c"),
        ({"command_id": "c", "correlation_id": "order-1"}, "order-1", "c"),
        ({"command_id": "c", "causation_id": "e-1"}, "c", "e-1"),
        ({"correlation_id": "order-1", "causation_id": "e-1"}, "order-1", "e-1"),
    ],
)
async def test_events_say_what_caused_them(
    memory_store: MemoryEventStore, given: dict[str, str], correlation: str | None, causation: str | None
) -> None:
    await AccountRepository(memory_store, ACCOUNT).execute("a", deposited(), **given)  # type: ignore[arg-type]
    (event,) = await history(memory_store, "a")
    found = event.encoded.attributes
    assert (found.get("correlationid"), found.get("causationid")) == (correlation, causation)


async def test_without_events_and_id_nothing_is_stored(interrupted: EventStore, table: InterruptedTable) -> None:
    accounts = AccountRepository(interrupted, ACCOUNT)
    await accounts.execute("a", CloseAccount())

    async def unexpected() -> None:
        pytest.fail("nothing was to be stored")

    table.before = [unexpected]
    assert await accounts.execute("a", CloseAccount()) == Executed((), 1, await accounts.load("a"))


async def test_an_event_that_the_state_cannot_take_is_never_stored(memory_store: MemoryEventStore) -> None:
    def broken(state: Account, event: Any) -> Account:
        raise LookupError(f"no rule for {type(event).__name__}")

    accounts = AccountRepository(memory_store, replace(ACCOUNT, evolve=broken))
    with pytest.raises(LookupError, match=r"no rule for TransactionProcessed"):
        await accounts.execute("a", deposited())
    assert await history(memory_store, "a") == []


async def test_hooks_are_told_of_appends_and_conflicts(interrupted: EventStore, table: InterruptedTable) -> None:
    details: list[Detail] = []
    accounts = AccountRepository(interrupted, ACCOUNT, hooks=[details.append], clock=QuickClock())
    table.before = [appending(interrupted)]
    await accounts.execute("a", deposited(parts=3), command_id="c")
    await accounts.execute("a", deposited(parts=3), command_id="c")
    conflict, appended = details
    assert conflict == AppendConflict(1)
    assert isinstance(appended, Appended)
    assert appended.events == 3
    assert 0 < appended.seconds < 5


async def test_own_writes_are_in_the_same_transaction(
    dynamodb_store: DynamoDBEventStore, dynamo: DynamoClient
) -> None:
    accounts = AccountRepository(dynamodb_store, ACCOUNT)
    async with fresh_table(dynamo, READ_MODEL, "business") as business:
        key = {"AccountId": {"S": "a"}, "ProjectionType": {"S": "card"}}
        condition = "attribute_not_exists(AccountId)"
        put = {"Put": {"TableName": business, "Item": key, "ConditionExpression": condition}}
        await accounts.execute("a", deposited(), actions=[put], command_id="c")
        assert "Item" in await dynamo.call("GetItem", {"TableName": business, "Key": key}, table=business)
        with pytest.raises(ConditionFailedError):
            await accounts.execute("a", deposited(), actions=[put])
        assert len(await history(dynamodb_store, "a")) == 1
        # Its condition fails the second time, but then the command was carried out before.
        assert (await accounts.execute("a", deposited(), actions=[put], command_id="c")).replayed


# ---------------------------------------------------------------------- conflicts


async def test_decides_anew_on_what_others_left(interrupted: EventStore, table: InterruptedTable) -> None:
    accounts = AccountRepository(interrupted, ACCOUNT, clock=QuickClock())
    await accounts.execute("a", deposited(10))

    async def withdraw() -> None:
        await AccountRepository(interrupted, ACCOUNT).execute("a", withdrawn(6))

    table.before = [withdraw]
    with pytest.raises(CommandRejectedError, match=r"not enough money"):
        await accounts.execute("a", withdrawn(6))
    table.before = [withdraw_less := appending(interrupted, deposit(1)), withdraw_less]
    executed = await accounts.execute("a", withdrawn(4))
    assert (executed.sequence, executed.state.balance) == (5, Decimal(2))
    assert executed.state == await accounts.load("a")


async def test_after_a_conflict_only_the_newer_events_are_read(
    interrupted: EventStore, table: InterruptedTable
) -> None:
    await interrupted.append("a", [deposit()] * 80, expected_sequence=0)
    accounts = AccountRepository(interrupted, ACCOUNT, clock=QuickClock())
    table.before = [appending(interrupted)] * 3
    table.items = 0
    await accounts.execute("a", deposited())
    # Each of the three others looks for the end, and so does each refused append: one item for each.
    assert table.items - 2 * 3 == 80 + 3


@pytest.mark.parametrize("attempts", [1, 2, 10])
async def test_gives_up_after_its_attempts(
    interrupted: EventStore, table: InterruptedTable, attempts: int
) -> None:
    clock = QuickClock()
    config = RepositoryConfig(attempts=attempts)
    accounts = AccountRepository(interrupted, ACCOUNT, config=config, clock=clock)
    table.before = [appending(interrupted)] * (attempts + 5)
    with pytest.raises(ConcurrencyError) as caught:
        await accounts.execute("a", deposited(), command_id="c")
    assert (caught.value.expected, caught.value.actual) == (attempts - 1, attempts)
    assert len(table.before) == 5
    longest = [min(1.0, 0.02 * 2**n) for n in range(attempts - 1)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(clock.slept, longest, strict=True))
    assert await interrupted.marker("a", "c") is None


async def test_pauses_have_jitter(interrupted: EventStore, table: InterruptedTable) -> None:
    clocks = [QuickClock(), QuickClock()]
    for clock in clocks:
        table.before = [appending(interrupted)] * 3
        await AccountRepository(interrupted, ACCOUNT, clock=clock).execute("a", deposited())
    assert clocks[0].slept != clocks[1].slept


async def test_who_says_what_it_decided_on_is_told_at_once(
    interrupted: EventStore, table: InterruptedTable
) -> None:
    clock = QuickClock()
    accounts = AccountRepository(interrupted, ACCOUNT, clock=clock)
    assert (await accounts.execute("a", deposited(parts=2), expected_sequence=0, command_id="c")).sequence == 2
    for expected in (0, 1, 3):
        with pytest.raises(ConcurrencyError) as caught:
            await accounts.execute("a", deposited(), expected_sequence=expected, command_id="d")
        assert (caught.value.expected, caught.value.actual) == (expected, 2)
    table.before = [appending(interrupted)]
    with pytest.raises(ConcurrencyError) as caught:
        await accounts.execute("a", deposited(), expected_sequence=2)
    assert (caught.value.expected, caught.value.actual) == (2, 3)
    assert (clock.slept, await interrupted.marker("a", "d")) == ([], None)
    # The same command again: it was carried out on that sequence.
    again = await accounts.execute("a", deposited(parts=2), expected_sequence=0, command_id="c")
    assert (again.replayed, len(again.events), again.sequence) == (True, 2, 3)


@pytest.mark.parametrize("expected", [-1, True, "2", 1.0])
async def test_what_is_no_expectation_is_refused(memory_store: MemoryEventStore, expected: Any) -> None:
    accounts = AccountRepository(memory_store, ACCOUNT)
    with pytest.raises(
        InvalidEventError, match=r"expected_sequence = .*: give the sequence of the aggregate's last"
    ):
        await accounts.execute("a", deposited(), expected_sequence=expected)


async def test_a_history_that_became_shorter_is_read_anew(
    dynamodb_store: DynamoDBEventStore, dynamo: DynamoClient
) -> None:
    """As after the table was restored while a command was under way."""
    await dynamodb_store.append("a", [deposit(amount) for amount in range(1, 6)], expected_sequence=0)
    name = dynamodb_store.table.name

    class Restored(DynamoDBEventStore):
        appends = 0

        async def append(self, *given: Any, **options: Any) -> Any:
            self.appends += 1
            for sequence in (5, 4) if self.appends == 1 else ():
                await dynamo.call("DeleteItem", {"TableName": name, "Key": event_key("a", sequence)}, table=name)
            return await super().append(*given, **options)

    async with Restored(dynamodb_store.config, registry=registry) as restored:
        accounts = AccountRepository(restored, ACCOUNT, clock=QuickClock())
        executed = await accounts.execute("a", deposited(7))
        assert (executed.sequence, restored.appends) == (4, 2)
        assert executed.state == folded("a", map(deposit, (1, 2, 3, 7))) == await accounts.load("a")


async def test_many_deposits_at_once_all_take_effect_exactly_once(store: EventStore) -> None:
    repositories = [AccountRepository(store, ACCOUNT, config=PATIENT) for _ in range(5)]
    executed = await asyncio.gather(
        *(repositories[n % 5].execute("a", deposited(n)) for n in range(1, CROWD + 1)),
        *(repositories[n % 5].execute("b", deposited(n)) for n in range(1, 6)),
    )
    assert sorted(one.sequence for one in executed[:CROWD]) == list(range(1, CROWD + 1))
    events = await domain_events(store, "a")
    assert sorted(event.amount for event in events) == list(range(1, CROWD + 1))
    # What each was told is the state right after its own event.
    for one in executed[:CROWD]:
        assert one.state == folded("a", events[: one.sequence])
