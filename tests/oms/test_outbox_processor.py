from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from prometheus_client import CollectorRegistry

from oms_events import JetStreamOptions, StreamPolicy, StreamSpec, build_event
from oms_events.devstack import NatsServer
from oms_events.errors import ConfigurationError, OutboxClosedError, TransientError
from oms_events.instrumentation import Detail, Relayed
from oms_events.oms.builders import create_schema_change_event, create_system_event
from oms_events.oms.outbox import create_oms_outbox_processor
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.outbox import MemoryOutbox, Outbox
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.testing import MemoryPublisher


@pytest.fixture
async def outbox() -> AsyncIterator[Outbox]:
    async with MemoryOutbox(WriterConfig(buckets=2)) as memory:
        yield memory


async def relay(outbox: Outbox, **arguments: Any) -> None:
    """Adds an event that the default rules send to both platforms, and one for EventBridge; relays them."""
    async with create_oms_outbox_processor(outbox=outbox, **arguments) as processor:
        await outbox.add(
            create_schema_change_event(operation="create", resource_type="a", resource_id="b", branch="main")
        )
        await outbox.add(create_system_event(event_subtype="healthcheck", component="db", status="ok"))
        assert await processor.drain(timeout=5)


async def test_both_platforms_get_events_by_the_default_rules(outbox: Outbox) -> None:
    nats, eventbridge = MemoryPublisher(), MemoryPublisher()
    await relay(outbox, nats_client=nats, eventbridge_config=eventbridge, enable_multi_platform=True)
    assert len(nats.events) == 1
    assert len(eventbridge.events) == 2


async def test_without_several_platforms_nats_gets_every_event(outbox: Outbox) -> None:
    nats, eventbridge = MemoryPublisher(), MemoryPublisher()
    await relay(outbox, nats_client=nats, eventbridge_config=eventbridge, enable_multi_platform=False)
    assert len(nats.events) == 2
    assert eventbridge.events == []


@pytest.mark.parametrize("name", ["nats_client", "eventbridge_config"])
async def test_a_platform_that_is_alone_gets_every_event(outbox: Outbox, name: str) -> None:
    platform = MemoryPublisher()
    await relay(outbox, **{name: platform})
    assert len(platform.events) == 2


async def test_a_registry_has_the_metrics_of_router_and_processor(outbox: Outbox) -> None:
    registry = CollectorRegistry()
    await relay(outbox, nats_client=MemoryPublisher(), metrics=registry)
    published = {"platform": "nats", "outcome": "delivered"}
    assert registry.get_sample_value("oms_events_published_total", published) == 2
    assert registry.get_sample_value("oms_events_outbox_relayed_total") == 2


async def test_a_hook_of_the_users_own_hears_router_and_processor(outbox: Outbox) -> None:
    heard: list[Detail] = []
    await relay(outbox, nats_client=MemoryPublisher(), metrics=heard.append)
    assert sum(detail.events for detail in heard if isinstance(detail, Relayed)) == 2
    assert {type(detail).__name__ for detail in heard} >= {"CallEnded", "LeaseChanged"}


async def test_the_router_is_open_exactly_as_long_as_the_processor(outbox: Outbox) -> None:
    platform = MemoryPublisher()
    processor = create_oms_outbox_processor(outbox=outbox, nats_client=platform)
    with pytest.raises(TransientError, match="not open"):
        await platform.check()
    async with processor:
        await platform.check()
    with pytest.raises(TransientError, match="not open"):
        await platform.check()


async def test_a_start_that_fails_closes_the_router() -> None:
    outbox, platform = MemoryOutbox(), MemoryPublisher()
    await outbox.close()
    processor = create_oms_outbox_processor(outbox=outbox, nats_client=platform)
    with pytest.raises(OutboxClosedError):
        await processor.__aenter__()
    with pytest.raises(TransientError, match="not open"):
        await platform.check()


async def test_a_second_start_is_refused_and_harms_nothing(outbox: Outbox) -> None:
    platform = MemoryPublisher()
    async with create_oms_outbox_processor(outbox=outbox, nats_client=platform) as processor:
        with pytest.raises(ConfigurationError):
            await processor.__aenter__()
        await platform.check()


async def test_a_processor_that_was_stopped_runs_again(outbox: Outbox) -> None:
    platform = MemoryPublisher()
    processor = create_oms_outbox_processor(outbox=outbox, nats_client=platform)
    for number in (1, 2):
        await outbox.add(build_event("shop.order.placed", "/shop/orders"))
        assert (await processor.run_once()).delivered == 1
        assert len(platform.events) == number


async def test_a_nats_client_is_borrowed(outbox: Outbox, oms_nats_server: NatsServer) -> None:
    stream = StreamSpec(name="OUTBOX_FACTORY", subjects=("outbox-factory.>",))
    client = await nats.connect(oms_nats_server.url)
    try:
        processor = create_oms_outbox_processor(
            outbox=outbox,
            nats_client=client,
            jetstream_options=JetStreamOptions(stream=stream, policy=StreamPolicy.CREATE),
        )
        async with processor:
            await outbox.add(build_event("outbox-factory.made", "/tests"))
            assert await processor.drain(timeout=5)
        assert client.is_connected
        assert (await client.jetstream().stream_info("OUTBOX_FACTORY")).state.messages == 1
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "no platforms"),
        ({"eventbridge_config": MemoryPublisher(), "enable_multi_platform": False}, "'nats_client' is missing"),
        ({"nats_client": "nats://localhost"}, "a str is no nats-py client"),
        ({"nats_client": MemoryPublisher(), "metrics": "prometheus"}, "a str is no CollectorRegistry or hook"),
        ({"eventbridge_config": EventBridgeConfig, "nats_client": MemoryPublisher()}, "is no EventBridgeConfig"),
    ],
)
async def test_what_cannot_work_is_refused_at_once(outbox: Outbox, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        create_oms_outbox_processor(outbox=outbox, **arguments)
