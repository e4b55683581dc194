"""The outbox against the ways to do it by hand: writing, relaying, latency, memory.

1 KB events. Writing goes to an emulator of DynamoDB, which is a Python program beside us; relaying is measured
against tables that answer at once, so that what is left is the processor. Run: python -m benchmarks.outbox
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import aioboto3
import nats

from benchmarks import outbox_memory
from benchmarks.harness import Way, compare, make_events, report
from benchmarks.outbox_stub import TABLE, ReadyStore, fill, make_items
from benchmarks.stub import running_stub
from oms_events import EventRouter, OutboxConfig, OutboxProcessor, create_oms_multi_platform_router, encode
from oms_events.devstack import AwsEmulator, NatsServer
from oms_events.events import EncodedEvent
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.outbox import DynamoDBOutbox, MemoryOutbox, Outbox
from oms_events.outbox.schema import record_key
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.table import create_table
from oms_events.publishers.jetstream.publisher import JetStreamPublisher
from oms_events.publishing import PublisherTraits, Receipt

CONCURRENCY = 16
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
REGION = "us-east-1"
SUBJECT = "oms.action.started"
Prepare = Callable[[], tuple[int, Way]]


def config_for(endpoint_url: str, table: str) -> OutboxConfig:
    return OutboxConfig(table_name=table, aws_region=REGION, endpoint_url=endpoint_url, **KEYS)


# ---------------------------------------------------------------------- writing


def order_item() -> dict[str, Any]:
    return {"pk": f"order-{uuid4()}", "sk": "order", "status": "placed", "total": 12, "note": "x" * 200}


async def at_once(work: Callable[[], Way | None]) -> None:
    """Runs what `work` gives, one after the other in 16 tasks, until it gives None."""

    async def worker() -> None:
        while (one := work()) is not None:
            await one()

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


def bare_transactions(client: Any, config: OutboxConfig, count: int) -> Way:
    """What a service without the package sends: the same two items, made beforehand."""
    requests = iter(
        [
            [
                {"Put": {"TableName": "orders", "Item": {name: typed(value) for name, value in order_item().items()}}},
                {"Put": {"TableName": config.table_name, "Item": item | {"pk": {"S": f"bare-{uuid4()}"}}}},
            ]
            for _, item in make_items(count, keyed=True)
        ]
    )  # fmt: skip

    def work() -> Way | None:
        actions = next(requests, None)
        return None if actions is None else lambda: client.transact_write_items(TransactItems=actions)

    return lambda: at_once(work)


def typed(value: str | int) -> dict[str, str]:
    return {"N": str(value)} if isinstance(value, int) else {"S": value}


def through_outbox(outbox: Outbox, count: int, *, keyed: bool) -> Way:
    events = iter(make_events(count, keyed=keyed))

    async def write(event: object) -> None:
        async with outbox.transaction() as tx:
            tx.put("orders", order_item())
            tx.add(event)

    def work() -> Way | None:
        event = next(events, None)
        return None if event is None else lambda: write(event)

    return lambda: at_once(work)


async def writing(endpoint_url: str, *, rounds: int, count: int) -> bool:
    config = config_for(endpoint_url, "bench-writing")
    await create_table(config)
    await create_table(config_for(endpoint_url, "orders"))
    session = aioboto3.Session(**KEYS, region_name=REGION)
    async with session.client("dynamodb", endpoint_url=endpoint_url) as client, DynamoDBOutbox(config) as outbox:
        bare = f"aioboto3 transact_write_items, {CONCURRENCY} at a time"
        ways: dict[str, Prepare] = {
            bare: lambda: (count, bare_transactions(client, config, count)),
            "outbox.transaction(), no key": lambda: (count, through_outbox(outbox, count, keyed=False)),
            "outbox.transaction(), with key": lambda: (count, through_outbox(outbox, count, keyed=True)),
        }
        rates = await compare(ways, rounds=rounds)
    met = True
    for subject in list(ways)[1:]:
        both = {name: rates[name] for name in (bare, subject)}
        met &= report("Writing an order and an event, emulator", both, subject, {bare: 0.65}, unit="transactions/s")
    return met


# ---------------------------------------------------------------------- relaying


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
            raise RuntimeError(f"{summary} of {count}")

    return count, run


def mark_one_by_one(client: Any, count: int) -> tuple[int, Way]:
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


async def relaying_cpu(*, rounds: int, count: int) -> bool:
    """The processor on DynamoDB, answered at once by another process, and a platform that answers at once."""
    session = aioboto3.Session(**KEYS, region_name=REGION)
    with running_stub("benchmarks.outbox_stub") as endpoint_url:
        async with (
            session.client("dynamodb", endpoint_url=endpoint_url) as client,
            EventRouter({"nats": AtOnce()}) as router,
            DynamoDBOutbox(config_for(endpoint_url, TABLE)) as outbox,
        ):

            def of(keyed: bool) -> Prepare:
                def prepare() -> tuple[int, Way]:
                    fill(endpoint_url, count, keyed=keyed)
                    return relay(outbox, router, count)

                return prepare

            marking = "aioboto3 update_item for each event, nothing else"
            ways: dict[str, Prepare] = {
                marking: lambda: mark_one_by_one(client, count // 10),
                "the processor, no keys": of(False),
                "the processor, keys": of(True),
            }
            rates = await compare(ways, rounds=rounds, clock=time.process_time)
    met = True
    for subject in list(ways)[1:]:
        both = {name: rates[name] for name in (marking, subject)}
        met &= report("Relaying, own CPU", both, subject, {marking: 4.0}, unit="events per CPU second")
        print(f"\n{subject}: {1e6 / statistics.median(rates[subject]):.0f} us of CPU per event")
    return met


async def relaying(url: str, *, rounds: int, count: int) -> bool:
    """The processor and the router alone, to the same JetStream server; the table answers at once."""
    client = await nats.connect(url)
    async with create_oms_multi_platform_router(nats_publisher=client) as router:

        def publish() -> tuple[int, Way]:
            events: list[object] = list(make_events(count))

            async def run() -> None:
                if not all(result.delivered for result in await router.publish_events(events)):
                    raise RuntimeError("not every event was delivered")

            return count, run

        def of(keyed: bool) -> Prepare:
            return lambda: relay(Outbox(ReadyStore(count, keyed=keyed), WriterConfig()), router, count)

        ways: dict[str, Prepare] = {
            "router.publish_events": publish,
            "the processor, no keys": of(False),
            "the processor, keys": of(True),
        }
        rates = await compare(ways, rounds=rounds)
    await client.close()
    met = True
    for subject in list(ways)[1:]:
        both = {name: rates[name] for name in ("router.publish_events", subject)}
        met &= report("Relaying to JetStream", both, subject, {"router.publish_events": 0.7})
    return met


# ---------------------------------------------------------------------- latency


class Timed(JetStreamPublisher):
    """JetStream, and when it last acknowledged something."""

    acknowledged = 0.0

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Any:
        answers = await super().publish(events, timeout=timeout)
        self.acknowledged = time.perf_counter()
        self.answered.set()
        return answers


async def commit_to_delivery(outbox: Outbox, url: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds from an event's commit to its acknowledgement, and of a bare publish, in turn."""
    client = await nats.connect(url)
    js = client.jetstream()
    publisher = Timed(client)
    publisher.answered = asyncio.Event()
    committed = 0.0

    def note(signal: Committed | Voided) -> None:
        nonlocal committed
        committed = time.perf_counter()

    outbox.subscribe(note)
    bare: list[float] = []
    ours: list[float] = []
    async with EventRouter({"nats": publisher}) as router, OutboxProcessor(outbox, router) as processor:
        # Until every bucket is held and was read once, events are found by reading.
        await settled(processor)
        for event in make_events(count, keyed=True):
            encoded = encode(make_events(1)[0])
            payload, identity = encoded.json, encoded.id
            start = time.perf_counter()
            await js.publish(SUBJECT, payload, headers={"Nats-Msg-Id": identity})
            bare.append(time.perf_counter() - start)
            publisher.answered.clear()
            await outbox.add(event)
            await publisher.answered.wait()
            ours.append(publisher.acknowledged - committed)
    await client.close()
    return ours[count // 10 :], bare[count // 10 :]
