"""The DynamoDB store: lost answers, throttling, wrong tables, what a call costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aioboto3
import pytest

from oms_events import ConfigurationError, RetryConfig
from oms_events.devstack.faults import Denied, Hang, LoseAnswer, ServerError, Throttle
from oms_events.devstack.proxy import FaultProxy
from oms_events.errors import (
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.idempotency import (
    DynamoDBIdempotencyStore,
    IdempotencyConfig,
    IdempotencyOptions,
    IdempotentRun,
    create_idempotency_table,
)
from oms_events.testing import ManualClock
from oms_events.testing.idempotency_contract import started
from tests.idempotency.conftest import MakeConfig

FAR = 9_999_999_999
FAST = RetryConfig(max_attempts=3, initial=0.001, maximum=0.001)


@pytest.fixture
def key() -> str:
    return uuid4().hex


@pytest.fixture
async def faulty(
    emulated_table: IdempotencyConfig, oms_fault_proxy: FaultProxy
) -> AsyncIterator[DynamoDBIdempotencyStore]:
    """The table behind the fault proxy."""
    config = emulated_table.model_copy(update={"endpoint_url": oms_fault_proxy.endpoint_url, "retry": FAST})
    async with DynamoDBIdempotencyStore(config) as store:
        yield store


async def _work(store: DynamoDBIdempotencyStore, key: str, runs: list[str]) -> IdempotentRun:
    async with IdempotentRun(store, key, prefix="faults") as run:
        if not run.replayed:
            runs.append(key)
            run.result = len(runs)
    return run


# ------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    "fault", [LoseAnswer(), ServerError(), Throttle("ProvisionedThroughputExceededException")]
)
@pytest.mark.parametrize("call", [0, 1], ids=["start", "completion"])
async def test_a_call_without_an_answer_is_made_again(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str, fault: Any, call: int
) -> None:
    runs: list[str] = []
    if call:
        async with IdempotentRun(faulty, key, prefix="faults") as run:
            runs.append(key)
            run.result = 1
            oms_fault_proxy.script(fault, fault, operation="PutItem")
    else:
        oms_fault_proxy.script(fault, fault, operation="PutItem")
        await _work(faulty, key, runs)
    assert oms_fault_proxy.pending_faults == 0
    assert (await _work(faulty, key, runs)).result == 1
    assert runs == [key]


async def test_a_start_that_is_never_answered_runs_nothing_and_blocks_nobody(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str
) -> None:
    runs: list[str] = []
    oms_fault_proxy.always(LoseAnswer(), operation="PutItem")
    with pytest.raises(StorageOutcomeUnknownError):
        await _work(faulty, key, runs)
    assert runs == []
    assert len(oms_fault_proxy.calls_of("PutItem")) == FAST.max_attempts
    oms_fault_proxy.clear()
    assert not (await _work(faulty, key, runs)).replayed


@pytest.mark.parametrize("then", [Throttle(), Denied()])
async def test_a_start_that_may_be_recorded_is_taken_back_whatever_becomes_of_its_repetitions(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str, then: Any
) -> None:
    runs: list[str] = []
    oms_fault_proxy.script(LoseAnswer(), then, then, operation="PutItem")
    with pytest.raises(StorageOutcomeUnknownError):
        await _work(faulty, key, runs)
    oms_fault_proxy.clear()
    assert (runs, await faulty.read(f"faults#{key}")) == ([], None)
    assert not (await _work(faulty, key, runs)).replayed


async def test_a_removal_whose_answer_was_lost_is_made_again(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    oms_fault_proxy.script(LoseAnswer(), operation="DeleteItem")
    with pytest.raises(LookupError):
        async with IdempotentRun(faulty, key, prefix="faults"):
            raise LookupError
    assert "was not removed" not in caplog.text
    assert await faulty.read(f"faults#{key}") is None


async def test_a_refused_permission_is_named_and_not_tried_again(
    faulty: DynamoDBIdempotencyStore, emulated_table: IdempotencyConfig, oms_fault_proxy: FaultProxy, key: str
) -> None:
    oms_fault_proxy.always(Denied(), operation="PutItem")
    with pytest.raises(StorageDeniedError, match=f"allow dynamodb:PutItem on table '{emulated_table.table_name}'"):
        await _work(faulty, key, [])
    assert len(oms_fault_proxy.calls_of("PutItem")) == 1


async def test_a_cancelled_start_is_taken_back(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str
) -> None:
    oms_fault_proxy.script(LoseAnswer(), Hang(), operation="PutItem")
    task = asyncio.create_task(_work(faulty, key, []))
    await oms_fault_proxy.wait_for_calls(2, operation="PutItem")
    assert await faulty.read(f"faults#{key}") is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await faulty.read(f"faults#{key}") is None


# ------------------------------------------------------------------ tables


async def test_a_new_table_has_ttl_and_is_made_once(make_config: MakeConfig) -> None:
    config = make_config(hash_key="id", ttl_attribute="expires")
    assert await create_idempotency_table(config)
    assert not await create_idempotency_table(config)
    async with _client(config) as client:
        answer = await client.describe_time_to_live(TableName=config.table_name)
    assert answer["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}


async def _ttl(config: IdempotencyConfig) -> str:
    async with _client(config) as client:
        answer = await client.describe_time_to_live(TableName=config.table_name)
    status: str = answer["TimeToLiveDescription"]["TimeToLiveStatus"]
    return status


NOT_YET = Denied("ResourceNotFoundException", "Requested resource not found")


@pytest.mark.parametrize(
    ("fault", "operation"), [(NOT_YET, "DescribeTable"), (LoseAnswer(), "CreateTable")], ids=["not yet", "lost"]
)
async def test_a_table_is_made_though_it_is_not_seen_at_once_or_its_answer_is_lost(
    emulated_table: IdempotencyConfig, oms_fault_proxy: FaultProxy, fault: Any, operation: str
) -> None:
    fields = {"endpoint_url": oms_fault_proxy.endpoint_url, "table_name": f"idempotency-{uuid4().hex[:12]}"}
    config = emulated_table.model_copy(update=fields)
    oms_fault_proxy.script(fault, operation=operation)
    clock = ManualClock()
    making = asyncio.create_task(create_idempotency_table(config, clock=clock))
    if operation == "DescribeTable":
        async with asyncio.timeout(10):
            await clock.someone_sleeps()
        await clock.advance(1.0)
    assert await making
    assert await _ttl(config) == "ENABLED"


async def test_a_table_that_never_shows_is_given_up(
    emulated_table: IdempotencyConfig, oms_fault_proxy: FaultProxy
) -> None:
    fields = {"endpoint_url": oms_fault_proxy.endpoint_url, "table_name": f"idempotency-{uuid4().hex[:12]}"}
    oms_fault_proxy.always(NOT_YET, operation="DescribeTable")
    clock = ManualClock()
    making = asyncio.create_task(create_idempotency_table(emulated_table.model_copy(update=fields), clock=clock))
    async with asyncio.timeout(10):
        await clock.someone_sleeps()
        await clock.advance(200)
        with pytest.raises(StorageUnavailableError, match="not ready after 120 s; call it again"):
            await making


async def test_a_table_that_is_there_without_ttl_gets_it(make_config: MakeConfig) -> None:
    config = make_config()
    async with _client(config) as client:
        await client.create_table(
            TableName=config.table_name,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
    assert await _ttl(config) == "DISABLED"
    assert not await create_idempotency_table(config)
    assert await _ttl(config) == "ENABLED"


async def test_a_table_with_another_hash_key_is_refused_when_it_is_opened(
    table: IdempotencyConfig, make_config: MakeConfig
) -> None:
    wrong = make_config(table_name=table.table_name, hash_key="id")
    for refused in (DynamoDBIdempotencyStore(wrong).open(), create_idempotency_table(wrong)):
        with pytest.raises(ConfigurationError, match="HASH 'pk' of type S; it needs the hash key 'id'"):
            await refused


async def test_a_table_with_a_sort_key_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    async with _client(config) as client:
        await client.create_table(
            TableName=config.table_name,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
    with pytest.raises(ConfigurationError, match=r"RANGE 'sk' of type S; .* and no other"):
        await DynamoDBIdempotencyStore(config).open()


async def test_a_missing_table_is_named(make_config: MakeConfig, key: str) -> None:
    with pytest.raises(StorageDeniedError, match=r"there is no table 'no-such-table'.*`create_idempotency_table"):
        await DynamoDBIdempotencyStore(make_config(table_name="no-such-table")).open()
    async with DynamoDBIdempotencyStore(make_config(table_name="no-such-table", verify_table=False)) as unverified:
        with pytest.raises(StorageDeniedError, match=r"`create_idempotency_table\(config\)` makes one"):
            await _work(unverified, key, [])


async def test_an_item_of_somebody_else_is_not_taken_for_a_record(
    dynamodb: DynamoDBIdempotencyStore, table: IdempotencyConfig, key: str
) -> None:
    async with _client(table) as client:
        item = {"pk": {"S": f"faults#{key}"}, "ttl": {"N": "9999999999"}, "name": {"S": "theirs"}}
        await client.put_item(TableName=table.table_name, Item=item)
    with pytest.raises(StorageRejectedError, match="is no record of a run"):
        await _work(dynamodb, key, [])


# ------------------------------------------------------------------ opening and costs


async def test_a_store_that_is_not_open_says_how_to_open_it(table: IdempotencyConfig, key: str) -> None:
    store = DynamoDBIdempotencyStore(table)
    with pytest.raises(StorageUnavailableError, match="use `async with store:`"):
        await _work(store, key, [])
    async with store:
        await store.open()
        await _work(store, key, [])
    await store.close()
    with pytest.raises(StorageUnavailableError):
        await _work(store, key, [])


async def test_a_borrowed_client_stays_open_and_a_replay_is_one_call(
    emulated_table: IdempotencyConfig, oms_fault_proxy: FaultProxy, key: str
) -> None:
    async with _client(emulated_table, oms_fault_proxy.endpoint_url) as client:
        async with DynamoDBIdempotencyStore(emulated_table, client=client) as store:
            await _work(store, key, [])
            oms_fault_proxy.forget_calls()
            assert (await _work(store, key, [])).replayed
            assert [call.operation for call in oms_fault_proxy.calls] == ["PutItem"]
        await client.describe_table(TableName=emulated_table.table_name)


async def test_a_replay_is_one_call_the_direct_way_too(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str
) -> None:
    await _work(faulty, key, [])
    assert (await _work(faulty, key, [])).replayed
    assert [call.operation for call in oms_fault_proxy.calls][-3:] == ["PutItem"] * 3


async def test_the_record_says_when_it_expires(dynamodb: DynamoDBIdempotencyStore, key: str) -> None:
    options = IdempotencyOptions(in_progress_for=30, keep_for=300)
    async with IdempotentRun(dynamodb, key, prefix="faults", options=options) as run:
        in_progress = await dynamodb.read(run.key)
    done = await dynamodb.read(run.key)
    assert in_progress is not None
    assert done is not None
    assert 268 <= done.expires_at - in_progress.expires_at <= 290


def test_names_that_records_use_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="must not be state: records use that name"):
        IdempotencyConfig(table_name="abc", ttl_attribute="state")
    with pytest.raises(ConfigurationError, match="both 'id'"):
        IdempotencyConfig(table_name="abc", hash_key="id", ttl_attribute="id")


async def test_a_record_that_goes_while_it_is_looked_at_does_not_count_as_ours(
    dynamodb: DynamoDBIdempotencyStore, table: IdempotencyConfig, key: str
) -> None:
    await dynamodb.write(started(key, "theirs", FAR), now=0)

    async def goes(parsed: dict[str, Any], **_: object) -> None:
        # As from an endpoint that does not tell which item stood in the way.
        if parsed.pop("Item", None):
            await dynamodb.remove(key, "theirs")

    async with _client(table) as client, DynamoDBIdempotencyStore(table, client=client) as store:
        client.meta.events.register("after-call.dynamodb.PutItem", goes)
        assert await store.write(started(key, "ours", FAR), now=0) is None
    assert await dynamodb.read(key) == started(key, "ours", FAR)


async def test_reads_are_consistent(
    faulty: DynamoDBIdempotencyStore, oms_fault_proxy: FaultProxy, key: str
) -> None:
    await faulty.read(key)
    (call,) = oms_fault_proxy.calls_of("GetItem")
    assert json.loads(call.body)["ConsistentRead"] is True


def _client(config: IdempotencyConfig, endpoint_url: str | None = None) -> Any:
    keys = {"aws_access_key_id": config.aws_access_key_id, "aws_secret_access_key": config.aws_secret_access_key}
    return aioboto3.Session(region_name=config.aws_region).client(
        "dynamodb",
        endpoint_url=endpoint_url or config.endpoint_url,
        **{name: key.get_secret_value() for name, key in keys.items() if key is not None},
    )
