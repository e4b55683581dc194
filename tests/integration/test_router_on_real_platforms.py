"""The whole router on the real NATS server and the emulator, with real faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import nats
import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    EventBridgeConfig,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    Outcome,
    RetryConfig,
    RouterConfig,
    RoutingRule,
    RoutingStrategy,
    StreamSpec,
    build_event,
    create_oms_multi_platform_router,
)
from oms_events.devstack import (
    AwsEmulator,
    FaultProxy,
    Hang,
    LoseAnswer,
    NatsServer,
    PartialFailure,
    Reset,
    ServerError,
    Throttle,
)
from oms_events.publishers.jetstream import StreamPolicy, from_nats_message
from tests.integration.queue import Bus

STREAM = JetStreamOptions(stream=StreamSpec(name="T", subjects=("t.>",)), policy=StreamPolicy.CREATE)
QUICK = DestinationConfig(
    retry=RetryConfig(max_attempts=3, initial=0.01, maximum=0.05),
    breaker=BreakerConfig(failure_threshold=3, failure_rate=None, recovery_time=0.3),
    check_interval=0.2,
)


def event(number: int, kind: str = "t.happened", *, padding: int = 0) -> CloudEvent:
    return build_event(kind, "/test/source", {"number": number, "padding": "x" * padding}, branch="main")


async def everything_in(url: str, stream: str = "T") -> Counter[str]:
    """The ids of all events that the stream holds."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        count = (await js.stream_info(stream)).state.messages
        consumer = await js.subscribe("t.>", ordered_consumer=True)
        async with asyncio.timeout(20):
            messages = [await consumer.next_msg(timeout=20) for _ in range(count)]
        return Counter(from_nats_message(message.headers, message.data).get_id() for message in messages)
    finally:
        await client.close()


@pytest.fixture
async def bus(oms_aws_emulator: AwsEmulator) -> AsyncIterator[Bus]:
    async with Bus(oms_aws_emulator) as bus:
        yield bus


def eventbridge(bus: Bus, proxy: FaultProxy, **values: object) -> EventBridgeConfig:
    return EventBridgeConfig(
        event_bus_name=bus.name,
        aws_region=bus.aws.region,
        endpoint_url=proxy.endpoint_url,
        aws_access_key_id=bus.aws.access_key,
        aws_secret_access_key=bus.aws.secret_key,
        **values,
    )  # type: ignore[arg-type]


def on_eventbridge(bus: Bus, proxy: FaultProxy, **values: object) -> EventRouter:
    return create_oms_multi_platform_router(
        eventbridge_config=eventbridge(bus, proxy, **values), config=RouterConfig(destination=QUICK)
    )


async def test_nats_killed_during_a_batch_leaves_one_true_outcome_per_event() -> None:
    async with NatsServer() as server:
        router = create_oms_multi_platform_router(
            nats_publisher=NatsConfig(servers=(server.url,), reconnect_wait=0.05),
            jetstream_options=STREAM,
            config=RouterConfig(destination=QUICK),
        )
        async with router:
            batch = [event(number, padding=8_000) for number in range(10_000)]
            watcher = await nats.connect(server.url, allow_reconnect=False)
            task = asyncio.create_task(router.publish_events(batch, timeout=5))
            async with asyncio.timeout(10):
                # More than the window (2,048): so some have been acknowledged, and many are still to be sent.
                while (await watcher.jetstream().stream_info("T")).state.messages < 3_000:
                    pass
            await server.kill()
            await watcher.close()
            results = await task
            outcomes = Counter(result["nats"].outcome for result in results)
            assert sum(outcomes.values()) == 10_000
            assert outcomes[Outcome.DELIVERED] > 0
            assert outcomes[Outcome.DELIVERED] < 10_000
            await server.start()
            stored = await everything_in(server.url)
        for sent, result in zip(batch, results, strict=True):
            copies = stored[sent.get_id()]
            match result["nats"].outcome:
                case Outcome.DELIVERED:
                    assert copies == 1
                case Outcome.UNKNOWN:
                    assert copies <= 1
                case _:
                    assert copies == 0


async def test_ten_thousand_events_with_three_bad_ones_among_them(oms_nats_server: NatsServer) -> None:
    options = JetStreamOptions(stream=StreamSpec(name="MANY", subjects=("many.>",)), policy=StreamPolicy.CREATE)
    router = create_oms_multi_platform_router(
        nats_publisher=NatsConfig(servers=(oms_nats_server.url,)), jetstream_options=options
    )
    async with router:
        batch: list[object] = [event(number, kind="many.of.them") for number in range(10_000)]
        batch[3] = {"type": "many.of.them"}
        batch[5_000] = build_event("many.of.them", "/s", "x" * 2_000_000)
        batch[9_000] = build_event("many.of.them", "/s", {"not json": object()})
        results = await router.publish_events(batch)
        bad = {index: result for index, result in enumerate(results) if not result.delivered}
        assert {index: next(iter(result.values())).outcome for index, result in bad.items()} == dict.fromkeys(
            (3, 5_000, 9_000), Outcome.REJECTED
        )
        assert "nats" in bad[5_000]
        assert [list(bad[index]) for index in (3, 9_000)] == [["router"], ["router"]]


@pytest.mark.parametrize("kind", ["many words.*.>", "many..dots.", "many.ünïcode"])
async def test_a_type_with_spaces_or_wildcards_is_stored_under_a_safe_subject(
    oms_nats_server: NatsServer, kind: str
) -> None:
    router = create_oms_multi_platform_router(
        nats_publisher=NatsConfig(servers=(oms_nats_server.url,)),
        jetstream_options=JetStreamOptions(
            subject="safe.{type}",
            stream=StreamSpec(name="SAFE", subjects=("safe.>",)),
            policy=StreamPolicy.CREATE,
        ),
    )
    async with router:
        result = await router.publish_event(event(1, kind=kind))
        assert result.delivered, result["nats"].error


async def test_nats_that_hangs_fails_over_within_the_deadline(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    rule = RoutingRule(
        event_type_pattern=".*", platforms=["nats", "eventbridge"], strategy=RoutingStrategy.FAILOVER
    )
    async with NatsServer() as server:
        router = create_oms_multi_platform_router(
            NatsConfig(servers=(server.url,)),
            eventbridge(bus, oms_fault_proxy),
            jetstream_options=STREAM,
            rules=[rule],
            config=RouterConfig(destination=QUICK),
        )
        async with router:
            assert list(await router.publish_event(event(1))) == ["nats"]
            server.pause()
            try:
                results = await router.publish_event(event(2), timeout=2)
            finally:
                server.resume()
            assert results["nats"].outcome is Outcome.UNKNOWN
            assert results["eventbridge"].success


async def test_three_failed_entries_of_ten_are_sent_again_alone(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        oms_fault_proxy.script(PartialFailure(indices=(1, 4, 9)), operation="PutEvents")
        batch = [event(number) for number in range(10)]
        results = await router.publish_events(batch)
        assert all(result.delivered for result in results)
        assert [result["eventbridge"].attempts for result in results] == [1, 2, 1, 1, 2, 1, 1, 1, 1, 2]
        assert [call.entries for call in oms_fault_proxy.calls_of("PutEvents")] == [10, 3]
        assert await bus.read(10) == Counter(sent.get_id() for sent in batch)


async def test_throttling_slows_down_and_opens_no_breaker(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        oms_fault_proxy.script(Throttle(), Throttle(), operation="PutEvents")
        result = (await router.publish_event(event(1)))["eventbridge"]
        assert (result.outcome, result.attempts, result.duplicate_possible) == (Outcome.DELIVERED, 3, False)
        assert router.get_platform_status()["platforms"]["eventbridge"]["breaker"] == "closed"


async def test_an_answer_lost_is_unknown_then_delivered_and_says_that_it_may_show_twice(
    bus: Bus, oms_fault_proxy: FaultProxy
) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        oms_fault_proxy.script(LoseAnswer(), operation="PutEvents")
        sent = event(1)
        result = (await router.publish_event(sent))["eventbridge"]
        assert (result.outcome, result.attempts, result.duplicate_possible) == (Outcome.DELIVERED, 2, True)
        assert await bus.read(2) == Counter({sent.get_id(): 2})


async def test_a_server_error_for_the_whole_call_is_unknown(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        oms_fault_proxy.script(ServerError(), ServerError(), ServerError(), operation="PutEvents")
        result = (await router.publish_event(event(1)))["eventbridge"]
        assert (result.outcome, result.attempts) == (Outcome.UNKNOWN, 3)
        assert router.get_platform_status()["platforms"]["eventbridge"]["breaker"] == "open"


async def test_a_bus_that_hangs_is_unknown_within_the_deadline(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        oms_fault_proxy.always(Hang(), operation="PutEvents")
        loop = asyncio.get_running_loop()
        started = loop.time()
        result = (await router.publish_event(event(1), timeout=0.5))["eventbridge"]
        assert loop.time() - started < 5
        assert result.outcome is Outcome.UNKNOWN
        oms_fault_proxy.clear()


async def test_a_connection_reset_is_retried(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        oms_fault_proxy.script(Reset(), operation="PutEvents")
        assert (await router.publish_event(event(1))).delivered


async def test_five_hundred_single_publishes_fill_their_calls(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    async with on_eventbridge(bus, oms_fault_proxy) as router:
        results = await asyncio.gather(*(router.publish_event(event(number)) for number in range(500)))
        assert all(result.delivered for result in results)
        sizes = [call.entries for call in oms_fault_proxy.calls_of("PutEvents")]
        assert sum(sizes) == 500
        assert sum(sizes) / len(sizes) >= 9


async def test_a_missing_bus_is_denied_and_nothing_is_dropped_silently(
    bus: Bus, oms_fault_proxy: FaultProxy
) -> None:
    config = eventbridge(bus, oms_fault_proxy).model_copy(update={"event_bus_name": "no-such-bus"})
    router = create_oms_multi_platform_router(None, config, config=RouterConfig(destination=QUICK))
    async with router:
        result = (await router.publish_event(event(1)))["eventbridge"]
        assert result.outcome is Outcome.SKIPPED
        assert "no-such-bus" in str(result.error)
        assert oms_fault_proxy.calls_of("PutEvents") == ()


async def test_no_secret_is_in_status_or_errors(bus: Bus, oms_fault_proxy: FaultProxy) -> None:
    secret = "s3cr3t-value-that-nobody-may-see"
    config = eventbridge(bus, oms_fault_proxy).model_copy(update={"event_bus_name": "no-such-bus"})
    config = EventBridgeConfig(**{**config.model_dump(), "aws_secret_access_key": secret})
    nats_config = NatsConfig(servers=("nats://127.0.0.1:1",), user="u", password=secret)  # type: ignore[arg-type]
    router = create_oms_multi_platform_router(nats_config, config, config=RouterConfig(destination=QUICK))
    async with router:
        results = await router.publish_event(build_event("com.foundry.oms.schema.created", "/s"))
        seen = f"{router.get_platform_status()} {results} {[str(r.error) for r in results.values()]} {config!r}"
        assert secret not in seen
        assert secret not in repr(nats_config)
