"""Large events through the outbox: their data goes to S3, the event carries a reference."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aioboto3
from cloudevents.core.v1.event import CloudEvent

from oms_events import (
    ClaimCheckConfig,
    DynamoDBOutbox,
    EventRouter,
    MemoryPublisher,
    OutboxConfig,
    OutboxLimitError,
    OutboxProcessor,
    build_event,
    create_table,
    resolve_dataref,
)
from oms_events.devstack import AwsEmulator

DATA = {"note": "x" * 500_000}

# [start:config]
config = OutboxConfig(
    table_name="orders-outbox",
    claim_check=ClaimCheckConfig(bucket="orders-outbox-data", threshold=64 * 1024),
)
# [end:config]


# [start:consume]
async def consume(event: CloudEvent, s3: Any) -> None:
    whole = await resolve_dataref(event, s3, bucket="orders-outbox-data")
    print("got the data:", whole.get_data() == DATA)


# [end:consume]


async def main() -> None:
    memory = MemoryPublisher()
    event = build_event("shop.order.placed", "/shop/orders", DATA, partitionkey="A-1")
    async with AwsEmulator() as aws:
        os.environ.update(aws.environment())
        await create_table(config)

        async with DynamoDBOutbox(OutboxConfig(table_name="orders-outbox")) as outbox:
            try:
                await outbox.add(event)
            except OutboxLimitError as error:
                print("refused:", error)

        async with aioboto3.Session().client("s3") as s3:
            await s3.create_bucket(Bucket="orders-outbox-data")
            async with (
                DynamoDBOutbox(config) as outbox,
                EventRouter({"nats": memory}) as router,
                OutboxProcessor(outbox, router) as processor,
            ):
                await outbox.add(event)
                print("the outbox is empty:", await processor.drain(timeout=10))
            (delivered,) = memory.events
            print("delivered without data:", delivered.get_data() is None)
            await consume(delivered, s3)


if __name__ == "__main__":
    asyncio.run(main())
