from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events.errors import (
    ConfigurationError,
    EventRejectedError,
    InvalidEventError,
    PublishError,
    RouterClosedError,
    RuleError,
    TransientError,
    UnknownOutcomeError,
    UnroutableEventError,
)
from oms_events.instrumentation.hooks import CallEnded, Decided, Settled
from oms_events.publishing import Outcome, Platform
from oms_events.routing.router import EventRouter
from oms_events.routing.rules import RoutingRule, RoutingStrategy
from oms_events.testing import Fault, ManualClock, MemoryPublisher
from tests.routing.routers import FAST, KEEPS_DUPLICATES, Platforms, event, make_router


async def test_all_delivers_everywhere_and_encodes_once() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", "eventbridge", "mine") as router:
        results = await router.publish_event(event({"a": 1}))
        assert results.delivered
        assert (results.rule, results.strategy) == ("everything", "all")
        assert {name: result.success for name, result in results.items()} == dict.fromkeys(
            ("nats", "eventbridge", "mine"), True
        )
        assert results[Platform.NATS] is results["nats"]


async def test_all_is_delivered_only_when_every_platform_has_it() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", "eventbridge") as router:
        platforms.flaky["eventbridge"].script(EventRejectedError("no"))
        results = await router.publish_event(event())
        assert results["nats"].success
        assert not results.delivered


async def test_backups_that_were_not_needed_are_absent() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", "eventbridge", strategy=RoutingStrategy.FAILOVER) as router:
        assert list(await router.publish_event(event())) == ["nats"]


async def test_a_known_platform_that_is_not_configured_is_owed() -> None:
    rules = [RoutingRule(event_type_pattern=".*", platforms=["nats", "webhook"], name="all")]
    async with make_router(Platforms(), "nats", rules=rules) as router:
        results = await router.publish_event(event())
        assert results["nats"].success
        assert results["webhook"].outcome is Outcome.SKIPPED
        assert "not configured" in str(results["webhook"].error)
        assert not results.delivered


async def test_failover_takes_the_next_when_one_is_not_configured() -> None:
    rules = [
        RoutingRule(event_type_pattern=".*", platforms=["webhook", "mine"], strategy=RoutingStrategy.FAILOVER)
    ]
    async with make_router(Platforms(), "nats", "mine", rules=rules) as router:
        results = await router.publish_event(event())
        assert [(name, result.outcome) for name, result in results.items()] == [
            ("webhook", "skipped"),
            ("mine", "delivered"),
        ]
        assert results.delivered


@pytest.mark.parametrize("why", ["not configured", "disabled"])
async def test_a_backup_that_was_not_needed_is_absent_even_when_it_is_not_there(why: str) -> None:
    platforms = ["nats", "webhook"] if why == "not configured" else ["nats", "mine"]
    rules = [RoutingRule(event_type_pattern=".*", platforms=platforms, strategy=RoutingStrategy.FAILOVER)]
    names = ["nats", "mine"]
    all_platforms = Platforms()
    async with make_router(all_platforms, *names, rules=rules) as router:
        router.disable("mine")
        assert list(await router.publish_event(event())) == ["nats"]
        all_platforms.flaky["nats"].script(EventRejectedError("no"))
        results = await router.publish_event(event())
        assert [result.outcome for result in results.values()] == ["rejected", "skipped"]
        assert why in str(results[platforms[1]].error)


async def test_without_a_matching_rule_the_primary_gets_it() -> None:
    async with make_router(Platforms(), "nats", "mine", rules=[]) as router:
        results = await router.publish_event(event())
        assert (list(results), results.rule, results.delivered) == (["nats"], None, True)


async def test_without_a_matching_rule_a_strict_router_refuses_it() -> None:
    async with make_router(Platforms(), "nats", rules=[], unrouted="refuse") as router:
        with pytest.raises(UnroutableEventError, match="add a rule for its type"):
            await router.publish_event(event())
        (result,) = await router.publish_events([event()])
        assert isinstance(result["router"].error, UnroutableEventError)


async def test_conditional_takes_part_only_when_its_conditions_match() -> None:
    production = RoutingRule(
        event_type_pattern=".*",
        platforms={"mine"},
        strategy=RoutingStrategy.CONDITIONAL,
        conditions={"branch": "production", "data.size": [{"numeric": [">", 10]}]},
    )
    async with make_router(Platforms(), "nats", "mine", rules=[production]) as router:
        assert list(await router.publish_event(event({"size": 11}, branch="production"))) == ["mine"]
        assert list(await router.publish_event(event({"size": 9}, branch="production"))) == ["nats"]
        assert list(await router.publish_event(event({"size": 11}, branch="main"))) == ["nats"]


async def test_bad_items_have_their_own_result_and_all_others_are_delivered() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        batch: list[object] = [event(number) for number in range(10_000)]
        batch[17], batch[5000], batch[9999] = "no event", event({"x": object()}), None
        results = await router.publish_events(batch)
        assert len(results) == 10_000
        bad = [index for index, result in enumerate(results) if not result.delivered]
        assert bad == [17, 5000, 9999]
        for index in bad:
            assert results[index]["router"].outcome is Outcome.REJECTED
            assert isinstance(results[index]["router"].error, InvalidEventError)
        assert platforms.stored("nats") == [number for number in range(10_000) if number not in bad]


async def test_events_of_different_rules_share_the_calls_in_the_order_of_the_batch() -> None:
    rules = [
        RoutingRule(event_type_pattern="a", platforms=["nats"], name="a"),
        RoutingRule(event_type_pattern="b", platforms=["nats", "mine"], name="b"),
    ]
    platforms = Platforms()
    async with make_router(platforms, "nats", "mine", rules=rules) as router:
        results = await router.publish_events([event(number, kind="ab"[number % 2]) for number in range(8)])
        assert [result.rule for result in results] == ["a", "b"] * 4
        assert platforms.flaky["nats"].calls == [8]
        assert platforms.stored("nats") == list(range(8))
        assert platforms.stored("mine") == [1, 3, 5, 7]
        assert [list(result) for result in results] == [["nats"], ["nats", "mine"]] * 4


async def test_what_is_no_event_raises_and_an_empty_batch_does_nothing() -> None:
    async with make_router(Platforms(), "nats") as router:
        with pytest.raises(InvalidEventError, match="is no CloudEvent"):
            await router.publish_event({"type": "t"})
        assert await router.publish_events([]) == []


async def test_a_router_that_is_not_open_says_so() -> None:
    router = make_router(Platforms(), "nats")
    with pytest.raises(RouterClosedError):
        await router.publish_event(event())
    async with router:
        assert (await router.publish_event(event())).delivered
    with pytest.raises(RouterClosedError):
        await router.publish_events([event()])


@pytest.mark.parametrize("timeout", [0, -1.5])
async def test_a_deadline_that_has_passed_sends_nothing(timeout: float) -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        results = await router.publish_event(event(), timeout=timeout)
        assert (results["nats"].outcome, results["nats"].attempts) == (Outcome.FAILED, 0)
        assert "deadline passed before" in str(results["nats"].error)
        assert platforms.flaky["nats"].calls == []
        with pytest.raises(ValueError, match="timeout = nan"):
            await router.publish_event(event(), timeout=float("nan"))


async def test_the_timeout_bounds_everything_retries_included() -> None:
    platforms, clock = Platforms(), ManualClock()
    slow = FAST.model_copy(update={"retry": FAST.retry.model_copy(update={"initial": 1.0, "maximum": 1.0})})
    async with make_router(platforms, "nats", clock=clock, destination=slow) as router:
        platforms.flaky["nats"].script(*[TransientError("refused")] * 3)
        results = await router.publish_event(event(), timeout=0.4)
        assert (results["nats"].outcome, results["nats"].attempts) == (Outcome.FAILED, 1)


async def test_concurrent_single_publishes_share_calls() -> None:
    platforms = Platforms(traits=KEEPS_DUPLICATES)
    async with make_router(platforms, "eventbridge") as router:
        results = await asyncio.gather(*(router.publish_event(event(number)) for number in range(500)))
        assert all(result.delivered for result in results)
        assert platforms.flaky["eventbridge"].calls == [10] * 50
        fill = [call.events / call.capacity for call in platforms.seen(CallEnded)]
        assert fill == [1.0] * 50


async def test_a_call_is_also_full_when_its_bytes_are() -> None:
    platforms = Platforms(traits=KEEPS_DUPLICATES)
    async with make_router(platforms, "eventbridge") as router:
        await asyncio.gather(*(router.publish_event(event("x" * 300_000)) for _ in range(4)))
        assert platforms.flaky["eventbridge"].calls == [3, 1]


async def test_a_lone_event_waits_no_longer_than_the_linger() -> None:
    platforms = Platforms(traits=KEEPS_DUPLICATES)
    async with make_router(platforms, "eventbridge") as router:
        assert (await router.publish_event(event())).delivered
        assert platforms.flaky["eventbridge"].calls == [1]


async def test_a_publish_cancelled_in_the_queue_is_not_sent() -> None:
    platforms = Platforms(traits=KEEPS_DUPLICATES)
    async with make_router(platforms, "eventbridge") as router:
        cancelled = asyncio.create_task(router.publish_event(event("cancelled")))
        kept = asyncio.create_task(router.publish_event(event("kept")))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert (await kept).delivered
        assert platforms.stored("eventbridge") == ["kept"]


async def test_no_more_than_max_in_flight_are_on_the_way() -> None:
    platforms = Platforms()
    bounded = FAST.model_copy(update={"max_in_flight": 4})
    async with make_router(platforms, "nats", destination=bounded) as router:
        results = await router.publish_events([event(number) for number in range(10)])
        assert all(result.delivered for result in results)
        assert platforms.flaky["nats"].calls == [4, 4, 2]


async def test_closing_lets_what_is_under_way_finish() -> None:
    platforms = Platforms()
    router = make_router(platforms, "nats")
    async with router:
        platforms.flaky["nats"].script(Fault(hang=True))
        task = asyncio.create_task(router.publish_event(event(1)))
        await platforms.flaky["nats"].hanging.wait()
        closing = asyncio.create_task(router.close())
        await asyncio.sleep(0)
        platforms.flaky["nats"].up()
        assert await closing == {}
        assert (await task)["nats"].attempts == 2


async def test_closing_ends_what_does_not_finish_and_says_what_was_not_sent() -> None:
    platforms = Platforms()
    bounded = FAST.model_copy(update={"max_in_flight": 2})
    async with make_router(platforms, "nats", destination=bounded) as router:
        platforms.flaky["nats"].script(Fault(hang=True))
        task = asyncio.create_task(router.publish_events([event(number) for number in range(5)]))
        await platforms.flaky["nats"].hanging.wait()
        assert await router.close(timeout=0.01) == {"nats": 1}
        results = await task
        assert [result["nats"].outcome for result in results] == ["unknown"] * 2 + ["skipped"] * 3
        assert isinstance(results[0]["nats"].error, UnknownOutcomeError)
        assert "closed before the event was sent" in str(results[4]["nats"].error)


async def test_cancelling_a_publish_leaves_the_router_usable() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", destination=FAST.model_copy(update={"max_in_flight": 1})) as router:
        platforms.flaky["nats"].script(Fault(hang=True))
        task = asyncio.create_task(router.publish_event(event(1)))
        await platforms.flaky["nats"].hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await router.publish_event(event(2))).delivered


async def test_a_disabled_platform_is_skipped_until_it_is_enabled() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", "eventbridge", strategy=RoutingStrategy.FAILOVER) as router:
        router.disable("nats")
        results = await router.publish_event(event())
        assert (results["nats"].outcome, results["eventbridge"].outcome) == ("skipped", "delivered")
        assert not router.get_platform_status()["health_summary"]["primary_platform_healthy"]
        router.enable("nats")
        assert list(await router.publish_event(event())) == ["nats"]
        with pytest.raises(ConfigurationError, match="no platform 'natz'"):
            router.disable("natz")


async def test_sticky_failover_stays_until_the_primary_is_checked_well_or_time_passes() -> None:
    platforms, clock = Platforms(), ManualClock()
    router = make_router(
        platforms,
        "nats",
        "mine",
        strategy=RoutingStrategy.FAILOVER,
        clock=clock,
        sticky_failover=True,
        sticky_for=30,
    )
    async with router:
        platforms.flaky["nats"].script(EventRejectedError("no"))
        await router.publish_event(event())
        assert list(await router.publish_event(event())) == ["mine"]
        await router.check_platforms()
        assert list(await router.publish_event(event())) == ["nats"]
        platforms.flaky["nats"].script(EventRejectedError("no"))
        await router.publish_event(event())
        await clock.advance(31)
        assert list(await router.publish_event(event())) == ["nats"]


async def test_a_platform_that_is_down_at_the_start_is_steered_around_and_comes_back() -> None:
    platforms = Platforms()
    router = make_router(platforms, "nats", "mine", strategy=RoutingStrategy.FAILOVER)
    platforms.flaky["nats"].down()
    async with router:
        assert (await router.publish_event(event()))["mine"].success
        platforms.flaky["nats"].up()
        assert list(await router.publish_event(event())) == ["nats"]


async def test_a_publisher_that_can_never_open_is_an_error_at_the_start() -> None:
    class Misconfigured(MemoryPublisher):
        async def open(self) -> None:
            raise ConfigurationError("Mine", ["region is missing; give it one"])

    with pytest.raises(ConfigurationError, match="region is missing"):
        async with EventRouter({"mine": Misconfigured()}):
            pass


async def test_rules_change_while_running() -> None:
    async with make_router(Platforms(), "nats", "mine", rules=[]) as router:
        rule = RoutingRule(event_type_pattern=".*", platforms=["mine"], name="r")
        router.add_routing_rule(rule)
        assert list(await router.publish_event(event())) == ["mine"]
        with pytest.raises(RuleError, match="name"):
            router.add_routing_rule(rule)
        router.add_routing_rule(rule.model_copy(update={"platforms": ["nats", "mine"]}), replace=True)
        assert list(await router.publish_event(event())) == ["nats", "mine"]
        assert router.remove_routing_rule("r").name == "r"
        assert list(await router.publish_event(event())) == ["nats"]
        with pytest.raises(RuleError, match="did you mean 'nats'"):
            router.replace_routing_rules([rule, RoutingRule(event_type_pattern="x", platforms=["natz"])])
        assert router.routing_rules == ()


async def test_the_status_is_plain_and_complete() -> None:
    async with make_router(Platforms(), "nats", "mine") as router:
        await router.publish_event(event())
        status = json.loads(json.dumps(router.get_platform_status()))
        assert status["health_summary"] == {
            "total_platforms": 2,
            "healthy_platforms": 2,
            "primary_platform": "nats",
            "primary_platform_healthy": True,
        }
        nats = status["platforms"]["nats"]
        assert (nats["is_primary"], nats["breaker"], nats["outcomes"]["delivered"]) == (True, "closed", 1)
        assert nats["latency_ms"]["p50"] >= 0
        assert status["routing_rules"][0]["name"] == "everything"


async def test_explain_says_which_rule_and_where_with_a_platform_down() -> None:
    async with make_router(Platforms(), "nats", "mine", strategy=RoutingStrategy.FAILOVER) as router:
        assert router.explain(event()).goes_to == ("nats",)
        down = router.explain(event(), assume_down={"nats"}).describe()
        assert down["goes_to"] == ["mine"]
        assert down["platforms"] == {"nats": "assumed to be down", "mine": "gets it"}
        assert down["rules"][0] == {
            "name": "everything", "priority": 500, "taken": True, "reason": "the first rule that matches",
        }  # fmt: skip


async def test_explain_knows_only_platforms_of_the_router() -> None:
    async with make_router(Platforms(), "nats", "mine") as router:
        assert router.explain(event(), assume_down="nats").goes_to == ("mine",)
        with pytest.raises(ConfigurationError, match="no platform 'natz'"):
            router.explain(event(), assume_down={"natz"})


async def test_hooks_hear_of_decisions_calls_and_results_and_their_errors_harm_nothing() -> None:
    platforms = Platforms()

    def broken(detail: object) -> None:
        raise ValueError("hook")

    router = EventRouter({"nats": MemoryPublisher()}, hooks=[broken, platforms.details.append])
    async with router:
        assert (await router.publish_event(event())).delivered
        assert platforms.seen(Decided)[0].counts == {(None, "primary_only"): 1}
        assert platforms.seen(CallEnded)[0].delivered == 1
        assert platforms.seen(Settled)[0].platform == "nats"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"publishers": {}}, "no platforms"),
        ({"publishers": {"router": MemoryPublisher()}}, "reserved"),
        ({"publishers": {"nats": MemoryPublisher()}, "primary": "mine"}, "not among its platforms"),
    ],
)
def test_a_router_that_cannot_work_is_refused(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        EventRouter(**arguments)  # type: ignore[arg-type]


ERRORS: list[PublishError | None] = [
    None,
    TransientError("refused"),
    UnknownOutcomeError("lost"),
    EventRejectedError("large"),
]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 7), st.sampled_from(ERRORS), st.booleans()), max_size=5), max_size=8
    ),
    st.sampled_from([RoutingStrategy.ALL, RoutingStrategy.FAILOVER, RoutingStrategy.PRIMARY_ONLY]),
)
def test_whatever_fails_every_result_is_true(
    script: list[list[tuple[int, PublishError | None, bool]]], strategy: RoutingStrategy
) -> None:
    """Delivered means stored, rejected, failed and skipped mean not stored, whatever the faults."""

    async def run() -> None:
        platforms = Platforms()
        async with make_router(platforms, "a", "b", strategy=strategy) as router:
            for step in script:
                for platform in platforms.flaky.values():
                    for index, error, stored in step:
                        lost = stored and isinstance(error, UnknownOutcomeError)
                        platform.script(error and Fault(error, only=frozenset({index}), stored=lost))
                batch = [event(number) for number in range(8)]
                results = await router.publish_events(batch, timeout=5)
                for sent, result in zip(batch, results, strict=True):
                    _check_truth(sent.get_id(), result, platforms)

    asyncio.run(run())


def _check_truth(identity: str, results: object, platforms: Platforms) -> None:
    from oms_events.publishing import PublishResults

    assert isinstance(results, PublishResults)
    for name, result in results.items():
        copies = [stored.get_id() for stored in platforms.memories[name].events].count(identity)
        if result.outcome is Outcome.DELIVERED:
            assert copies == 1
        elif result.outcome is not Outcome.UNKNOWN:
            assert copies == 0
