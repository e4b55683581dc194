"""Interleavings of one platform: slots, deadlines, probes, closing, and publishers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Sequence
from typing import Any

import pytest

from oms_events.errors import (
    AddressDeniedError,
    ConfigurationError,
    EventRejectedError,
    MissingExtraError,
    PlatformDeniedError,
    PublishError,
    RouterClosedError,
    RuleError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import Settled
from oms_events.publishing import Outcome, PublisherTraits, Receipt
from oms_events.routing.config import DestinationConfig, RouterConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rules import RoutingRule, RoutingStrategy
from oms_events.testing import Fault, ManualClock, MemoryPublisher
from tests.routing.routers import FAST, KEEPS_DUPLICATES, Platforms, event, make_router

pytestmark = pytest.mark.serial

ONE_ATTEMPT = FAST.model_copy(update={"retry": FAST.retry.model_copy(update={"max_attempts": 1})})


class Stubborn(MemoryPublisher):
    """Hangs where it is told to, and does not care for its timeout."""

    def __init__(self, *, at: str = "", traits: PublisherTraits | None = None) -> None:
        super().__init__(traits=traits)
        self.at = at
        self.log: list[str] = []
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def open(self) -> None:
        self.log.append("open")
        await self._maybe_hang("open")
        await super().open()

    async def close(self) -> None:
        self.log.append("close")
        await self._maybe_hang("close")
        await super().close()

    async def check(self) -> None:
        await self._maybe_hang("check")

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        await self._maybe_hang("publish")
        return await super().publish(events, timeout=timeout)

    async def _maybe_hang(self, where: str) -> None:
        if self.at == where:
            self.reached.set()
            await self.go.wait()


def router_of(
    publisher: Any,
    *,
    destination: DestinationConfig = ONE_ATTEMPT,
    clock: ManualClock | None = None,
    **config: Any,
) -> EventRouter:
    return EventRouter({"mine": publisher}, config=RouterConfig(destination=destination, **config), clock=clock)


gathering = pytest.mark.parametrize(
    "traits", [PublisherTraits(deduplicates=True), KEEPS_DUPLICATES], ids=["direct", "gathered"]
)


@gathering
async def test_a_publisher_that_ignores_its_timeout_is_unknown_and_opens_the_breaker(
    traits: PublisherTraits,
) -> None:
    publisher = Stubborn(at="publish", traits=traits)
    async with router_of(publisher) as router:
        for _ in range(5):
            results = await router.publish_event(event(), timeout=0.2)
            assert results["mine"].outcome is Outcome.UNKNOWN
        status = router.get_platform_status()["platforms"]["mine"]
        assert (status["breaker"], status["in_flight"]) == ("open", 0)


@gathering
async def test_an_open_that_hangs_is_a_failure_within_the_deadline(traits: PublisherTraits) -> None:
    publisher = Stubborn(at="open", traits=traits)
    quick = ONE_ATTEMPT.model_copy(update={"check_timeout": 0.01})
    async with router_of(publisher, destination=quick) as router:
        results = await router.publish_event(event(), timeout=0.2)
        assert results["mine"].outcome is Outcome.FAILED
        assert "could not be opened" in str(results["mine"].error)
        publisher.at = ""
        assert (await router.publish_event(event())).delivered


async def test_a_probe_that_hangs_does_not_keep_the_breaker_half_open() -> None:
    clock = ManualClock()
    publisher = Stubborn(traits=KEEPS_DUPLICATES)
    async with router_of(publisher, clock=clock) as router:
        publisher.at = "publish"
        for _ in range(5):
            await router.publish_event(event(), timeout=0.2)
        await clock.advance(11)
        assert (await router.publish_event(event(), timeout=0.2))["mine"].outcome is Outcome.UNKNOWN
        publisher.at = ""
        await clock.advance(11)
        assert (await router.publish_event(event())).delivered


async def test_a_cancelled_probe_gives_its_place_to_the_next() -> None:
    clock = ManualClock()
    platforms = Platforms()
    async with make_router(platforms, "nats", destination=ONE_ATTEMPT, clock=clock) as router:
        platforms.flaky["nats"].script(PlatformDeniedError("expired"), Fault(hang=True))
        await router.publish_event(event())
        await clock.advance(11)
        probe = asyncio.create_task(router.publish_event(event()))
        await platforms.flaky["nats"].hanging.wait()
        other = await router.publish_event(event())
        assert "another event probes it" in str(other["nats"].error)
        probe.cancel()
        await asyncio.wait({probe})
        assert (await router.publish_event(event())).delivered


async def test_waiting_for_a_slot_ends_with_the_deadline_and_is_no_attempt() -> None:
    platforms = Platforms()
    patient = FAST.breaker.model_copy(update={"failure_threshold": 100, "failure_rate": None})
    narrow = ONE_ATTEMPT.model_copy(update={"max_in_flight": 1, "breaker": patient})
    async with make_router(platforms, "nats", destination=narrow) as router:
        for _ in range(8):
            platforms.flaky["nats"].script(Fault(hang=True))
            slow = asyncio.create_task(router.publish_event(event(), timeout=0.2))
            await platforms.flaky["nats"].hanging.wait()
            late = await router.publish_event(event(), timeout=0.02)
            assert (late["nats"].outcome, late["nats"].attempts) == (Outcome.FAILED, 0)
            assert (await slow)["nats"].outcome is Outcome.UNKNOWN


async def test_parts_that_were_delivered_stay_delivered_when_a_later_part_runs_out_of_time() -> None:
    platforms = Platforms()
    narrow = ONE_ATTEMPT.model_copy(update={"max_in_flight": 5})
    async with make_router(platforms, "nats", destination=narrow) as router:
        platforms.flaky["nats"].script(None, Fault(hang=True))
        results = await router.publish_events([event(number) for number in range(15)], timeout=0.3)
        outcomes = [result["nats"].outcome for result in results]
        assert outcomes == ["delivered"] * 5 + ["unknown"] * 5 + ["failed"] * 5
        assert platforms.stored("nats") == list(range(5))


async def test_a_gathered_event_is_never_sent_after_its_own_deadline() -> None:
    platforms, clock = Platforms(traits=KEEPS_DUPLICATES), ManualClock()
    async with make_router(platforms, "nats", destination=ONE_ATTEMPT, clock=clock) as router:
        platforms.flaky["nats"].script(TransientError("slow down", throttled=True, retry_after=5.0))
        await router.publish_event(event("throttled"))
        short = asyncio.create_task(router.publish_event(event("short"), timeout=0.2))
        long = asyncio.create_task(router.publish_event(event("long"), timeout=20))
        result = (await short)["nats"]
        assert (result.outcome, result.attempts) == (Outcome.FAILED, 0)
        await clock.advance(6)
        assert (await long)["nats"].attempts == 1
        assert platforms.stored("nats") == ["long"]


async def test_a_gathered_event_whose_deadline_has_passed_is_not_sent_and_harms_no_other() -> None:
    platforms = Platforms(traits=PublisherTraits(gather=True, max_batch=2))
    async with make_router(platforms, "nats", destination=ONE_ATTEMPT) as router:
        kept, late = await asyncio.gather(
            router.publish_event(event("kept")), router.publish_event(event("late"), timeout=0)
        )
        assert kept.delivered
        assert (late["nats"].outcome, late["nats"].attempts) == (Outcome.FAILED, 0)
        assert platforms.stored("nats") == ["kept"]


async def test_a_publisher_that_swallows_the_end_of_its_time_while_opening_harms_nobody() -> None:
    class Swallowing(Stubborn):
        async def open(self) -> None:
            if not self.log:
                self.log.append("refused")
                raise TransientError("refused")
            with contextlib.suppress(asyncio.CancelledError):
                await super().open()

    async with router_of(Swallowing(at="open")) as router:
        result = (await router.publish_event(event(), timeout=0.2))["mine"]
        assert (result.outcome, "could not be opened" in str(result.error)) == (Outcome.FAILED, True)


async def test_a_cancellation_inside_opening_or_checking_ends_neither_the_publish_nor_the_checks() -> None:
    clock = ManualClock()

    class Inner(MemoryPublisher):
        broken = True
        checks = 0

        async def open(self) -> None:
            if self.broken:
                raise asyncio.CancelledError
            await super().open()

        async def check(self) -> None:
            self.checks += 1
            raise asyncio.CancelledError

    publisher = Inner()
    async with router_of(publisher, clock=clock) as router:
        result = (await router.publish_event(event()))["mine"]
        assert (result.outcome, "cancelled from inside" in str(result.error)) == (Outcome.FAILED, True)
        publisher.broken = False
        assert (await router.publish_event(event())).delivered
        for _ in range(3):
            await clock.advance(1000)
        assert publisher.checks == 3


async def test_single_failed_checks_between_good_ones_never_open_the_breaker() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        for _ in range(10):
            platforms.flaky["nats"].down()
            await router.check_platforms()
            platforms.flaky["nats"].up()
            await router.check_platforms()
        assert router.get_platform_status()["platforms"]["nats"]["breaker"] == "closed"


async def test_a_publisher_that_opens_while_the_router_closes_is_closed_again() -> None:
    publisher = Stubborn(at="open")
    quick = ONE_ATTEMPT.model_copy(update={"check_timeout": 0.01})
    async with router_of(publisher, destination=quick) as router:
        publisher.reached.clear()
        checking = asyncio.create_task(router.check_platforms())
        await publisher.reached.wait()
        closing = asyncio.create_task(router.close(timeout=0))
        await asyncio.sleep(0)
        publisher.go.set()
        await asyncio.gather(checking, closing)
    assert publisher.log[-1] == "close"


async def test_a_cancellation_inside_the_publisher_is_unknown_and_cancels_nobody_else() -> None:
    class Inner(MemoryPublisher):
        async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt]:
            raise asyncio.CancelledError

    memory = MemoryPublisher()
    rule = RoutingRule(event_type_pattern=".*", platforms=["inner", "memory"])
    config = RouterConfig(destination=ONE_ATTEMPT)
    async with EventRouter({"inner": Inner(), "memory": memory}, [rule], config=config) as router:
        results = await router.publish_event(event(1))
        assert {name: result.outcome for name, result in results.items()} == {
            "inner": Outcome.UNKNOWN,
            "memory": Outcome.DELIVERED,
        }
        assert not results.delivered


@gathering
@pytest.mark.parametrize("answers", [None, [None], ["stored"], [Receipt(), Receipt()]])
async def test_answers_that_are_none_are_unknown(traits: PublisherTraits, answers: Any) -> None:
    class Odd(MemoryPublisher):
        async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Any:
            return answers

    async with router_of(Odd(traits=traits)) as router:
        assert (await router.publish_event(event()))["mine"].outcome is Outcome.UNKNOWN


async def test_rejected_after_an_unknown_that_was_stored_stays_unknown() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        lost = Fault(UnknownOutcomeError("answer lost"), stored=True)
        platforms.flaky["nats"].script(lost, EventRejectedError("too large"))
        result = (await router.publish_event(event()))["nats"]
        assert (result.outcome, result.attempts) == (Outcome.UNKNOWN, 2)


async def test_a_platform_that_comes_back_while_others_are_tried_gets_nothing_twice() -> None:
    platforms = Platforms()
    async with make_router(platforms, "a", "b", "c", strategy=RoutingStrategy.FAILOVER) as router:
        router.disable("b")
        platforms.flaky["a"].script(Fault(hang=True))
        task = asyncio.create_task(router.publish_event(event(1), timeout=0.2))
        await platforms.flaky["a"].hanging.wait()
        router.enable("b")
        results = await task
        assert [(name, result.outcome) for name, result in results.items()] == [
            ("a", "unknown"), ("b", "skipped"), ("c", "delivered"),
        ]  # fmt: skip
        assert (platforms.stored("b"), platforms.stored("c")) == ([], [1])


async def test_short_deadlines_leave_the_backups_their_share() -> None:
    platforms = Platforms()
    stubborn = Stubborn(at="open")
    publishers = {"a": stubborn, "b": platforms.add("b")["b"]}
    rule = RoutingRule(event_type_pattern=".*", platforms=["a", "b"], strategy=RoutingStrategy.FAILOVER)
    quick = ONE_ATTEMPT.model_copy(update={"check_timeout": 0.01})
    async with EventRouter(publishers, [rule], config=RouterConfig(destination=quick)) as router:
        for at in ("open", "publish"):
            stubborn.at = at
            results = await router.publish_event(event(), timeout=0.2)
            assert not results["a"].success
            assert results["b"].success


async def test_skipped_events_do_not_hide_why_the_breaker_opened() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].script(PlatformDeniedError("account expired"))
        for _ in range(50):
            results = await router.publish_event(event())
        assert router.get_platform_status()["platforms"]["nats"]["last_error"] == "account expired"
        assert len(str(results["nats"].error)) < 100


async def test_a_retry_that_finds_the_breaker_open_keeps_the_real_failure() -> None:
    platforms = Platforms()
    sensitive = FAST.model_copy(update={"breaker": FAST.breaker.model_copy(update={"failure_threshold": 1})})
    async with make_router(platforms, "nats", destination=sensitive) as router:
        platforms.flaky["nats"].script(TransientError("refused"))
        result = (await router.publish_event(event()))["nats"]
        assert (result.outcome, result.attempts, str(result.error)) == (Outcome.FAILED, 1, "refused")
        assert platforms.flaky["nats"].calls == [1]


async def test_retries_wait_as_long_as_the_platform_asks_but_not_past_the_deadline() -> None:
    platforms, clock = Platforms(), ManualClock()
    async with make_router(platforms, "nats", clock=clock) as router:
        platforms.flaky["nats"].script(TransientError("busy", retry_after=3.0))
        task = asyncio.create_task(router.publish_event(event(1), timeout=10))
        await clock.advance(0)
        await clock.advance(2.9)
        assert platforms.flaky["nats"].calls == [1]
        await clock.advance(0.2)
        assert (await task)["nats"].attempts == 2
        platforms.flaky["nats"].script(TransientError("busy", retry_after=30.0))
        assert (await router.publish_event(event(2), timeout=10))["nats"].attempts == 1


async def test_throttling_beyond_the_deadline_sends_nothing() -> None:
    platforms, clock = Platforms(), ManualClock()
    async with make_router(platforms, "nats", clock=clock, destination=ONE_ATTEMPT) as router:
        platforms.flaky["nats"].script(TransientError("slow down", throttled=True, retry_after=60.0))
        await router.publish_event(event())
        result = (await router.publish_event(event(), timeout=5))["nats"]
        assert (result.outcome, result.attempts) == (Outcome.FAILED, 0)
        assert platforms.flaky["nats"].calls == [1]


async def test_closing_interrupts_a_retry_and_ends_within_its_time() -> None:
    platforms, clock = Platforms(), ManualClock()
    router = make_router(platforms, "nats", clock=clock)
    async with router:
        platforms.flaky["nats"].script(TransientError("busy", retry_after=30.0))
        task = asyncio.create_task(router.publish_event(event(), timeout=100))
        await clock.advance(0)
        assert clock.sleeping == [pytest.approx(30), pytest.approx(1000)]
        assert await router.close(timeout=0.01) == {"nats": 1}
        result = (await task)["nats"]
        assert (result.outcome, str(result.error)) == (Outcome.FAILED, "busy")


async def test_a_publisher_that_does_not_close_keeps_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with router_of(Stubborn(at="close"), close_timeout=0.01):
        pass
    assert "did not close within 1.0 s" in caplog.text


async def test_errors_of_a_publisher_s_life_are_told_and_harm_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Rough(MemoryPublisher):
        async def open(self) -> None:
            raise ValueError("open broke")

        async def close(self) -> None:
            raise ValueError("close broke")

        def describe(self) -> dict[str, Any]:
            raise ValueError("describe broke")

    async with router_of(Rough()) as router:
        result = (await router.publish_event(event()))["mine"]
        assert "open broke" in str(result.error)
        assert "describe broke" in router.get_platform_status()["platforms"]["mine"]["publisher"]["error"]
    assert "closing the publisher of platform mine failed" in caplog.text


async def test_publishers_are_not_opened_outside_the_router_s_life() -> None:
    publisher = Stubborn()
    router = router_of(publisher)
    with pytest.raises(RouterClosedError):
        await router.check_platforms()
    async with router:
        pass
    assert publisher.log == ["open", "close"]
    async with router:
        assert (await router.publish_event(event())).delivered
    assert publisher.log == ["open", "close"] * 2


async def test_when_one_publisher_can_never_open_the_others_are_closed() -> None:
    class Misconfigured(MemoryPublisher):
        async def open(self) -> None:
            raise ConfigurationError("Mine", ["region is missing"])

    other = Stubborn()
    with pytest.raises(ConfigurationError, match="region is missing"):
        async with EventRouter({"other": other, "mine": Misconfigured()}):
            pass
    assert other.log == ["open", "close"]


async def test_after_a_denial_the_publisher_is_opened_again() -> None:
    clock = ManualClock()

    class Denying(Stubborn):
        denied = True

        async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Any:
            if self.denied:
                return [PlatformDeniedError("no such bus")] * len(events)
            return await super().publish(events, timeout=timeout)

    publisher = Denying()
    async with router_of(publisher, clock=clock) as router:
        await router.publish_event(event())
        publisher.denied = False
        await clock.advance(11)
        assert (await router.publish_event(event())).delivered
        assert publisher.log == ["open", "open"]


@pytest.mark.parametrize(
    "error", [AddressDeniedError("a"), EventRejectedError("r"), TransientError("t", throttled=True)]
)
async def test_checks_that_say_nothing_of_the_platform_do_not_count(error: PublishError) -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].down(error)
        for _ in range(10):
            await router.check_platforms()
        assert router.get_platform_status()["platforms"]["nats"]["breaker"] == "closed"


async def test_a_check_that_hangs_ends_and_a_disabled_platform_is_not_checked() -> None:
    publisher = Stubborn()
    quick = ONE_ATTEMPT.model_copy(update={"check_timeout": 0.01})
    async with router_of(publisher, destination=quick) as router:
        publisher.at = "check"
        await router.check_platforms()
        assert "no answer to the check" in router.get_platform_status()["platforms"]["mine"]["check_error"]
        publisher.reached.clear()
        router.disable("mine")
        await router.check_platforms()
        assert not publisher.reached.is_set()


async def test_sticky_follows_the_last_good_platform_and_the_health_of_its_own_first() -> None:
    rule = RoutingRule(
        event_type_pattern=".*", platforms=["mine", "other"], strategy=RoutingStrategy.FAILOVER, name="r"
    )
    platforms = Platforms()
    router = make_router(platforms, "nats", "mine", "other", rules=[rule], sticky_failover=True)
    async with router:
        platforms.flaky["mine"].down(EventRejectedError("no"))
        await router.publish_event(event())
        await router.check_platforms()
        assert list(await router.publish_event(event())) == ["other"]
        assert router.explain(event()).goes_to == ("other",)
        platforms.flaky["other"].script(EventRejectedError("no"))
        platforms.flaky["mine"].up()
        assert list(await router.publish_event(event())) == ["other", "mine"]
        assert list(await router.publish_event(event())) == ["mine"]


async def test_hooks_hear_of_what_the_router_itself_refuses_or_skips() -> None:
    platforms = Platforms()
    rule = RoutingRule(event_type_pattern=".*", platforms=["nats", "webhook"])
    async with make_router(platforms, "nats", rules=[rule]) as router:
        await router.publish_events([event(), "no event"])
        settled = {detail.platform: detail.results[0].outcome for detail in platforms.seen(Settled)}
        assert settled == {"nats": "delivered", "webhook": "skipped", "router": "rejected"}


def test_a_hook_that_cannot_work_is_refused() -> None:
    async def hook(detail: object) -> None: ...

    with pytest.raises(ConfigurationError, match="no plain function"):
        EventRouter({"mine": MemoryPublisher()}, hooks=[hook])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("publishers", "reason"),
    [
        ({"nats": object()}, "is no Publisher"),
        ({"Nats_EU": MemoryPublisher()}, "lower-case"),
        ({5: MemoryPublisher()}, "5"),
    ],
)
def test_what_is_no_platform_is_refused(publishers: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        EventRouter(publishers)


async def test_what_is_no_rule_is_refused() -> None:
    async with make_router(Platforms(), "nats") as router:
        with pytest.raises(RuleError, match="no RoutingRule"):
            router.add_routing_rule({"event_type_pattern": ".*"})  # type: ignore[arg-type]
        with pytest.raises(RuleError, match="did you mean 'nats'"):
            router.add_routing_rule(RoutingRule(event_type_pattern=".*", platforms=["natz"]))


async def test_replacing_all_rules_replaces_their_plans() -> None:
    async with make_router(Platforms(), "nats", "mine") as router:
        assert list(await router.publish_event(event())) == ["nats", "mine"]
        router.replace_routing_rules([RoutingRule(event_type_pattern=".*", platforms=["mine"], name="everything")])
        assert list(await router.publish_event(event())) == ["mine"]


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("Thing", ["a", "b"]),
        RuleError("rule", ["a"]),
        MissingExtraError("nats", needed_for="X"),
        TransientError("t", code="c", retry_after=1.0, throttled=True),
        SkippedError("s"),
    ],
)
def test_errors_survive_the_way_between_processes(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
