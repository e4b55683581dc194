"""Tests of a service with an outbox, in memory and on the AWS emulator; run it with pytest."""

# [start:service]
from __future__ import annotations

import uuid

import pytest

from oms_events import (
    ConditionFailedError,
    DynamoDBOutbox,
    EventRouter,
    MemoryOutbox,
    MemoryPublisher,
    Outbox,
    OutboxConfig,
    OutboxProcessor,
    TransientError,
    build_event,
    create_table,
)
from oms_events.devstack import AwsEmulator
from oms_events.testing import FlakyPublisher


class OrderService:
    """The service under test."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def place(self, number: str) -> None:
        event = build_event("shop.order.placed", "/shop/orders", {"number": number}, partitionkey=number)
        async with self._outbox.transaction() as tx:
            tx.put("orders", {"pk": number}, condition="attribute_not_exists(pk)")
            tx.add(event)


# [end:service]


# [start:memory]
@pytest.mark.asyncio
async def test_an_order_and_its_event_are_committed_together() -> None:
    async with MemoryOutbox() as outbox:
        await OrderService(outbox).place("A-1")
        (order,) = outbox.store.committed
        assert order["Put"]["Item"] == {"pk": {"S": "A-1"}}
        (event,) = outbox.pending()
        assert event.get_type() == "shop.order.placed"
        assert event.get_data() == {"number": "A-1"}


@pytest.mark.asyncio
async def test_a_refused_order_has_no_event() -> None:
    async with MemoryOutbox(refuse=lambda action: "Put" in action) as outbox:
        with pytest.raises(ConditionFailedError):
            await OrderService(outbox).place("A-1")
        assert outbox.pending() == []


# [end:memory]


# [start:relay]
@pytest.mark.asyncio
async def test_events_of_an_order_are_delivered_in_order() -> None:
    memory = MemoryPublisher()
    platform = FlakyPublisher(memory)
    async with (
        MemoryOutbox() as outbox,
        EventRouter({"nats": platform}) as router,
        OutboxProcessor(outbox, router) as processor,
    ):
        platform.script(TransientError("busy"))
        for event_type in ("shop.order.placed", "shop.order.paid", "shop.order.shipped"):
            await outbox.add(build_event(event_type, "/shop/orders", partitionkey="A-1"))
        assert await processor.drain(timeout=5)
    types = [event.get_type() for event in memory.events]
    assert types == ["shop.order.placed", "shop.order.paid", "shop.order.shipped"]


# [end:relay]


# [start:dynamodb]
@pytest.mark.asyncio
async def test_an_order_is_placed_once(oms_aws_emulator: AwsEmulator) -> None:
    config = OutboxConfig(
        table_name=f"outbox-{uuid.uuid4()}",
        aws_region=oms_aws_emulator.region,
        endpoint_url=oms_aws_emulator.endpoint_url,
        aws_access_key_id=oms_aws_emulator.access_key,
        aws_secret_access_key=oms_aws_emulator.secret_key,
    )
    await create_table(config, buckets=4)
    platform = MemoryPublisher()
    async with (
        DynamoDBOutbox(config) as outbox,
        EventRouter({"nats": platform}) as router,
        OutboxProcessor(outbox, router) as processor,
    ):
        await outbox.add(build_event("shop.order.placed", "/shop/orders", partitionkey="A-1"))
        assert await processor.drain(timeout=10)
    assert len(platform.events) == 1


# [end:dynamodb]
