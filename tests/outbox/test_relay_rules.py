"""The rules of the relay: each test shows an interleaving, and fails when its rule is taken away."""

from __future__ import annotations

import asyncio

import pytest

from oms_events import RoutingRule, build_event, encode
from oms_events.errors import EventRejectedError
from oms_events.instrumentation.hooks import GapsProbed, LateRecords, OutboxAlert
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import NewRecord, Partition, PlatformState, RecordState, sequence_key
from oms_events.publishing import Receipt
from tests.outbox.relaying import (
    KEYED,
    PATIENT,
    UNKEYED,
    Details,
    Faulty,
    Holds,
    Script,
    Told,
    TornReads,
    failed,
    outbox_on,
    pending,
    put,
    quick,
    record,
    refused,
    relay_of,
    routing,
    rule,
    until,
)


async def test_a_failing_event_is_never_overtaken_by_the_next_of_its_key_in_the_same_call() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, *(record(f"a{n}", n, key="a") for n in range(1, 6)))
    await put(store, *(record(f"b{n}", n + 5, key="b") for n in range(1, 4)))
    platform = Told(Script(a1=[failed()], a3=[failed(), failed()]))
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick()) as processor,
    ):
        assert await processor.drain(10)
    for call in platform.calls:
        keys = [name[0] for name in call]
        assert len(keys) == len(set(keys))
    assert [name for name in platform.accepted if name[0] == "a"] == ["a1", "a2", "a3", "a4", "a5"]
    assert platform.accepted.index("b3") < platform.accepted.index("a2")


async def test_what_a_query_does_not_show_yet_goes_first_when_it_was_committed_before() -> None:
    store = TornReads()
    outbox = await outbox_on(store)
    await put(store, record("a", 1), record("b", 2))
    # B is in the page, A is not: its transaction is still being applied when the query passes.
    store.hidden = {record("a", 1).sk}
    platform, details = Told(), Details()
    async with routing([rule("nats")], nats=platform) as router:
        await OutboxProcessor(outbox, router, config=quick(), hooks=[details]).run_once()
    assert platform.accepted == ["a", "b"]
    assert [found.found for found in details.of(GapsProbed)] == [1]


async def test_a_gap_below_a_record_is_looked_for_though_its_page_has_a_larger_one() -> None:
    # 5 was reserved first and commits now, then 11 of the same key; the page shows 11, and 300 far beyond.
    store = TornReads()
    outbox = await outbox_on(store)
    await put(store, *(record(f"n{n}", n, key="x") for n in range(1, 11) if n != 5))
    nats = Told()
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick()) as processor,
    ):
        await nats.until(lambda: len(nats.accepted) == 9)
        store.hidden = {sequence_key(5)}
        await put(store, record("early", 5))
        await put(store, record("late", 11), record("far", 300, key="z"))
        await nats.until(lambda: "late" in nats.accepted)
        store.hidden = set()
        assert await processor.drain(10)
    assert [name for name in nats.accepted if name in ("early", "late")] == ["early", "late"]


async def test_a_gap_is_not_waited_for_and_what_commits_late_is_delivered_late() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("second", 2))
    platform, details = Told(), Details()
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick(), hooks=[details]) as processor,
    ):
        await platform.until(lambda: platform.accepted == ["second"])
        await put(store, record("first", 1))
        await platform.until(lambda: len(platform.accepted) == 2)
        assert await processor.drain(10)
    assert platform.accepted == ["second", "first"]
    assert sum(found.count for found in details.of(LateRecords)) == 1


async def test_a_late_record_behind_a_backlog_is_found_by_a_sweep() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, *(record(f"s{n}", n, key="stuck") for n in range(2, 60)))
    platform = Told(lambda made: failed() if made.id.startswith("s") else Receipt())
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick(page_size=10)) as own,
    ):
        relay = relay_of(own)
        # More was left than polls read again from the head: they go on from the end, and no writer tells of it.
        await until(lambda: (relay.window.left > 10 and relay.is_idle) or relay.knows_all)
        assert relay.window.left == 57
        await put(store, record("late", 1, key="other"))
        await platform.until(lambda: platform.accepted == ["late"])


async def test_a_record_that_was_left_is_never_overtaken_when_its_platform_comes_back_in_a_pass() -> None:
    # The gate opens when half a pass is done: what that half left may not be overtaken by the other.
    store, holds = Faulty(), Holds()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n) for n in range(1, 30)))
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        router.disable("nats")
        async with OutboxProcessor(outbox, router, config=quick(page_size=3, window=10, lease=10.0)) as own:
            relay, gates = relay_of(own), own._engine._shared.gates
            await until(lambda: "nats" in gates.shut_platforms and relay.window.left == 29)

            async def hold_second_page(partition: Partition, *, after: str | None = None, **_: object) -> None:
                if partition.keyed and after == sequence_key(3):
                    await holds()

            store.before["read"] = hold_second_page
            await until(holds.reached.is_set)
            await put(store, *(record(f"e{n}", n) for n in range(30, 40)))
            router.enable("nats")
            await until(lambda: not gates.shut_platforms)
            holds.go.set()
            assert await own.drain(10)
    assert platform.accepted == [f"e{n}" for n in range(1, 40)]


async def test_a_platform_that_is_down_never_stops_another() -> None:
    async def slowly(*_: object) -> None:
        await asyncio.sleep(0.02)

    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n) for n in range(1, 50)))
    # Records leave memory while what was done of them is on its way to the table, and are read again before.
    store.before["update"] = slowly
    nats, eventbridge = Told(), Told()
    async with routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router:
        router.disable("eventbridge")
        async with OutboxProcessor(outbox, router, config=quick(window=10)) as processor:
            await nats.until(lambda: len(nats.accepted) == 49)
            await store.looked()
            assert eventbridge.accepted == []
            router.enable("eventbridge")
            assert await processor.drain(10)
    # Nothing went twice, though memory never held more than ten records.
    assert nats.accepted == eventbridge.accepted == [f"e{n}" for n in range(1, 50)]


async def test_full_delivery_writes_nothing_but_the_delete() -> None:
    class Watched(MemoryOutboxStore):
        async def update(self, partition: Partition, sk: str, state: RecordState) -> RecordState | None:
            written.append(sk)
            return await super().update(partition, sk, state)

    store, written = Watched(), list[str]()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        await OutboxProcessor(outbox, router, config=quick()).run_once()
    assert (platform.accepted, written, await pending(store)) == (["a"], [], [])


async def test_a_reload_of_the_rules_does_not_touch_a_plan_that_was_begun() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("begun", 1))
    nats, eventbridge = Told(), Told(lambda _: failed())
    async with routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router:
        async with OutboxProcessor(outbox, router, config=quick()) as processor:
            await eventbridge.until(lambda: len(eventbridge.calls) >= 2)
        (kept,) = await pending(store)
        assert kept.state.plan is not None
        assert dict(kept.state.states) == {"nats": PlatformState.DELIVERED}
        router.replace_routing_rules([rule("nats", name="new")])
        await put(store, record("fresh", 2, key="other"))
        eventbridge.answer = Script()
        async with OutboxProcessor(outbox, router, config=quick()) as processor:
            assert await processor.drain(10)
    assert nats.accepted == ["begun", "fresh"]
    assert eventbridge.accepted == ["begun"]


async def test_attempts_that_an_open_breaker_explains_never_kill_an_event() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n, key=None, partition=UNKEYED) for n in range(1, 20)))
    nats = Told(lambda _: failed())
    config = PATIENT.model_copy(
        update={
            "destination": PATIENT.destination.model_copy(
                update={
                    "breaker": PATIENT.destination.breaker.model_copy(
                        update={"failure_threshold": 1, "recovery_time": 0.02}
                    )
                }
            )
        }
    )
    async with (
        routing([rule("nats")], config=config, nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick(max_attempts=1)) as processor,
    ):
        await nats.until(lambda: len(nats.calls) > 1)
        nats.answer = Script()
        await router.check_platforms()
        assert await processor.drain(20)
    assert sorted(nats.accepted) == sorted(f"e{n}" for n in range(1, 20))
    assert (await store.dead_letters()).letters == []


async def test_max_attempts_ends_an_event_that_fails_while_its_platform_is_well() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("bad", 1), record("good", 2))
    nats = Told(Script(bad=[failed()] * 100))
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick(max_attempts=4)) as processor,
    ):
        assert await processor.drain(10)
    (letter,) = (await store.dead_letters()).letters
    assert (letter.code, letter.attempts) == ("max_attempts", 4)
    assert nats.accepted == ["good"]


async def test_clocks_an_hour_apart_delay_nothing() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    hour = 3_600_000
    now = 1_800_000_000_000
    platform = Told()
    # No sweep comes in time.
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick(sweep_interval=600.0)),
    ):
        for n, skew in enumerate((hour, -hour, 0, -hour, hour)):
            name = f"e{n}"
            await put(store, record(name, n, key=None, partition=UNKEYED, added=now + skew))
            await platform.until(lambda name=name: name in platform.accepted)  # type: ignore[misc]
    assert platform.accepted == [f"e{n}" for n in range(5)]


async def test_an_unroutable_event_is_a_dead_letter_and_its_key_goes_on() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    unroutable = encode(build_event("invoice.sent", "/invoices", {}, id="a", partitionkey="k"))
    await put(store, NewRecord(KEYED, sequence_key(1), "k", unroutable, 0), record("b", 2))
    platform = Told()
    refuse = PATIENT.model_copy(update={"unrouted": "refuse"})
    orders = RoutingRule(name="orders", event_type_pattern="order.*", platforms=["nats"], strategy="all")
    async with routing([orders], config=refuse, nats=platform) as router:
        summary = await OutboxProcessor(outbox, router, config=quick()).run_once()
    (letter,) = (await store.dead_letters()).letters
    assert (summary.delivered, summary.dead_lettered, letter.platform) == (1, 1, "unroutable")
    assert platform.accepted == ["b"]
    assert await pending(store) == []


async def test_a_record_of_an_unknown_format_is_left_alone_with_its_key() -> None:
    store, details = MemoryOutboxStore(), Details()
    outbox = await outbox_on(store)
    newer = store.put_action(record("newer", 1))
    newer["Put"]["Item"]["v"] = {"N": "99"}
    await store.commit([newer], "a newer release")
    await put(store, record("follower", 2), record("other", 3, key="other"))
    platform = Told()
    async with routing([rule("nats")], nats=platform) as router:
        summary = await OutboxProcessor(outbox, router, config=quick(), hooks=[details]).run_once()
    assert platform.accepted == ["other"]
    assert (summary.waiting, len(await pending(store))) == (2, 2)
    assert [alert.kind for alert in details.of(OutboxAlert)] == ["unknown_format"]


async def test_a_platform_that_is_not_configured_stays_pending_with_an_alert() -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, details = Told(), Details()
    async with routing([rule("nats", "eventbridge")], nats=nats) as router:
        summary = await OutboxProcessor(outbox, router, config=quick(), hooks=[details]).run_once()
    assert nats.accepted == ["a"]
    assert summary.waiting == 1
    (kept,) = await pending(store)
    assert dict(kept.state.states) == {"nats": PlatformState.DELIVERED}
    assert "platform_not_configured" in {alert.kind for alert in details.of(OutboxAlert)}


@pytest.mark.parametrize("partition", [KEYED, UNKEYED])
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_one_pass_finds_every_record_whatever_the_size_of_a_page(size: int, partition: Partition) -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    # Of unkeyed records no gap shows that one was missed.
    made = [record(f"e{n}", n, key=f"k{n % 3}", partition=partition) for n in range(1, 80)]
    await put(store, *made)
    platform = Told()
    platform.free.clear()
    # What the first pass misses is not looked for again while this test runs.
    config = quick(page_size=size, poll_floor=60.0, poll_ceiling=60.0, lease=20.0, publish_timeout=10.0)
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=config) as processor,
    ):
        (relay,) = [relay for relay in processor._engine.relays if relay.partition == partition]
        await until(lambda: relay._at_tail)
        assert list(relay.window.entries) == [new.sk for new in made]
        platform.free.set()
        await platform.until(lambda: len(platform.accepted) == 79)


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_no_page_boundary_loses_or_reorders_anything(size: int) -> None:
    store = MemoryOutboxStore()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n, key=f"k{n % 3}") for n in range(1, 80)))
    platform = Told(Script(e4=[failed()], e9=[failed(), failed()], e20=[refused()]))
    async with (
        routing([rule("nats")], nats=platform) as router,
        OutboxProcessor(outbox, router, config=quick(page_size=size, window=10)) as processor,
    ):
        assert await processor.drain(15)
    for key in range(3):
        names = [f"e{n}" for n in range(1, 80) if n % 3 == key and n != 20]
        assert [name for name in platform.accepted if name in names] == names


def test_the_error_that_the_tests_reject_with_is_a_rejection() -> None:
    assert isinstance(refused(), EventRejectedError)
