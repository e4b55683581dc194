"""A rejected event becomes a dead letter: look at it, repair what refused it, requeue it."""

from __future__ import annotations

import asyncio
import os

from oms_events import (
    DynamoDBOutbox,
    EventRouter,
    MemoryPublisher,
    OutboxAdmin,
    OutboxConfig,
    OutboxFilter,
    OutboxProcessor,
    RoutingRule,
    build_event,
    create_table,
)
from oms_events.devstack import AwsEmulator

EVERYWHERE = RoutingRule(event_type_pattern=r"shop\..*", platforms=["nats", "eventbridge"])


# [start:look]
async def look(admin: OutboxAdmin) -> None:
    async for letter in admin.letters(OutboxFilter(platform="nats")):
        event_type = None if letter.event is None else letter.event.type
        print(f"{letter.platform} refused {event_type} of {letter.key}: {letter.reason}")


# [end:look]


# [start:requeue]
async def requeue(admin: OutboxAdmin) -> None:
    selection = await admin.select(OutboxFilter(platform="nats", event_type="shop.order.placed"))
    for group in selection.groups:
        print(f"{group.count} of {group.platform}: {group.code}")
    changes = await admin.requeue(selection)
    print(f"requeued {changes.done}, gone {changes.gone}, failed {len(changes.failed)}")


# [end:requeue]


async def main() -> None:
    small, large, backup = MemoryPublisher(max_size=1000), MemoryPublisher(), MemoryPublisher()
    async with AwsEmulator() as aws:
        os.environ.update(aws.environment())
        config = OutboxConfig(table_name="orders-outbox")
        await create_table(config)
        async with DynamoDBOutbox(config) as outbox:
            admin = OutboxAdmin(outbox)
            event = build_event("shop.order.placed", "/shop/orders", {"note": "x" * 2000}, partitionkey="A-1")
            async with outbox.transaction() as tx:
                tx.add(event)

            print("-- NATS takes 1,000 bytes")
            async with (
                EventRouter({"nats": small, "eventbridge": backup}, [EVERYWHERE]) as router,
                OutboxProcessor(outbox, router) as processor,
            ):
                await processor.drain(timeout=10)
            await look(admin)
            print("eventbridge has", len(backup.events))

            print("-- NATS takes more, and the dead letter is requeued")
            await requeue(admin)
            async with (
                EventRouter({"nats": large, "eventbridge": backup}, [EVERYWHERE]) as router,
                OutboxProcessor(outbox, router) as processor,
            ):
                await processor.drain(timeout=10)
            print("nats has", len(large.events), "eventbridge has", len(backup.events))


if __name__ == "__main__":
    asyncio.run(main())
