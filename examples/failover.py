"""FAILOVER: what happens when a platform refuses, hangs or comes back. The platforms are in memory."""

from __future__ import annotations

import asyncio

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    EventRouter,
    MemoryPublisher,
    PublishResults,
    RetryConfig,
    RouterConfig,
    RoutingRule,
    RoutingStrategy,
    build_event,
)
from oms_events.testing import Fault, FlakyPublisher

# [start:rule]
rule = RoutingRule(
    name="orders",
    event_type_pattern=r"shop\.order\..*",
    platforms=["nats", "eventbridge"],
    strategy=RoutingStrategy.FAILOVER,
)
# [end:rule]

# [start:config]
config = RouterConfig(
    timeout=10.0,
    sticky_failover=True,
    sticky_for=60.0,
    destination=DestinationConfig(
        retry=RetryConfig(max_attempts=2, initial=0.05, maximum=0.5),
        breaker=BreakerConfig(failure_threshold=3, recovery_time=5.0),
        check_interval=5.0,
    ),
)
# [end:config]


# [start:show]
def show(results: PublishResults) -> None:
    for platform, result in results.items():
        print(f"{platform}: {result.outcome} after {result.attempts} attempts: {result.error}")
    print("delivered:", results.delivered)


# [end:show]


# [start:publish]
async def publish(router: EventRouter) -> PublishResults:
    event = build_event("shop.order.placed", "/shop/web", {"total": 12})
    return await router.publish_event(event, timeout=1.0)


# [end:publish]


async def main() -> None:
    nats, backup = FlakyPublisher(MemoryPublisher()), MemoryPublisher()
    async with EventRouter({"nats": nats, "eventbridge": backup}, [rule], config=config) as router:
        print("-- all is well")
        show(await publish(router))

        print("-- a hanging primary has half of the deadline")
        nats.script(Fault(hang=True))
        show(await publish(router))

        print("-- sticky: the backup stays first until a check of the primary succeeds")
        show(await publish(router))
        await router.check_platforms()
        show(await publish(router))

        print("-- a primary that is down: after three failed checks its breaker opens, and it is passed over")
        nats.down()
        for _ in range(3):
            await router.check_platforms()
        show(await publish(router))
        print(router.get_platform_status()["platforms"]["nats"]["breaker"])


if __name__ == "__main__":
    asyncio.run(main())
