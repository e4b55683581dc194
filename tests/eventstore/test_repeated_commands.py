"""Commands that come twice: one effect, and both are told what it was."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import create_model

from oms_events.errors import (
    AppendLimitError,
    CommandRejectedError,
    DuplicateCommandError,
    InvalidEventError,
    PayloadMismatchError,
    PersonForgottenError,
)
from oms_events.eventstore.aggregates.repository import RepositoryConfig
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.store import EventStore
from tests.eventstore.accounts import AccountClosed, deposit
from tests.eventstore.banking import (
    ACCOUNT,
    Account,
    AccountRepository,
    CloseAccount,
    Command,
    InterruptedTable,
    deposited,
    history,
    initial,
    store_on,
    withdrawn,
)

CROWD = 20
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


async def test_a_command_is_carried_out_once(store: EventStore, accounts: AccountRepository) -> None:
    first = await accounts.execute("a", deposited(5, parts=2), command_id="c")
    await accounts.execute("a", deposited(1))
    again = await accounts.execute("a", deposited(5, parts=2), command_id="c")
    assert again.replayed
    assert [(event.id, event.domain_event) for event in again.events] == [
        (event.id, event.domain_event) for event in first.events
    ]
    assert (again.sequence, again.state) == (3, await accounts.load("a"))
    assert len(await history(store, "a")) == 3


async def test_a_command_that_is_impossible_the_second_time_is_still_known(
    store: EventStore, accounts: AccountRepository
) -> None:
    await accounts.execute("a", deposited(10))
    first = await accounts.execute("a", withdrawn(10), command_id="w")
    again = await accounts.execute("a", withdrawn(10), command_id="w")
    assert (again.replayed, again.events[0].id) == (True, first.events[0].id)
    with pytest.raises(CommandRejectedError):
        await accounts.execute("a", withdrawn(10), command_id="another")


@pytest.mark.parametrize("what", ["bug", "limit", "unregistered", "evolve"])
async def test_whatever_is_wrong_with_it_now_it_was_carried_out(store: EventStore, what: str) -> None:
    def decide(state: Account, command: Any) -> Any:
        if what == "bug":
            raise ZeroDivisionError
        return [deposit()] * 200 if what == "limit" else [initial("a") if what == "unregistered" else deposit()]

    def evolve(state: Account, event: Any) -> Account:
        if what == "evolve" and state.balance >= 10:
            raise ZeroDivisionError
        return ACCOUNT.evolve(state, event)

    await AccountRepository(store, ACCOUNT).execute("a", deposited(), command_id="c")
    accounts = AccountRepository(store, replace(ACCOUNT, decide=decide, evolve=evolve))
    assert (await accounts.execute("a", deposited(), command_id="c")).replayed
    with pytest.raises((ZeroDivisionError, AppendLimitError, ValueError)):
        await accounts.execute("a", deposited(), command_id="d")
    assert len(await history(store, "a")) == 1


@pytest.mark.parametrize(
    "other", [deposited(11), deposited(parts=2), withdrawn(10), withdrawn(99), CloseAccount()]
)
async def test_another_command_with_the_same_id_is_refused(memory_store: MemoryEventStore, other: Command) -> None:
    accounts = AccountRepository(memory_store, ACCOUNT)
    await accounts.execute("a", deposited(10), command_id="c")
    with pytest.raises(PayloadMismatchError, match=r"command 'c' of aggregate 'a' was another one") as caught:
        await accounts.execute("a", other, command_id="c")
    assert caught.value.key == "c"
    assert len(await history(memory_store, "a")) == 1
    # Of another aggregate it is another command.
    assert not (await accounts.execute("b", deposited(11), command_id="c")).replayed


async def test_a_command_without_events_is_remembered_too(store: EventStore, accounts: AccountRepository) -> None:
    await accounts.execute("a", CloseAccount())
    first = await accounts.execute("a", CloseAccount(reason="again"), command_id="c")
    assert (list(first.events), first.sequence, first.replayed) == ([], 1, False)
    again = await accounts.execute("a", CloseAccount(reason="again"), command_id="c")
    assert (list(again.events), again.sequence, again.replayed, again.state) == ([], 1, True, first.state)
    with pytest.raises(PayloadMismatchError):
        await accounts.execute("a", CloseAccount(), command_id="c")


async def test_what_was_appended_under_an_id_by_hand_is_no_other_command(
    memory_store: MemoryEventStore,
) -> None:
    await memory_store.append("a", [AccountClosed()], expected_sequence=0, command_id="c")
    executed = await AccountRepository(memory_store, ACCOUNT).execute("a", deposited(), command_id="c")
    assert executed.replayed
    assert [event.domain_event for event in executed.events] == [AccountClosed()]


@pytest.mark.parametrize("command_id", ["", "x" * 901, 5])
async def test_what_is_no_commands_id_is_refused(memory_store: MemoryEventStore, command_id: Any) -> None:
    with pytest.raises(InvalidEventError, match=r"command_id"):
        await AccountRepository(memory_store, ACCOUNT).execute("a", withdrawn(), command_id=command_id)


async def test_two_of_the_same_at_once_have_one_effect(store: EventStore, accounts: AccountRepository) -> None:
    executed = await asyncio.gather(
        *(accounts.execute("a", deposited(5, parts=2), command_id="c") for _ in range(10))
    )
    assert len(await history(store, "a")) == 2
    assert sum(not one.replayed for one in executed) == 1
    assert len({tuple(event.id for event in one.events) for one in executed}) == 1
    assert {(one.sequence, one.state.balance) for one in executed} == {(2, Decimal(10))}


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cancelled_while_it_commits_it_is_done_again_with_its_id(
    interrupted: EventStore, table: InterruptedTable, moment: str
) -> None:
    stuck, accounts = asyncio.Event(), AccountRepository(interrupted, ACCOUNT)

    async def hang() -> None:
        stuck.set()
        await asyncio.Event().wait()

    getattr(table, moment).append(hang)
    task = asyncio.create_task(accounts.execute("a", deposited(), command_id="c"))
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    executed = await accounts.execute("a", deposited(), command_id="c")
    assert executed.replayed is (moment == "after")
    assert (executed.sequence, len(await history(interrupted, "a"))) == (1, 1)


async def test_many_deposits_that_are_sent_twice_all_take_effect_exactly_once(store: EventStore) -> None:
    repositories = [AccountRepository(store, ACCOUNT, config=PATIENT) for _ in range(5)]
    numbers = [n % (CROWD // 2) for n in range(CROWD)]
    executed = await asyncio.gather(
        *(repositories[i % 5].execute("a", deposited(n), command_id=f"c-{n}") for i, n in enumerate(numbers))
    )
    events = await history(store, "a")
    assert sorted(event.domain_event.amount for event in events) == list(range(CROWD // 2))  # type: ignore[attr-defined]
    assert sum(one.replayed for one in executed) == CROWD // 2
    by_id = {event.id: event.domain_event for event in events}
    for number, one in zip(numbers, executed, strict=True):
        assert [by_id[event.id] for event in one.events] == [deposit(number)]


async def test_a_command_of_somebody_who_was_forgotten_since_is_known() -> None:
    types = EventRegistry()
    met = types.event(create_model("Met", name=(Annotated[str, Personal()], ...)))
    cipher = PersonalDataCipher(MemorySubjectKeys())
    store = MemoryEventStore(registry=types, cipher=cipher)
    await store.append("ann", [met(name="Ann")], expected_sequence=0, command_id="c", fingerprint="f")
    await cipher.forget("ann")
    for expected in (0, 1):
        with pytest.raises(DuplicateCommandError) as error:
            await store.append("ann", [met(name="Ann")], expected_sequence=expected, command_id="c")
        assert (error.value.first_sequence, error.value.events, error.value.fingerprint) == (1, 1, "f")
    for command_id in (None, "d"):
        with pytest.raises(PersonForgottenError):
            await store.append("ann", [met(name="Ann")], expected_sequence=1, command_id=command_id)
    with pytest.raises(InvalidEventError, match="command_id = '': give it some text"):
        await store.append("ann", [met(name="Ann")], expected_sequence=1, command_id="")
