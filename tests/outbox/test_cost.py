"""What the docs say an outbox costs is what it costs, in units of DynamoDB, on every path.

Units of writes are those that the endpoint reports. Of reads an emulator may report one unit per call, whatever it
read: there the units are those of AWS's rules (developer guide, "DynamoDB read and write operations"): a
consistent query takes one per 4 KB of all that it reads, at least one; a transactional read two per item.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events import DynamoDBOutbox, Outbox, OutboxAdmin, OutboxProcessor, build_event, encode
from oms_events._aws.dynamodb import DynamoClient
from oms_events.outbox import schema
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.records import (
    Bucket,
    Coordination,
    Layout,
    Member,
    Page,
    Partition,
    partition_key,
    sequence_key,
)
from oms_events.outbox.store import DeadPage
from oms_events.testing import ManualClock
from tests.outbox.relaying import Script, Told, failed, quick, refused, routing, rule
from tests.outbox.support import Settings, fresh_table

PAGE = Path(__file__).parents[2] / "docs/explanation/outbox.md"
BUCKET = Bucket(1, 0)
KEYED, UNKEYED = Partition(BUCKET, keyed=True), Partition(BUCKET, keyed=False)
READ_UNIT = 4096


def table(name: str) -> dict[str, list[float]]:
    """A table of the docs: the numbers of each row, by what stands in its first column; nothing is 0."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found is not None, name
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    return {row[0]: [float(cell.replace(",", "") or 0) for cell in row[1:]] for row in rows[2:]}


def placed(name: str, *, key: str | None = "order-17") -> CloudEvent:
    """An event whose structured JSON form has 1 KB."""

    def make(note: str) -> CloudEvent:
        data = {"order": name, "note": note}
        return build_event("com.example.order.placed", "/orders", data, id=name, partitionkey=key)

    event = make("x" * (1024 - encode(make("")).size))
    assert encode(event).size == 1024
    return event


class Meter:
    """Counts what a store says that its calls took, by operation."""

    def __init__(self, outbox: Outbox) -> None:
        self.calls: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        outbox.store.on_capacity = self._count  # type: ignore[attr-defined]

    def _count(self, operation: str, read: float, written: float) -> None:
        self.calls[operation] += 1
        self.units[operation] += read + written  # type: ignore[assignment]

    def written(self, *operations: str) -> float:
        return sum(self.units[name] for name in operations)


@dataclass
class Ground:
    """A table with one bucket, an outbox on it, and a table of the service's own."""

    outbox: DynamoDBOutbox
    dynamo: DynamoClient
    orders: str

    async def items(self, partition: Partition) -> list[Mapping[str, Any]]:
        asked = {
            "TableName": self.outbox.store.table,
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": {"S": partition_key(partition)}},
            "ConsistentRead": True,
        }
        answer = await self.dynamo.call("Query", asked, table=self.outbox.store.table)
        return list(answer["Items"])


@pytest.fixture
async def ground(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        config = await stack.enter_async_context(fresh_table(aws, dynamo, buckets=1))
        orders = await stack.enter_async_context(fresh_table(aws, dynamo))
        outbox = await stack.enter_async_context(DynamoDBOutbox(config))
        await ensure_layout(outbox.store, 1)
        yield Ground(outbox, dynamo, orders.table_name)


# ---------------------------------------------------------------------- paths

Measure = Callable[[Ground], Awaitable[tuple[float, float]]]
PATHS: dict[str, Measure] = {}
"""How the write and the read units of each row are measured, per event."""


def path(name: str) -> Callable[[Measure], Measure]:
    def note(measure: Measure) -> Measure:
        PATHS[name] = measure
        return measure

    return note


async def committed(ground: Ground, *events: CloudEvent) -> Meter:
    meter = Meter(ground.outbox)
    async with ground.outbox.transaction() as tx:
        for event in events:
            tx.add(event)
    return meter


async def relayed(ground: Ground, answer: Script | None = None) -> Meter:
    meter = Meter(ground.outbox)
    async with routing([rule("nats")], nats=Told(answer or Script())) as router:
        await OutboxProcessor(ground.outbox, router, config=quick()).run_once()
    return meter


async def removed(ground: Ground) -> float:
    """What relaying all that is there writes, but for the lease, which is taken and given up."""
    return (await relayed(ground)).written("BatchWriteItem", "UpdateItem", "TransactWriteItems") - 2


@path("your own item, of up to 1 KB, in the transaction")
async def _own_item(ground: Ground) -> tuple[float, float]:
    meter = Meter(ground.outbox)
    async with ground.outbox.transaction() as tx:
        tx.put(ground.orders, {"pk": "order-17", "sk": "order", "note": "x" * 900})
        tx.add(placed("a", key=None))
    return meter.written("TransactWriteItems") - 4, 0


@path("the event's record in the transaction")
async def _record(ground: Ground) -> tuple[float, float]:
    return (await committed(ground, placed("a", key=None))).written("TransactWriteItems"), 0


@path("the number of an event with a key, when no other commit shares it")
async def _number(ground: Ground) -> tuple[float, float]:
    return (await committed(ground, placed("a"))).written("UpdateItem"), 0


@path("removal after the delivery")
async def _removal(ground: Ground) -> tuple[float, float]:
    await committed(ground, placed("a"), placed("b"))
    return await removed(ground) / 2, 0


@path("an event with a key, relayed by its writer's process")
async def _keyed(ground: Ground) -> tuple[float, float]:
    meter = await committed(ground, placed("a"))
    written = meter.written("UpdateItem", "TransactWriteItems")
    return written + await removed(ground), 0


@path("an event without a key, relayed by its writer's process")
async def _unkeyed(ground: Ground) -> tuple[float, float]:
    meter = await committed(ground, placed("a", key=None))
    written = meter.written("UpdateItem", "TransactWriteItems")
    return written + await removed(ground), 0


@path("each of ten events of a key in one transaction")
async def _ten(ground: Ground) -> tuple[float, float]:
    meter = await committed(ground, *(placed(str(number)) for number in range(10)))
    written = meter.written("UpdateItem", "TransactWriteItems")
    return (written + await removed(ground)) / 10, 0


@path("found by reading, in a page of 100; again in each sweep while it is pending")
async def _read(ground: Ground) -> tuple[float, float]:
    await ground.outbox.add_many(placed(f"{number:03d}") for number in range(100))
    meter = Meter(ground.outbox)
    page = await ground.outbox.store.read(KEYED, limit=100)
    assert (len(page.records), meter.calls["Query"]) == (100, 1)
    size = sum(schema.item_size(item) for item in await ground.items(KEYED))
    return 0, round(math.ceil(size / READ_UNIT) / 100, 1)


@path("a missing number that is looked for")
async def _probe(ground: Ground) -> tuple[float, float]:
    meter = Meter(ground.outbox)
    await ground.outbox.store.probe(KEYED, [sequence_key(number) for number in range(1, 6)])
    return 0, meter.units["TransactGetItems"] / 5


async def relayed_to_both(ground: Ground, *, nats: Script, eventbridge: Script, until: str) -> Meter:
    """Relays event a to two platforms until one has it; the leases are counted too."""
    await committed(ground, placed("a"))
    told = {"nats": Told(nats), "eventbridge": Told(eventbridge)}
    meter = Meter(ground.outbox)
    async with (
        routing([rule("nats", "eventbridge")], **told) as router,
        OutboxProcessor(ground.outbox, router, config=quick()),
    ):
        await told[until].until(lambda: told[until].accepted == ["a"])
    assert not await ground.items(KEYED)
    return meter


@path("partly delivered: the state is written, once per change")
async def _partial(ground: Ground) -> tuple[float, float]:
    meter = await relayed_to_both(ground, nats=Script(), eventbridge=Script(a=[failed()]), until="eventbridge")
    # Besides, the lease was taken and given up.
    assert meter.calls["UpdateItem"] == 3
    return meter.written("UpdateItem") - 2, 0


@path("a dead letter, in place of the removal")
async def _dead(ground: Ground) -> tuple[float, float]:
    await committed(ground, placed("a"))
    meter = await relayed(ground, Script(a=[refused()]))
    assert meter.calls["BatchWriteItem"] == 0
    return meter.written("TransactWriteItems"), 0


@path("a dead letter of one platform while others are tried, before the removal")
async def _one_dead(ground: Ground) -> tuple[float, float]:
    meter = await relayed_to_both(
        ground, nats=Script(a=[failed()]), eventbridge=Script(a=[refused()]), until="nats"
    )
    assert meter.written("BatchWriteItem") == 2
    return meter.written("TransactWriteItems"), 0


@path("a requeued dead letter: a new record, its number, and the letter removed")
async def _requeue(ground: Ground) -> tuple[float, float]:
    await committed(ground, placed("a"))
    await relayed(ground, Script(a=[refused()]))
    admin = OutboxAdmin(ground.outbox)
    meter = Meter(ground.outbox)
    assert (await admin.requeue(await admin.select())).done == 1
    return meter.written("UpdateItem", "TransactWriteItems"), 0


@pytest.mark.parametrize("name", PATHS)
async def test_a_path_costs_what_the_docs_say(name: str, ground: Ground) -> None:
    written, read = await PATHS[name](ground)
    assert [written, read] == table("outbox-cost-table")[name]


def test_every_path_of_the_docs_is_measured() -> None:
    assert set(table("outbox-cost-table")) == set(PATHS)


async def test_a_record_of_one_kb_costs_half_of_a_larger_one(ground: Ground) -> None:
    """Where the step is, by our own reckoning of sizes; that one may be off by some bytes."""

    async def costs(size: int) -> float:
        def event(note: str) -> CloudEvent:
            return build_event("com.example.order.placed", "/orders", {"note": note}, id=f"e{size}")

        async def record_of(note: str) -> tuple[int, float]:
            meter = await committed(ground, event(note))
            (item,) = await ground.items(UNKEYED)
            await relayed(ground)
            return schema.item_size(item), meter.written("TransactWriteItems")

        for _ in range(20):
            empty, _ = await record_of("")
            found, written = await record_of("x" * (size - empty))
            # The numbers of a record, times among them, have a digit more or less now and then.
            if found == size:
                return written
        raise AssertionError(f"no record of {size} bytes, the last had {found}")

    assert [await costs(1024), await costs(1028)] == [2, 4]


async def test_an_idle_poll_and_a_heartbeat_take_a_unit(ground: Ground) -> None:
    meter = Meter(ground.outbox)
    await ground.outbox.store.read(UNKEYED)
    await ground.outbox.store.beat(Member("a" * 32, 2**31, {"in_flight": 0}))
    assert meter.units == {"Query": 1, "PutItem": 1}


# ---------------------------------------------------------------------- what a table carries

PARTITION = 1_000
NEW_TABLE = 4_000
"""Write units a second (developer guide, "Burst and adaptive capacity" and "On-demand capacity mode")."""


def test_what_a_table_carries_follows_from_the_costs() -> None:
    costs = {name: written for name, (written, _) in table("outbox-cost-table").items()}
    record = costs["the event's record in the transaction"] + costs["removal after the delivery"]
    keyed = costs["an event with a key, relayed by its writer's process"]
    carried = {
        "one bucket, events with a key": PARTITION / record,
        "one bucket, events without a key": PARTITION / record,
        "32 buckets, events with a key": 32 * PARTITION / record,
        "a new table on demand, in its first minutes, events with a key": NEW_TABLE / keyed,
    }
    assert table("outbox-capacity-table") == {name: [_down(events)] for name, events in carried.items()}


def _down(number: float) -> int:
    """To two digits, downwards."""
    unit = 10 ** (len(str(int(number))) - 2)
    return int(number) // unit * unit


# ---------------------------------------------------------------------- idle


class IdleStore(MemoryOutboxStore):
    """Counts the units of what an idle processor asks for, by AWS's rules."""

    def __init__(self) -> None:
        super().__init__()
        self.units: Counter[str] = Counter()

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        self.units["read"] += 1
        return await super().read(partition, after=after, limit=limit)

    async def dead_letters(
        self, *, platform: str | None = None, after: str | None = None, limit: int = 100
    ) -> DeadPage:
        self.units["read"] += 1
        return await super().dead_letters(platform=platform, after=after, limit=limit)

    async def read_layout(self) -> Layout | None:
        self.units["read"] += 1
        return await super().read_layout()

    async def read_coordination(self) -> Coordination:
        found = await super().read_coordination()
        size = sum(schema.item_size(schema.member_item(member)) for member in found.members.values())
        for lease in found.leases.values():
            # As a lease is that has had several owners.
            item = {"o": {"S": str(lease.owner)}, "n": {"N": "10"}, "l": {"N": "1000000"}}
            size += schema.item_size({**schema.lease_key(lease.bucket), **item})
        self.units["read"] += max(1, math.ceil(size / READ_UNIT))
        return found

    async def beat(self, member: Member) -> None:
        self.units["write"] += math.ceil(schema.item_size(schema.member_item(member)) / 1024)
        await super().beat(member)


IDLE = table("outbox-idle-table")


@pytest.mark.parametrize("name", IDLE)
async def test_an_idle_fleet_takes_what_the_docs_say(name: str) -> None:
    buckets, processors = map(int, re.findall(r"\d+", name))
    store, clock, rng = IdleStore(), ManualClock(), random.Random(1)
    await ensure_layout(store, buckets)
    outbox = Outbox(store, WriterConfig(), clock=clock, rng=rng)
    async with AsyncExitStack() as stack:
        for _ in range(processors):
            router = await stack.enter_async_context(routing([rule("nats")], nats=Told()))
            await stack.enter_async_context(OutboxProcessor(outbox, router, clock=clock, rng=rng))
        # Until the buckets are shared and all is quiet.
        await clock.advance(120)
        store.units.clear()
        await clock.advance(300)
        counted = [12 * store.units["read"], 12 * store.units["write"]]
    assert counted == [pytest.approx(told, rel=0.02) for told in IDLE[name]]
