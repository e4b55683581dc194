"""Transactions on a real endpoint, and what faults between us and it leave behind."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aioboto3
import orjson
import pytest
from botocore.config import Config

from oms_events.devstack import (
    AwsEmulator,
    Denied,
    FaultProxy,
    Hang,
    LoseAnswer,
    Reset,
    ServerError,
    Throttle,
    run_in_thread,
)
from oms_events.errors import (
    CommitOutcomeUnknownError,
    ConditionFailedError,
    ConfigurationError,
    StorageDeniedError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionConflictError,
)
from oms_events.outbox.claimcheck import resolve_dataref
from oms_events.outbox.config import ClaimCheckConfig, OutboxConfig
from oms_events.outbox.outbox import DynamoDBOutbox
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.table import create_table
from oms_events.testing import ManualClock
from tests.outbox.writing import event, ids_of, listen, order, records_of, transact

COMMIT = "TransactWriteItems"
_CONFLICT = Throttle(
    code="TransactionCanceledException",
    message="Transaction cancelled, please refer to the reasons: [TransactionConflict, None]",
)

Configure = Callable[..., OutboxConfig]


class Business:
    """A test's items in a service's own table; the deposits of its account show how often a transaction ran."""

    def __init__(self, client: Any, table: str) -> None:
        self.client = client
        self.table = table
        self.account = f"account-{uuid.uuid4()}"

    async def item(self, key: str) -> Any:
        answer = await self.client.get_item(TableName=self.table, Key={"id": {"S": key}}, ConsistentRead=True)
        return answer.get("Item")

    async def deposits(self) -> int:
        account = await self.item(self.account)
        return int(account["deposits"]["N"]) if account else 0

    async def deposit(self, outbox: DynamoDBOutbox, *events: Any) -> None:
        """A business effect that shows when it is done twice, as it has no condition."""
        async with outbox.transaction() as tx:
            tx.update(self.table, {"id": self.account}, "ADD deposits :one", values={":one": 1})
            for one in events or (event(),):
                tx.add(one)


@pytest.fixture(scope="module")
def access(request: pytest.FixtureRequest) -> dict[str, Any]:
    endpoint = os.environ.get("OMS_TEST_AWS_ENDPOINT")
    if endpoint is not None:
        return {"endpoint_url": endpoint}
    emulator: AwsEmulator = request.getfixturevalue("oms_aws_emulator")
    return {
        "endpoint_url": emulator.endpoint_url,
        "aws_region": emulator.region,
        "aws_access_key_id": emulator.access_key,
        "aws_secret_access_key": emulator.secret_key,
    }


@pytest.fixture(scope="module")
def proxy_server(access: dict[str, Any]) -> Iterator[FaultProxy]:
    with run_in_thread(FaultProxy(access["endpoint_url"])) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_server: FaultProxy) -> Iterator[FaultProxy]:
    proxy_server.forget_calls()
    yield proxy_server
    proxy_server.clear()
    proxy_server.release()


@pytest.fixture(scope="module")
async def client(access: dict[str, Any]) -> AsyncIterator[Any]:
    options = {name.replace("aws_region", "region_name"): value for name, value in access.items()}
    async with aioboto3.Session().client("dynamodb", **options) as client:
        yield client


@pytest.fixture(scope="module")
async def business_table(client: Any) -> str:
    table = f"accounts-{uuid.uuid4().hex[:12]}"
    await client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    await client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})
    return table


@pytest.fixture
def business(client: Any, business_table: str) -> Business:
    return Business(client, business_table)


@pytest.fixture
async def configure(access: dict[str, Any], client: Any) -> Configure:
    table = f"outbox-{uuid.uuid4().hex[:12]}"
    await create_table(OutboxConfig(table_name=table, **access), client=client)

    def make(**fields: Any) -> OutboxConfig:
        return OutboxConfig(**{"table_name": table, **access, **fields})

    return make


@pytest.fixture
async def outbox(configure: Configure, proxy: FaultProxy) -> AsyncIterator[DynamoDBOutbox]:
    """An outbox that reaches AWS through the proxy and has made its first commit."""
    config = configure(endpoint_url=proxy.endpoint_url, read_timeout=0.5, commit_timeout=20, conflict_attempts=3)
    async with DynamoDBOutbox(config) as outbox:
        await outbox.add(event("warm-up"))
        proxy.forget_calls()
        yield outbox


# ---------------------------------------------------------------------- without faults


async def test_the_business_write_and_its_events_are_there_together(
    outbox: DynamoDBOutbox, business: Business
) -> None:
    placed, unkeyed = event(data={"total": 12}), event(None)
    async with outbox.transaction() as tx:
        tx.put(business.table, {"id": "a", "raw": b"\x00\xff", "total": 1.5}, condition="attribute_not_exists(id)")
        tx.add(placed)
        tx.add(unkeyed)
    item = await business.item("a")
    assert item == {"id": {"S": "a"}, "raw": {"B": b"\x00\xff"}, "total": {"N": "1.5"}}
    (record,) = await records_of(outbox)
    assert record.event is not None
    assert record.event.data == {"total": 12}
    assert await ids_of(outbox, None) == [unkeyed.get_id()]


async def test_a_failed_condition_leaves_nothing(outbox: DynamoDBOutbox, business: Business) -> None:
    heard = listen(outbox)
    with pytest.raises(ConditionFailedError, match=rf"action 1 \(ConditionCheck, table '{business.table}'\)"):
        await transact(
            outbox,
            lambda tx: tx.put(business.table, {"id": "never"}),
            lambda tx: tx.check(business.table, {"id": "missing"}, "attribute_exists(id)"),
            lambda tx: tx.add(event()),
        )
    assert await business.item("never") is None
    assert await records_of(outbox) == []
    assert [type(signal) for signal in heard] == [Voided]


async def test_a_missing_table_is_told_at_once(outbox: DynamoDBOutbox, proxy: FaultProxy) -> None:
    tables = f"tables 'no-such-table', '{outbox.store.table}'"
    with pytest.raises(StorageDeniedError, match=f"{COMMIT} on {tables}: .*; one of the {tables} does not exist"):
        await transact(outbox, lambda tx: tx.put("no-such-table", order()), lambda tx: tx.add(event()))
    assert len(proxy.calls_of(COMMIT)) == 1
    assert await records_of(outbox) == []


async def test_two_actions_on_one_item_are_rejected_at_once(outbox: DynamoDBOutbox, business: Business) -> None:
    with pytest.raises(StorageRejectedError):
        await transact(
            outbox,
            lambda tx: tx.put(business.table, {"id": "twice"}),
            lambda tx: tx.delete(business.table, {"id": "twice"}),
            lambda tx: tx.add(event()),
        )
    assert await records_of(outbox) == []


async def test_writers_of_one_key_in_two_outboxes_lose_and_double_nothing(configure: Configure) -> None:
    async with DynamoDBOutbox(configure()) as one, DynamoDBOutbox(configure()) as other:
        events = [event() for _ in range(40)]
        await asyncio.gather(*((one, other)[n % 2].add(event_) for n, event_ in enumerate(events)))
        records = await records_of(one)
        assert sorted(record.event.id for record in records if record.event) == sorted(e.get_id() for e in events)
        assert [int(record.sk) for record in records] == list(range(1, 41))


async def test_prepared_actions_go_into_a_call_of_ones_own(
    outbox: DynamoDBOutbox, business: Business, client: Any
) -> None:
    events = [event(data=b"\x00\x01"), event(None)]
    prepared = await outbox.prepare(events)
    put = {"Put": {"TableName": business.table, "Item": {"id": {"S": "mine"}}}}
    await client.transact_write_items(TransactItems=[put, *prepared.actions])
    prepared.committed()
    assert await business.item("mine") is not None
    (record,) = await records_of(outbox)
    assert record.event is not None
    assert record.event.data == b"\x00\x01"
    assert await ids_of(outbox, None) == [events[1].get_id()]


async def test_a_borrowed_client_is_used_and_stays_open(configure: Configure, client: Any) -> None:
    placed = event()
    async with DynamoDBOutbox(configure(), client=client) as outbox:
        await outbox.add(placed)
        assert await ids_of(outbox) == [placed.get_id()]
    await client.list_tables()


@pytest.mark.parametrize("refusal", [_CONFLICT, Throttle(code="RequestLimitExceeded")])
async def test_a_borrowed_client_that_retries_by_itself_doubles_nothing(
    configure: Configure, access: dict[str, Any], business: Business, proxy: FaultProxy, refusal: Throttle
) -> None:
    options = {name.replace("aws_region", "region_name"): value for name, value in access.items()}
    placed = event()
    # DynamoDB's ten retries would take five seconds.
    few = Config(retries={"max_attempts": 3})
    async with (
        aioboto3.Session().client(
            "dynamodb", **{**options, "endpoint_url": proxy.endpoint_url, "config": few}
        ) as retrying,
        DynamoDBOutbox(configure(), client=retrying) as outbox,
    ):
        await outbox.add(event("warm-up"))
        proxy.forget_calls()
        heard = listen(outbox)
        # It is done, the client tries again without a word, and is told something else.
        proxy.script(LoseAnswer(), *[refusal] * 4, operation=COMMIT)
        await business.deposit(outbox, placed)
        assert len({_token(call.body) for call in proxy.calls_of(COMMIT)}) == 1
        assert await business.deposits() == 1
        assert await ids_of(outbox) == [placed.get_id()]
        assert [type(signal) for signal in heard] == [Committed]


def _token(body: bytes) -> str:
    return str(orjson.loads(body)["ClientRequestToken"])


async def test_with_a_claim_check_an_event_may_be_larger_than_an_item(
    configure: Configure, access: dict[str, Any]
) -> None:
    bucket = f"claims-{uuid.uuid4().hex[:12]}"
    large = event(data={"text": "x" * 500_000})
    options = {name.replace("aws_region", "region_name"): value for name, value in access.items()}
    claim_check = ClaimCheckConfig(bucket=bucket, endpoint_url=access["endpoint_url"])
    async with aioboto3.Session().client("s3", **options) as s3:
        await s3.create_bucket(Bucket=bucket)
        async with DynamoDBOutbox(configure(claim_check=claim_check)) as outbox:
            await outbox.add(large)
            (record,) = await records_of(outbox)
        assert record.event is not None
        resolved = await resolve_dataref(record.event.event, s3, bucket=bucket)
    assert resolved.get_data() == large.get_data()


# ---------------------------------------------------------------------- no answer: the identical request again


@pytest.mark.parametrize(
    "fault", [LoseAnswer(), LoseAnswer(orderly=True), Reset(), Hang(), ServerError(), ServerError(status=503)]
)
async def test_a_commit_without_an_answer_takes_effect_exactly_once(
    outbox: DynamoDBOutbox, business: Business, proxy: FaultProxy, fault: Any
) -> None:
    placed = event()
    proxy.script(fault, operation=COMMIT)
    await business.deposit(outbox, placed)
    first, second = proxy.calls_of(COMMIT)
    assert first.body == second.body
    assert await business.deposits() == 1
    assert await ids_of(outbox) == [placed.get_id()]


async def test_a_lost_answer_whose_record_was_relayed_meanwhile_takes_effect_exactly_once(
    configure: Configure, business: Business, proxy: FaultProxy
) -> None:
    clock = ManualClock()
    config = configure(endpoint_url=proxy.endpoint_url)
    async with DynamoDBOutbox(config, clock=clock) as outbox:
        heard = listen(outbox)
        proxy.script(LoseAnswer(), operation=COMMIT)
        depositing = asyncio.create_task(business.deposit(outbox))
        await clock.someone_sleeps()
        (record,) = await records_of(outbox)
        await outbox.store.remove(record.partition, [record.sk])
        await clock.advance(1)
        await depositing
        assert len(proxy.calls_of(COMMIT)) == 2
        assert await business.deposits() == 1
        assert await records_of(outbox) == []
        assert [type(signal) for signal in heard] == [Committed]


async def test_a_conflict_after_a_lost_answer_is_not_rebuilt(
    outbox: DynamoDBOutbox, business: Business, proxy: FaultProxy
) -> None:
    proxy.script(LoseAnswer(), _CONFLICT, Throttle(), operation=COMMIT)
    await business.deposit(outbox)
    assert len({call.body for call in proxy.calls_of(COMMIT)}) == 1
    assert await business.deposits() == 1
    assert len(await records_of(outbox)) == 1


async def test_an_endpoint_that_never_answers_a_commit_leaves_its_outcome_unknown(
    configure: Configure, business: Business, proxy: FaultProxy
) -> None:
    config = configure(endpoint_url=proxy.endpoint_url, read_timeout=1, commit_timeout=2)
    async with DynamoDBOutbox(config) as outbox:
        proxy.always(Hang(), operation=COMMIT)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(CommitOutcomeUnknownError, match="may or may not be done"):
            await business.deposit(outbox)
        assert loop.time() - started < 10
        assert len({call.body for call in proxy.calls_of(COMMIT)}) == 1
        assert await business.deposits() == 0


async def test_closing_during_an_unanswered_commit_ends_it_at_once(
    configure: Configure, business: Business, proxy: FaultProxy
) -> None:
    # Neither of its own times ends the call within the test.
    outbox = DynamoDBOutbox(configure(endpoint_url=proxy.endpoint_url, read_timeout=20, commit_timeout=20))
    await outbox.open()
    proxy.script(Hang(), operation=COMMIT)
    depositing = asyncio.create_task(business.deposit(outbox))
    async with asyncio.timeout(5):
        while not proxy.calls_of(COMMIT):  # noqa: ASYNC110 - the proxy tells nobody
            await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await outbox.close()
    with pytest.raises(CommitOutcomeUnknownError, match="the outbox was closed"):
        await depositing
    assert loop.time() - started < 5
    assert len(proxy.calls_of(COMMIT)) == 1


async def test_a_reservation_without_an_answer_leaves_a_gap_and_one_record(
    outbox: DynamoDBOutbox, business: Business, proxy: FaultProxy
) -> None:
    proxy.script(LoseAnswer(), operation="UpdateItem")
    await business.deposit(outbox)
    assert await business.deposits() == 1
    (record,) = await records_of(outbox)
    assert int(record.sk) > 1


# ---------------------------------------------------------------------- a certain refusal: a new attempt


@pytest.mark.parametrize("fault", [_CONFLICT, Throttle(), Throttle(code="ProvisionedThroughputExceededException")])
async def test_a_refused_commit_is_rebuilt_with_new_numbers(
    outbox: DynamoDBOutbox, business: Business, proxy: FaultProxy, fault: Throttle
) -> None:
    heard = listen(outbox)
    proxy.script(fault, operation=COMMIT)
    await business.deposit(outbox)
    first, second = proxy.calls_of(COMMIT)
    assert first.body != second.body
    assert await business.deposits() == 1
    (record,) = await records_of(outbox)
    assert int(record.sk) > 1
    assert [type(signal) for signal in heard] == [Voided, Committed]


@pytest.mark.parametrize(
    ("fault", "error"), [(_CONFLICT, TransactionConflictError), (Throttle(), StorageUnavailableError)]
)
async def test_a_commit_that_is_refused_each_time_leaves_nothing(
    outbox: DynamoDBOutbox, business: Business, proxy: FaultProxy, fault: Throttle, error: type[Exception]
) -> None:
    proxy.always(fault, operation=COMMIT)
    with pytest.raises(error, match="nothing was written, after 3 attempts"):
        await business.deposit(outbox)
    assert len(proxy.calls_of(COMMIT)) == 3
    assert await business.deposits() == 0
    assert await records_of(outbox) == []


async def test_a_missing_permission_is_told_at_once(
    outbox: DynamoDBOutbox, business: Business, proxy: FaultProxy
) -> None:
    proxy.always(Denied(), operation=COMMIT)
    with pytest.raises(StorageDeniedError, match="dynamodb:UpdateItem"):
        await business.deposit(outbox)
    assert len(proxy.calls_of(COMMIT)) == 1
    assert await business.deposits() == 0


# ---------------------------------------------------------------------- what it is made of


def test_what_an_outbox_is_made_of_is_looked_at(configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match=r"config is str; give an OutboxConfig\(table_name=\.\.\.\)"):
        DynamoDBOutbox("orders")  # type: ignore[arg-type]
    wrong: Any = "x"
    with pytest.raises(ConfigurationError) as caught:
        DynamoDBOutbox(configure(), session=wrong, client=wrong, s3_client=wrong)
    assert [problem.partition(";")[0] for problem in caught.value.problems] == [
        "session is str",
        "client is str",
        "s3_client is str",
    ]
