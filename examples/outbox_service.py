"""An outbox in a plain asyncio service, which ends cleanly when it is told to: SIGTERM, Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

from oms_events import EventRouter, MemoryPublisher, build_event
from oms_events.devstack import AwsEmulator
from oms_events.instrumentation import Detail, Hook, Relayed
from oms_events.outbox.config import OutboxConfig, ProcessorConfig
from oms_events.outbox.outbox import DynamoDBOutbox
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.table import create_table


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
async def serve(config: OutboxConfig, router: EventRouter, hooks: Sequence[Hook] = ()) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with (
        DynamoDBOutbox(config) as outbox,
        router,
        OutboxProcessor(outbox, router, config=ProcessorConfig(stop_timeout=10.0), hooks=hooks),
    ):
        working = asyncio.create_task(work(outbox))
        stop = asyncio.create_task(stopping.wait())
        # Also when the work fails: its error is raised after everything was closed.
        await asyncio.wait((working, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


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

        serving = asyncio.create_task(serve(config, EventRouter({"nats": memory}), [heard]))
        await relayed.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        numbers = [event.get_data()["number"] for event in memory.events]
        print("stopped cleanly; delivered in order:", numbers == list(range(1, len(numbers) + 1)))


if __name__ == "__main__":
    asyncio.run(main())
