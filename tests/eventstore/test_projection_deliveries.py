"""The sources with all that is between them and the store: the outbox, and a stream of JetStream."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest

from oms_events import DynamoDBOutbox
from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import NatsServer
from oms_events.events import build_event, encode
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.platform import received_events_handler
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels, ReadModels
from oms_events.outbox.config import OutboxConfig
from oms_events.publishers.jetstream import JetStreamPublisher
from oms_events.publishing import Receipt
from oms_events.receiving import JetStreamReceiver
from tests.eventstore.accounts import AccountCreated, deposit, registry
from tests.eventstore.summaries import assert_rows_are_as_the_store, configured, expected_row, summaries
from tests.outbox.support import Settings
from tests.publishers.jetstream.conftest import make_stream, until
from tests.receiving.conftest import Drops, config_for


def as_json(config: Any) -> dict[str, Any]:
    """A configuration for another process, secrets and all."""
    given = {name: getattr(config, name) for name in config.model_fields_set}
    return {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in given.items()
    }


@asynccontextmanager
async def a_process(settings: dict[str, Any]) -> AsyncIterator[None]:
    """The processor in a process of its own, which is killed in the end."""
    command = [sys.executable, "-m", "tests.eventstore.projecting_program", json.dumps(settings)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        yield
    finally:
        assert process.returncode is None
        process.kill()
        await process.wait()


async def until_there(read_models: ReadModels, accounts: list[str], events: int) -> None:
    """Waits until that many events are in the rows."""
    async with asyncio.timeout(30):
        while True:
            rows = (await read_models.rows("AccountSummary", accounts)).values()
            if sum(row["events"] for row in rows if row is not None) >= events:
                return
            await asyncio.sleep(0.02)


async def test_rows_are_right_however_often_the_process_is_killed(
    aws: Settings, dynamo: DynamoClient, table_config: OutboxConfig
) -> None:
    accounts = [f"account-{number}" for number in range(3)]
    table_config = table_config.model_copy(update={"buckets": 2})
    async with (
        configured(aws, dynamo) as (store_config, tables),
        DynamoDBOutbox(table_config) as outbox,
        DynamoDBEventStore(store_config, registry=registry, outbox=outbox) as store,
        DynamoDBReadModels(tables) as read_models,
    ):
        settings = {
            "outbox": as_json(table_config), "store": as_json(store_config), "tables": as_json(tables),
        }  # fmt: skip
        for account in accounts:
            await store.append(account, [AccountCreated(customer_id="c")], expected_sequence=0)
        for after in range(1, 5):
            for account in accounts:
                await store.append(account, [deposit(after)], expected_sequence=after)
        async with a_process(settings):
            await until_there(read_models, accounts, 4)
        async with a_process(settings):
            await until_there(read_models, accounts, 3 * 5)
            await store.append(accounts[0], [deposit(100)], expected_sequence=5)
            await until_there(read_models, accounts, 3 * 5 + 1)
        await assert_rows_are_as_the_store(store, read_models, accounts)


async def test_rows_are_right_by_way_of_jetstream(oms_nats_server: NatsServer) -> None:
    store, read_models = MemoryEventStore(registry=registry), MemoryReadModels()
    accounts = [f"account-{number}" for number in range(5)]
    client = await nats.connect(oms_nats_server.url)
    drops = Drops()
    async with make_stream(client) as stream, JetStreamPublisher(client, options=stream.options()) as publisher:
        for account in accounts:
            events: list[Any] = [AccountCreated(customer_id="c"), *map(deposit, range(1, 20))]
            recorded = await store.append(account, events, expected_sequence=0)
            receipts = await publisher.publish([event.encoded for event in recorded], timeout=5)
            assert all(isinstance(receipt, Receipt) for receipt in receipts)
        foreign = encode(build_event("AccountCreated", "/other", {"customer_id": "x"}, subject="a", sequence="1"))
        await publisher.publish([foreign], timeout=5)
        handler = received_events_handler(Projector([summaries()], store, read_models))
        async with JetStreamReceiver(client, config_for(stream, batch=7), handler, on_dropped=drops) as receiver:
            await until(lambda: receiver.describe()["handled"] == 100 and bool(drops.all))
    await client.close()
    await assert_rows_are_as_the_store(store, read_models, accounts)
    assert [dropped.event is not None and dropped.event.source for dropped in drops.all] == ["/other"]


async def test_the_rows_would_show_an_event_twice_or_in_another_order() -> None:
    """What these tests compare is able to tell."""
    store, read_models = MemoryEventStore(registry=registry), MemoryReadModels()
    await store.append("a", [AccountCreated(customer_id="c"), deposit(1), deposit(2)], expected_sequence=0)
    right = await expected_row(store, "a")
    other = MemoryEventStore(registry=registry)
    await other.append("a", [AccountCreated(customer_id="c"), deposit(1), deposit(1)], expected_sequence=0)
    await Projector([summaries()], other, read_models).catch_up("a")
    assert await read_models.row("AccountSummary", "a") != right
    with pytest.raises(AssertionError):
        await assert_rows_are_as_the_store(store, read_models, ["a"])
