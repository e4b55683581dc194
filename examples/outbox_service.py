"""An outbox in a plain asyncio service, which ends cleanly when it is told to: SIGTERM, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from oms_events import (
    DynamoDBOutbox,
    EventRouter,
    MemoryPublisher,
    OutboxConfig,
    OutboxProcessor,
    ProcessorConfig,
    Publisher,
    build_event,
    create_table,
)
from oms_events.devstack import AwsEmulator
from oms_events.instrumentation import Detail, Hook, LoggingHook, Relayed


# [start:work]
async def work(outbox: DynamoDBOutbox) -> None:
    """What the service does: here it notes one order after the other."""
    number = 0
    while True:
        number += 1
        event = build_event("shop.order.placed", "/shop/orders", {"number": number}, partitionkey="shop-1")
        async with outbox.transaction() as tx:
            tx.add(event)
        await asyncio.sleep(0.05)


# [end:work]


# [start:serve]
async def serve(config: OutboxConfig, platforms: Mapping[str, Publisher], hooks: Sequence[Hook]) -> None:
    async with (
        DynamoDBOutbox(config) as outbox,
        EventRouter(platforms, hooks=hooks) as router,
        OutboxProcessor(outbox, router, config=ProcessorConfig(stop_timeout=10.0), hooks=hooks),
    ):
        working = asyncio.create_task(work(outbox))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await working


# [end:serve]


async def main() -> None:
    memory = MemoryPublisher()
    async with AwsEmulator() as aws:
        os.environ.update(aws.environment())
        config = OutboxConfig(table_name="orders-outbox")
        await create_table(config)
        relayed = asyncio.Event()

        def heard(detail: Detail) -> None:
            if isinstance(detail, Relayed):
                relayed.set()

        serving = asyncio.create_task(serve(config, {"nats": memory}, [LoggingHook(), heard]))
        await relayed.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        in_order = [{"number": number} for number in range(1, len(memory.events) + 1)]
        print("stopped cleanly; delivered in order:", [event.get_data() for event in memory.events] == in_order)


if __name__ == "__main__":
    asyncio.run(main())
