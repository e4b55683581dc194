"""Commands on DynamoDB, with faults between it and us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import Fault, FaultProxy, Hang, LoseAnswer, Reset, ServerError, Throttle, run_in_thread
from oms_events.errors import (
    CommitOutcomeUnknownError,
    PayloadMismatchError,
    StorageError,
    TransactionConflictError,
)
from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
from oms_events.eventstore.aggregates.repository import RepositoryConfig
from oms_events.eventstore.config import EventStoreConfig, SnapshotConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.schema import SNAPSHOTS
from oms_events.instrumentation.hooks import AppendConflict, Detail, SnapshotFailed
from oms_events.resilience.backoff import RetryConfig
from tests.eventstore.accounts import registry
from tests.eventstore.banking import (
    ACCOUNT,
    AccountRepository,
    CloseAccount,
    QuickClock,
    deposited,
    domain_events,
    folded,
    history,
)
from tests.eventstore.support import dynamodb_event_store, fresh_table
from tests.outbox.support import Settings

COMMIT = "TransactWriteItems"
CONFLICT = Throttle(
    code="TransactionCanceledException",
    message="Transaction cancelled, please refer to the reasons: [TransactionConflict, None]",
)


@pytest.fixture(scope="module")
def proxy_server(aws: Settings) -> Iterator[FaultProxy]:
    with run_in_thread(FaultProxy(aws["endpoint_url"])) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_server: FaultProxy) -> Iterator[FaultProxy]:
    proxy_server.forget_calls()
    yield proxy_server
    proxy_server.clear()
    proxy_server.release()


@asynccontextmanager
async def store_behind(
    proxy: FaultProxy, aws: Settings, dynamo: DynamoClient, *, commit_timeout: float
) -> AsyncIterator[DynamoDBEventStore]:
    async with dynamodb_event_store(aws, dynamo) as direct:
        config = EventStoreConfig(
            **{**aws, "endpoint_url": proxy.endpoint_url},
            table_name=direct.table.name,
            read_timeout=0.3,
            commit_timeout=commit_timeout,
            conflict_attempts=1,
            retry=RetryConfig(max_attempts=2, initial=0.01),
        )
        async with DynamoDBEventStore(config, registry=registry, clock=QuickClock()) as store:
            proxy.forget_calls()
            yield store


@pytest.fixture
async def store(aws: Settings, dynamo: DynamoClient, proxy: FaultProxy) -> AsyncIterator[DynamoDBEventStore]:
    """A store behind the proxy that gives up soon."""
    async with store_behind(proxy, aws, dynamo, commit_timeout=0.5) as store:
        yield store


@pytest.fixture
async def patient_store(
    aws: Settings, dynamo: DynamoClient, proxy: FaultProxy
) -> AsyncIterator[DynamoDBEventStore]:
    """One that does not give up within a test, however busy the machine is."""
    async with store_behind(proxy, aws, dynamo, commit_timeout=60) as store:
        yield store


@pytest.fixture
def accounts(store: DynamoDBEventStore) -> AccountRepository:
    return AccountRepository(store, ACCOUNT, clock=QuickClock())


@pytest.mark.parametrize("fault", [LoseAnswer(), Reset(), Hang(), ServerError()])
async def test_a_command_without_an_answer_takes_effect_once(
    patient_store: DynamoDBEventStore, proxy: FaultProxy, fault: Any
) -> None:
    proxy.script(fault, operation=COMMIT)
    accounts = AccountRepository(patient_store, ACCOUNT, clock=QuickClock())
    executed = await accounts.execute("a", deposited(parts=2), command_id="c")
    # From the answer to the same commit, sent again, and not from the marker.
    assert (executed.replayed, executed.sequence) == (False, 2)
    assert [event.id for event in executed.events] == [event.id for event in await history(patient_store, "a")]
    assert len(proxy.calls_of(COMMIT)) >= 2


async def test_an_unknown_outcome_is_learned_from_the_marker(
    store: DynamoDBEventStore, accounts: AccountRepository, proxy: FaultProxy
) -> None:
    await accounts.execute("a", deposited(5))
    proxy.script(LoseAnswer(), operation=COMMIT)
    proxy.always(Hang(), operation=COMMIT)
    executed = await accounts.execute("a", deposited(7, parts=2), command_id="c")
    assert (executed.sequence, executed.state) == (3, folded("a", await domain_events(store, "a")))
    assert [event.id for event in executed.events] == [event.id for event in (await history(store, "a"))[1:]]
    assert len(proxy.calls_of("GetItem")) == 1


async def test_an_outcome_that_stays_unknown_is_told_and_the_command_can_be_sent_again(
    store: DynamoDBEventStore, accounts: AccountRepository, proxy: FaultProxy
) -> None:
    proxy.always(Reset(), operation=COMMIT)
    with pytest.raises(
        CommitOutcomeUnknownError, match=r"command 'c' was not there yet a moment ago: send it again"
    ):
        await accounts.execute("a", deposited(), command_id="c")
    with pytest.raises(CommitOutcomeUnknownError) as caught:
        # Of another account: what was sent last may still be done once the proxy lets it pass.
        await accounts.execute("b", deposited())
    assert "command" not in str(caught.value)
    assert len(proxy.calls_of("GetItem")) == 1
    proxy.clear()
    for replayed in (False, True):
        executed = await accounts.execute("a", deposited(), command_id="c")
        assert (executed.replayed, executed.sequence) == (replayed, 1)


async def test_when_the_marker_cannot_be_read_the_outcome_stays_unknown(
    accounts: AccountRepository, proxy: FaultProxy
) -> None:
    proxy.always(Reset(), operation=COMMIT)
    proxy.always(Throttle(), operation="GetItem")
    with pytest.raises(CommitOutcomeUnknownError, match=r"no certain answer to a commit"):
        await accounts.execute("a", deposited(), command_id="c")


async def test_a_refusal_is_no_answer_while_the_marker_cannot_be_read(
    accounts: AccountRepository, proxy: FaultProxy
) -> None:
    """It may have been carried out before: a no would be believed."""
    proxy.always(Throttle(), operation="GetItem")
    await accounts.execute("a", CloseAccount())
    with pytest.raises(StorageError, match=r"GetItem"):
        await accounts.execute("a", deposited(), command_id="c")


async def test_another_command_under_the_id_of_one_without_an_answer_is_told(
    accounts: AccountRepository, proxy: FaultProxy
) -> None:
    await accounts.execute("a", deposited(5), command_id="c")
    proxy.always(Reset(), operation=COMMIT)
    with pytest.raises(PayloadMismatchError):
        await accounts.execute("a", deposited(6), command_id="c")


async def test_transaction_conflicts_are_tried_again(
    store: DynamoDBEventStore, accounts: AccountRepository, proxy: FaultProxy
) -> None:
    proxy.script(CONFLICT, CONFLICT, operation=COMMIT)
    assert (await accounts.execute("a", deposited(), command_id="c")).sequence == 1
    assert len(proxy.calls_of(COMMIT)) == 3


async def test_transaction_conflicts_without_end_are_told(store: DynamoDBEventStore, proxy: FaultProxy) -> None:
    details: list[Detail] = []
    config = RepositoryConfig(attempts=4)
    accounts = AccountRepository(store, ACCOUNT, config=config, hooks=[details.append], clock=QuickClock())
    proxy.always(CONFLICT, operation=COMMIT)
    with pytest.raises(TransactionConflictError):
        await accounts.execute("a", deposited(), command_id="c")
    assert len(proxy.calls_of(COMMIT)) == 4
    assert details == [AppendConflict(1), AppendConflict(2), AppendConflict(3)]
    with pytest.raises(TransactionConflictError):
        await accounts.execute("a", deposited(), expected_sequence=0)
    assert len(proxy.calls_of(COMMIT)) == 5


async def test_commands_that_are_sent_until_they_are_answered_take_effect_once(
    store: DynamoDBEventStore, proxy: FaultProxy
) -> None:
    repositories = [
        AccountRepository(store, ACCOUNT, config=RepositoryConfig(attempts=50), clock=QuickClock())
        for _ in range(3)
    ]
    faults: list[Fault] = [LoseAnswer(), LoseAnswer(orderly=True), Reset(), Throttle(), CONFLICT, ServerError()]
    proxy.seeded(5, dict.fromkeys(faults, 0.1))

    async def send(number: int) -> int:
        sent = 0
        while True:
            sent += 1
            accounts = repositories[(number + sent) % 3]
            try:
                await accounts.execute("a", deposited(number), command_id=f"c-{number}")
            except StorageError:
                continue
            return sent

    sent = await asyncio.gather(*map(send, range(1, 16)))
    proxy.clear()
    assert max(sent) > 1, "no command met a fault"
    assert sorted(event.amount for event in await domain_events(store, "a")) == list(range(1, 16))


@pytest.mark.parametrize("operation", ["Query", "PutItem"])
async def test_without_snapshots_commands_and_loads_go_on(
    aws: Settings, dynamo: DynamoClient, proxy: FaultProxy, operation: str
) -> None:
    details: list[Detail] = []
    async with dynamodb_event_store(aws, dynamo) as store, fresh_table(dynamo, SNAPSHOTS, "snapshots") as name:
        config = SnapshotConfig(
            **{**aws, "endpoint_url": proxy.endpoint_url}, table_name=name, retry=RetryConfig(max_attempts=2)
        )
        async with DynamoDBSnapshotStore(config, clock=QuickClock()) as snapshots:
            accounts = AccountRepository(
                store,
                ACCOUNT,
                snapshots=snapshots,
                config=RepositoryConfig(snapshot_every=2),
                hooks=[details.append],
            )
            proxy.always(Throttle(), operation=operation)
            executed = await accounts.execute("a", deposited(parts=3))
            assert executed.state == await accounts.load("a") == folded("a", await domain_events(store, "a"))
            failed = [detail for detail in details if isinstance(detail, SnapshotFailed)]
            assert {detail.aggregate_id for detail in failed} == {"a"}
            assert all(f"{operation} on table '{name}'" in detail.reason for detail in failed)
