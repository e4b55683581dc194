"""The main job, end to end, on the embedded stack: events through rules to NATS JetStream and EventBridge.

Starts a real NATS server and an AWS emulator on loopback, publishes OMS events of every family, reads each
back from the stream and from a queue behind the bus and compares it field by field; then NATS is killed to
show failover and the breaker, and started again to show recovery. At last 1,000 orders are written with their
events through the outbox, and one of its two processors is killed in the middle. Exit code 0 when everything was
as it should be, 1 when not, 130 after Ctrl-C. Run it with: python examples/test_multiplatform_router.py
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioboto3
import nats
from cloudevents.core.v1.event import CloudEvent

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    DynamoDBOutbox,
    EnhancedEventService,
    EventBridgeConfig,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    OutboxAdmin,
    OutboxConfig,
    Outcome,
    Platform,
    PublishResults,
    RetryConfig,
    RouterConfig,
    RoutingRule,
    RoutingStrategy,
    StreamPolicy,
    StreamSpec,
    build_event,
    create_oms_multi_platform_router,
    create_table,
)
from oms_events.devstack import AwsEmulator, DevStack
from oms_events.devstack.processes import Process
from oms_events.publishers.eventbridge import from_eventbridge_event
from oms_events.publishers.jetstream import from_nats_message

BUS = "oms-events"
say = functools.partial(print, flush=True)
STREAM = StreamSpec(name="OMS", subjects=("oms.>",))
QUICK = RouterConfig(
    destination=DestinationConfig(
        retry=RetryConfig(max_attempts=2),
        breaker=BreakerConfig(failure_threshold=3, recovery_time=1.0),
        check_interval=0.5,
    )
)
SYMBOLS = {
    Outcome.DELIVERED: "✓", Outcome.REJECTED: "✗", Outcome.FAILED: "✗", Outcome.UNKNOWN: "?", Outcome.SKIPPED: "-",
}  # fmt: skip


CUSTOMERS, ORDERS_EACH = 20, 50
WORKER = "from oms_events.cli.main import main; main()"
WORKER_SETTINGS = """
add_default_rules = false

[jetstream]
stream = "OMS"

[outbox]
table_name = "orders-outbox"

[processor]  # quick, for a demonstration: a dead processor is replaced after a lease and a heartbeat
lease = 2.0
heartbeat = 0.4
lease_margin = 0.3
poll_ceiling = 0.5
"""


class Demo:
    """Prints what happens and remembers what was not as it should be."""

    def __init__(self) -> None:
        self.checks: list[tuple[bool, str]] = []

    def title(self, text: str) -> None:
        say(f"\n== {text}")

    def check(self, ok: bool, text: str) -> None:
        say(f"  {'ok' if ok else 'WRONG'}: {text}")
        self.checks.append((ok, text))

    def show(self, event: CloudEvent, results: PublishResults) -> None:
        kind = event.get_type().removeprefix("com.foundry.oms.")
        states = "  ".join(
            f"{SYMBOLS[result.outcome]} {platform} {result.outcome} ({result.latency * 1000:.1f} ms)"
            for platform, result in results.items()
        )
        say(f"  {kind:22} {results.rule:12} {results.strategy:13} {states}")


def events_of_every_family() -> list[CloudEvent]:
    """At least one event of each family of the OMS catalogue."""
    oms = EnhancedEventService
    schema = [
        oms.create_schema_change_event(
            operation=operation, resource_type=kind, resource_id="User", branch="main", commit_id="abc123",
            author="dev@example.com", new_value={"name": "User", "note": 'ünïcode "quoted"'}, correlation_id="c-1",
        )
        for operation, kind in [("create", "object_type"), ("update", "property"), ("delete", "link_type")]
    ]  # fmt: skip
    return [
        *schema,
        oms.create_branch_event(operation="created", branch_name="feature/login", author="dev@example.com"),
        oms.create_branch_event(operation="merged", branch_name="feature/login", author="dev@example.com",
                                target_branch="main"),
        oms.create_proposal_event(operation="approved", proposal_id="p-7", branch="feature/login",
                                  author="dev@example.com", title="Add login", reviewers=["a", "b"]),
        oms.create_action_event(action_type="index", job_id="job-1", status="started", progress=0),
        oms.create_action_event(action_type="index", job_id="job-1", status="completed", result={"rows": 12}),
        oms.create_system_event(event_subtype="healthcheck", component="gateway", status="ok"),
    ]  # fmt: skip


class Bus:
    """The bus, a rule for all OMS events, and the queue behind it."""

    def __init__(self, session: aioboto3.Session, aws: AwsEmulator) -> None:
        self._session = session
        self._aws = aws
        self._queue = ""

    async def create(self) -> None:
        async with self._client("events") as events, self._client("sqs") as sqs:
            await events.create_event_bus(Name=BUS)
            self._queue = (await sqs.create_queue(QueueName="oms-all"))["QueueUrl"]
            attributes = await sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])
            pattern = {"source": [{"prefix": "oms."}], "detail": {"cloudEvents": {"type": [{"prefix": "com."}]}}}
            await events.put_rule(Name="all", EventBusName=BUS, EventPattern=json.dumps(pattern))
            target = {"Id": "queue", "Arn": attributes["Attributes"]["QueueArn"]}
            await events.put_targets(Rule="all", EventBusName=BUS, Targets=[target])

    async def read(self, count: int) -> list[CloudEvent]:
        """Reads `count` events from the queue, for ten seconds at most."""
        found: list[CloudEvent] = []
        async with self._client("sqs") as sqs, asyncio.timeout(10):
            while len(found) < count:
                answer = await sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                for message in answer.get("Messages", []):
                    found.append(from_eventbridge_event(message["Body"]))
                    await sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def _client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self._aws.endpoint_url)


async def read_stream(url: str, count: int | None = None, *, subject: str = "oms.>") -> list[CloudEvent]:
    """Reads `count` events, or all, from the stream, from its beginning, for ten seconds at most."""
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        if count is None:
            count = sum(((await jetstream.stream_info(STREAM.name, subject)).state.subjects or {}).values())
        consumer = await jetstream.subscribe(subject, ordered_consumer=True)
        async with asyncio.timeout(10):
            messages = [await consumer.next_msg(timeout=10) for _ in range(count)]
        return [from_nats_message(message.headers, message.data) for message in messages]
    finally:
        await client.close()


def same(sent: CloudEvent, found: Iterable[CloudEvent]) -> bool:
    """Whether the event is among those found, exactly once and equal in every attribute and in its data."""
    copies = [event for event in found if event.get_id() == sent.get_id()]
    return (
        len(copies) == 1
        and copies[0].get_attributes() == sent.get_attributes()
        and copies[0].get_data() == sent.get_data()
    )


async def publish_all(demo: Demo, router: EventRouter, bus: Bus, url: str) -> None:
    """Publishes one event of each kind and compares what arrived."""
    demo.title("Events of every family through the default rules")
    events = events_of_every_family()
    results = [await router.publish_event(event) for event in events]
    for event, result in zip(events, results, strict=True):
        demo.show(event, result)
    demo.check(all(result.delivered for result in results), f"all {len(events)} plans are fulfilled")

    demo.title("Reading them back, field by field")
    sent = list(zip(events, results, strict=True))
    to_nats = [event for event, result in sent if Platform.NATS in result]
    to_bus = [event for event, result in sent if Platform.EVENTBRIDGE in result]
    in_stream = await read_stream(url, len(to_nats))
    in_queue = await bus.read(len(to_bus))
    for event in to_nats:
        demo.check(same(event, in_stream), f"JetStream has {event.get_type()} unchanged")
    for event in to_bus:
        demo.check(same(event, in_queue), f"the queue has {event.get_type()} unchanged")


async def add_a_rule(demo: Demo, router: EventRouter) -> None:
    """A rule of the user's own goes before the default rules."""
    demo.title("A rule of your own: production schema changes to EventBridge only")
    router.add_routing_rule(
        RoutingRule(
            event_type_pattern=r".*\.schema\..*", platforms={Platform.EVENTBRIDGE},
            strategy=RoutingStrategy.CONDITIONAL, conditions={"branch": "production"}, name="production",
        )
    )  # fmt: skip
    for branch, expected in [("production", {"eventbridge"}), ("main", {"nats", "eventbridge"})]:
        event = EnhancedEventService.create_schema_change_event(
            operation="create", resource_type="object_type", resource_id="Order", branch=branch,
            commit_id="def456", author="dev@example.com",
        )  # fmt: skip
        results = await router.publish_event(event)
        demo.show(event, results)
        demo.check(set(results) == expected, f"branch {branch} goes to {' and '.join(sorted(expected))}")


async def fail_and_recover(demo: Demo, stack: DevStack, router: EventRouter) -> None:
    """Kills NATS, shows failover and the breaker, starts it again and waits for the recovery."""
    demo.title("NATS is killed: FAILOVER takes EventBridge, the breaker opens")
    await stack.nats.kill()
    outcomes = []
    for number in range(4):
        event = EnhancedEventService.create_branch_event(
            operation="updated", branch_name=f"feature/{number}", author="dev@example.com"
        )
        results = await router.publish_event(event, timeout=5)
        demo.show(event, results)
        outcomes.append((results.delivered, results["nats"].outcome, results["eventbridge"].outcome))
    demo.check(all(delivered for delivered, _, _ in outcomes), "every branch event was delivered by EventBridge")
    demo.check(outcomes[-1][1] is Outcome.SKIPPED, "NATS is passed over once its breaker is open")
    say(f"  why: {results['nats'].error}")
    summary = router.get_platform_status()["health_summary"]
    demo.check(not summary["primary_platform_healthy"], "the status says that the primary is not healthy")

    demo.title("NATS is started again: its check succeeds, the breaker closes")
    await stack.nats.start()
    recovered = await eventually(
        lambda: router.get_platform_status()["health_summary"]["primary_platform_healthy"]
    )
    demo.check(recovered, "the primary is healthy again")
    event = EnhancedEventService.create_branch_event(
        operation="updated", branch_name="feature/back", author="dev@example.com"
    )
    results = await router.publish_event(event)
    demo.show(event, results)
    demo.check(list(results) == ["nats"], "branch events go to NATS again, and to nothing else")


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    """Whether the condition comes true within 15 seconds or so."""
    for _ in range(150):
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return True
        await asyncio.sleep(0.1)
    return False


def start_processor(stack: DevStack, folder: Path, name: str) -> Process:
    """A process that relays the outbox: `oms-events outbox run`, as anybody would start it."""
    settings = folder / "worker.toml"
    settings.write_text(WORKER_SETTINGS)
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "OMS_"))}
    return Process.spawn(
        [sys.executable, "-c", WORKER, "outbox", "run", "--config", str(settings)],
        name=name,
        environment={**mine, **stack.environment(), "OMS_ENABLE_EVENTBRIDGE": "false"},
        directory=folder,
        scratch=folder,
    )


@asynccontextmanager
async def two_processors(stack: DevStack) -> AsyncIterator[list[Process]]:
    processes: list[Process] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in ("first processor", "second processor"):
                processes.append(start_processor(stack, Path(folder), name))  # noqa: PERF401 - one by one, to end
            yield processes
        finally:
            for process in processes:
                await process.stop()


@asynccontextmanager
async def overheard(url: str) -> AsyncIterator[list[str]]:
    """What is sent to the stream about orders, also what JetStream drops as a second copy."""
    client = await nats.connect(url)
    sent: list[str] = []

    async def hear(message: Any) -> None:
        sent.append(message.headers["Nats-Msg-Id"])

    try:
        await client.subscribe("oms.order.>", cb=hear)
        await client.flush()
        yield sent
    finally:
        await client.close()


async def create_tables(session: aioboto3.Session, outbox: OutboxConfig) -> None:
    await create_table(outbox, session=session)
    async with session.client("dynamodb", endpoint_url=outbox.endpoint_url) as dynamodb:
        await dynamodb.create_table(
            TableName="orders",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


async def place_orders(outbox: DynamoDBOutbox, customer: int) -> None:
    """One customer's orders, one after the other: each and the event about it in one transaction."""
    for number in range(ORDERS_EACH):
        order = {"pk": f"{customer}-{number}", "customer": customer, "number": number}
        async with outbox.transaction() as tx:
            tx.put("orders", order, condition="attribute_not_exists(pk)")
            tx.add(build_event("com.foundry.oms.order.placed", "/oms/orders", order, partitionkey=str(customer)))


async def survive_a_kill(demo: Demo, stack: DevStack, session: aioboto3.Session) -> None:
    """Writes orders through the outbox, kills one of its processors in the middle, and looks at what arrived."""
    total = CUSTOMERS * ORDERS_EACH
    demo.title(f"{total:,} orders through the outbox; one of its two processors is killed in the middle")
    config = OutboxConfig(table_name="orders-outbox", endpoint_url=stack.aws.endpoint_url, buckets=8)
    await create_tables(session, config)
    async with (
        overheard(stack.nats.url) as sent,
        DynamoDBOutbox(config, session=session) as outbox,
        two_processors(stack) as (first, second),
    ):
        admin = OutboxAdmin(outbox)

        async def shared_by(count: int) -> bool:
            buckets = (await admin.status()).buckets or ()
            return None not in (found := {bucket.owner for bucket in buckets}) and len(found) == count

        async def is_empty() -> bool:
            return (await admin.status()).pending == 0

        demo.check(await eventually(lambda: shared_by(2)), "the two processors share the buckets")
        began = time.monotonic()
        async with asyncio.TaskGroup() as writing:
            for customer in range(CUSTOMERS):
                writing.create_task(place_orders(outbox, customer))
            await eventually(lambda: len(sent) > total // 3)
            first.kill()
            killed = time.monotonic()
            say(f"  the first processor is killed (SIGKILL) after {len(sent)} events; orders go on")
            demo.check(await eventually(lambda: shared_by(1)), "the second processor has taken its buckets over")
            taken = time.monotonic() - killed
        demo.check(await eventually(is_empty), "the outbox is empty")
        seconds = time.monotonic() - began
        await second.stop()
        demo.check(second.returncode == 0, "the second processor has ended cleanly")
        events = await read_stream(stack.nats.url, subject="oms.order.>")
    numbers: defaultdict[int, list[int]] = defaultdict(list)
    for event in events:
        order: Any = event.get_data()
        numbers[order["customer"]].append(order["number"])
    arrived = {(customer, number) for customer, of_customer in numbers.items() for number in of_customer}
    demo.check(len(arrived) == total == len(events), f"all {total:,} events arrived, each once, and nothing else")
    demo.check(
        all(of_customer == sorted(of_customer) for of_customer in numbers.values()),
        f"the events of each of the {CUSTOMERS} customers are in the order of the orders",
    )
    say(
        f"  written and delivered in {seconds:.1f} s; the killed processor was replaced after {taken:.1f} s; "
        f"{len(sent) - len(set(sent))} events were sent twice, and JetStream dropped the copies"
    )


def show_status(demo: Demo, router: EventRouter) -> None:
    demo.title("Platform status")
    status = router.get_platform_status()
    say(json.dumps(status["health_summary"], indent=2))
    for name, platform in status["platforms"].items():
        kept = ("healthy", "breaker", "outcomes", "retries", "last_error", "latency_ms")
        say(f"{name}: {json.dumps({key: platform[key] for key in kept})}")
    demo.check(status["health_summary"]["healthy_platforms"] == 2, "both platforms are healthy")


@asynccontextmanager
async def started_stack() -> AsyncIterator[DevStack]:
    def notify(text: str) -> None:
        say(f"  {text}")

    async with DevStack(aws=AwsEmulator(notify=notify), bus_name=BUS) as stack:
        say(f"  NATS at {stack.nats.url}, AWS emulator at {stack.aws.endpoint_url}")
        yield stack


async def run(demo: Demo) -> int:
    """The whole program. Gives the exit code."""
    demo.title("Starting NATS and the AWS emulator on loopback")
    async with started_stack() as stack:
        keys = {"aws_access_key_id": stack.aws.access_key, "aws_secret_access_key": stack.aws.secret_key}
        session = aioboto3.Session(region_name=stack.aws.region, **keys)
        bus = Bus(session, stack.aws)
        await bus.create()
        router = create_oms_multi_platform_router(
            nats_publisher=NatsConfig(servers=(stack.nats.url,), reconnect_wait=0.2),
            eventbridge_config=EventBridgeConfig(
                event_bus_name=BUS, aws_region=stack.aws.region, endpoint_url=stack.aws.endpoint_url, **keys
            ),
            jetstream_options=JetStreamOptions(stream=STREAM, policy=StreamPolicy.CREATE),
            config=QUICK,
        )
        async with router:
            await publish_all(demo, router, bus, stack.nats.url)
            await add_a_rule(demo, router)
            await fail_and_recover(demo, stack, router)
            show_status(demo, router)
        await survive_a_kill(demo, stack, session)
    failures = [text for ok, text in demo.checks if not ok]
    demo.title(f"{len(failures)} checks failed" if failures else "Everything was as it should be")
    for failure in failures:
        say(f"  WRONG: {failure}")
    return 1 if failures else 0


async def run_until_stopped() -> int:
    """Runs the demo; SIGTERM ends it in the same orderly way as Ctrl-C."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(Demo())


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="  log: %(message)s")
    try:
        sys.exit(asyncio.run(run_until_stopped()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("\nstopped; every process of the stack has ended")
        sys.exit(130)
