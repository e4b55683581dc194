"""Replay from the event store through the router: what is selected, where it goes, and what it says of it."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms_events.errors import (
    AddressDeniedError,
    ConfigurationError,
    EventRejectedError,
    PlatformDeniedError,
    ReplayError,
    RouterClosedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import encode
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.replay.checkpoints import MemoryReplayCheckpoint
from oms_events.eventstore.replay.config import ReplayConfig, ReplaySelection
from oms_events.eventstore.replay.report import ReplayFailure, ReplayReport
from oms_events.eventstore.replay.store_replay import StoreReplay
from oms_events.eventstore.store import EventStore
from oms_events.idempotency import MemoryIdempotencyStore, idempotent
from oms_events.instrumentation.hooks import Detail, Replayed
from oms_events.publishers.memory import MemoryPublisher
from oms_events.publishing import PublisherTraits
from oms_events.resilience.backoff import RetryConfig
from oms_events.routing.rules import RoutingRule, RoutingStrategy
from oms_events.testing import Fault, FlakyPublisher, ManualClock
from tests.eventstore.accounts import AccountCreated, registry
from tests.eventstore.replaying import (
    CLOSED,
    CREATED,
    DEPOSIT,
    EVERYTHING,
    WatchedPublisher,
    fill,
    first_deliveries,
    flaky_router,
    positions,
    quick,
    router_of,
    until,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def store(clock: ManualClock) -> EventStore:
    """Three accounts of four events, an hour apart, and an hour that has passed since."""
    store = MemoryEventStore(registry=registry, clock=clock)
    for name in ("A", "B", "C"):
        await fill(store, [name])
        await clock.advance(3600)
    return store


async def replayed(store: EventStore, memory: MemoryPublisher | None = None, **options: Any) -> ReplayReport:
    """Replays into one platform with a rule for everything."""
    async with router_of(memory or MemoryPublisher()) as router:
        return await StoreReplay(store, router, **{"config": quick(), **options}).run()


# ---------------------------------------------------------------------- events


async def test_events_keep_their_identity_and_data_and_say_of_which_replay_they_are(
    store: EventStore, clock: ManualClock
) -> None:
    memory = MemoryPublisher()
    report = await replayed(store, memory, name="march-2", clock=clock)
    recorded = [event for name in "ABC" async for event in store.read(name)]
    assert (report.name, report.complete, report.resumed) == ("march-2", True, False)
    assert (report.read, report.matched, report.delivered) == (12, 12, 12)
    assert sorted(positions(memory.events)) == sorted(event.position for event in recorded)
    by_id = {event.get_id(): event for event in memory.events}
    for before in recorded:
        found = encode(by_id[before.id])
        assert found.identity == before.encoded.identity
        assert found.payload == before.encoded.payload
        assert found.attributes == {**before.encoded.attributes, "replayname": "march-2"}


async def test_a_name_is_made_up_of_the_time(store: EventStore, clock: ManualClock) -> None:
    report = await replayed(store, clock=clock, rng=random.Random(5))
    assert report.name.startswith("replay-20260101T030000Z-")


async def test_what_was_replayed_before_shows_the_newest_name(clock: ManualClock) -> None:
    store, memory = MemoryEventStore(registry=registry), MemoryPublisher()
    await store.append(
        "A", [AccountCreated(customer_id="1")], expected_sequence=0, attributes={"replayname": "old"}
    )
    await replayed(store, memory, name="new")
    (event,) = memory.events
    assert event.get_extension("replayname") == "new"
    assert json.loads(encode(event).json)["replayname"] == "new"


async def test_personal_data_is_published_as_it_was_stored_and_needs_no_keys() -> None:
    class Cipher:
        async def protect(self, model: object, data: dict[str, Any], *, subject: str) -> dict[str, Any]:
            return {**data, "customer_id": "secret"}

        async def reveal(self, payloads: Any) -> Any:
            raise AssertionError("nobody may ask for keys")

    store, memory = MemoryEventStore(registry=registry, cipher=Cipher()), MemoryPublisher()
    await store.append("A", [AccountCreated(customer_id="Eve")], expected_sequence=0)
    await replayed(store, memory)
    assert memory.events[0].get_data()["customer_id"] == "secret"


async def test_twice_into_an_idempotent_consumer_has_one_effect(store: EventStore, clock: ManualClock) -> None:
    effects: list[str] = []
    keeps_all = MemoryPublisher(traits=PublisherTraits())

    @idempotent(MemoryIdempotencyStore(), prefix="ledger")
    async def handle(event: Any) -> None:
        effects.append(encode(event).identity)

    for name in ("first", "second"):
        await replayed(store, keeps_all, name=name, clock=clock)
    assert len(keeps_all.events) == 24
    for event in keeps_all.events:
        await handle(event)
    assert len(effects) == len(set(effects)) == 12


async def test_duplicates_that_a_platform_drops_are_counted(store: EventStore, clock: ManualClock) -> None:
    memory = MemoryPublisher(traits=PublisherTraits(deduplicates=True))
    first = await replayed(store, memory, clock=clock)
    second = await replayed(store, memory, clock=clock)
    assert (first.duplicates, second.duplicates) == (0, 12)
    assert (second.delivered, second.complete) == (12, True)
    assert len(memory.events) == 12


# ---------------------------------------------------------------------- selection


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, "A1 A2 A3 A4 B1 B2 B3 B4 C1 C2 C3 C4"),
        ({"types": [DEPOSIT]}, "A2 A3 B2 B3 C2 C3"),
        ({"types": [CREATED, CLOSED]}, "A1 A4 B1 B4 C1 C4"),
        ({"types": ["Unknown"]}, ""),
        ({"aggregate_ids": ["B"]}, "B1 B2 B3 B4"),
        ({"aggregate_ids": ["B", "A", "B", "no-such"], "types": [CREATED]}, "A1 B1"),
        ({"start": at(1)}, "B1 B2 B3 B4 C1 C2 C3 C4"),
        ({"start": at(1), "end": at(2)}, "B1 B2 B3 B4"),
        ({"end": at(1)}, "A1 A2 A3 A4"),
        ({"types": [CREATED], "start": at(1), "end": at(2)}, "B1"),
        ({"aggregate_ids": ["B", "C"], "start": at(2)}, "C1 C2 C3 C4"),
        ({"start": "2 hours ago", "end": "1 hour ago"}, "B1 B2 B3 B4"),
        ({"start": "2026-01-01T01:00:00Z", "end": "now"}, "B1 B2 B3 B4 C1 C2 C3 C4"),
    ],
)
async def test_events_are_selected_by_type_aggregate_and_time(
    store: EventStore, clock: ManualClock, selection: dict[str, Any], expected: str
) -> None:
    memory = MemoryPublisher()
    report = await replayed(
        store,
        memory,
        selection=ReplaySelection(**selection),
        clock=clock,
        config=quick(page_size=3),
    )
    found = sorted(position.replace("@", "") for position in positions(memory.events))
    assert found == expected.split()
    assert report.matched == report.delivered == len(found)
    assert sum(report.by_type.values()) == sum(report.by_platform.values()) == len(found)


async def test_types_are_read_in_the_order_of_time(store: EventStore, clock: ManualClock) -> None:
    watched = WatchedPublisher()
    async with router_of(watched) as router:
        selection = ReplaySelection(types=[CREATED, DEPOSIT, CLOSED])
        await StoreReplay(store, router, selection, clock=clock, config=quick(page_size=2, max_calls=1)).run()
    assert first_deliveries(watched.memory.events) == {name: [1, 2, 3, 4] for name in "ABC"}


async def test_what_comes_while_it_runs_is_not_replayed(store: EventStore, clock: ManualClock) -> None:
    memory = MemoryPublisher()

    class Slow(WatchedPublisher):
        async def publish(self, events: Any, *, timeout: float) -> Any:
            await clock.advance(60)
            length = await store.last_sequence("A")
            await store.append("A", [AccountCreated(customer_id="again")], expected_sequence=length)
            return await super().publish(events, timeout=timeout)

    slow = Slow(memory)
    async with router_of(slow) as router:
        report = await StoreReplay(store, router, clock=clock, config=quick(max_batch=1, page_size=1)).run()
    assert report.matched == len(memory.events) == 12
    assert report.time_range.end == at(3)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"start": "someday"}, "start = 'someday'"),
        ({"start": at(1).replace(tzinfo=None)}, "with its zone"),
        ({"start": at(1), "end": at(1)}, "nothing is in between"),
        ({"aggregate_ids": [""]}, "aggregate_id = ''"),
        ({"aggregate_ids": ["command#1"]}, "begins the keys of commands"),
        ({"types": [""]}, "types.0"),
        ({"type": "A"}, "did you mean 'types'"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ReplaySelection(**fields)
    assert problem in str(raised.value)


async def test_texts_that_mean_an_empty_range_are_refused_when_it_begins(store: EventStore) -> None:
    with pytest.raises(ConfigurationError, match="is not before the end"):
        await replayed(store, selection=ReplaySelection(start="1 hour ago", end="2 hours ago"))


# ---------------------------------------------------------------------- targets

RULES = [
    RoutingRule(event_type_pattern=CREATED, platforms=["nats", "eventbridge"], name="opened"),
    RoutingRule(event_type_pattern=DEPOSIT, platforms=["eventbridge"], name="moved"),
]


async def test_events_go_where_the_rules_say(store: EventStore, clock: ManualClock) -> None:
    platforms = {"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()}
    async with router_of(platforms, RULES, unrouted="refuse") as router:
        report = await StoreReplay(store, router, clock=clock, config=quick()).run()
    assert (report.matched, report.delivered, report.unrouted) == (12, 9, 3)
    assert report.by_rule == {"opened": 3, "moved": 6}
    assert report.by_platform == {"nats": 3, "eventbridge": 9}
    assert report.by_type == {CREATED: 3, DEPOSIT: 6, CLOSED: 3}
    assert [len(memory.events) for memory in platforms.values()] == [3, 9]


async def test_one_rule_only(store: EventStore, clock: ManualClock) -> None:
    platforms = {"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()}
    async with router_of(platforms, RULES) as router:
        report = await StoreReplay(
            store, router, ReplaySelection(rule="opened"), clock=clock, config=quick()
        ).run()
    assert (report.read, report.matched, report.unrouted) == (12, 3, 0)
    assert [len(memory.events) for memory in platforms.values()] == [3, 3]


async def test_one_platform_only_whatever_the_rules_say(store: EventStore, clock: ManualClock) -> None:
    platforms = {"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()}
    async with router_of(platforms, RULES, unrouted="refuse") as router:
        report = await StoreReplay(
            store, router, ReplaySelection(platform="nats"), clock=clock, config=quick()
        ).run()
        assert (report.matched, report.by_platform) == (12, {"nats": 12})
        both = ReplaySelection(platform="eventbridge", rule="opened")
        assert (await StoreReplay(store, router, both, clock=clock, config=quick()).run()).matched == 3
    assert [len(memory.events) for memory in platforms.values()] == [12, 3]


async def test_rules_may_tell_replayed_events_from_others(store: EventStore, clock: ManualClock) -> None:
    rule = RoutingRule(
        event_type_pattern=".*",
        platforms=["replays"],
        priority=1000,
        conditions={"replayname": [{"exists": True}]},
    )
    platforms = {"nats": MemoryPublisher(), "replays": MemoryPublisher()}
    async with router_of(platforms, [EVERYTHING, rule]) as router:
        await StoreReplay(store, router, clock=clock, config=quick()).run()
    assert [len(memory.events) for memory in platforms.values()] == [0, 12]


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        ({"platform": "nowhere"}, "platform = 'nowhere' is not among nats"),
        ({"rule": "opend"}, "rule = 'opend' is not among the router's: everything"),
    ],
)
def test_a_target_that_the_router_does_not_have_is_refused(selection: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        StoreReplay(MemoryEventStore(), router_of(MemoryPublisher()), ReplaySelection(**selection))


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "ü"])
def test_a_name_that_eventbridge_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name = "):
        StoreReplay(MemoryEventStore(), router_of(MemoryPublisher()), name=name)


async def test_a_platform_that_the_router_lacks_stops_it_at_once(store: EventStore, clock: ManualClock) -> None:
    rule = RoutingRule(event_type_pattern=".*", platforms=["nats", "eventbridge"])
    async with router_of(MemoryPublisher(), [rule]) as router:
        replay = StoreReplay(store, router, clock=clock)
        with pytest.raises(ReplayError, match="platform eventbridge is not configured on this router"):
            await replay.run()


# ---------------------------------------------------------------------- dry run


async def test_a_dry_run_counts_and_publishes_nothing(store: EventStore, clock: ManualClock) -> None:
    platforms = {"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()}
    checkpoint = MemoryReplayCheckpoint()
    # The router need not even be open.
    router = router_of(platforms, RULES, unrouted="refuse")
    report = await StoreReplay(store, router, checkpoint=checkpoint, clock=clock).count()
    assert (report.read, report.matched, report.unrouted, report.delivered) == (12, 12, 3, 0)
    assert report.by_rule == {"opened": 3, "moved": 6}
    assert report.by_platform == {"nats": 3, "eventbridge": 9}
    assert checkpoint.state is None


async def test_of_the_first_that_works_a_dry_run_counts_the_first(store: EventStore, clock: ManualClock) -> None:
    rule = RoutingRule(
        event_type_pattern=".*", platforms=["nats", "eventbridge"], strategy=RoutingStrategy.FAILOVER
    )
    router = router_of({"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()}, [rule])
    assert (await StoreReplay(store, router, clock=clock).count()).by_platform == {"nats": 12}


# ---------------------------------------------------------------------- order and speed


@pytest.mark.parametrize("selection", [{}, {"types": [CREATED, DEPOSIT, CLOSED]}, {"aggregate_ids": ["A", "B"]}])
async def test_an_aggregate_has_one_event_on_its_way_and_others_fill_the_calls(selection: dict[str, Any]) -> None:
    store = MemoryEventStore(registry=registry)
    await fill(store, [*"ABCDEFGH"], events=9)
    watched = WatchedPublisher()
    async with router_of(watched) as router:
        report = await StoreReplay(store, router, ReplaySelection(**selection), config=quick()).run()
    assert watched.overtaken == []
    assert watched.most_at_once > 1
    delivered = first_deliveries(watched.memory.events)
    assert all(sequences == [*range(1, 10)] for sequences in delivered.values())
    assert report.delivered == sum(map(len, delivered.values()))


async def test_without_order_one_call_has_many_events_of_an_aggregate() -> None:
    store = MemoryEventStore(registry=registry)
    await fill(store, ["A"], events=50)
    watched = WatchedPublisher()
    async with router_of(watched) as router:
        await StoreReplay(store, router, config=quick(ordered=False)).run()
    assert watched.most_at_once > 10
    assert len(watched.memory.events) == 50


@pytest.mark.parametrize("fields", [{"window": 16}, {"window_bytes": 4000}, {"window": 1}])
async def test_no_more_is_read_ahead_than_the_window_holds(fields: dict[str, int]) -> None:
    store = MemoryEventStore(registry=registry)
    await fill(store, [*"ABCDEFGHIJ"], events=50)
    memory = MemoryPublisher()
    flaky = FlakyPublisher(memory)
    async with router_of(flaky) as router:
        flaky.down()
        replay = StoreReplay(store, router, config=quick(page_size=5, readers=4, **fields))
        running = asyncio.create_task(replay.run())
        await until(lambda: len(flaky.calls) >= 20)
        report = replay.report
        flaky.up()
        await running
    assert report is not None
    # Each of 4 readers may have one event more in its hand.
    assert 1 <= report.matched <= 20
    assert len(memory.events) == 500


async def test_a_rate_is_kept_by_the_clock(clock: ManualClock) -> None:
    store = MemoryEventStore(registry=registry, clock=clock)
    await fill(store, [*"ABCDE"], events=20)
    await clock.advance(1)
    memory = MemoryPublisher()
    began = clock.monotonic()
    async with router_of(memory) as router:
        replay = StoreReplay(store, router, clock=clock, config=quick(rate=20, save_interval=1000))
        running = asyncio.create_task(replay.run())
        seen: list[tuple[float, int]] = []
        while not running.done():
            await clock.advance(0.05)
            seen.append((clock.monotonic() - began, len(memory.events)))
        await running
    assert seen[-1][1] == 100
    # 2 may go at once (a tenth of a second's), and then 20 per second.
    assert all(count <= 2 + 20 * elapsed + 1e-6 for elapsed, count in seen)
    assert seen[-1][0] == pytest.approx((100 - 2) / 20, abs=0.2)


# ---------------------------------------------------------------------- failures


async def test_what_fails_is_tried_again_and_harms_nobody(store: EventStore, clock: ManualClock) -> None:
    router, flaky, memory = flaky_router()
    flaky.script(
        TransientError("busy"),
        Fault(UnknownOutcomeError("no answer"), only=frozenset((0,))),
        Fault(UnknownOutcomeError("no answer"), stored=True),
    )
    told: list[ReplayFailure] = []
    async with router:
        report = await StoreReplay(store, router, on_failure=told.append, config=quick()).run()
    assert (report.delivered, report.failed, told) == (12, 0, [])
    assert sorted(positions(memory.events)) == sorted(
        f"{name}@{number}" for name in "ABC" for number in range(1, 5)
    )


async def test_attempts_are_spaced_out_by_the_clock(clock: ManualClock) -> None:
    store = MemoryEventStore(registry=registry, clock=clock)
    await fill(store, ["A"], events=1)
    await clock.advance(1)
    router, flaky, _ = flaky_router()
    config = ReplayConfig(retry=RetryConfig(max_attempts=4, initial=1.0, maximum=2.0), save_interval=1000)
    async with router:
        flaky.down()
        running = asyncio.create_task(StoreReplay(store, router, clock=clock, config=config).run())
        calls = []
        for _ in range(20):
            await clock.advance(0.5)
            calls.append(len(flaky.calls))
        with pytest.raises(ReplayError, match="stopped at an event that was not delivered: A@1"):
            await running
    assert calls[0] == 1
    assert calls[-1] == 4
    # The pauses are of 0.5 to 1 s, 1 to 2 s, and 1 to 2 s: after 2 s there were 2 or 3 attempts.
    assert calls[3] in (2, 3)


async def test_an_event_that_is_refused_for_ever_is_told_and_passed_over(store: EventStore) -> None:
    router, flaky, memory = flaky_router()
    flaky.script(Fault(EventRejectedError("too large"), only=frozenset((1,))))
    told: list[ReplayFailure] = []
    async with router:
        report = await StoreReplay(store, router, on_failure=told.append, config=quick()).run()
    assert (report.delivered, report.rejected, report.complete) == (11, 1, True)
    (failure,) = told
    assert failure.kind == "rejected"
    assert failure.reasons == {"nats": "too large"}
    assert failure.position not in positions(memory.events)
    assert str(failure) == f"{failure.position} ({CREATED}) rejected: nats: too large"


async def test_it_may_stop_at_what_is_refused(store: EventStore) -> None:
    router, flaky, _ = flaky_router()
    flaky.script(Fault(EventRejectedError("too large"), only=frozenset((1,))))
    checkpoint = MemoryReplayCheckpoint()
    async with router:
        replay = StoreReplay(store, router, checkpoint=checkpoint, config=quick(after_rejection="stop"))
        with pytest.raises(ReplayError, match="too large"):
            await replay.run()
        assert replay.report is not None
        assert replay.report.rejected == 1
        # It meets it again, and this time the platform takes it.
        report = await StoreReplay(store, router, checkpoint=checkpoint, config=quick()).run()
    assert report.complete
    assert report.resumed


async def test_what_fails_for_too_long_may_be_passed_over(store: EventStore) -> None:
    router, flaky, memory = flaky_router()
    told: list[ReplayFailure] = []
    config = quick(after_failure="continue", retry=RetryConfig(max_attempts=2, initial=0.0001))
    async with router:
        flaky.down()
        report = await StoreReplay(store, router, on_failure=told.append, config=config).run()
    assert (report.failed, report.delivered, report.complete) == (12, 0, True)
    assert {failure.kind for failure in told} == {"failed"}
    assert memory.events == []


async def test_an_address_that_is_denied_is_not_tried_again(store: EventStore) -> None:
    router, flaky, _ = flaky_router()
    async with router:
        flaky.down(AddressDeniedError("no stream for this subject"))
        with pytest.raises(ReplayError, match="no stream for this subject"):
            await StoreReplay(store, router, config=quick(max_calls=1)).run()
    assert len(flaky.calls) == 1


async def test_a_platform_that_denies_us_stops_it_and_the_rest_goes_on_later(store: EventStore) -> None:
    router, flaky, memory = flaky_router()
    flaky.script(None, PlatformDeniedError("bad credentials"))
    checkpoint = MemoryReplayCheckpoint()
    async with router:
        replay = StoreReplay(store, router, checkpoint=checkpoint, config=quick(max_calls=1))
        with pytest.raises(ReplayError, match="takes nothing from us, mend that and go on: nats: bad credentials"):
            await replay.run()
        assert replay.report is not None
        assert (replay.report.delivered, replay.report.failed) == (3, 0)
    async with router_of(flaky) as router:
        report = await StoreReplay(store, router, checkpoint=checkpoint, config=quick()).run()
    assert report.delivered == 9
    assert len(memory.events) == 12


async def test_of_two_platforms_only_the_one_that_failed_gets_it_again(store: EventStore) -> None:
    keeps_all = PublisherTraits()
    nats, eventbridge = MemoryPublisher(traits=keeps_all), MemoryPublisher(traits=keeps_all)
    flaky = FlakyPublisher(nats)
    flaky.script(TransientError("busy"), TransientError("busy"))
    rule = RoutingRule(event_type_pattern=".*", platforms=["nats", "eventbridge"])
    async with router_of({"nats": flaky, "eventbridge": eventbridge}, [rule]) as router:
        report = await StoreReplay(store, router, config=quick()).run()
    assert report.delivered == 12
    assert len(nats.events) == len(eventbridge.events) == 12


async def test_of_two_platforms_one_may_refuse_what_the_other_takes(store: EventStore) -> None:
    nats, eventbridge = FlakyPublisher(MemoryPublisher()), MemoryPublisher()
    nats.down(EventRejectedError("too large"))
    told: list[ReplayFailure] = []
    both = ["nats", "eventbridge"]
    for strategy, delivered in ((RoutingStrategy.ALL, 0), (RoutingStrategy.FAILOVER, 12)):
        rule = RoutingRule(event_type_pattern=".*", platforms=both, strategy=strategy)
        async with router_of({"nats": nats, "eventbridge": eventbridge}, [rule]) as router:
            report = await StoreReplay(store, router, on_failure=told.append, config=quick()).run()
        assert (report.delivered, report.rejected) == (delivered, 12 - delivered)
        assert len(eventbridge.events) == 12
    assert len(told) == 12
    assert {tuple(failure.reasons) for failure in told} == {("nats",)}


async def test_failover_tries_all_that_may_still_take_it(store: EventStore) -> None:
    nats, eventbridge = FlakyPublisher(MemoryPublisher()), FlakyPublisher(MemoryPublisher())
    nats.down(PlatformDeniedError("bad credentials"))
    eventbridge.script(TransientError("busy"), TransientError("busy"))
    rule = RoutingRule(
        event_type_pattern=".*", platforms=["nats", "eventbridge"], strategy=RoutingStrategy.FAILOVER
    )
    async with router_of({"nats": nats, "eventbridge": eventbridge}, [rule]) as router:
        report = await StoreReplay(store, router, config=quick()).run()
    assert report.delivered == 12


async def test_a_damaged_event_stops_it_or_is_passed_over(store: EventStore) -> None:
    table: Any = store.table
    item = table._aggregates["B"][2]
    table._aggregates["B"][2] = {**item, "Data": {"S": item["Data"]["S"].replace("1", "1000")}}
    table._aggregates["C"][3] = {**table._aggregates["C"][3], "CloudEvent": {"S": "{"}}
    memory = MemoryPublisher()
    told: list[ReplayFailure] = []
    with pytest.raises(ReplayError, match="unreadable"):
        await replayed(store, memory)
    report = await replayed(store, memory, on_failure=told.append, config=quick(after_failure="continue"))
    assert (report.delivered, report.failed, report.complete) == (10, 2, True)
    assert sorted((failure.kind, failure.position) for failure in told) == [
        ("unreadable", "B@2"),
        ("unreadable", "C@3"),
    ]
    assert any("checksum" in str(failure) for failure in told)
    assert not {"B@2", "C@3"} & set(positions(memory.events))


async def test_without_an_open_router_nothing_is_replayed(store: EventStore) -> None:
    with pytest.raises(RouterClosedError):
        await StoreReplay(store, router_of(MemoryPublisher())).run()


async def test_an_error_of_a_callback_ends_it(store: EventStore) -> None:
    def fail(report: ReplayReport) -> None:
        raise RuntimeError("the bar broke")

    with pytest.raises(RuntimeError, match="the bar broke"):
        await replayed(store, on_progress=fail)


# ---------------------------------------------------------------------- telling


async def test_progress_and_hooks_add_up_to_the_report(store: EventStore) -> None:
    router, flaky, _ = flaky_router()
    flaky.script(Fault(EventRejectedError("too large"), only=frozenset((0,))))
    told: list[ReplayReport] = []
    details: list[Detail] = []
    async with router:
        replay = StoreReplay(
            store, router, name="x", on_progress=told.append, hooks=[details.append], config=quick()
        )
        assert replay.report is None
        report = await replay.run()
    assert [one.delivered for one in told] == sorted(one.delivered for one in told)
    assert told[-1].delivered == report.delivered == 11
    assert replay.report == report
    ours = [detail for detail in details if isinstance(detail, Replayed)]
    assert {detail.name for detail in ours} == {"x"}
    assert (sum(detail.events for detail in ours), sum(detail.failed for detail in ours)) == (11, 1)
