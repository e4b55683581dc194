"""The order between two layouts, as the relay keeps it."""

from __future__ import annotations

from oms_events.outbox.epochs import change_buckets
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import Bucket, Partition
from oms_events.publishing import Receipt
from tests.outbox.relaying import (
    BUCKET,
    KEYED,
    Faulty,
    Script,
    Told,
    event,
    failed,
    outbox_on,
    pending,
    put,
    quick,
    record,
    routing,
    rule,
    until,
)

NEW = Partition(Bucket(2, 0), keyed=True)


async def test_a_new_layout_waits_for_writers_of_the_old_one() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    # Reserved by a writer that was slow, before the change.
    slow = await store.reserve(BUCKET, 1)
    await change_buckets(store, 2)
    await put(store, record("new", 1, partition=NEW))
    platform = Told()
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick(drain_time=0.6)) as processor,
    ):
        # The old layout is empty, and was read; what was reserved in it may be committed still.
        await until(lambda: 2 in processor._engine.epochs.waiting)
        await store.looked()
        await put(store, record("old", slow))
        assert await processor.drain(20)
    assert platform.accepted == ["old", "new"]


async def test_only_keys_with_records_in_the_old_layout_wait_in_the_new_one() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("stuck1", await store.reserve(BUCKET, 1), key="stuck"))
    await change_buckets(store, 2)
    await put(store, record("stuck2", 1, key="stuck", partition=NEW), record("free", 2, key="free", partition=NEW))
    platform = Told(lambda made: failed() if made.id == "stuck1" else Receipt())
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick()) as processor,
    ):
        await platform.until(lambda: platform.accepted == ["free"])
        await store.looked(10)
        assert platform.accepted == ["free"]
        assert any("stuck" in problem for problem in processor.status()["problems"])
        platform.answer = Script()
        assert await processor.drain(10)
    assert platform.accepted == ["free", "stuck1", "stuck2"]


async def test_an_old_writer_gets_no_number_once_the_layout_has_changed() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await outbox.add(event("before"))
    await change_buckets(store, 4)
    # This writer still goes by the old layout: its reservation fails, and it follows.
    await outbox.add(event("after"))
    old = await pending(store, KEYED)
    assert [found.event.id for found in old if found.event] == ["before"]
    new = [found for n in range(4) for found in await pending(store, Partition(Bucket(2, n), keyed=True))]
    assert [found.event.id for found in new if found.event] == ["after"]
