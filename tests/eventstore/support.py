"""Tables and stores for these tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from oms_events._aio import SystemClock
from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.tables import TableShape, create_request
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.schema import EVENT_STORE
from tests.eventstore.accounts import registry
from tests.outbox.support import Settings, unique_name


class Hurried(SystemClock):
    """A clock that does not wait, and writes down for how long it should have."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def fresh_table(dynamo: DynamoClient, shape: TableShape, prefix: str) -> AsyncIterator[str]:
    """The name of an empty table of that shape, which is deleted at the end."""
    name = unique_name(prefix)
    await dynamo.call("CreateTable", create_request(name, shape), table=name)
    try:
        yield name
    finally:
        await dynamo.call("DeleteTable", {"TableName": name}, table=name)


@asynccontextmanager
async def dynamodb_event_store(
    aws: Settings, dynamo: DynamoClient, **options: Any
) -> AsyncIterator[DynamoDBEventStore]:
    """An open store on an empty table of its own."""
    async with fresh_table(dynamo, EVENT_STORE, "event-store") as name:
        config = EventStoreConfig(table_name=name, **aws)
        async with DynamoDBEventStore(config, **{"registry": registry, **options}) as store:
            yield store
