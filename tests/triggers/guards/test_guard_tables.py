"""Guards and their tables: opened, made, refused, and left alone when borrowed."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError, StorageUnavailableError
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.breaker_dynamodb import DynamoDBBreakers
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from tests.outbox.support import Settings, session_of, unique_name
from tests.triggers.guards.conftest import Tables

Guard = DynamoDBRateLimiter | DynamoDBBreakers | DynamoDBLeases


async def use(guard: Guard) -> Any:
    match guard:
        case DynamoDBRateLimiter():
            return await guard.look("a", Quota(limit=1, window=1))
        case DynamoDBBreakers():
            return await guard.look("market", "prices")
        case DynamoDBLeases():
            return await guard.take(unique_name("key"), seconds=1)


async def test_a_guard_makes_its_table_opens_at_its_first_use_and_again(
    aws: Settings, dynamo: DynamoClient
) -> None:
    made = DynamoDBBreakers(GuardTableConfig(table_name=unique_name("guard"), **aws))
    with pytest.raises(ConfigurationError, match="infra apply ingestion-triggers"):
        await use(made)
    assert await made.create()
    assert not await made.create()
    answer = await dynamo.call("DescribeTimeToLive", {"TableName": made.name}, table=made.name)
    assert answer["TimeToLiveDescription"]["AttributeName"] == "ttl"
    await use(made)
    await made.close()
    with pytest.raises(StorageUnavailableError, match="was closed"):
        await use(made)
    async with made:
        await use(made)
    await dynamo.call("DeleteTable", {"TableName": made.name}, table=made.name)


async def test_a_table_of_another_shape_is_refused(tables: Tables) -> None:
    for guard in (
        DynamoDBRateLimiter(tables.breaker),
        DynamoDBBreakers(tables.rate),
        DynamoDBLeases(tables.rate),
    ):
        with pytest.raises(ConfigurationError, match="needed: use another table"):
            await guard.open()


async def test_a_borrowed_client_stays_open(aws: Settings, tables: Tables) -> None:
    async with session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"]) as client:
        for guard in (
            DynamoDBRateLimiter(tables.rate, client=client),
            DynamoDBBreakers(tables.breaker, client=client),
            DynamoDBLeases(tables.breaker, client=client),
        ):
            async with guard:
                await use(guard)
        await client.list_tables()


async def test_a_table_with_replicas_is_refused(tables: Tables) -> None:
    class Replicated(DynamoDBBreakers):
        async def _describe(self, dynamo: DynamoClient) -> Any:
            return {**(await super()._describe(dynamo) or {}), "Replicas": [{"RegionName": "eu-west-1"}]}

    with pytest.raises(ConfigurationError, match=r"eu-west-1.*each would admit as if it were alone"):
        await Replicated(tables.breaker).open()


def test_a_configuration_says_what_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match="table_name"):
        GuardTableConfig(table_name="no name")
