"""The event store against bare calls of the same direct client: appends with their outbox records, and loading.

An append is of two events and a command, with their outbox records five actions. The emulator of DynamoDB sets the
pace of writing, as a table far away would. Loading is measured by CPU time, with canned pages: what is left is
ours. Run: python -m benchmarks.eventstore
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import orjson

from benchmarks.eventstore_stub import AGGREGATE, HISTORY, TABLE, make_event, recorded, registry
from benchmarks.harness import Way, compare, report
from benchmarks.outbox_relaying import KEYS, REGION
from benchmarks.stub import running_stub
from oms_events import DynamoDBOutbox, OutboxConfig, create_table
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events.devstack import AwsEmulator
from oms_events.eventstore.append import Append
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.outbox.records import Bucket, NewRecord, Partition, sequence_key
from oms_events.outbox.store import Action

CONCURRENCY = 16
BARE_APPEND = "bare TransactWriteItems"
APPEND = "store.append()"
BARE_LOAD = "bare Query, pages and JSON parsed"
LOAD = "store.pages(), typed events"


def side_by_side(calls: Iterator[Callable[[], Awaitable[object]]]) -> Way:
    """Makes the calls, 16 at a time."""

    async def work() -> None:
        for call in calls:
            await call()

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))

    return run


# ---------------------------------------------------------------------- appending


async def same_items(store: DynamoDBEventStore, outbox: DynamoDBOutbox, count: int) -> list[list[Action]]:
    """What appends of so many new aggregates put, ready to be sent."""
    requests = []
    for number in range(count):
        aggregate = f"account-{uuid4()}"
        events = await recorded(aggregate, range(2))
        append = Append(store.table.name, aggregate, 0, events, f"command-{uuid4()}", "", ())
        partition = Partition(Bucket(9, number % 32), keyed=True)
        added = int(time.time() * 1000)
        records = [
            NewRecord(partition, sequence_key(uuid4().int % 10**15), aggregate, event.encoded, added)
            for event in events
        ]
        requests.append([*append.actions, *map(outbox.store.put_action, records)])
    return requests


def bare_appends(dynamo: DynamoClient, table: str, requests: list[list[Action]]) -> tuple[int, Way]:
    def call(actions: list[Action]) -> Callable[[], Awaitable[object]]:
        parameters = {"TransactItems": actions, "ClientRequestToken": uuid4().hex}
        return lambda: dynamo.call("TransactWriteItems", parameters, table=table)

    return len(requests), side_by_side(map(call, requests))


def appends(store: DynamoDBEventStore, count: int) -> tuple[int, Way]:
    def call(number: int) -> Callable[[], Awaitable[object]]:
        events = [make_event(number), make_event(number + 1)]
        return lambda: store.append(
            f"account-{uuid4()}", events, expected_sequence=0, command_id=f"command-{uuid4()}",
            correlation_id="request-7", causation_id="command-7",
        )  # fmt: skip

    return count, side_by_side(map(call, range(count)))


async def appending(*, rounds: int, count: int) -> bool:
    async with AwsEmulator() as emulator:
        access: Any = {"aws_region": REGION, "endpoint_url": emulator.endpoint_url, **KEYS}
        outbox_config = OutboxConfig(table_name="bench-outbox", **access)
        await create_table(outbox_config)
        config = EventStoreConfig(table_name=TABLE, **access)
        async with DynamoDBOutbox(outbox_config) as outbox:
            store = DynamoDBEventStore(config, outbox=outbox, registry=registry)
            await store.table.create()
            dynamo = await open_dynamo(config, connections=config.connections)
            async with store:
                # Both go the direct way from now on.
                await store.append("warm-up", [make_event(0)], expected_sequence=0)
                await dynamo.call("DescribeTable", {"TableName": TABLE}, table=TABLE)
                ready = [await same_items(store, outbox, count) for _ in range(rounds + 1)]
                ways = {
                    BARE_APPEND: lambda: bare_appends(dynamo, TABLE, ready.pop()),
                    APPEND: lambda: appends(store, count),
                }
                rates = await compare(ways, rounds=rounds)
            await dynamo.close()
    title = f"Two events, their outbox records and a command, {CONCURRENCY} at a time, on the emulator"
    return report(title, rates, APPEND, {BARE_APPEND: 0.65}, unit="appends/s")


# ---------------------------------------------------------------------- loading


async def load_bare(dynamo: DynamoClient) -> int:
    """What a service without the package does: reads all pages, and the JSON that they hold."""
    parameters: dict[str, Any] = {
        "TableName": TABLE,
        "KeyConditionExpression": "AggregateId = :id AND EventSequence > :after",
        "ExpressionAttributeValues": {":id": {"S": AGGREGATE}, ":after": {"N": "0"}},
        "ConsistentRead": True,
    }
    found = []
    while True:
        answer = await dynamo.call("Query", parameters, table=TABLE)
        found += [
            (
                int(item["EventSequence"]["N"]),
                orjson.loads(item["CloudEvent"]["S"]),
                orjson.loads(item["Data"]["S"]),
            )
            for item in answer["Items"]
        ]
        if "LastEvaluatedKey" not in answer:
            return len(found)
        parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


async def load(store: DynamoDBEventStore) -> int:
    """As a repository does."""
    found = []
    async for events in store.pages(AGGREGATE):
        found += [(event.sequence, event.domain_event) for event in events]
    return len(found)


def loads(call: Callable[[], Awaitable[int]], times: int) -> tuple[int, Way]:
    async def run() -> None:
        for _ in range(times):
            if await call() != HISTORY:
                raise RuntimeError("not the whole history was loaded")

    return times, run


async def loading(*, rounds: int, times: int) -> bool:
    with running_stub("benchmarks.eventstore_stub") as endpoint_url:
        config = EventStoreConfig(table_name=TABLE, aws_region=REGION, endpoint_url=endpoint_url, **KEYS)
        dynamo = await open_dynamo(config, connections=1)
        async with DynamoDBEventStore(config, registry=registry) as store:
            ways = {
                BARE_LOAD: lambda: loads(lambda: load_bare(dynamo), times),
                LOAD: lambda: loads(lambda: load(store), times),
            }
            rates = await compare(ways, rounds=rounds, clock=time.process_time)
        await dynamo.close()
    title = f"An aggregate of {HISTORY:,} events of 1 KB, canned pages, by CPU time"
    return report(title, rates, LOAD, {BARE_LOAD: 0.8}, unit="loads/s of CPU")


# ----------------------------------------------------------------------


async def measure(rounds: int) -> int:
    # Many short rounds: what else the machine does then falls on both.
    met = await appending(rounds=3 * rounds, count=96)
    met &= await loading(rounds=rounds, times=20)
    return 0 if met else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    return asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    sys.exit(main())
