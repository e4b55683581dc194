"""A store that was closed stays closed, also beside what was under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import BaseModel

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import StorageUnavailableError
from oms_events.eventstore.items import event_key
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.store import EventStore
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.outbox import DynamoDBOutbox
from tests.eventstore.accounts import deposit, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings

CLOSED = "was closed: nothing was written; open it again"


@pytest.fixture(params=["memory", "dynamodb"])
def store(request: pytest.FixtureRequest) -> EventStore:
    found: EventStore = request.getfixturevalue(f"{request.param}_store")
    return found


async def test_nothing_is_read_after_closing(store: EventStore) -> None:
    for name in ("a", "b"):
        await store.append(name, [deposit()], expected_sequence=0, command_id="c")
    await store.append("a", [deposit()] * 3, expected_sequence=1)
    pages = store.pages("a", limit=2)
    by_type = store.events_by_type("TransactionProcessed", page_size=1)
    await anext(pages)
    await anext(by_type)
    await store.close()

    async def rest(events: Any) -> list[Any]:
        return [event async for event in events]

    for read in (
        rest(pages),
        rest(by_type),
        rest(store.read("a")),
        rest(store.events_by_type("TransactionProcessed")),
        store.last_sequence("a"),
        store.marker("a", "c"),
        store.scan(),
    ):
        with pytest.raises(StorageUnavailableError, match="was closed"):
            await read
    async with store:
        assert await store.last_sequence("a") == 4


class _Closing:
    """A cipher that takes its time: meanwhile the store is closed."""

    store: EventStore

    async def protect(self, model: BaseModel, data: dict[str, Any], **options: Any) -> dict[str, Any]:
        await self.store.close()
        return data

    async def reveal(self, payloads: Sequence[bytes]) -> Sequence[bytes]:
        return payloads


@pytest.fixture(params=["alone", "outbox"])
async def closing(
    request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient, table_config: OutboxConfig
) -> AsyncIterator[EventStore]:
    cipher = _Closing()
    async with AsyncExitStack() as stack:
        outbox = None
        if request.param == "outbox":
            outbox = await stack.enter_async_context(DynamoDBOutbox(table_config))
        options: dict[str, Any] = {"cipher": cipher, "outbox": outbox, "registry": registry}
        cipher.store = await stack.enter_async_context(dynamodb_event_store(aws, dynamo, **options))
        yield cipher.store


async def test_an_append_beside_closing_does_not_open_the_table_again(closing: EventStore) -> None:
    with pytest.raises(StorageUnavailableError, match=CLOSED):
        await closing.append("a", [deposit()], expected_sequence=0)
    with pytest.raises(StorageUnavailableError, match="was closed"):
        await closing.table.get(event_key("a", 1))
    async with closing:
        assert await closing.last_sequence("a") == 0


async def test_a_store_in_memory_is_closed_for_itself_alone() -> None:
    one = MemoryEventStore(registry=registry)
    await one.append("a", [deposit()], expected_sequence=0)
    await one.close()
    with pytest.raises(StorageUnavailableError, match=CLOSED):
        await one.append("a", [deposit()], expected_sequence=1)
    async with one:
        assert await one.last_sequence("a") == 1
