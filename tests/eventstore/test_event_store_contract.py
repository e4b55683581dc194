"""The contract of event stores: in memory and in DynamoDB, however it is reached, without and with an outbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConcurrencyError
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.store import EventStore
from oms_events.outbox.outbox import DynamoDBOutbox, MemoryOutbox
from oms_events.testing.event_store_contract import EventStoreContract
from oms_events.testing.event_store_contract.support import Changed, check_outbox, history, new_id, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings, fresh_table, session_of


class TestMemoryEventStore(EventStoreContract):
    @pytest.fixture(params=["alone", "outbox"])
    def store(self, request: pytest.FixtureRequest) -> EventStore:
        outbox = None if request.param == "alone" else MemoryOutbox()
        return MemoryEventStore(outbox=outbox, registry=registry)


@asynccontextmanager
async def reached(aws: Settings, dynamo: DynamoClient, way: str, kind: str) -> AsyncIterator[DynamoDBEventStore]:
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"registry": registry}
        if way == "session":
            options["session"] = session_of(aws)
        if way == "client":
            client = session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"])
            options["client"] = await stack.enter_async_context(client)
        if kind == "outbox":
            config = await stack.enter_async_context(fresh_table(aws, dynamo))
            lent = {name: options[name] for name in ("session", "client") if name in options}
            options["outbox"] = await stack.enter_async_context(DynamoDBOutbox(config, **lent))
        yield await stack.enter_async_context(dynamodb_event_store(aws, dynamo, **options))


@pytest.fixture(scope="module", params=[("direct", "alone"), ("client", "outbox")], ids="-".join)
async def shared_store(
    request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient
) -> AsyncIterator[DynamoDBEventStore]:
    async with reached(aws, dynamo, *request.param) as store:
        yield store


# aiohttp's own advice on requests of more than a megabyte, to those who send with the ordinary client.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
class TestDynamoDBEventStore(EventStoreContract):
    @pytest.fixture
    def store(self, shared_store: DynamoDBEventStore) -> EventStore:
        return shared_store


@pytest.mark.parametrize(("way", "kind"), [("direct", "outbox"), ("session", "alone"), ("session", "outbox")])
async def test_other_ways_lead_to_the_same_store(aws: Settings, dynamo: DynamoClient, way: str, kind: str) -> None:
    """The contract holds for the two extremes; what is between them differs in how it connects."""
    async with reached(aws, dynamo, way, kind) as store:
        aggregate = new_id()
        events = await store.append(aggregate, [Changed(number=1), Changed(number=2)], expected_sequence=0)
        with pytest.raises(ConcurrencyError):
            await store.append(aggregate, [Changed(number=3)], expected_sequence=1)
        assert [event.id for event in await history(store, aggregate)] == [event.id for event in events]
        await check_outbox(store, aggregate, events)
