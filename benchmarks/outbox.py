"""Writing to the outbox against bare transactions, and the time from a commit to the delivery.

1 KB events. The emulator of DynamoDB is a Python program beside us and sets the pace of writing; the latency is
that of an outbox in memory, so that what is left is ours, and for comparison that of the emulator. JetStream is
real. Runs the other benchmarks of the outbox too. Run: python -m benchmarks.outbox
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import aioboto3
import nats
from nats.js import JetStreamContext

from benchmarks import outbox_memory, outbox_relaying
from benchmarks.harness import Way, compare, make_events, report
from benchmarks.outbox_relaying import KEYS, REGION, Prepare
from benchmarks.outbox_stub import make_items
from oms_events import (
    DynamoDBOutbox,
    EventRouter,
    MemoryOutbox,
    OutboxConfig,
    OutboxProcessor,
    create_table,
    encode,
)
from oms_events._aws.marshal import to_item
from oms_events.devstack import AwsEmulator, NatsServer
from oms_events.events import EncodedEvent
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.signals import Committed, Voided
from oms_events.publishers.jetstream import JetStreamPublisher

CONCURRENCY = 16
SUBJECT = "oms.action.started"
WRITING = "aioboto3 transact_write_items"


# ---------------------------------------------------------------------- writing


def order() -> dict[str, Any]:
    return {"pk": f"order-{uuid4()}", "sk": "order", "status": "placed", "total": 12, "note": "x" * 200}


def side_by_side(calls: Iterator[Callable[[], Awaitable[object]]]) -> Way:
    """Makes the calls, 16 at a time."""

    async def work() -> None:
        for call in calls:
            await call()

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))

    return run


def bare(client: Any, table: str, count: int) -> tuple[int, Way]:
    """What a service without the package sends: the same two items, ready to be sent."""
    requests = [
        [
            {"Put": {"TableName": "orders", "Item": to_item(order(), path="item")}},
            {"Put": {"TableName": table, "Item": {**item, "pk": {"S": str(uuid4())}}}},
        ]
        for _, item in make_items(count, keyed=True)
    ]

    def call(actions: Any) -> Callable[[], Awaitable[object]]:
        return lambda: client.transact_write_items(TransactItems=actions)

    return count, side_by_side(map(call, requests))


def through_outbox(outbox: Outbox, count: int, *, keyed: bool) -> tuple[int, Way]:
    async def write(event: object, item: dict[str, Any]) -> None:
        async with outbox.transaction() as tx:
            tx.put("orders", item)
            tx.add(event)

    def call(event: object, item: dict[str, Any]) -> Callable[[], Awaitable[object]]:
        return lambda: write(event, item)

    return count, side_by_side(map(call, make_events(count, keyed=keyed), [order() for _ in range(count)]))


async def writing(emulator: AwsEmulator, *, rounds: int, count: int) -> bool:
    config = await table(emulator, "bench-writing")
    await table(emulator, "orders")
    session = aioboto3.Session(**KEYS, region_name=REGION)
    async with (
        session.client("dynamodb", endpoint_url=emulator.endpoint_url) as client,
        DynamoDBOutbox(config) as outbox,
    ):
        ways: dict[str, Prepare] = {
            WRITING: lambda: bare(client, config.table_name, count),
            "outbox.transaction(), events without keys": lambda: through_outbox(outbox, count, keyed=False),
            "outbox.transaction(), events with keys": lambda: through_outbox(outbox, count, keyed=True),
        }
        rates = await compare(ways, rounds=rounds)
    met = True
    for subject in list(ways)[1:]:
        both = {name: rates[name] for name in (WRITING, subject)}
        title = f"An order and its event in one transaction, {CONCURRENCY} at a time, on the emulator"
        met &= report(title, both, subject, {WRITING: 0.65}, unit="transactions/s")
    return met


async def table(emulator: AwsEmulator, name: str) -> OutboxConfig:
    config = OutboxConfig(table_name=name, aws_region=REGION, endpoint_url=emulator.endpoint_url, **KEYS)
    await create_table(config)
    return config


# ---------------------------------------------------------------------- latency


class Timed:
    """JetStream, and the time when it last acknowledged an event."""

    def __init__(self, publisher: JetStreamPublisher) -> None:
        self._publisher = publisher
        self.traits = publisher.traits
        self.open, self.close, self.check = publisher.open, publisher.close, publisher.check
        self.at = 0.0
        self.acknowledged = asyncio.Event()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Any:
        answers = await self._publisher.publish(events, timeout=timeout)
        self.at = time.perf_counter()
        self.acknowledged.set()
        return answers


async def commit_to_delivery(outbox: Outbox, client: Any, count: int) -> tuple[float, float]:
    """Median seconds of a bare publish, and from a commit to its event's acknowledgement, taken in turn."""
    js: JetStreamContext = client.jetstream()
    publisher = Timed(JetStreamPublisher(client))
    committed = 0.0
    alone: list[float] = []
    ours: list[float] = []

    def note(_: Committed | Voided) -> None:
        nonlocal committed
        committed = time.perf_counter()

    outbox.subscribe(note)
    async with EventRouter({"nats": publisher}) as router, OutboxProcessor(outbox, router):
        for event, other in zip(make_events(count, keyed=True), map(encode, make_events(count)), strict=True):
            payload, headers = other.json, {"Nats-Msg-Id": other.id}
            start = time.perf_counter()
            await js.publish(SUBJECT, payload, headers=headers)
            alone.append(time.perf_counter() - start)
            publisher.acknowledged.clear()
            await outbox.add(event)
            await publisher.acknowledged.wait()
            ours.append(publisher.at - committed)
    return statistics.median(alone), statistics.median(ours)


async def latency(emulator: AwsEmulator, url: str, count: int) -> bool:
    client = await nats.connect(url)
    async with MemoryOutbox() as outbox:
        alone, ours = await commit_to_delivery(outbox, client, count)
    async with DynamoDBOutbox(await table(emulator, "bench-latency")) as table_outbox:
        _, emulated = await commit_to_delivery(table_outbox, client, count // 4)
    await client.close()
    verdict = "met" if ours <= 3 * alone else "MISSED"
    print(
        f"\nFrom the commit to the delivery, p50: {ours * 1e6:.0f} us; js.publish alone {alone * 1e6:.0f} us: "
        f"{ours / alone:.2f} x (target: at most 3 x, {verdict}); on the emulator {emulated * 1e6:.0f} us"
    )
    return ours <= 3 * alone


# ----------------------------------------------------------------------


async def measure(rounds: int, count: int) -> int:
    async with AwsEmulator() as emulator, NatsServer() as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="OMS", subjects=["oms.>"], max_bytes=1 << 30)
        await client.close()
        met = await writing(emulator, rounds=rounds, count=count // 20)
        met &= await outbox_relaying.own_cpu(rounds=rounds, count=count)
        met &= await outbox_relaying.throughput(server.url, rounds=rounds, count=count)
        met &= await latency(emulator, server.url, 2000)
        met &= await asyncio.to_thread(outbox_memory.measure, server.url)
    return 0 if met else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=8_000)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.rounds, arguments.events))


if __name__ == "__main__":
    sys.exit(main())
