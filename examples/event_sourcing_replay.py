"""Replays history: through the router with a checkpoint, to one platform, and from an EventBridge archive."""

# [start:imports]
from __future__ import annotations

import asyncio
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aioboto3
from pydantic import BaseModel

from oms_events import EventRouter, MemoryPublisher, RoutingRule
from oms_events.devstack import AwsEmulator
from oms_events.eventstore import (
    ArchiveReplays,
    DynamoDBEventStore,
    EventStore,
    EventStoreConfig,
    FileReplayCheckpoint,
    ReplayConfig,
    ReplayReport,
    ReplaySelection,
    StoreReplay,
    TimeRange,
    domain_event,
)
from oms_events.provisioning import AwsConfig

# [end:imports]


@domain_event
class OrderPlaced(BaseModel):
    total: int


@domain_event
class OrderShipped(BaseModel):
    carrier: str


# [start:count]
async def count(store: EventStore, router: EventRouter) -> ReplayReport:
    selection = ReplaySelection(types=["OrderPlaced"], start="2 hours ago")
    return await StoreReplay(store, router, selection).count()


# [end:count]


# [start:run]
async def replay(store: EventStore, router: EventRouter, file: Path) -> ReplayReport:
    replay = StoreReplay(
        store,
        router,
        ReplaySelection(),
        name="new-search-index",
        checkpoint=FileReplayCheckpoint(file),
        config=ReplayConfig(rate=500),
        on_failure=print,
    )
    return await replay.run()


# [end:run]


# [start:archive]
async def replay_archive(config: AwsConfig, archive: str) -> None:
    now = datetime.now(UTC)
    async with ArchiveReplays(config) as archives:
        started = await archives.start(archive, TimeRange(now - timedelta(hours=1), now), on_warning=print)
        ended = await archives.follow(started.name, interval=0.1)
        print(f"archive {archive}: {ended.state}, {ended.progress:.0%}")


# [end:archive]


async def make_archive() -> None:
    async with aioboto3.Session().client("events") as events:
        bus = await events.create_event_bus(Name="shop")
        await events.create_archive(ArchiveName="shop", EventSourceArn=bus["EventBusArn"])
        entry = {"Source": "shop", "DetailType": "order", "Detail": json.dumps({"id": 1}), "EventBusName": "shop"}
        await events.put_events(Entries=[entry])


async def main() -> None:
    search, ledger = MemoryPublisher(), MemoryPublisher()
    rules = [RoutingRule(event_type_pattern="Order.*", platforms=["ledger"], name="orders")]
    with tempfile.TemporaryDirectory() as folder:
        async with AwsEmulator() as aws:
            os.environ.update(aws.environment())
            store = DynamoDBEventStore(EventStoreConfig(table_name="event-store"))
            await store.table.create()
            async with store, EventRouter({"ledger": ledger, "search": search}, rules) as router:
                for number in range(1, 4):
                    events = [OrderPlaced(total=number), OrderShipped(carrier="post")]
                    await store.append(f"order-{number}", events, expected_sequence=0)

                counted = await count(store, router)
                print("would go:", counted.by_type, counted.by_rule, counted.by_platform)

                file = Path(folder) / "replay.json"
                report = await replay(store, router, file)
                print(f"delivered {report.delivered} of {report.matched}, complete: {report.complete}")
                again = await replay(store, router, file)
                print(f"once more with its checkpoint: {again.read} read, complete: {again.complete}")

                report = await StoreReplay(store, router, ReplaySelection(platform="search")).run()
                print(f"to search alone: {len(search.events)}; duplicates: {report.duplicates}")
                first = ledger.events[0]
                print(first.get_type(), "of replay", first.get_extension("replayname"))

            await make_archive()
            await replay_archive(AwsConfig(), "shop")


if __name__ == "__main__":
    asyncio.run(main())
