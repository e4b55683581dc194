"""The outbox's processor against marking records one by one, and against the router alone.

1 KB events. The tables answer at once, so that what is left is the processor: one in another process, for its
CPU, and one in this process, for its speed to a real JetStream server. Run: python -m benchmarks.outbox_relaying
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import aioboto3
import nats

from benchmarks.harness import Way, compare, make_events, report
from benchmarks.outbox_stub import TABLE, ReadyStore, fill, make_items
from benchmarks.stub import running_stub
from oms_events import EventRouter, OutboxConfig, OutboxProcessor, create_oms_multi_platform_router
from oms_events.devstack import NatsServer
from oms_events.events import EncodedEvent
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.outbox import DynamoDBOutbox, Outbox
from oms_events.outbox.schema import record_key
from oms_events.publishing import PublisherTraits, Receipt

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
REGION = "us-east-1"
Prepare = Callable[[], tuple[int, Way]]


class AtOnce:
    """A platform that answers at once."""

    traits = PublisherTraits()

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def check(self) -> None:
        return

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt]:
        return [Receipt()] * len(events)


def relay(outbox: Outbox, router: EventRouter, count: int) -> tuple[int, Way]:
    """One run of a processor that has `count` events to relay."""

    async def run() -> None:
        summary = await OutboxProcessor(outbox, router).run_once()
        if summary.delivered != count:
            raise RuntimeError(f"not every event of {count} was delivered: {summary}")

    return count, run


def mark_one_by_one(client: Any, count: int) -> tuple[int, Way]:
    """What a relay without batches does after each event, and nothing of what it does before."""
    keys = [record_key(partition, item["sk"]["S"]) for partition, item in make_items(count, keyed=True)]

    async def run() -> None:
        for key in keys:
            await client.update_item(
                TableName=TABLE,
                Key=key,
                UpdateExpression="SET #s = :done",
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeNames={"#s": "status"},
                ExpressionAttributeValues={":done": {"S": "published"}},
            )

    return count, run


async def own_cpu(*, rounds: int, count: int) -> bool:
    session = aioboto3.Session(**KEYS, region_name=REGION)
    with running_stub("benchmarks.outbox_stub") as endpoint_url:
        config = OutboxConfig(table_name=TABLE, aws_region=REGION, endpoint_url=endpoint_url, **KEYS)
        async with (
            session.client("dynamodb", endpoint_url=endpoint_url) as client,
            EventRouter({"nats": AtOnce()}) as router,
            DynamoDBOutbox(config) as outbox,
        ):

            def processor(*, keyed: bool) -> tuple[int, Way]:
                fill(endpoint_url, count, keyed=keyed)
                return relay(outbox, router, count)

            marking = "aioboto3 update_item, one by one"
            ways: dict[str, Prepare] = {
                marking: lambda: mark_one_by_one(client, count // 10),
                "processor, events without keys": lambda: processor(keyed=False),
                "processor, events with keys": lambda: processor(keyed=True),
            }
            rates = await compare(ways, rounds=rounds, clock=time.process_time)
    met = True
    for subject in list(ways)[1:]:
        both = {name: rates[name] for name in (marking, subject)}
        met &= report("Relaying, the process's own CPU", both, subject, {marking: 4.0}, unit="events per CPU s")
    costs = ", ".join(f"{name} {1e6 / statistics.median(rate):.0f}" for name, rate in rates.items())
    print(f"\nus of CPU per event: {costs}")
    return met


async def throughput(url: str, *, rounds: int, count: int) -> bool:
    client = await nats.connect(url)
    async with create_oms_multi_platform_router(nats_publisher=client) as router:

        def alone() -> tuple[int, Way]:
            events: list[object] = list(make_events(count))

            async def run() -> None:
                if not all(result.delivered for result in await router.publish_events(events)):
                    raise RuntimeError("not every event was delivered")

            return count, run

        def processor(*, keyed: bool) -> tuple[int, Way]:
            return relay(Outbox(ReadyStore(count, keyed=keyed), WriterConfig()), router, count)

        ways: dict[str, Prepare] = {
            "router.publish_events": alone,
            "processor, events without keys": lambda: processor(keyed=False),
            "processor, events with keys": lambda: processor(keyed=True),
        }
        rates = await compare(ways, rounds=rounds)
    await client.close()
    met = True
    for subject in list(ways)[1:]:
        both = {name: rates[name] for name in ("router.publish_events", subject)}
        met &= report("Relaying to JetStream", both, subject, {"router.publish_events": 0.7})
    return met


async def measure(rounds: int, count: int) -> int:
    met = await own_cpu(rounds=rounds, count=count)
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="OMS", subjects=["oms.>"], max_bytes=1 << 30)
        await client.close()
        met &= await throughput(server.url, rounds=rounds, count=count)
    return 0 if met else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=8_000)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.rounds, arguments.events))


if __name__ == "__main__":
    sys.exit(main())
