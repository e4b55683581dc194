"""What the relay tells its hooks: each test fails when nobody is told."""

from __future__ import annotations

from oms_events.errors import AddressDeniedError, UnknownOutcomeError
from oms_events.instrumentation.hooks import BacklogMeasured, DuplicateAcks, OutboxAlert, Relayed
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.processor import OutboxProcessor
from oms_events.publishing import Receipt
from tests.outbox.relaying import Details, Told, outbox_on, put, quick, record, routing, rule, until


async def test_an_id_that_the_platform_had_already_is_reported_once_per_call() -> None:
    store, details = MemoryOutboxStore(), Details()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n, key=f"k{n}") for n in range(1, 4)))
    platform = Told(lambda _: Receipt(duplicate=True))
    async with routing([rule("nats")], nats=platform) as router:
        await OutboxProcessor(outbox, router, config=quick(), hooks=[details]).run_once()
    assert sum(found.count for found in details.of(DuplicateAcks)) == 3
    assert sum(found.events for found in details.of(Relayed)) == 3


async def test_a_retry_beyond_the_dedup_window_is_warned_of() -> None:
    store, details = MemoryOutboxStore(), Details()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    platform = Told(lambda _: UnknownOutcomeError("no answer"))
    config = quick(dedup_window=0.1, retry_initial=0.02, retry_maximum=0.2)
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=config, hooks=[details]),
    ):
        await until(lambda: "dedup_window" in {alert.kind for alert in details.of(OutboxAlert)})


async def test_a_denied_address_is_told_and_shows_in_the_status_until_it_works() -> None:
    store, details = MemoryOutboxStore(), Details()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    platform = Told(lambda _: AddressDeniedError("no stream takes it"))
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick(measure_interval=0.05), hooks=[details]) as processor,
    ):
        await until(lambda: "denied" in {alert.kind for alert in details.of(OutboxAlert)})
        assert any("no stream takes it" in problem for problem in processor.status()["problems"])
        await until(lambda: any(found.pending == 1 for found in details.of(BacklogMeasured)))
        platform.answer = lambda _: Receipt()
        assert await processor.drain(10)
        assert processor.status()["problems"] == []
