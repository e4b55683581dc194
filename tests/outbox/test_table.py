from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import Denied, FaultProxy, LoseAnswer, Throttle
from oms_events.errors import ConfigurationError, StorageDeniedError, StorageUnavailableError
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.records import Epoch, Layout
from oms_events.outbox.table import create_table, describe, verify
from oms_events.testing import ManualClock
from tests.outbox.support import Settings, fresh_table, outbox_config, session_of, unique_name


@asynccontextmanager
async def new_table(aws: Settings, dynamo: DynamoClient, **fields: Any) -> AsyncIterator[OutboxConfig]:
    """The configuration of a table that is not there yet, and will be gone."""
    config = outbox_config(aws, unique_name(), **fields)
    name = {"TableName": config.table_name}
    try:
        yield config
    finally:
        await dynamo.call("UpdateTable", {**name, "DeletionProtectionEnabled": False}, table=config.table_name)
        await dynamo.call("DeleteTable", name, table=config.table_name)


async def described(dynamo: DynamoClient, table: str) -> Any:
    return (await dynamo.call("DescribeTable", {"TableName": table}, table=table))["Table"]


async def recovery(dynamo: DynamoClient, table: str) -> str:
    answer = await dynamo.call("DescribeContinuousBackups", {"TableName": table}, table=table)
    status: str = answer["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"][
        "PointInTimeRecoveryStatus"
    ]
    return status


def layout(buckets: int) -> Layout:
    return Layout(1, (Epoch(1, buckets, is_open=True),))


async def test_a_table_is_made_ready_billed_on_demand_and_laid_out(aws: Settings, dynamo: DynamoClient) -> None:
    async with new_table(aws, dynamo) as config:
        made = await create_table(config)
        assert (made.name, made.status, made.billing) == (config.table_name, "ACTIVE", "PAY_PER_REQUEST")
        assert (made.fits, made.layout) == (True, layout(32))
        assert await verify(config) == made
        assert (await described(dynamo, config.table_name))["DeletionProtectionEnabled"] is False
        assert await recovery(dynamo, config.table_name) == "DISABLED"


async def test_a_table_that_is_there_is_left_as_it_is(aws: Settings, dynamo: DynamoClient) -> None:
    async with new_table(aws, dynamo, buckets=8) as config:
        made = await create_table(config)
        assert made.layout == layout(8)
        assert await create_table(config) == made
        anyone = outbox_config(aws, config.table_name)
        assert await create_table(anyone) == made


async def test_made_by_several_at_once_it_is_one_table(aws: Settings, dynamo: DynamoClient) -> None:
    async with new_table(aws, dynamo) as config:
        session = session_of(aws)
        made = await asyncio.gather(*(create_table(config, session=session, buckets=4) for _ in range(4)))
        assert {description.layout for description in made} == {layout(4)}


async def test_another_number_of_buckets_is_told(aws: Settings, dynamo: DynamoClient) -> None:
    async with new_table(aws, dynamo) as config:
        await create_table(config, buckets=4)
        with pytest.raises(ConfigurationError, match=r"it has 4 buckets, not 8.*`oms-events outbox buckets 8`"):
            await create_table(config, buckets=8)
        with pytest.raises(ConfigurationError, match="it has 4 buckets, not 16"):
            await create_table(outbox_config(aws, config.table_name, buckets=16))
        assert (await describe(config)).layout == layout(4)


async def test_protection_and_recovery_are_given_when_asked_for(aws: Settings, dynamo: DynamoClient) -> None:
    async with new_table(aws, dynamo) as config:
        await create_table(config, point_in_time_recovery=True, deletion_protection=True)
        assert (await described(dynamo, config.table_name))["DeletionProtectionEnabled"] is True
        assert await recovery(dynamo, config.table_name) == "ENABLED"


async def test_recovery_is_asked_for_again_while_backups_are_prepared(
    aws: Settings, dynamo: DynamoClient, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(Throttle("ContinuousBackupsUnavailableException"), operation="UpdateContinuousBackups")
    async with new_table(aws, dynamo) as config:
        proxied = outbox_config({**aws, "endpoint_url": oms_fault_proxy.endpoint_url}, config.table_name)
        clock = ManualClock()
        making = asyncio.create_task(create_table(proxied, point_in_time_recovery=True, clock=clock))
        async with asyncio.timeout(10):
            await clock.someone_sleeps()
        assert await recovery(dynamo, config.table_name) == "DISABLED"
        await clock.advance(1)
        await making
        assert await recovery(dynamo, config.table_name) == "ENABLED"


async def test_what_never_gets_ready_is_given_up(
    aws: Settings, dynamo: DynamoClient, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(Throttle("ContinuousBackupsUnavailableException"), operation="UpdateContinuousBackups")
    async with new_table(aws, dynamo) as config:
        proxied = outbox_config({**aws, "endpoint_url": oms_fault_proxy.endpoint_url}, config.table_name)
        clock = ManualClock()
        making = asyncio.create_task(create_table(proxied, point_in_time_recovery=True, clock=clock))
        async with asyncio.timeout(10):
            await clock.someone_sleeps()
            await clock.advance(200)
            with pytest.raises(StorageUnavailableError, match="cannot be switched on yet after 120 s; try again"):
                await making


async def test_a_lost_answer_does_no_harm(
    aws: Settings, dynamo: DynamoClient, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(LoseAnswer(), operation="CreateTable")
    async with new_table(aws, dynamo) as config:
        proxied = outbox_config({**aws, "endpoint_url": oms_fault_proxy.endpoint_url}, config.table_name)
        assert (await create_table(proxied)).layout == layout(32)


async def test_without_waiting_the_layout_is_the_first_writers(aws: Settings, dynamo: DynamoClient) -> None:
    async with new_table(aws, dynamo) as config:
        made = await create_table(config, wait=False)
        assert made.layout is None
        assert (await describe(config)).layout is None
        with pytest.raises(ConfigurationError, match="needs wait = True"):
            await create_table(config, wait=False, point_in_time_recovery=True)


async def test_a_table_of_another_shape_is_neither_used_nor_changed(aws: Settings, dynamo: DynamoClient) -> None:
    shape = {
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    }
    async with fresh_table(aws, dynamo, shape=shape) as config:
        for use in (create_table, verify):
            with pytest.raises(
                ConfigurationError,
                match=r"its keys are id \(S, HASH\).*another name \(table_name, or OMS_OUTBOX_TABLE\)",
            ):
                await use(config)
        found = await describe(config)
        assert (found.fits, found.layout, len(found.problems)) == (False, None, 1)


async def test_a_table_that_is_missing_is_described_so(aws: Settings) -> None:
    config = outbox_config(aws, "nowhere")
    found = await describe(config)
    assert (found.status, found.billing, found.fits) == (None, None, False)
    with pytest.raises(ConfigurationError, match="it does not exist"):
        await verify(config)


async def test_a_missing_permission_is_named(aws: Settings, oms_fault_proxy: FaultProxy) -> None:
    oms_fault_proxy.script(Denied(), operation="CreateTable")
    config = outbox_config({**aws, "endpoint_url": oms_fault_proxy.endpoint_url}, "nowhere")
    with pytest.raises(StorageDeniedError, match="allow dynamodb:CreateTable on table 'nowhere'"):
        await create_table(config)
