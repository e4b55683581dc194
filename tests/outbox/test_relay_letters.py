"""What ends as a dead letter, what does not, and what a held letter keeps waiting."""

from __future__ import annotations

import asyncio

from oms_events.instrumentation.hooks import DeadLettered
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import PlatformState
from tests.outbox.relaying import (
    Details,
    Script,
    Told,
    failed,
    outbox_on,
    pending,
    put,
    quick,
    record,
    refused,
    routing,
    rule,
)


async def test_a_failover_rejection_is_history_once_another_platform_took_the_event() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(lambda _: refused()), Told()
    either = rule("nats", "eventbridge", strategy="failover")
    async with routing([either], nats=nats, eventbridge=eventbridge) as router:
        summary = await OutboxProcessor(outbox, router, config=quick()).run_once()
    assert eventbridge.accepted == ["a"]
    assert (summary.delivered, summary.dead_lettered) == (1, 0)
    assert (await store.dead_letters()).letters == []


async def test_a_failover_record_goes_on_where_a_crash_left_it() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(lambda _: refused()), Told(lambda _: failed())
    either = rule("nats", "eventbridge", strategy="failover")
    async with routing([either], nats=nats, eventbridge=eventbridge) as router:
        async with OutboxProcessor(outbox, router, config=quick()):
            await eventbridge.until(lambda: len(eventbridge.calls) >= 2)
        (kept,) = await pending(store)
        assert dict(kept.state.states) == {"nats": PlatformState.REJECTED}
        asked = len(nats.calls)
        eventbridge.answer = Script()
        await OutboxProcessor(outbox, router, config=quick()).run_once()
    assert eventbridge.accepted == ["a"]
    assert len(nats.calls) == asked == 1
    assert await pending(store) == []


async def test_a_failover_record_that_all_reject_is_one_dead_letter() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1), record("b", 2))
    bad = Script(a=[refused()])
    nats, eventbridge, details = Told(bad), Told(Script(a=[refused()])), Details()
    either = rule("nats", "eventbridge", strategy="failover")
    async with routing([either], nats=nats, eventbridge=eventbridge) as router:
        await OutboxProcessor(outbox, router, config=quick(), hooks=[details]).run_once()
    (letter,) = (await store.dead_letters()).letters
    assert letter.platforms == ("nats", "eventbridge")
    assert nats.accepted == ["b"]
    assert [(dead.platform, dead.event_id) for dead in details.of(DeadLettered)] == [("nats", "a")]
    assert await pending(store) == []


async def test_a_rejection_is_a_dead_letter_of_that_platform_only() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1), record("b", 2))
    nats, eventbridge = Told(), Told(Script(a=[refused()]))
    async with routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router:
        await OutboxProcessor(outbox, router, config=quick()).run_once()
    (letter,) = (await store.dead_letters()).letters
    assert (letter.platform, letter.code, letter.reason) == ("eventbridge", "TooLarge", "too large")
    assert nats.accepted == ["a", "b"]
    assert eventbridge.accepted == ["b"]
    assert await pending(store) == []


async def test_hold_keeps_the_key_until_the_letter_is_requeued() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1), record("b", 2), record("x", 3, key="other"))
    nats = Told(Script(a=[refused()]))
    config = quick(after_dead_letter="hold")
    async with routing([rule("nats")], nats=nats) as router:
        await OutboxProcessor(outbox, router, config=config).run_once()
        assert nats.accepted == ["x"]
        (letter,) = (await store.dead_letters()).letters
        # Two operators at once: one of them frees it, the other hears that it is gone.
        assert sorted(await asyncio.gather(store.requeue(letter, None), store.requeue(letter, None))) == [
            False,
            True,
        ]
        await OutboxProcessor(outbox, router, config=config).run_once()
    assert nats.accepted == ["x", "a", "b"]
    assert (await store.dead_letters()).letters == []


async def test_purging_a_held_letter_lets_its_key_go_on_without_it() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1), record("b", 2))
    nats = Told(Script(a=[refused()]))
    config = quick(after_dead_letter="hold")
    async with routing([rule("nats")], nats=nats) as router:
        await OutboxProcessor(outbox, router, config=config).run_once()
        (letter,) = (await store.dead_letters()).letters
        assert await store.purge(letter)
        await OutboxProcessor(outbox, router, config=config).run_once()
    assert nats.accepted == ["b"]
    assert await pending(store) == []
