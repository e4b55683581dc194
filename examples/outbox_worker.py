"""A stand-alone worker of one settings file: what `oms-events outbox run` does, as a program of your own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import nats

from oms_events import OutboxConfig, OutboxProcessor, build_event, create_table
from oms_events.devstack import DevStack
from oms_events.instrumentation import Detail, Hook, LoggingHook, Relayed
from oms_events.settings import Settings

HERE = Path(__file__).parent


# [start:worker]
async def work(settings: Settings, hooks: Sequence[Hook]) -> None:
    outbox, router = settings.create_outbox(), settings.create_router(hooks=hooks)
    processor = OutboxProcessor(outbox, router, config=settings.processor, hooks=hooks)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with outbox, router, processor:
        await stopping.wait()


# [end:worker]


async def show_stream(url: str) -> None:
    client = await nats.connect(url)
    try:
        stream = await client.jetstream().stream_info("SHOP")
        print("the worker has stopped; JetStream has", stream.state.messages, "events")
    finally:
        await client.close()


async def main() -> None:
    async with DevStack() as stack:
        os.environ.update({**stack.environment(), "OMS_ENABLE_EVENTBRIDGE": "false"})
        settings = Settings.from_file(HERE / "outbox.toml")
        await create_table(OutboxConfig(table_name="orders-outbox"))
        relayed = asyncio.Semaphore(0)

        def heard(detail: Detail) -> None:
            if isinstance(detail, Relayed):
                for _ in range(detail.events):
                    relayed.release()

        worker = asyncio.create_task(work(settings, [LoggingHook(), heard]))

        # A writer that does not relay: in life, another process.
        async with settings.create_outbox() as outbox:
            for number in range(3):
                event = build_event("shop.order.placed", "/shop/orders", {"number": number}, partitionkey="shop-1")
                await outbox.add(event)
        for _ in range(3):
            await relayed.acquire()
        os.kill(os.getpid(), signal.SIGTERM)
        await worker
        await show_stream(stack.nats.url)


if __name__ == "__main__":
    asyncio.run(main())
