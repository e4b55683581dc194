from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from oms_events.errors import EventRejectedError, PlatformDeniedError, TransientError
from oms_events.instrumentation import LoggingHook
from oms_events.instrumentation.hooks import Hook
from oms_events.instrumentation.prometheus import PrometheusHook
from oms_events.publishing import PublisherTraits
from oms_events.routing.router import EventRouter
from oms_events.routing.rules import RoutingRule, RoutingStrategy
from oms_events.testing import Fault, FlakyPublisher, MemoryPublisher
from tests.routing.routers import FAST, event


async def eventful_day(hook: Hook) -> None:
    """Two delivered events, a retry, a failover, a rejection and a denial that opens the breaker."""
    from oms_events.routing.config import RouterConfig

    traits = PublisherTraits(gather=True, max_batch=10, linger=0)
    nats, backup = FlakyPublisher(MemoryPublisher(traits=traits)), FlakyPublisher(MemoryPublisher())
    rule = RoutingRule(
        event_type_pattern=".*", platforms=["nats", "mine"], strategy=RoutingStrategy.FAILOVER, name="all"
    )
    router = EventRouter(
        {"nats": nats, "mine": backup}, [rule], config=RouterConfig(destination=FAST), hooks=[hook]
    )
    async with router:
        nats.script(Fault(TransientError("throttled", throttled=True), only=frozenset({0})))
        await router.publish_events([event(1), event(2)])
        nats.script(EventRejectedError("too large"))
        await router.publish_event(event(3))
        nats.script(PlatformDeniedError("account expired"))
        await router.publish_event(event(4))


async def test_prometheus_counts_what_happened() -> None:
    registry = CollectorRegistry()
    await eventful_day(PrometheusHook(registry))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"oms_events_{name}", labels)

    assert value("published_total", platform="nats", outcome="delivered") == 2
    assert value("published_total", platform="nats", outcome="rejected") == 1
    assert value("published_total", platform="nats", outcome="failed") == 1
    assert value("published_total", platform="mine", outcome="delivered") == 2
    assert value("retries_total", platform="nats") == 1
    assert value("throttled_calls_total", platform="nats") == 1
    assert value("failovers_total", rule="all", source="nats", target="mine") == 2
    assert value("failures_total", platform="nats", failure="platform_denied") == 1
    assert value("rule_matches_total", rule="all", strategy="failover") == 4
    assert value("breaker_state", platform="nats", state="open") == 1
    assert value("breaker_state", platform="nats", state="closed") == 0
    assert value("publish_seconds_count", platform="nats") == 4
    assert value("batch_fill_ratio_bucket", platform="nats", le="0.1") == 3
    assert value("checks_total", platform="nats", ok="true") == 1


async def test_two_hooks_of_one_registry_are_refused_by_the_registry() -> None:
    registry = CollectorRegistry()
    PrometheusHook(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PrometheusHook(registry)
    PrometheusHook(registry, prefix="other")


async def test_logs_have_a_stable_action_and_say_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="oms_events"):
        await eventful_day(LoggingHook())
    actions = [record.__dict__["action"] for record in caplog.records]
    assert actions == ["retried", "settled", "failed_over", "breaker_changed", "settled", "failed_over"]
    changed = caplog.records[3]
    assert changed.__dict__["oms_new"] == "open"
    assert "account expired" in changed.getMessage()
    assert "too large" in caplog.records[1].getMessage()


async def test_debug_logs_tell_every_step(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="oms_events"):
        await eventful_day(LoggingHook())
    actions = {record.__dict__["action"] for record in caplog.records}
    assert actions >= {"decided", "call_ended", "check_ended", "settled", "retried"}
