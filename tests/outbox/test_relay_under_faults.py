"""What the relay keeps while the table, or a part of its own, fails: order, dead letters, and going on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from oms_events import EventRouter
from oms_events.errors import StorageDeniedError, StorageUnavailableError
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import BacklogMeasured
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import Partition, PlatformState
from oms_events.publishing import Plan, PublishResults, Receipt
from tests.outbox.relaying import (
    BUCKET,
    KEYED,
    Details,
    Fails,
    Faulty,
    Holds,
    Script,
    Told,
    event,
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


class Wrapped:
    """A router with a defect of the test's choice."""

    def __init__(self, router: EventRouter) -> None:
        self.router = router
        self.answers_too_little = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.router, name)

    def plan_event(self, made: EncodedEvent) -> Plan:
        if made.id == "odd":
            raise RuntimeError("a rule with a defect")
        return self.router.plan_event(made)

    async def publish_planned(
        self, deliveries: Sequence[tuple[EncodedEvent, Plan]], *, timeout: float
    ) -> list[PublishResults]:
        answers = await self.router.publish_planned(deliveries, timeout=timeout)
        if self.answers_too_little:
            self.answers_too_little = False
            return answers[:-1]
        return answers


# ---------------------------------------------------------------------- offers


@pytest.mark.parametrize("outage", ["one reading", "lease"])
async def test_an_offer_never_overtakes_what_a_reading_that_failed_did_not_come_to(outage: str) -> None:
    # e1 fails and waits, e2 and e3 are left. e1 goes, and the pass that would load e2 and e3 fails: e4, handed
    # over by the writer, would go before them.
    store = Faulty()
    outbox = await outbox_on(store)
    well: list[bool] = []
    nats = Told(lambda made: Receipt() if well or made.id == "e0" else failed())
    config = quick(lease=0.5, publish_timeout=0.2, poll_floor=1.0, poll_ceiling=10.0, sweep_interval=60.0)
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        relay = relay_of(own)
        await outbox.add(event("e0"))
        await nats.until(lambda: nats.accepted == ["e0"])
        for name in ("e1", "e2", "e3"):
            await outbox.add(event(name))
        await until(lambda: relay.window.left == 2)
        if outage == "one reading":
            holds = Holds()

            async def hold_and_fail(partition: Partition, **_: Any) -> None:
                if partition.keyed:
                    await holds()
                    store.before.clear()
                    raise StorageUnavailableError("throttled")

            store.before["read"] = hold_and_fail
            well.append(True)
            async with asyncio.timeout(5):
                await holds.reached.wait()
            await outbox.add(event("e4"))
            holds.go.set()
        else:
            well.append(True)
            store.down = True
            await until(lambda: relay.seconds_left() == 0)
            store.down = False
            await until(lambda: relay.seconds_left() > 0)
            await outbox.add(event("e4"))
        assert await own.drain(10)
    assert nats.accepted == [f"e{n}" for n in range(5)]


async def test_an_offer_that_does_not_follow_is_read_in_its_place() -> None:
    # Between two commits of this process another one committed, and tells nobody here.
    store = Faulty()
    outbox = await outbox_on(store)
    nats = Told()
    config = quick(poll_floor=20.0, poll_ceiling=20.0, sweep_interval=60.0, lease=10.0)
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        await outbox.add(event("own1"))
        await nats.until(lambda: nats.accepted == ["own1"])
        await until(lambda: relay_of(own).is_idle)
        await put(store, record("others", await store.reserve(BUCKET, 1)))
        await outbox.add(event("own2"))
        await nats.until(lambda: len(nats.accepted) == 3)
    assert nats.accepted == ["own1", "others", "own2"]


# ---------------------------------------------------------------------- dead letters


async def test_two_rejections_are_two_letters_in_whatever_order_they_are_stored() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    # The first letter meets a conflict, and comes after the second.
    store.before["bury"] = Fails(1)
    nats, eventbridge = Told(Script(a=[refused()])), Told(Script(a=[refused()]))
    async with (
        routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router,
        OutboxProcessor(outbox, router, config=quick()) as own,
    ):
        assert await own.drain(10)
    letters = (await store.dead_letters()).letters
    assert sorted(letter.platform for letter in letters) == ["eventbridge", "nats"]


async def test_a_record_outlives_a_letter_that_is_not_stored_yet() -> None:
    store, holds = Faulty(), Holds()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    store.before["bury"] = holds
    nats, eventbridge = Told(Script(a=[refused()])), Told()
    async with routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router:
        router.disable("eventbridge")
        async with OutboxProcessor(outbox, router, config=quick()) as own:
            await until(holds.reached.is_set)
            # The record is left for its other platform meanwhile, read again, and delivered there.
            router.enable("eventbridge")
            await eventbridge.until(lambda: eventbridge.accepted == ["a"])
            await store.looked()
            assert len(await pending(store)) == 1
            holds.go.set()
            assert await own.drain(10)
    assert [letter.platform for letter in (await store.dead_letters()).letters] == ["nats"]
    assert [call for call in nats.calls if "a" in call] == [["a"]]


async def test_a_letter_that_is_refused_a_few_times_is_stored_in_the_end() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    store.before["bury"] = Fails(2)
    nats, eventbridge = Told(Script(a=[refused()])), Told()
    async with (
        routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router,
        OutboxProcessor(outbox, router, config=quick()) as own,
    ):
        assert await own.drain(10)
    assert eventbridge.accepted == ["a"]
    assert [letter.platform for letter in (await store.dead_letters()).letters] == ["nats"]


# ---------------------------------------------------------------------- the lease


async def test_nothing_is_published_without_the_lease() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    left: list[float] = []
    nats = Told(lambda _: failed())
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick(lease=0.5, publish_timeout=0.2)) as own,
    ):
        relay = relay_of(own)

        def answer(_: EncodedEvent) -> Any:
            left.append(relay.seconds_left())
            return failed()

        nats.answer = answer
        store.down = True
        # Its retry falls due again and again: without the lease it is left instead.
        await until(lambda: relay.seconds_left() == 0 and not relay.window.entries)
        assert left
        assert min(left) > 0
        store.down = False
        nats.answer = Script()
        assert await own.drain(10)
    assert nats.accepted == ["a"]


async def test_a_table_that_is_down_is_never_measured_as_empty() -> None:
    store, details = Faulty(), Details()
    outbox = await outbox_on(store, 2)
    config = quick(measure_interval=0.05, lease=0.5, publish_timeout=0.2, stop_timeout=0.1)
    async with (
        routing([rule("nats")], nats=Told()) as router,
        OutboxProcessor(outbox, router, config=config, hooks=[details]) as own,
    ):
        await until(lambda: len(list(own._engine.relays)) == 4)
        # In a fleet the first bucket is another's; dead letters are counted with it, and would show the outage.
        own._engine.lose(BUCKET)
        store.down = True
        await until(lambda: relay_of(own).seconds_left() == 0 and relay_of(own).problem)
        measured = len(details.of(BacklogMeasured))
        await until(lambda: len(details.of(BacklogMeasured)) >= measured + 4)
        assert not any(found.available for found in details.of(BacklogMeasured)[measured + 1 :])
        assert own.status()["backlog"]["available"] is False


# ---------------------------------------------------------------------- run once


async def test_a_run_that_cannot_join_does_not_say_that_nothing_is_there() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    store.before["read_coordination"] = Fails(1)
    async with routing([rule("nats")], nats=Told()) as router:
        with pytest.raises(StorageUnavailableError):
            await OutboxProcessor(outbox, router, config=quick()).run_once()


async def test_a_run_without_permission_ends_with_the_error() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    store.before["read"] = Fails(error=StorageDeniedError("no dynamodb:Query", code="AccessDenied"))
    async with routing([rule("nats")], nats=Told()) as router:
        own = OutboxProcessor(outbox, router, config=quick(stop_timeout=0.1))
        with pytest.raises(StorageDeniedError):
            async with asyncio.timeout(5):
                await own.run_once()


# ---------------------------------------------------------------------- defects


async def test_a_defect_in_the_store_does_not_end_removing() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    store.before["remove"] = Fails(1, RuntimeError("a defect"))
    nats = Told()
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick()) as own,
    ):
        assert await own.drain(5)
    assert nats.accepted == ["a"]


async def test_an_event_whose_rules_have_a_defect_stops_its_own_key_only() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    nats = Told()
    async with routing([rule("nats")], nats=nats) as router:
        await put(store, record("odd", 1, key="odd"), record("follower", 2, key="odd"), record("good", 3))
        async with OutboxProcessor(outbox, Wrapped(router), config=quick()):
            await nats.until(lambda: bool(nats.accepted))
            await store.looked()
    assert nats.accepted == ["good"]
    assert len(await pending(store)) == 2


async def test_an_offer_whose_rules_have_a_defect_does_not_end_the_relay() -> None:
    store, holds = Faulty(), Holds()
    outbox = await outbox_on(store)
    nats = Told()
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, Wrapped(router), config=quick()),
    ):
        await outbox.add(event("e0"))
        await nats.until(lambda: nats.accepted == ["e0"])
        # Offered while a reading is under way: taken when that ends.
        store.before["read"] = holds
        await until(holds.reached.is_set)
        await outbox.add(event("odd", key="odd"))
        holds.go.set()
        await store.looked()
        await outbox.add(event("good"))
        await nats.until(lambda: "good" in nats.accepted)


async def test_a_publisher_that_answers_too_little_blocks_nothing() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n, key=f"k{n}") for n in range(1, 4)))
    nats = Told()
    async with routing([rule("nats")], nats=nats) as router:
        wrapped = Wrapped(router)
        wrapped.answers_too_little = True
        async with OutboxProcessor(outbox, wrapped, config=quick()) as own:
            assert await own.drain(5)
    # Nobody knows which answers were whose: all three went again.
    assert sorted(nats.accepted) == ["e1", "e1", "e2", "e2", "e3", "e3"]


# ---------------------------------------------------------------------- plans and layouts that change


async def test_a_record_whose_plan_was_taken_back_is_not_overtaken_while_it_is_in_flight() -> None:
    # "a" is on its way to one platform when an operator takes its plan back: on the other, which it is still owed
    # to, "b" may not go first.
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(), Told(lambda _: failed())
    nats.free.clear()
    async with (
        routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router,
        OutboxProcessor(outbox, router, config=quick(lease=10.0, publish_timeout=5.0)) as own,
    ):
        relay = relay_of(own)
        # From a few attempts on they are written down, and the plan with them.
        await until(lambda: store._rows[KEYED].by_sk[record("a", 1).sk].state.plan is not None)
        (kept,) = await pending(store)
        await put(store, record("b", 2))
        assert await store.forget_plan(KEYED, kept.sk, generation=kept.state.generation)
        await until(lambda: relay.window.entries[kept.sk].obsolete)
        eventbridge.answer = Script()
        await store.looked()
        assert eventbridge.accepted == []
        nats.free.set()
        assert await own.drain(10)
    assert list(dict.fromkeys(eventbridge.accepted)) == ["a", "b"]
    assert list(dict.fromkeys(nats.accepted)) == ["a", "b"]


async def test_what_was_done_after_a_requeue_is_written_to_the_new_generation() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(Script(a=[refused()])), Told(lambda _: failed())
    async with (
        routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router,
        OutboxProcessor(outbox, router, config=quick(after_dead_letter="hold")),
    ):
        await until(lambda: store.calls["bury"] and store._letters)
        (letter,) = (await store.dead_letters()).letters
        assert await store.requeue(letter, None)
        await nats.until(lambda: nats.accepted == ["a"])
        state = store._rows[KEYED].by_sk[letter.origin_sk].state
        assert state.generation == 1
        await until(lambda: store._rows[KEYED].by_sk[letter.origin_sk].state.states)
        await store.looked()
    (kept,) = await pending(store)
    assert (kept.state.generation, dict(kept.state.states)) == (1, {"nats": PlatformState.DELIVERED})
    assert nats.accepted == ["a"]
