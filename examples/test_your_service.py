"""Tests of a service that publishes events, with the fixtures and fakes of the package; run it with pytest."""

# [start:service]
from __future__ import annotations

import nats
import pytest

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    EventBridgeConfig,
    EventRouter,
    JetStreamOptions,
    MemoryPublisher,
    NatsConfig,
    Outcome,
    RouterConfig,
    RoutingRule,
    RoutingStrategy,
    StreamPolicy,
    StreamSpec,
    build_event,
    create_oms_multi_platform_router,
)
from oms_events.devstack import AwsEmulator, FaultProxy, LoseAnswer, NatsServer, PartialFailure
from oms_events.publishers.jetstream import from_nats_message
from oms_events.publishing import EventPublisher
from oms_events.testing import FlakyPublisher, ManualClock


class OrderService:
    """The service under test."""

    def __init__(self, events: EventPublisher) -> None:
        self._events = events

    async def place(self, total: int) -> bool:
        event = build_event("shop.order.placed", "/shop/web", {"total": total})
        results = await self._events.publish_event(event, timeout=5)
        return results.delivered


# [end:service]


# [start:memory]
@pytest.mark.asyncio
async def test_an_order_is_published() -> None:
    memory = MemoryPublisher()
    async with EventRouter({"nats": memory}) as router:
        assert await OrderService(router).place(total=12)
    (event,) = memory.events
    assert event.get_type() == "shop.order.placed"
    assert event.get_data() == {"total": 12}


# [end:memory]


# [start:flaky]
ORDERS = RoutingRule(
    event_type_pattern=r"shop\..*", platforms=["nats", "eventbridge"], strategy=RoutingStrategy.FAILOVER
)


@pytest.mark.asyncio
async def test_orders_go_to_the_backup_when_nats_is_down() -> None:
    nats_platform, backup = FlakyPublisher(MemoryPublisher()), MemoryPublisher()
    async with EventRouter({"nats": nats_platform, "eventbridge": backup}, [ORDERS]) as router:
        nats_platform.down()
        assert await OrderService(router).place(total=12)
    assert len(backup.events) == 1


# [end:flaky]


# [start:clock]
@pytest.mark.asyncio
async def test_an_order_after_the_recovery_time_closes_the_breaker() -> None:
    breaker = BreakerConfig(failure_threshold=1, recovery_time=15.0)
    config = RouterConfig(destination=DestinationConfig(breaker=breaker, check_interval=3600.0))
    clock, platform = ManualClock(), FlakyPublisher(MemoryPublisher())
    async with EventRouter({"nats": platform}, config=config, clock=clock) as router:

        def state() -> str:
            return str(router.get_platform_status()["platforms"]["nats"]["breaker"])

        platform.down()
        await router.check_platforms()
        assert state() == "open"
        platform.up()
        await clock.advance(15.0)
        assert state() == "half_open"
        assert await OrderService(router).place(total=12)
        assert state() == "closed"


# [end:clock]


# [start:nats]
@pytest.mark.asyncio
async def test_an_order_is_in_the_stream(oms_nats_server: NatsServer) -> None:
    options = JetStreamOptions(stream=StreamSpec(name="SHOP", subjects=("shop.>",)), policy=StreamPolicy.CREATE)
    router = create_oms_multi_platform_router(
        nats_publisher=NatsConfig(servers=(oms_nats_server.url,)), jetstream_options=options
    )
    async with router:
        assert await OrderService(router).place(total=12)
    client = await nats.connect(oms_nats_server.url)
    try:
        consumer = await client.jetstream().subscribe("shop.>", ordered_consumer=True)
        message = await consumer.next_msg(timeout=5)
        assert from_nats_message(message.headers, message.data).get_data() == {"total": 12}
    finally:
        await client.close()


# [end:nats]


# [start:faults]
def bus(proxy: FaultProxy, aws: AwsEmulator) -> EventBridgeConfig:
    return EventBridgeConfig(
        event_bus_name="default",
        aws_region=aws.region,
        endpoint_url=proxy.endpoint_url,
        aws_access_key_id=aws.access_key,
        aws_secret_access_key=aws.secret_key,
    )


@pytest.mark.asyncio
async def test_only_entries_that_failed_are_sent_again(
    oms_fault_proxy: FaultProxy, oms_aws_emulator: AwsEmulator
) -> None:
    oms_fault_proxy.script(PartialFailure(indices=(2, 5, 9)), operation="PutEvents")
    events = [build_event("shop.order.placed", "/shop/web", {"number": number}) for number in range(10)]
    async with create_oms_multi_platform_router(None, bus(oms_fault_proxy, oms_aws_emulator)) as router:
        results = await router.publish_events(events)
    assert all(result.delivered for result in results)
    assert [call.entries for call in oms_fault_proxy.calls_of("PutEvents")] == [10, 3]


@pytest.mark.asyncio
async def test_a_lost_answer_is_repeated_and_the_result_says_so(
    oms_fault_proxy: FaultProxy, oms_aws_emulator: AwsEmulator
) -> None:
    oms_fault_proxy.script(LoseAnswer(), operation="PutEvents")
    async with create_oms_multi_platform_router(None, bus(oms_fault_proxy, oms_aws_emulator)) as router:
        results = await router.publish_event(build_event("shop.order.placed", "/shop/web"))
    result = results["eventbridge"]
    assert result.outcome is Outcome.DELIVERED
    assert result.attempts == 2
    assert result.duplicate_possible


# [end:faults]
