from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError, StorageRejectedError
from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
from oms_events.eventstore.aggregates.snapshots import MemorySnapshotStore, SnapshotStore
from oms_events.eventstore.config import SnapshotConfig
from oms_events.eventstore.schema import READ_MODEL
from oms_events.testing.snapshot_store_contract import SnapshotStoreContract, snapshot
from tests.eventstore.banking import dynamodb_snapshots
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings, unique_name


@pytest.fixture
async def dynamodb_store(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBSnapshotStore]:
    async with dynamodb_snapshots(aws, dynamo) as store:
        yield store


class TestMemory(SnapshotStoreContract):
    @pytest.fixture
    def store(self) -> SnapshotStore:
        return MemorySnapshotStore()


class TestDynamoDB(SnapshotStoreContract):
    @pytest.fixture
    def store(self, dynamodb_store: DynamoDBSnapshotStore) -> SnapshotStore:
        return dynamodb_store


async def test_a_state_that_is_too_large_is_refused_before_it_is_sent(
    dynamodb_store: DynamoDBSnapshotStore,
) -> None:
    with pytest.raises(StorageRejectedError, match=r"'a' at 1 has 4\d{5} bytes, but a DynamoDB item takes 409600"):
        await dynamodb_store.put(snapshot("a", 1, b'"' + b"x" * 410_000 + b'"'))
    assert await dynamodb_store.latest("a") is None


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"EventId": {"S": "e"}, "AggregateName": {"S": "A"}, "SnapshotVersion": {"N": "1"}, "State": {"S": "{}"}},
        {
            "EventId": {"S": "e"},
            "AggregateName": {"S": "A"},
            "SnapshotVersion": {"N": "1"},
            "State": {"S": "{}"},
            "SnapshotTime": {"S": "yesterday"},
        },
        {
            "EventId": {"S": "e"},
            "AggregateName": {"S": "A"},
            "SnapshotVersion": {"N": "1"},
            "State": {"B": "e30="},
            "SnapshotTime": {"S": "2026-01-31T12:00:00+00:00"},
        },
    ],
)
async def test_what_is_no_snapshot_is_said_to_be_none(
    dynamodb_store: DynamoDBSnapshotStore, dynamo: DynamoClient, item: dict[str, Any]
) -> None:
    table = dynamodb_store.name
    key = {"AggregateId": {"S": "a"}, "EventSequence": {"N": "3"}}
    await dynamo.call("PutItem", {"TableName": table, "Item": {**key, **item}}, table=table)
    with pytest.raises(ValueError, match=r"has no attribute|isoformat"):
        await dynamodb_store.latest("a")


async def test_a_table_with_other_keys_is_refused(aws: Settings, dynamo: DynamoClient) -> None:
    async with fresh_table(dynamo, READ_MODEL, "no-snapshots") as name:
        store = DynamoDBSnapshotStore(SnapshotConfig(table_name=name, **aws))
        with pytest.raises(ConfigurationError, match=r"its keys are .* are needed"):
            await store.open()


async def test_makes_its_table_for_development(aws: Settings, dynamo: DynamoClient) -> None:
    name = unique_name("snapshots")
    async with DynamoDBSnapshotStore(SnapshotConfig(table_name=name, verify_table=False, **aws)) as store:
        try:
            assert await store.create()
            assert not await store.create()
            await store.put(snapshot("a", 1))
            assert await store.latest("a") == snapshot("a", 1)
        finally:
            await dynamo.call("DeleteTable", {"TableName": name}, table=name)
