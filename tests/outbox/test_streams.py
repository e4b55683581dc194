from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from oms_events import EventRouter
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import MemoryOutbox, Outbox
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import Bucket, Lease, Member, Partition, sequence_key
from oms_events.outbox.streams import GuestRelay, buckets_of, create_streams_handler
from oms_events.publishing import PlanPublisher
from oms_events.testing import ManualClock
from tests.outbox.relaying import BUCKET, PATIENT, Script, Told, failed, pending, put, quick, record, routing, rule


def insert(pk: str, *, name: str = "INSERT") -> dict[str, Any]:
    return {"eventName": name, "dynamodb": {"Keys": {"pk": {"S": pk}, "sk": {"S": sequence_key(1)}}}}


async def a_table(buckets: int = 1) -> MemoryOutboxStore:
    store = MemoryOutboxStore()
    await ensure_layout(store, buckets)
    return store


async def holder(store: MemoryOutboxStore, bucket: Bucket = BUCKET) -> str | None:
    lease = (await store.read_coordination()).leases.get(bucket)
    return None if lease is None else lease.owner


def test_the_buckets_of_a_batch_are_those_of_inserted_records() -> None:
    batch = {
        "Records": [
            insert("k#0001#0003"),
            insert("u#0002#0004"),
            insert("k#0001#0003"),
            insert("k#0001#0009", name="REMOVE"),
            insert("dead"),
            insert("layout"),
        ]
    }
    assert buckets_of(batch) == {Bucket(1, 3), Bucket(2, 4)}


@pytest.mark.parametrize("event", [{}, {"source": "aws.events", "detail-type": "Scheduled Event"}])
def test_an_event_that_is_no_batch_is_a_sweep(event: dict[str, Any]) -> None:
    assert buckets_of(event) is None


async def test_a_guest_relays_a_free_bucket_and_gives_it_back() -> None:
    store = await a_table()
    await put(store, record("a", 1), record("b", 2))
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        done = await GuestRelay(store, router, config=quick()).relay({BUCKET}, 5)
    assert (platform.accepted, done) == (["a", "b"], 2)
    assert await holder(store) is None


async def test_a_bucket_that_another_holds_is_left_to_it_and_it_is_woken() -> None:
    store = await a_table()
    await put(store, record("a", 1))
    held = await store.take(Lease(BUCKET), "somebody")
    assert held is not None
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        assert await GuestRelay(store, router, config=quick()).relay({BUCKET}, 5) == 0
    assert platform.accepted == []
    # The owner looks again before it gives the bucket up.
    assert not await store.release(held)


async def test_a_guest_looks_again_when_it_was_woken_before_it_released() -> None:
    store = await a_table()
    await put(store, record("a", 1))

    class Late(MemoryOutboxStore):
        """Another function's record comes, with its wake-up, right before the release."""

        woken = False

        async def release(self, lease: Lease, *, low: int = 0) -> bool:
            if not self.woken:
                self.woken = True
                await put(self, record("b", 2))
                await self.wake(lease.bucket)
            return await super().release(lease, low=low)

    late = Late()
    await ensure_layout(late, 1)
    await put(late, record("a", 1))
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        await GuestRelay(late, router, config=quick()).relay({BUCKET}, 5)
    assert platform.accepted == ["a", "b"]
    assert await holder(late) is None


async def test_what_a_platform_does_not_take_is_left_for_the_next_sweep() -> None:
    store = await a_table()
    await put(store, record("a", 1), record("b", 2, key="other"))
    platform = Told(Script(a=[failed()] * 3))
    async with routing([rule("nats")], nats=platform) as router:
        guest = GuestRelay(store, router, config=quick(retry_initial=30.0, retry_maximum=30.0))
        await guest.relay({BUCKET}, 5)
        assert platform.accepted == ["b"]
        platform.answer = Script()
        await guest.sweep(5)
    assert platform.accepted == ["b", "a"]


async def test_a_sweep_takes_the_buckets_of_an_owner_that_shows_no_life() -> None:
    store, clock = await a_table(), ManualClock()
    await put(store, record("a", 1))
    await store.beat(Member("dead", 7))
    assert await store.take(Lease(BUCKET), "dead") is not None
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        guest = GuestRelay(store, router, config=quick(), clock=clock)
        sweep = asyncio.create_task(guest.sweep(60))
        await clock.someone_sleeps()
        await clock.advance(1.0)
        # From here on its pauses are those of the relay.
        while not sweep.done():
            await clock.advance(0.05)
        await sweep
    assert platform.accepted == ["a"]


async def test_a_sweep_leaves_the_buckets_of_an_owner_that_lives() -> None:
    store, clock = await a_table(), ManualClock()
    await put(store, record("a", 1))
    await store.beat(Member("alive", 7))
    assert await store.take(Lease(BUCKET), "alive") is not None
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        guest = GuestRelay(store, router, config=quick(), clock=clock)
        sweep = asyncio.create_task(guest.sweep(60))
        await clock.someone_sleeps()
        await store.beat(Member("alive", 8))
        await clock.advance(1.0)
        await sweep
    assert (platform.accepted, await holder(store)) == ([], "alive")


async def test_processors_and_functions_on_one_table_deliver_everything_once_and_in_order() -> None:
    store = await a_table(4)
    outbox = Outbox(store, MemoryOutbox().config)
    platform = Told()
    names = [f"e{n}" for n in range(1, 121)]
    async with routing([rule("nats")], nats=platform) as router:
        guest = GuestRelay(store, router, config=quick())
        async with OutboxProcessor(outbox, router, config=quick()) as processor:
            for n, name in enumerate(names):
                partition = Partition(Bucket(1, n % 4), keyed=True)
                await put(store, record(name, n // 4 + 1, key=f"k{n % 4}", partition=partition))
                await guest.relay({partition.bucket}, 5)
            assert await processor.drain(10)
    assert sorted(platform.accepted) == sorted(names)
    for key in range(4):
        own = names[key::4]
        assert [name for name in platform.accepted if name in own] == own


async def test_the_handler_keeps_its_outbox_and_router_open_between_invocations() -> None:
    store, platform = MemoryOutboxStore(), Told()
    opened: list[str] = []

    @asynccontextmanager
    async def open_relay() -> AsyncIterator[tuple[Outbox, PlanPublisher]]:
        opened.append("opened")
        async with EventRouter({"nats": platform}, [rule("nats")], config=PATIENT) as router:
            yield Outbox(store, MemoryOutbox().config), router

    async def fill(name: str, number: int) -> None:
        await ensure_layout(store, 1)
        await put(store, record(name, number))

    handler = create_streams_handler(open_relay, config=quick())

    def invoke() -> None:
        # On a thread without a loop, as in Lambda.
        asyncio.run(fill("a", 1))
        assert handler({"Records": [insert("k#0001#0000")]}, None) == {"batchItemFailures": [], "delivered": 1}
        asyncio.run(fill("b", 2))
        assert handler({}, None)["delivered"] == 1
        handler.close()

    await asyncio.to_thread(invoke)
    assert (platform.accepted, opened) == (["a", "b"], ["opened"])
    assert await pending(store) == []
