"""What the relay bounds: memory, calls, attempts, pauses; and that no bound costs order or stops another."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from oms_events import build_event, encode
from oms_events.errors import PublishError, TransientError, UnknownOutcomeError
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import GapsProbed
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import Bucket, NewRecord, Partition, sequence_key
from oms_events.outbox.relay import PartitionRelay
from oms_events.publishing import Receipt
from tests.outbox.relaying import (
    BUCKET,
    KEYED,
    PATIENT,
    UNKEYED,
    Answer,
    Details,
    Faulty,
    Holds,
    Script,
    Slowest,
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

OTHER = Partition(Bucket(1, 1), keyed=True)


def large(name: str, number: int, *, size: int = 300_000) -> NewRecord:
    made = build_event("order.changed", "/orders", {"x": "y" * size}, id=name, partitionkey=name)
    return NewRecord(KEYED, sequence_key(number), name, encode(made), 0)


def bad_fail(made: EncodedEvent) -> Answer:
    return failed() if made.id.startswith("bad") else Receipt()


async def put_many(store: Faulty, count: int, *, key: Callable[[int], str] = lambda n: f"k{n}") -> None:
    numbers = range(1, count + 1)
    for start in range(0, count, 100):
        await put(store, *(record(f"e{n}", n, key=key(n)) for n in numbers[start : start + 100]))


def is_full(relay: PartitionRelay) -> bool:
    """Whether it waits for room."""
    return relay._room in relay._shared._cramped


# ---------------------------------------------------------------------- memory


async def test_failing_large_events_of_one_bucket_do_not_stop_another() -> None:
    store = Faulty()
    outbox = await outbox_on(store, 2)
    await put(store, *(large(f"bad{n}", n) for n in range(1, 5)))
    nats = Told(bad_fail)
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick(window_bytes=1_000_000)),
    ):
        await nats.until(lambda: len(nats.calls) > 6)
        await put(store, record("good", 1, partition=OTHER))
        await nats.until(lambda: nats.accepted == ["good"])


async def test_the_room_of_a_lost_bucket_is_given_to_others() -> None:
    store = Faulty()
    outbox = await outbox_on(store, 2)
    await put(store, *(large(f"e{n}", n) for n in range(1, 5)))
    nats = Told()
    nats.free.clear()
    config = quick(window_bytes=1_000_000, publish_timeout=5.0, lease=10.0)
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        await until(lambda: len(relay_of(own).window.entries) == 4)
        relays = [relay for relay in own._engine.relays if relay.partition == OTHER]
        await until(lambda: all(map(is_full, relays)))
        await put(store, record("good", 1, partition=OTHER))
        own._engine.lose(BUCKET)
        await until(lambda: any(relay.window.entries for relay in relays))
        nats.free.set()


async def test_no_more_than_a_window_is_in_memory() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put_many(store, 200)
    nats = Told()
    nats.free.clear()
    config = quick(window=20, page_size=10, max_batch=5, publish_timeout=5.0, lease=10.0)
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        relay = relay_of(own)
        await until(lambda: is_full(relay) or relay.is_idle or len(relay.window.entries) >= 200)
        assert len(relay.window.entries) <= 20
        nats.free.set()
        assert await own.drain(10)


@pytest.mark.parametrize("name", ["update", "remove"])
async def test_what_is_delivered_but_not_written_down_is_bounded(name: str) -> None:
    # After a crash all of it would be sent again.
    store, holds = Faulty(), Holds()
    outbox = await outbox_on(store)
    await put_many(store, 500)
    store.before[name] = holds
    nats, eventbridge = Told(), Told()
    async with routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router:
        if name == "update":
            router.disable("eventbridge")
        config = quick(window=50, page_size=10, lease=20.0)
        async with OutboxProcessor(outbox, router, config=config) as own:
            relay = relay_of(own)
            # It waits for room, though nothing is in memory any more.
            await until(lambda: (is_full(relay) and not relay.window.entries) or len(nats.accepted) == 500)
            assert 50 <= len(nats.accepted) <= 100
            holds.go.set()
            await nats.until(lambda: len(nats.accepted) == 500)
    assert max(Counter(nats.accepted).values()) == 1


async def test_offers_are_bounded_by_their_bytes() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put_many(store, 40)
    await store.reserve(BUCKET, 40)
    nats = Told()
    nats.free.clear()
    config = quick(window=10, page_size=10, lease=20.0, publish_timeout=5.0)
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        relay = relay_of(own)
        await until(lambda: is_full(relay))
        for n in range(10):
            await outbox.add(build_event("order.changed", "/orders", "y" * 300_000, id=f"o{n}", partitionkey="k"))
        assert sum(len(offer.event.payload) for offer in relay._offers) <= 1_000_000
        nats.free.set()
        assert await own.drain(10)
    assert nats.accepted[-10:] == [f"o{n}" for n in range(10)]


async def test_an_offer_that_waits_does_not_keep_all_that_is_settled_in_memory() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put_many(store, 3000)
    await store.reserve(BUCKET, 3000)
    nats, gone = Told(), list[int]()
    config = quick(window=50, lease=20.0)
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        relay = relay_of(own)

        def answer(_: EncodedEvent) -> Answer:
            gone.append(len(relay.gone))
            return Receipt()

        nats.answer = answer
        await outbox.add(event("own", key="own"))
        await nats.until(lambda: "own" in nats.accepted)
    assert len(nats.accepted) == 3001
    assert max(gone) < 1000


async def test_no_more_than_half_a_window_of_failed_records_waits_in_memory_and_none_is_tried_early() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put_many(store, 30)
    nats = Told(lambda _: failed())
    config = quick(
        window=10, retry_initial=20.0, retry_maximum=60.0, dedup_window=120.0, lease=20.0, max_attempts=3
    )
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        await nats.until(lambda: sum(map(len, nats.calls)) >= 30)
        # Sweeps read again what was left; it waits for its time all the same.
        await store.looked(5)
        assert relay_of(own).window.waiting == 5
    assert Counter(name for call in nats.calls for name in call) == Counter(f"e{n}" for n in range(1, 31))
    assert (await store.dead_letters()).letters == []


async def test_failing_heads_never_fill_the_window() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, *(record(f"bad{n}", n, key=f"b{n}") for n in range(1, 31)))
    await put(store, *(record(f"good{n}", n + 30, key=f"g{n}") for n in range(1, 6)))
    nats = Told(bad_fail)
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick(window=10, retry_initial=1.0, retry_maximum=1.0)),
    ):
        await nats.until(lambda: len(nats.accepted) == 5)


async def test_what_was_left_behind_a_failed_head_goes_once_that_went() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put_many(store, 20, key=lambda _: "k")
    # More was left than is read at each poll, and no sweep comes.
    config = quick(page_size=2, sweep_interval=60.0, lease=10.0)
    nats = Told(Script(e1=[failed()]))
    async with routing([rule("nats")], nats=nats) as router, OutboxProcessor(outbox, router, config=config) as own:
        assert await own.drain(10)
    assert nats.accepted == [f"e{n}" for n in range(1, 21)]


# ---------------------------------------------------------------------- attempts


async def test_attempts_on_one_platform_do_not_count_on_another() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(Script(a=[failed()] * 3)), Told(Script(a=[failed()]))
    async with routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router:
        router.disable("eventbridge")
        async with OutboxProcessor(outbox, router, config=quick(max_attempts=4)) as own:
            await nats.until(lambda: nats.accepted == ["a"])
            await until(lambda: store._rows[KEYED].by_sk[sequence_key(1)].state.states)
            router.enable("eventbridge")
            assert await own.drain(10)
    assert (eventbridge.accepted, (await store.dead_letters()).letters) == (["a"], [])


async def test_time_that_ran_out_before_an_event_was_sent_is_no_attempt() -> None:
    class Hanging(Told):
        async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Answer]:
            self.calls.append([made.id for made in events])
            return await asyncio.get_running_loop().create_future()

    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, *(record(f"e{n}", n, key=None, partition=UNKEYED) for n in range(1, 4)))
    nats = Hanging()
    one = PATIENT.destination.model_copy(update={"max_in_flight": 1})
    config = quick(max_attempts=1, publish_timeout=0.1, max_batch=1, max_calls=4)
    async with (
        routing([rule("nats")], config=PATIENT.model_copy(update={"destination": one}), nats=nats) as router,
        OutboxProcessor(outbox, router, config=config),
    ):
        await until(lambda: len(store._letters) == 3)
    letters = {letter.event.id for letter in (await store.dead_letters()).letters if letter.event}
    assert letters <= {name for call in nats.calls for name in call}


async def test_throttling_says_nothing_against_an_event() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats = Told(Script(a=[TransientError("slow down", throttled=True)] * 3))
    async with (
        routing([rule("nats")], nats=nats) as router,
        OutboxProcessor(outbox, router, config=quick(max_attempts=1)) as own,
    ):
        assert await own.drain(10)
    assert (nats.accepted, (await store.dead_letters()).letters) == (["a"], [])


@pytest.mark.parametrize("platforms", [["nats"], ["nats", "eventbridge"]])
async def test_max_age_is_the_time_for_which_an_event_was_tried(platforms: list[str]) -> None:
    # Two platforms that fail at once do not make the time run twice as fast.
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    told = {name: Told(lambda _: failed()) for name in platforms}
    started = time.monotonic()
    async with (
        routing([rule(*platforms)], **told) as router,
        OutboxProcessor(outbox, router, config=quick(max_age=0.6)) as own,
    ):
        await until(lambda: store._letters)
        took = time.monotonic() - started
        assert await own.drain(10)
    assert took > 0.55
    assert {letter.code for letter in (await store.dead_letters()).letters} == {"max_age"}


# ---------------------------------------------------------------------- pauses


@pytest.mark.parametrize(
    ("strategy", "error"),
    [("failover", failed()), ("primary_only", TransientError("slow down", throttled=True))],
)
async def test_every_failure_makes_the_pause_longer_whatever_it_says_of_the_event(
    strategy: str, error: PublishError
) -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    at: list[float] = []

    def answer(_: EncodedEvent) -> Answer:
        at.append(time.monotonic())
        return error

    nats, eventbridge = Told(answer), Told(answer)
    async with routing(
        [rule("nats", "eventbridge", strategy=strategy)], nats=nats, eventbridge=eventbridge
    ) as router:
        if strategy == "failover":
            router.disable("nats")
        config = quick(retry_initial=0.02, retry_maximum=5.0, lease=10.0)
        async with OutboxProcessor(outbox, router, config=config, rng=Slowest()):
            await until(lambda: len(at) >= 6)
    # 0.02 s five times over would be 0.1 s.
    assert at[5] - at[0] > 0.5


async def test_the_first_retry_of_an_unanswered_event_comes_within_a_quarter_of_the_dedup_window() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    at: list[float] = []

    def answer(_: EncodedEvent) -> Answer:
        at.append(time.monotonic())
        return {6: UnknownOutcomeError("no answer"), 7: Receipt()}.get(len(at), failed())

    config = quick(retry_initial=0.04, retry_maximum=8.0, dedup_window=0.4, sweep_interval=60.0, lease=10.0)
    async with (
        routing([rule("nats")], nats=Told(answer)) as router,
        OutboxProcessor(outbox, router, config=config, rng=Slowest()),
    ):
        await until(lambda: len(at) >= 7)
    # Its pause would have been 1.28 s.
    assert at[6] - at[5] < 1.2


# ---------------------------------------------------------------------- held keys


async def test_a_key_is_held_though_its_record_is_in_memory_for_another_platform() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(Script(a=[refused()])), Told(lambda _: failed())
    async with (
        routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router,
        OutboxProcessor(outbox, router, config=quick(after_dead_letter="hold")),
    ):
        await until(lambda: store._letters and len(eventbridge.calls) > 3)
        (letter,) = (await store.dead_letters()).letters
        assert (letter.platform, letter.held) == ("nats", True)
        await put(store, record("b", 2))
        await store.looked(5)
    assert nats.accepted == []


@pytest.mark.parametrize("what", ["purge", "requeue"])
async def test_a_key_goes_on_after_its_letter_was_freed_though_the_record_waits_in_memory(what: str) -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    nats, eventbridge = Told(Script(a=[refused()])), Told(lambda _: failed())
    config = quick(after_dead_letter="hold", retry_initial=20.0, retry_maximum=60.0)
    async with (
        routing([rule("nats", "eventbridge")], nats=nats, eventbridge=eventbridge) as router,
        OutboxProcessor(outbox, router, config=config),
    ):
        await until(lambda: store._letters and eventbridge.calls)
        await put(store, record("b", 2))
        (letter,) = (await store.dead_letters()).letters
        assert await (store.purge(letter) if what == "purge" else store.requeue(letter, None))
        await nats.until(lambda: "b" in nats.accepted)
    assert nats.accepted == (["b"] if what == "purge" else ["a", "b"])


async def test_a_purged_record_is_not_counted_as_delivered() -> None:
    store = Faulty()
    outbox = await outbox_on(store)
    await put(store, record("a", 1))
    config = quick(after_dead_letter="hold")
    async with routing([rule("nats")], nats=Told(Script(a=[refused()]))) as router:
        await OutboxProcessor(outbox, router, config=config).run_once()
        (letter,) = (await store.dead_letters()).letters
        await store.purge(letter)
        summary = await OutboxProcessor(outbox, router, config=config).run_once()
    assert (summary.delivered, await pending(store)) == (0, [])


# ---------------------------------------------------------------------- what is handed on


async def test_a_new_owner_does_not_look_below_what_the_last_one_had_seen() -> None:
    store, details = Faulty(), Details()
    outbox = await outbox_on(store)
    await put_many(store, 5)
    async with routing([rule("nats")], nats=Told()) as router:
        await OutboxProcessor(outbox, router, config=quick()).run_once()
        await put(store, record("later", 8))
        await OutboxProcessor(outbox, router, config=quick(), hooks=[details]).run_once()
    assert [(looked.numbers, looked.found) for looked in details.of(GapsProbed)] == [(2, 0)]
