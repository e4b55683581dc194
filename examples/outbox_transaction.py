"""Transactions with events: put, update, check and delete, and what a condition that fails says."""

from __future__ import annotations

import asyncio
import os

import aioboto3

from oms_events import (
    ConditionFailedError,
    DynamoDBOutbox,
    EventRouter,
    MemoryPublisher,
    Outbox,
    OutboxConfig,
    OutboxProcessor,
    build_event,
    create_table,
)
from oms_events.devstack import AwsEmulator
from oms_events.instrumentation import LoggingHook


# [start:update]
async def pay(outbox: Outbox, number: str, amount: int) -> None:
    async with outbox.transaction() as tx:
        tx.update(
            "orders",
            {"pk": number},
            "SET #status = :paid, amount = :amount",
            condition="#status = :placed",
            names={"#status": "status"},  # a reserved word of DynamoDB
            values={":placed": "placed", ":paid": "paid", ":amount": amount},
        )
        tx.check("orders", {"pk": "shop"}, "attribute_exists(pk)")
        tx.add(build_event("shop.order.paid", "/shop/orders", {"amount": amount}, partitionkey=number))


# [end:update]


async def main() -> None:
    memory = MemoryPublisher()
    async with AwsEmulator() as aws:
        os.environ.update(aws.environment())
        config = OutboxConfig(table_name="orders-outbox")
        await create_table(config)
        async with aioboto3.Session().client("dynamodb") as dynamodb:
            await dynamodb.create_table(
                TableName="orders",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            await dynamodb.put_item(TableName="orders", Item={"pk": {"S": "shop"}})

        # [start:whole]
        hooks = [LoggingHook()]
        async with (
            DynamoDBOutbox(config) as outbox,
            EventRouter({"nats": memory}, hooks=hooks) as router,  # your platforms and rules
            OutboxProcessor(outbox, router, hooks=hooks) as processor,  # delivers what is committed
        ):
            order = {"pk": "A-1", "status": "placed"}
            event = build_event("shop.order.placed", "/shop/orders", order, partitionkey="A-1")
            async with outbox.transaction() as tx:  # the order and its event, or neither
                tx.put("orders", order, condition="attribute_not_exists(pk)")
                tx.add(event)
            # [end:whole]
            await pay(outbox, "A-1", 12)
            try:
                await pay(outbox, "A-1", 12)
            except ConditionFailedError as error:
                print("refused:", error)
            print("the outbox is empty:", await processor.drain(timeout=10))
    print("delivered:", [event.get_type() for event in memory.events])


if __name__ == "__main__":
    asyncio.run(main())
