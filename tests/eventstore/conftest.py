from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.memory import MemoryEventStore
from tests.eventstore.accounts import registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.conftest import aws, dynamo, table_config
from tests.outbox.support import Settings

__all__ = ["aws", "dynamo", "table_config"]


@pytest.fixture
async def dynamodb_store(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBEventStore]:
    """An open store on an empty table of this test's own, without an outbox."""
    async with dynamodb_event_store(aws, dynamo) as store:
        yield store


@pytest.fixture
def memory_store() -> MemoryEventStore:
    return MemoryEventStore(registry=registry)
