"""Under the role of the preset `ingestion-triggers` its function can do all that it has to, and nothing else."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from oms_events import EventBridgeConfig, EventRouter, build_event
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events.devstack import AwsEmulator
from oms_events.provisioning.presets.ingestion_triggers import CUSTOM_BUS, IngestionTriggersPreset
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template
from oms_events.publishers.eventbridge import EventBridgePublisher
from oms_events.triggers.config import Quota, TriggerConfig
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.rules import RuleViolation
from oms_events.triggers.schema import breaker_key, rate_key
from oms_events.triggers.settings import TriggerSettings
from oms_events.triggers.start import Start
from tests.provisioning.embedded import DeployedStack, deployed, queue_messages
from tests.provisioning.permissions import Call, Role, batches_on_queues, enforcing_emulator, sees_bus

ACCOUNT = "000000000000"
FUNCTION = "dev-customer-data-orchestrator"
ROLE = f"{FUNCTION}-role"
BUCKET = f"dev-ingestion-{ACCOUNT}-us-east-1"
RULE = "dev-ingestion-ops-manual"
SYMBOLS = "/ingestion/symbols"
SEEN, BREAKER, RATE = (f"dev-ingestion-{part}" for part in ("idempotency", "breaker", "rate"))
CHUNKS, DELAY, DEAD_LETTERS = "dev-ingestion-chunks", "dev-ingestion-delay.fifo", "dev-ingestion-dlq"
OTHER = "other"


def template(**variables: Any) -> Template:
    return synthesize(
        IngestionTriggersPreset(
            enable_custom_bus=True, symbols_parameter=SYMBOLS, delay_seconds=0, **variables
        ).stack()
    )


def usable(made: Template, *, tls: bool = False) -> Template:
    """The template with a role that the account may take as Lambda does, and queues that want no TLS.

    The emulator speaks none, so that the queues refuse everybody there; with `tls` they do.
    """
    document = copy.deepcopy(dict(made.document))
    found = document["Resources"]
    for name, entry in list(found.items()):
        said = entry["Properties"]
        if entry["Type"] == "AWS::IAM::Role":
            said["AssumeRolePolicyDocument"]["Statement"].append(
                {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
            )
        elif entry["Type"] == "AWS::SQS::QueuePolicy" and not tls:
            policy = said["PolicyDocument"]
            policy["Statement"] = [each for each in policy["Statement"] if each["Sid"] != "DenyWithoutTls"]
            if not policy["Statement"]:
                del found[name]
    return replace(made, document=document)


# ---------------------------------------------------------------------- calls


def on_queue(operation: str, queue: str, **parameters: Any) -> Call:
    url = f"http://127.0.0.1/{ACCOUNT}/{queue}"
    return Call("sqs", operation, {"QueueUrl": url, **parameters}, queue)


def send(queue: str) -> Call:
    ordered = {"MessageGroupId": "a", "MessageDeduplicationId": "a"} if queue.endswith(".fifo") else {}
    return on_queue("SendMessage", queue, MessageBody='{"chunk": 1}', **ordered)


def receive(queue: str) -> Call:
    return on_queue("ReceiveMessage", queue, WaitTimeSeconds=0)


def delete(queue: str, handle: str = "a") -> Call:
    return on_queue("DeleteMessage", queue, ReceiptHandle=handle)


def hide(queue: str) -> Call:
    return on_queue("ChangeMessageVisibility", queue, ReceiptHandle="a", VisibilityTimeout=1)


def on_table(operation: str, table: str, **parameters: Any) -> Call:
    return Call("dynamodb", operation, {"TableName": table, **parameters}, table)


def query(table: str, key: str) -> Call:
    values = {":pk": {"S": key}}
    return on_table("Query", table, KeyConditionExpression="pk = :pk", ExpressionAttributeValues=values)


def put_events(bus: str) -> Call:
    entry = {"Source": "ops.manual", "DetailType": "Adhoc Ingestion", "Detail": "{}", "EventBusName": bus}
    return Call("events", "PutEvents", {"Entries": [entry]}, bus)


def item(key: dict[str, str]) -> dict[str, Any]:
    return {name: {"S": value} for name, value in key.items()}


BREAKER_KEY = item(breaker_key("market", "prices"))

REFUSED = (
    *(send(queue) for queue in (OTHER, "dev-ingestion-chunks-dlq")),
    *(receive(queue) for queue in (OTHER, CHUNKS, DEAD_LETTERS)),
    *(delete(queue) for queue in (OTHER, CHUNKS, DEAD_LETTERS)),
    *(hide(queue) for queue in (OTHER, CHUNKS, DEAD_LETTERS)),
    *(on_queue("PurgeQueue", queue) for queue in (CHUNKS, DELAY, DEAD_LETTERS)),
    on_queue("DeleteQueue", DELAY),
    on_queue("SetQueueAttributes", DELAY, Attributes={"VisibilityTimeout": "0"}),
    Call("sqs", "CreateQueue", {"QueueName": "mine"}),
    Call("sqs", "ListQueues", {}),
    *(on_table("Scan", table) for table in (SEEN, BREAKER, RATE)),
    *(on_table("DeleteTable", table) for table in (SEEN, RATE)),
    on_table("UpdateTable", RATE, BillingMode="PAY_PER_REQUEST"),
    *(query(table, "a") for table in (SEEN, BREAKER, RATE, OTHER)),
    on_table("UpdateItem", SEEN, Key=item({"pk": "a"})),
    # They would erase fences.
    on_table("PutItem", BREAKER, Item=BREAKER_KEY),
    on_table("DeleteItem", BREAKER, Key=BREAKER_KEY),
    on_table("PutItem", RATE, Item=item(rate_key("manual"))),
    on_table("DeleteItem", RATE, Key=item(rate_key("manual"))),
    on_table("GetItem", OTHER, Key=BREAKER_KEY),
    on_table("PutItem", OTHER, Item=BREAKER_KEY),
    on_table("UpdateItem", OTHER, Key=BREAKER_KEY),
    on_table("DeleteItem", OTHER, Key=BREAKER_KEY),
    on_table("DescribeTable", OTHER),
    Call("dynamodb", "ListTables", {}),
    put_events("default"),
    put_events(OTHER),
    Call("events", "PutRule", {"Name": RULE, "EventBusName": CUSTOM_BUS, "EventPattern": '{"source": ["a"]}'}),
    Call("events", "DisableRule", {"Name": RULE, "EventBusName": CUSTOM_BUS}),
    Call("events", "RemoveTargets", {"Rule": RULE, "EventBusName": CUSTOM_BUS, "Ids": ["orchestrator"]}),
    Call("events", "DeleteEventBus", {"Name": CUSTOM_BUS}),
    Call("lambda", "Invoke", {"FunctionName": OTHER}, OTHER),
    Call("lambda", "Invoke", {"FunctionName": FUNCTION}, FUNCTION),
    Call("lambda", "DeleteFunctionConcurrency", {"FunctionName": FUNCTION}),
    Call("s3", "GetObject", {"Bucket": BUCKET, "Key": "a"}),
    Call("s3", "PutObject", {"Bucket": BUCKET, "Key": "a", "Body": b""}),
    Call("s3", "DeleteObject", {"Bucket": BUCKET, "Key": "a"}),
    Call("s3", "ListObjectsV2", {"Bucket": BUCKET}),
    Call("s3", "DeleteBucket", {"Bucket": BUCKET}),
    Call("ssm", "GetParameter", {"Name": "/ingestion/other"}),
    Call("ssm", "PutParameter", {"Name": SYMBOLS, "Value": "AAPL", "Type": "String"}),
    Call("logs", "CreateLogStream", {"logGroupName": f"/aws/lambda/{OTHER}", "logStreamName": "a"}),
    Call("iam", "PutRolePolicy", {"RoleName": ROLE, "PolicyName": "p", "PolicyDocument": "{}"}),
    Call("cloudformation", "DeleteStack", {"StackName": "dev-ingestion-triggers"}),
)


async def answer(role: Role, call: Call) -> Any:
    """What the service says to a call that has to succeed."""
    async with open_control(AwsConfig(**role.settings), call.service) as control:
        return await control.call(call.operation, **call.parameters)


# ---------------------------------------------------------------------- the stack


@pytest.fixture(scope="module")
def emulator() -> Iterator[AwsEmulator]:
    with enforcing_emulator() as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def stack(emulator: AwsEmulator) -> AsyncIterator[DeployedStack]:
    async with deployed(usable(template(publish_to_custom_bus=True)), emulator) as made:
        queues, events = await made.client("sqs"), await made.client("events")
        other = (await queues.create_queue(QueueName=OTHER))["QueueUrl"]
        await events.create_event_bus(Name=OTHER)
        functions = await made.client("lambda")
        # A test takes from the delay queue what Lambda would.
        (mapping,) = (await functions.list_event_source_mappings(FunctionName=FUNCTION))["EventSourceMappings"]
        await functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        yield made
        await queues.delete_queue(QueueUrl=other)
        await events.delete_event_bus(Name=OTHER)


@pytest.fixture(scope="module")
def orchestrator(emulator: AwsEmulator, stack: DeployedStack) -> Role:
    return Role(emulator, f"arn:aws:iam::{ACCOUNT}:role/{ROLE}")


# ---------------------------------------------------------------------- what it has to do


def settings(stack: DeployedStack, role: Role) -> TriggerSettings:
    """What the function has of its environment, as its role; one event an hour."""
    urls = stack.outputs["queue_urls"]
    return TriggerSettings(
        config=TriggerConfig(quotas={"event": Quota(limit=1, window=3_600)}),
        queue_url=urls["chunks"],
        delay_queue_url=urls["delay"],
        dead_letter_queue_url=urls["dlq"],
        idempotency_table=SEEN,
        breaker_table=BREAKER,
        rate_table=RATE,
        symbols_parameter=SYMBOLS,
        **role.settings,
    )


def no_splits(request: TriggerRequest) -> RuleViolation | None:
    return RuleViolation("NO_SPLITS", "ask for prices") if request.data_type == "splits" else None


def adhoc(number: int) -> dict[str, Any]:
    event = {"version": "0", "id": f"event-{number}", "source": "ops.manual", "detail-type": "Adhoc Ingestion"}
    return {**event, "time": "2026-09-09T12:00:00Z", "detail": {"symbols": ["AAPL"]}}


async def test_the_librarys_pipeline_does_all_that_it_does(
    stack: DeployedStack, orchestrator: Role, caplog: pytest.LogCaptureFixture
) -> None:
    ssm, sqs, urls = await stack.client("ssm"), await stack.client("sqs"), stack.outputs["queue_urls"]
    await ssm.put_parameter(Name=SYMBOLS, Type="StringList", Value="MSFT,NVDA")
    made = settings(stack, orchestrator)
    sender, delay = made.create_chunk_sender(), made.create_delay_queue()
    assert delay is not None

    async def handler(start: Start) -> Any:
        if start.request.table_name == "broken":
            raise TimeoutError
        return await sender(start)

    caplog.set_level(logging.WARNING, logger="oms_events")
    queues = [f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}" for name in (CHUNKS, DELAY, DEAD_LETTERS)]
    async with (
        batches_on_queues(await stack.client("iam"), orchestrator, ROLE, *queues),
        sender,
        delay,
        made.create_pipeline(handler, rules=[no_splits]) as pipeline,
    ):

        async def statuses(*starts: Any) -> list[str]:
            return [(await pipeline.handle(start)).status for start in starts]

        # Idempotency, a lease, symbols that are loaded, and chunks.
        scheduled = TriggerRequest(
            trigger_type="schedule", trigger_time="2026-09-09T22:00:00Z", correlation_id="daily:1"
        ).document()
        assert await statuses(scheduled, scheduled) == ["success", "duplicate"]
        (chunk,) = await queue_messages(sqs, urls["chunks"])
        assert chunk["symbols"] == ["MSFT", "NVDA"]
        # A breaker, and a dead letter.
        assert await statuses({"table_name": "broken"}, {"data_type": "splits"}) == ["failed", "refused"]
        (letter,) = await queue_messages(sqs, urls["dlq"])
        assert "NO_SPLITS" in json.dumps(letter)
        # A quota, and the delay queue, where a start that is still too early is held.
        assert await statuses(adhoc(1), adhoc(2)) == ["success", "delayed"]
        batch = await delay.receive_batch()
        assert batch is not None
        assert await statuses(batch) == ["limited"]
        counts = await answer(
            orchestrator,
            on_queue("GetQueueAttributes", DELAY, AttributeNames=["ApproximateNumberOfMessagesNotVisible"]),
        )
        assert list(counts["Attributes"].values()) == ["1"]
        await delay.settle(batch, [])
        await queue_messages(sqs, urls["chunks"])
    failed = item(breaker_key("market", "broken"))
    stored = await answer(orchestrator, on_table("GetItem", BREAKER, Key=failed, ConsistentRead=True))
    assert len(stored["Item"]["failures"]["L"]) == 1
    # What is not allowed is logged, where the start goes on without it.
    assert [line for line in caplog.messages if "denied" in line.lower() or " not " in line] == []
    await ssm.delete_parameter(Name=SYMBOLS)


async def test_it_delays_a_start_which_lambda_takes_back_as_the_same_role(orchestrator: Role) -> None:
    await answer(orchestrator, send(DELAY))
    (message,) = (await answer(orchestrator, receive(DELAY)))["Messages"]
    await answer(orchestrator, delete(DELAY, message["ReceiptHandle"]))
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    said = await answer(orchestrator, on_queue("GetQueueAttributes", DELAY, AttributeNames=counts))
    assert said["Attributes"] == dict.fromkeys(counts, "0")


async def test_it_publishes_on_its_bus_which_the_publisher_looks_up_first(
    stack: DeployedStack, orchestrator: Role
) -> None:
    iam, bus = await stack.client("iam"), stack.outputs["event_bus_arn"]
    assert await orchestrator.allows(iam, "events:DescribeEventBus", bus)
    config = EventBridgeConfig(event_bus_name=CUSTOM_BUS, mapping="plain", **orchestrator.settings)
    async with (
        sees_bus(iam, ROLE, bus),
        EventRouter({"eventbridge": EventBridgePublisher(config)}) as router,
    ):
        assert (await router.publish_event(build_event("adhoc ingestion", "ops.manual", {}))).delivered


async def test_it_loads_the_symbols_and_writes_its_log(stack: DeployedStack, orchestrator: Role) -> None:
    assert not await orchestrator.is_refused(Call("ssm", "GetParameter", {"Name": SYMBOLS}))
    # Asked of the simulator, for the emulator's logs know no `:*` at an ARN's end.
    iam, group = await stack.client("iam"), f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/{FUNCTION}"
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        assert await orchestrator.allows(iam, action, f"{group}:log-stream:a")


# ---------------------------------------------------------------------- what it cannot do


@pytest.mark.parametrize("call", REFUSED, ids=str)
async def test_it_may_do_nothing_else(orchestrator: Role, call: Call) -> None:
    assert await orchestrator.is_refused(call)


# ---------------------------------------------------------------------- other deployments, so these come last


async def test_without_the_option_it_puts_events_on_no_bus(stack: DeployedStack, orchestrator: Role) -> None:
    assert not await orchestrator.is_refused(put_events(CUSTOM_BUS))
    await stack.redeploy(usable(template()))
    assert await orchestrator.is_refused(put_events(CUSTOM_BUS))
    iam, bus = await stack.client("iam"), stack.outputs["event_bus_arn"]
    assert not await orchestrator.allows(iam, "events:DescribeEventBus", bus)


async def test_without_tls_its_queues_refuse_what_its_role_allows(
    stack: DeployedStack, orchestrator: Role
) -> None:
    assert not await orchestrator.is_refused(send(CHUNKS))
    await stack.redeploy(usable(template(), tls=True))
    for call in (send(CHUNKS), send(DELAY), send(DEAD_LETTERS), receive(DELAY)):
        assert await orchestrator.is_refused(call), str(call)
