"""The public API as a type checker sees it. Never executed; mypy --strict checks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

from cloudevents.core.v1.event import CloudEvent
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    EncodedEvent,
    EnhancedEventService,
    EventBridgeConfig,
    EventRouter,
    EventType,
    JetStreamOptions,
    MemoryPublisher,
    NatsConfig,
    OmsEventsError,
    Outcome,
    Platform,
    Publisher,
    PublishError,
    PublisherTraits,
    PublishResult,
    PublishResults,
    Receipt,
    RetryConfig,
    RouterConfig,
    RoutingRule,
    RoutingStrategy,
    StreamSpec,
    build_event,
    create_oms_multi_platform_router,
    encode,
    parse_event,
)
from oms_events.instrumentation import BreakerChanged, Detail, LoggingHook
from oms_events.instrumentation.prometheus import PrometheusHook
from oms_events.outbox.schema import TABLE
from oms_events.provisioning import (
    PRESETS,
    Action,
    AwsConfig,
    CheckedConfiguration,
    Deletion,
    Drift,
    EventBusSpec,
    OmsPreset,
    PermissionRow,
    Plan,
    Preset,
    QueueSpec,
    Reference,
    Report,
    RoleSpec,
    RuleSpec,
    ServiceTrust,
    StackEvent,
    StackSpec,
    StackState,
    StatementSpec,
    TableSpec,
    TargetSpec,
    Template,
    apply,
    check,
    deploy,
    destroy,
    discard,
    drift,
    follow,
    look,
    outputs,
    permission_rows,
    plan,
    read_source,
    synthesize,
)
from oms_events.publishers.eventbridge import EventBridgePublisher, from_eventbridge_event
from oms_events.publishers.jetstream import JetStreamPublisher, from_nats_message
from oms_events.testing import Fault, FlakyPublisher, ManualClock


class Mine:
    """A publisher of the user's own needs no base class."""

    @property
    def traits(self) -> PublisherTraits:
        return PublisherTraits(gather=True, max_batch=10)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None: ...

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        return [Receipt(id=event.id) for event in events]


def hook(detail: Detail) -> None:
    if isinstance(detail, BreakerChanged):
        assert_type(detail.new, str)


async def router() -> None:
    mine: Publisher = Mine()
    created = create_oms_multi_platform_router(
        nats_publisher=NatsConfig(servers=("nats://127.0.0.1:4222",), password=SecretStr("x"), user="u"),
        eventbridge_config=EventBridgeConfig(event_bus_name="oms-events", aws_region="us-east-1"),
        jetstream_options=JetStreamOptions(stream=StreamSpec(name="OMS", subjects=("oms.>",))),
        publishers={"mine": mine},
        rules=[RoutingRule(event_type_pattern=".*", platforms=("mine",), strategy=RoutingStrategy.ALL)],
        config=RouterConfig(
            destination=DestinationConfig(retry=RetryConfig(max_attempts=2), breaker=BreakerConfig(probes=2))
        ),
        hooks=[hook, LoggingHook(), PrometheusHook(CollectorRegistry())],
    )
    assert_type(created, EventRouter)
    event = build_event("com.example.done", "/s", {"a": 1}, branch="main")
    assert_type(event, CloudEvent)
    async with created as running:
        assert_type(running, EventRouter)
        results = await running.publish_event(event, timeout=1.0)
        assert_type(results, PublishResults)
        for platform, result in results.items():
            assert_type(platform, str)
            assert_type(result, PublishResult)
            assert_type(result.success, bool)
            assert_type(result.outcome, Outcome)
            assert_type(result.error, OmsEventsError | None)
            assert_type(result.receipt, Receipt | None)
        assert_type(results[Platform.NATS], PublishResult)
        assert_type(results.delivered, bool)
        assert_type(await running.publish_events([event]), list[PublishResults])
        assert_type(running.get_platform_status(), dict[str, Any])
        assert_type(running.explain(event, assume_down={"nats"}).goes_to, tuple[str, ...])
        running.add_routing_rule(
            RoutingRule(
                event_type_pattern=r".*\.schema\..*",
                platforms={Platform.EVENTBRIDGE},
                strategy=RoutingStrategy.CONDITIONAL,
                conditions={"branch": "production"},
            )
        )


async def service() -> None:
    async with EnhancedEventService() as service:
        event = service.create_branch_event(operation="created", branch_name="b", author="a")
        assert_type(event, CloudEvent)
        assert_type(await service.publish_event(event, immediate=True), PublishResults)
        assert_type(await service.publish_event(event), PublishResults | None)
        assert_type(await service.publish_event_batch([event], immediate=True), list[PublishResults])


def wire(message: Any) -> None:
    assert_type(from_nats_message({}, b""), CloudEvent)
    assert_type(from_eventbridge_event({}), CloudEvent)
    assert_type(parse_event(b"{}"), CloudEvent)
    assert_type(encode(message), EncodedEvent)
    assert_type(encode(message).json, bytes)
    assert_type(EventType.SCHEMA_CREATED.family.value, str)


def publishers() -> None:
    several: list[Publisher] = [
        JetStreamPublisher(NatsConfig()),
        EventBridgePublisher(EventBridgeConfig(aws_region="us-east-1")),
        MemoryPublisher(),
        FlakyPublisher(MemoryPublisher()),
    ]
    flaky = FlakyPublisher(several[0])
    flaky.script(Fault(hang=True), None)
    assert_type(ManualClock().monotonic(), float)


def specs() -> Template:
    queue = QueueSpec(name="orders")
    assert_type(queue.arn, Reference)
    assert_type(queue.reference("url"), Reference)
    bus = EventBusSpec(name="shop")
    rule = RuleSpec(
        name="placed",
        bus=bus.reference("name"),
        pattern={"source": ["shop.orders"]},
        targets=(TargetSpec(id="queue", arn=queue.arn, dead_letter="arn:aws:sqs:eu-central-1:123456789012:dlq"),),
    )
    role = RoleSpec(
        name="worker",
        trust=(ServiceTrust(service="lambda.amazonaws.com"),),
        statements=(StatementSpec(actions=("sqs:SendMessage",), resources=(queue.arn,), why="orders"),),
    )
    assert_type(list(permission_rows([role])), list[PermissionRow])
    table = TableSpec.from_shape("outbox", TABLE, deletion_protection=True)
    assert_type(table, TableSpec)
    stack = StackSpec(
        name="shop",
        queues=(queue,),
        buses=(bus,),
        rules=(rule,),
        roles=(role,),
        tables=(table,),
        outputs={"bus": bus.arn, "queues": {"orders": queue.reference("url")}, "archive": None},
    )
    template = synthesize(stack)
    assert_type(template, Template)
    assert_type(template.body, str)
    preset: Preset = OmsPreset(event_bus_name="shop")
    assert_type(preset.stack(), StackSpec)
    assert_type(PRESETS["oms"], type[Preset])
    assert_type(read_source("oms", ["name=shop"]), StackSpec)
    return template


def on_event(event: StackEvent) -> None:
    assert_type(event.failed, bool)


async def stacks(template: Template, report: CheckedConfiguration) -> None:
    config = AwsConfig(aws_region="eu-central-1")
    made = await plan(template, config)
    assert_type(made, Plan)
    assert_type(made.changes[0].action, Action)
    assert_type(made.data_loss, tuple[str, ...])
    await discard(made, config)
    assert_type(await apply(made, config, on_event=on_event), StackState)
    assert_type(await deploy(template, config, allow_data_loss=True), StackState)
    assert_type(await deploy(template, EventBridgeConfig(aws_region="eu-central-1")), StackState)
    assert_type(await follow("shop", config), StackState)
    assert_type(await outputs("shop", config), dict[str, Any])
    assert_type(await drift("shop", config), tuple[Drift, ...])
    assert_type(await look("shop", config), Deletion)
    assert_type(await destroy("shop", config, force=True), StackState)
    assert_type(await check(report), Report)
