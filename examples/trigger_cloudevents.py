"""Starts that come as CloudEvents from JetStream, and go on as events through the router."""

# [start:imports]
from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oms_events import (
    EncodedEvent,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    RoutingRule,
    StreamPolicy,
    StreamSpec,
    build_event,
)
from oms_events.devstack import NatsServer
from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.publishers.jetstream import JetStreamPublisher
from oms_events.receiving import Dropped, JetStreamReceiver, ReceiverConfig
from oms_events.triggers import EventSender, TriggerConfig, TriggerPipeline, received_starts_handler

# [end:imports]


async def main() -> None:
    async with NatsServer() as server:
        nats_config = NatsConfig(servers=(server.url,))
        options = JetStreamOptions(
            stream=StreamSpec(name="EVENTS", subjects=("events.>",)),
            policy=StreamPolicy.CREATE,
            subject="events.{type}",
        )
        rule = RoutingRule(name="all", event_type_pattern=".*", platforms=["nats"], strategy="all")
        async with EventRouter({"nats": JetStreamPublisher(nats_config, options=options)}, [rule]) as router:
            await publish_updates(router)
            await start_with_them(router, nats_config)


async def publish_updates(router: EventRouter) -> None:
    """What another service does."""
    # [start:publish]
    event_type, source = "symbol.universe.updated", "symbol.universe"
    added = {"added_symbols": ["NVDA", "AMD", "AVGO"]}
    await router.publish_event(build_event(event_type, source, added, correlationid="flow-1"))
    broken = {"added_symbols": "NVDA"}
    await router.publish_event(build_event(event_type, source, broken, correlationid="flow-2"))
    # [end:publish]


async def start_with_them(router: EventRouter, nats_config: NatsConfig) -> None:
    work: asyncio.Queue[EncodedEvent] = asyncio.Queue()
    broken: asyncio.Queue[Dropped] = asyncio.Queue()

    # [start:worker]
    async def ingest(events: Sequence[EncodedEvent]) -> Sequence[Exception | None]:
        for event in events:
            work.put_nowait(event)
        return [None] * len(events)

    # [end:worker]

    # [start:pipeline]
    pipeline = TriggerPipeline(
        EventSender(router, event_type="ingestion.chunk.requested", source="/ingestion"),
        config=TriggerConfig(options={"chunk_size": 2}),
        idempotency=MemoryIdempotencyStore(),
    )
    starts = ReceiverConfig(stream="EVENTS", durable="starter", subjects=("events.symbol.>",))
    chunks = ReceiverConfig(stream="EVENTS", durable="worker", subjects=("events.ingestion.>",))
    async with (
        pipeline,
        JetStreamReceiver(nats_config, starts, received_starts_handler(pipeline), on_dropped=broken.put),
        JetStreamReceiver(nats_config, chunks, ingest),
    ):
        # [end:pipeline]
        for _ in range(2):
            event = await work.get()
            chunk, flow = event.data, event.attributes["correlationid"]
            print(f"{flow}: chunk {chunk['chunk_index'] + 1} of {chunk['chunk_count']}: {chunk['symbols']}")
        print("no start:", (await broken.get()).error)


if __name__ == "__main__":
    asyncio.run(main())
