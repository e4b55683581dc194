"""Looks after an event store: is it whole, what does it hold, what is new."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from oms_events.devstack import AwsEmulator
from oms_events.eventstore import (
    DynamoDBEventStore,
    EventStore,
    EventStoreConfig,
    default_registry,
    domain_event,
    stats,
    tail,
    verify,
)


@domain_event
class OrderPlaced(BaseModel):
    total: int


# [start:verify]
async def is_whole(store: EventStore) -> bool:
    report = await verify(store, registry=default_registry, index=True)
    for problem in report.problems:
        print(f"{problem.kind} at {problem.position}: {problem.text}")
    print(f"{report.events} events of {report.aggregates} aggregates, whole: {report.ok}")
    return report.ok


# [end:verify]


# [start:stats]
async def show_sizes(store: EventStore) -> None:
    found = await stats(store, top=3)
    print(f"{found.events} events, {found.bytes} bytes, from {found.oldest} to {found.newest}")
    for event_type, one in found.types.items():
        print(f"{event_type}: {one.events}")
    for history in found.longest:
        print(f"{history.aggregate_id} has {history.events} events")


# [end:stats]


# [start:tail]
async def watch(store: EventStore, event_type: str, count: int) -> None:
    since = datetime.now(UTC) - timedelta(minutes=5)
    async with aclosing(tail(store, event_types=[event_type], since=since)) as events:
        async for event in events:
            print(f"{event.position} {event.type} {event.data}")
            count -= 1
            if not count:
                return


# [end:tail]


async def main() -> None:
    async with AwsEmulator() as aws:
        os.environ.update(aws.environment())
        store = DynamoDBEventStore(EventStoreConfig(table_name="orders"))
        await store.table.create()
        async with store:
            for number in (1, 2):
                orders = [OrderPlaced(total=10 * number)] * number
                await store.append(f"customer-{number}", orders, expected_sequence=0)
            await is_whole(store)
            await show_sizes(store)
            await watch(store, "OrderPlaced", 3)


if __name__ == "__main__":
    asyncio.run(main())
