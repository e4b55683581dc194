"""The program of the outbox tutorial: an order and its event in one transaction, delivered whatever breaks."""

# [start:imports]
from __future__ import annotations

import asyncio

import aioboto3
import nats

from oms_events import (
    BreakerConfig,
    ConditionFailedError,
    DestinationConfig,
    DynamoDBOutbox,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    OutboxConfig,
    OutboxProcessor,
    RouterConfig,
    StreamPolicy,
    StreamSpec,
    build_event,
    create_oms_multi_platform_router,
    create_table,
)
from oms_events.devstack import DevStack, NatsServer
from oms_events.publishers.jetstream import from_nats_message

# [end:imports]


# [start:tables]
async def create_tables(config: OutboxConfig, aws: aioboto3.Session) -> None:
    await create_table(config, session=aws)
    async with aws.client("dynamodb", endpoint_url=config.endpoint_url) as dynamodb:
        await dynamodb.create_table(
            TableName="orders",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


# [end:tables]


# [start:router]
def make_router(server: NatsServer) -> EventRouter:
    return create_oms_multi_platform_router(
        NatsConfig(servers=(server.url,), reconnect_wait=0.2),
        jetstream_options=JetStreamOptions(
            stream=StreamSpec(name="SHOP", subjects=("shop.>",)), policy=StreamPolicy.CREATE
        ),
        config=RouterConfig(
            destination=DestinationConfig(breaker=BreakerConfig(recovery_time=0.5), check_interval=0.5)
        ),
    )


# [end:router]


# [start:order]
async def place_order(outbox: DynamoDBOutbox, number: str, total: int) -> None:
    order = {"pk": number, "total": total}
    event = build_event("shop.order.placed", "/shop/orders", {"total": total}, partitionkey=number)
    try:
        async with outbox.transaction() as tx:
            tx.put("orders", order, condition="attribute_not_exists(pk)")
            tx.add(event)
    except ConditionFailedError:
        print(f"order {number} is there already: nothing was written, and no event")
    else:
        print(f"order {number} is placed, and its event is in the outbox")


# [end:order]


# [start:read]
async def read_stream(url: str, count: int) -> None:
    client = await nats.connect(url)
    try:
        consumer = await client.jetstream().subscribe("shop.>", ordered_consumer=True)
        for _ in range(count):
            message = await consumer.next_msg(timeout=10)
            event = from_nats_message(message.headers, message.data)
            key = event.get_extension("partitionkey")
            print(f"JetStream has {event.get_type()} of {key}: {event.get_data()!r}")
    finally:
        await client.close()


# [end:read]


# [start:main]
async def main() -> None:
    async with DevStack() as stack:
        aws = aioboto3.Session(
            region_name=stack.aws.region,
            aws_access_key_id=stack.aws.access_key,
            aws_secret_access_key=stack.aws.secret_key,
        )
        config = OutboxConfig(table_name="orders-outbox", endpoint_url=stack.aws.endpoint_url)
        await create_tables(config, aws)
        async with (
            DynamoDBOutbox(config, session=aws) as outbox,
            make_router(stack.nats) as router,
            OutboxProcessor(outbox, router) as processor,
        ):
            await place_order(outbox, "A-1", total=12)
            await place_order(outbox, "A-1", total=12)
            print("the outbox is empty:", await processor.drain(timeout=10))
            await read_stream(stack.nats.url, count=1)

            await stack.nats.kill()
            await place_order(outbox, "A-2", total=30)
            print("while NATS is down, the outbox is empty:", await processor.drain(timeout=1))
            await stack.nats.start()
            print("the outbox is empty:", await processor.drain(timeout=20))
            await read_stream(stack.nats.url, count=2)


if __name__ == "__main__":
    asyncio.run(main())
# [end:main]
