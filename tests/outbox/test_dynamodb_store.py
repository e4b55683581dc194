from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.testing.outbox_contract import OutboxStoreContract
from tests.outbox.support import Settings, fresh_table, open_store, wipe


@pytest.fixture(scope="module")
async def shared_store(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBOutboxStore]:
    async with fresh_table(aws, dynamo) as config, open_store(config) as store:
        yield store


class TestDynamoDBOutboxStore(OutboxStoreContract):
    @pytest.fixture
    async def store(self, shared_store: DynamoDBOutboxStore, dynamo: DynamoClient) -> DynamoDBOutboxStore:
        await shared_store.open()
        await wipe(dynamo, shared_store.table)
        return shared_store
