"""The failure table of the design: each class and its effect on retry, FAILOVER and breaker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.instrumentation.hooks import BreakerChanged, CallEnded, FailedOver, Retried
from oms_events.publishing import Outcome
from oms_events.routing.rules import RoutingStrategy
from oms_events.testing import Fault, ManualClock
from tests.routing.routers import FAST, KEEPS_DUPLICATES, Platforms, event, make_router


@dataclass(frozen=True)
class Row:
    error: PublishError
    outcome: Outcome
    retried: bool
    opens_breaker_after: int | None


TABLE = {
    "transient": Row(TransientError("refused"), Outcome.FAILED, True, 5),
    "throttled": Row(TransientError("slow down", throttled=True), Outcome.FAILED, True, None),
    "unknown": Row(UnknownOutcomeError("no ack"), Outcome.UNKNOWN, True, 5),
    "platform denied": Row(PlatformDeniedError("no such bus"), Outcome.FAILED, False, 1),
    "address denied": Row(AddressDeniedError("no responders"), Outcome.FAILED, False, None),
    "event rejected": Row(EventRejectedError("too large"), Outcome.REJECTED, False, None),
}
rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())


@rows
async def test_outcome_and_retry(row: Row) -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].script(*[row.error] * 3)
        results = await router.publish_event(event(1))
        assert results["nats"].outcome is row.outcome
        assert results["nats"].error is row.error
        assert results["nats"].attempts == (3 if row.retried else 1)
        assert not results.delivered
        assert len(platforms.flaky["nats"].calls) == (3 if row.retried else 1)
        assert len(platforms.seen(Retried)) == (2 if row.retried else 0)


@rows
async def test_failover_moves_on(row: Row) -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", "eventbridge", strategy=RoutingStrategy.FAILOVER) as router:
        platforms.flaky["nats"].script(*[row.error] * 3)
        results = await router.publish_event(event(1))
        assert [(name, result.outcome) for name, result in results.items()] == [
            ("nats", row.outcome),
            ("eventbridge", Outcome.DELIVERED),
        ]
        assert results.delivered
        assert platforms.stored("eventbridge") == [1]
        assert platforms.seen(FailedOver) == [FailedOver("everything", "nats", "eventbridge", 1)]


@rows
async def test_breaker(row: Row) -> None:
    platforms, clock = Platforms(), ManualClock()
    one_attempt = FAST.model_copy(update={"retry": FAST.retry.model_copy(update={"max_attempts": 1})})
    async with make_router(platforms, "nats", destination=one_attempt, clock=clock) as router:
        calls = row.opens_breaker_after or 20
        for number in range(1, calls + 1):
            platforms.flaky["nats"].script(row.error)
            task = asyncio.create_task(router.publish_event(event(number)))
            while not task.done():
                await clock.advance(1)
            opened = router.get_platform_status()["platforms"]["nats"]["breaker"] == "open"
            assert opened == (row.opens_breaker_after == number)
        if row.opens_breaker_after:
            results = await router.publish_event(event("skipped"))
            assert results["nats"].outcome is Outcome.SKIPPED
            assert isinstance(results["nats"].error, SkippedError)
            assert str(row.error) in str(results["nats"].error)
            assert platforms.flaky["nats"].calls == [1] * calls


@pytest.mark.parametrize("error", [TransientError("refused"), UnknownOutcomeError("no ack")], ids=type)
async def test_a_retry_delivers(error: PublishError) -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].script(error)
        results = await router.publish_event(event(1))
        assert results.delivered
        assert results["nats"].attempts == 2
        assert not results["nats"].duplicate_possible
        assert platforms.stored("nats") == [1]


async def test_after_an_unknown_a_platform_that_keeps_duplicates_says_so() -> None:
    platforms = Platforms(traits=KEEPS_DUPLICATES)
    async with make_router(platforms, "eventbridge") as router:
        platforms.flaky["eventbridge"].script(Fault(UnknownOutcomeError("answer lost"), stored=True))
        results = await router.publish_event(event(1))
        assert results.delivered
        assert results["eventbridge"].duplicate_possible
        assert platforms.stored("eventbridge") == [1, 1]


async def test_a_failure_after_an_unknown_does_not_unsay_it() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].script(
            Fault(UnknownOutcomeError("answer lost"), stored=True), TransientError("a"), TransientError("b")
        )
        results = await router.publish_event(event(1))
        assert results["nats"].outcome is Outcome.UNKNOWN


async def test_in_a_batch_only_what_failed_is_sent_again_in_order() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        transient = TransientError("throttled", throttled=True)
        platforms.flaky["nats"].script(
            Fault(transient, only=frozenset({1, 3, 4})), Fault(transient, only=frozenset({0}))
        )
        results = await router.publish_events([event(number) for number in range(6)])
        assert all(result.delivered for result in results)
        assert [result["nats"].attempts for result in results] == [1, 3, 1, 2, 2, 1]
        assert platforms.flaky["nats"].calls == [6, 3, 1]
        assert platforms.stored("nats") == [0, 2, 5, 3, 4, 1]


async def test_a_rejected_event_in_a_batch_harms_no_other() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].script(Fault(EventRejectedError("too large"), only=frozenset({1})))
        results = await router.publish_events([event(number) for number in range(3)])
        assert [result["nats"].outcome for result in results] == ["delivered", "rejected", "delivered"]


async def test_a_publisher_that_raises_or_answers_too_little_leaves_its_events_unknown() -> None:
    class Careless:
        def __init__(self) -> None:
            self.traits = KEEPS_DUPLICATES

        async def open(self) -> None: ...
        async def close(self) -> None: ...
        async def check(self) -> None: ...

        async def publish(self, events: list[object], *, timeout: float) -> list[object]:
            if len(events) > 2:
                raise ValueError("a bug")
            return []

    from oms_events.routing.router import EventRouter

    careless = Careless()
    async with EventRouter({"mine": careless}) as router:  # type: ignore[dict-item]
        results = await router.publish_events([event(1), event(2)], timeout=0.2)
        assert {result["mine"].outcome for result in results} == {Outcome.UNKNOWN}
        results = await router.publish_events([event(1), event(2), event(3)], timeout=0.2)
        assert "a bug" in str(results[0]["mine"].error)


async def test_a_platform_that_hangs_does_not_starve_the_backup() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats", "eventbridge", strategy=RoutingStrategy.FAILOVER) as router:
        platforms.flaky["nats"].script(*[Fault(hang=True)] * 3)
        results = await router.publish_event(event(1), timeout=0.2)
        assert results["nats"].outcome is Outcome.UNKNOWN
        assert results["eventbridge"].success


async def test_throttling_slows_the_next_calls_down() -> None:
    platforms, clock = Platforms(), ManualClock()
    one_attempt = FAST.model_copy(update={"retry": FAST.retry.model_copy(update={"max_attempts": 1})})
    async with make_router(platforms, "nats", clock=clock, destination=one_attempt) as router:
        platforms.flaky["nats"].script(TransientError("slow down", throttled=True, retry_after=2.0))
        await router.publish_event(event(1))
        task = asyncio.create_task(router.publish_event(event(2), timeout=10))
        await clock.advance(1.9)
        assert platforms.flaky["nats"].calls == [1]
        await clock.advance(0.2)
        assert (await task).delivered
        assert platforms.seen(CallEnded)[0].throttled


async def test_failover_passes_an_open_breaker_over_and_a_good_check_brings_it_back() -> None:
    platforms, clock = Platforms(), ManualClock()
    router = make_router(platforms, "nats", "eventbridge", strategy=RoutingStrategy.FAILOVER, clock=clock)
    async with router:
        platforms.flaky["nats"].down(PlatformDeniedError("account expired"))
        first = await router.publish_event(event(1))
        assert [result.outcome for result in first.values()] == ["failed", "delivered"]
        second = await router.publish_event(event(2))
        assert [result.outcome for result in second.values()] == ["skipped", "delivered"]
        assert second.delivered
        assert router.get_platform_status()["health_summary"]["healthy_platforms"] == 1
        platforms.flaky["nats"].up()
        await clock.advance(11)
        third = await router.publish_event(event(3))
        assert list(third) == ["eventbridge"]
        await router.check_platforms()
        fourth = await router.publish_event(event(4))
        assert list(fourth) == ["nats"]
        changes = [(change.old, change.new) for change in platforms.seen(BreakerChanged)]
        assert changes == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


async def test_a_half_open_platform_is_the_last_resort_of_failover() -> None:
    platforms, clock = Platforms(), ManualClock()
    router = make_router(platforms, "nats", "eventbridge", strategy=RoutingStrategy.FAILOVER, clock=clock)
    async with router:
        platforms.flaky["nats"].script(PlatformDeniedError("expired"))
        await router.publish_event(event(1))
        await clock.advance(11)
        platforms.flaky["eventbridge"].script(AddressDeniedError("not this type"))
        results = await router.publish_event(event(2))
        assert [(name, result.outcome) for name, result in results.items()] == [
            ("eventbridge", Outcome.FAILED),
            ("nats", Outcome.DELIVERED),
        ]


async def test_good_checks_do_not_hide_failing_publishes() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        for _ in range(5):
            platforms.flaky["nats"].script(*[TransientError("stream is full")] * 3)
            await router.publish_event(event(1))
            await router.check_platforms()
        assert router.get_platform_status()["platforms"]["nats"]["breaker"] == "open"


async def test_failing_checks_alone_open_the_breaker() -> None:
    platforms = Platforms()
    async with make_router(platforms, "nats") as router:
        platforms.flaky["nats"].down()
        for _ in range(5):
            await router.check_platforms()
        status = router.get_platform_status()["platforms"]["nats"]
        assert (status["breaker"], status["check_error"], status["healthy"]) == (
            "open",
            "connection refused",
            False,
        )
