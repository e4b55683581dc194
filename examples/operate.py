"""Watching and operating a router: status, hooks, logging, Prometheus, maintenance, orderly closing."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from prometheus_client import CollectorRegistry, generate_latest

from oms_events import EventRouter, MemoryPublisher, RoutingRule, build_event
from oms_events.instrumentation import BreakerChanged, Detail, FailedOver, LoggingHook, PrometheusHook
from oms_events.testing import FlakyPublisher


# [start:hook]
def alert(detail: Detail) -> None:
    match detail:
        case BreakerChanged(platform=platform, new="open", reason=reason):
            print(f"ALERT: {platform} is out: {reason}")
        case FailedOver(from_platform=source, to_platform=target, events=count):
            print(f"{count} events went to {target} instead of {source}")


# [end:hook]

# [start:logging]
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
logging_hook = LoggingHook()  # the logger "oms_events"; give it another to change that
# [end:logging]

# [start:prometheus]
registry = CollectorRegistry()
prometheus_hook = PrometheusHook(registry)
# [end:prometheus]


# [start:status]
def report(router: EventRouter) -> None:
    status = router.get_platform_status()
    summary = status["health_summary"]
    print(f"{summary['healthy_platforms']} of {summary['total_platforms']} platforms are healthy")
    for name, platform in status["platforms"].items():
        print(name, platform["breaker"], platform["outcomes"], platform["latency_ms"], platform["last_error"])


# [end:status]


# [start:health]
def is_ready(router: EventRouter) -> bool:
    """For a readiness probe: at least one platform takes events."""
    healthy: int = router.get_platform_status()["health_summary"]["healthy_platforms"]
    return healthy > 0


# [end:health]


# [start:maintenance]
async def maintain(router: EventRouter) -> None:
    router.disable("eventbridge")
    results = await router.publish_event(build_event("shop.order.placed", "/shop/web"))
    print({platform: result.outcome.value for platform, result in results.items()}, results.delivered)
    print(results["eventbridge"].error)
    router.enable("eventbridge")


# [end:maintenance]


# [start:close]
async def shut_down(router: EventRouter) -> None:
    ended = await router.close(timeout=5.0)
    for platform, calls in ended.items():
        print(f"{calls} publish calls to {platform} did not finish in time")


# [end:close]


async def main() -> None:
    nats, eventbridge = FlakyPublisher(MemoryPublisher()), MemoryPublisher()
    rule = RoutingRule(event_type_pattern=r"shop\..*", platforms=["nats", "eventbridge"])
    # [start:hooks]
    router = EventRouter(
        {"nats": nats, "eventbridge": eventbridge}, [rule], hooks=[logging_hook, prometheus_hook, alert]
    )
    # [end:hooks]
    async with router:
        await router.publish_events([build_event("shop.order.placed", "/shop/web") for _ in range(100)])
        await maintain(router)
        nats.down()
        for _ in range(2):
            await router.publish_event(build_event("shop.order.placed", "/shop/web"))
        report(router)
        print(json.dumps(router.get_platform_status()["health_summary"]), is_ready(router))
        # [start:exposition]
        exposition = generate_latest(registry).decode()
        # [end:exposition]
        print(*(line for line in exposition.splitlines() if "published_total{" in line), sep="\n")
        await shut_down(router)


if __name__ == "__main__":
    asyncio.run(main())
