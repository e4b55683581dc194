"""Under the roles that the preset `oms` makes the library does all of its work, and can do nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import oms_events
from oms_events import (
    ClaimCheckConfig,
    DynamoDBOutbox,
    EventBridgeConfig,
    EventRouter,
    OutboxConfig,
    OutboxProcessor,
    StorageDeniedError,
    build_event,
)
from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import AwsEmulator
from oms_events.idempotency import DynamoDBIdempotencyStore, IdempotencyConfig
from oms_events.oms.catalogue import EventType
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.schema import parse_partition
from oms_events.outbox.streams import GuestRelay
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.presets.oms_access import IDEMPOTENCY_ACTIONS, OUTBOX_ACTIONS
from oms_events.provisioning.synthesis import synthesize
from oms_events.publishers.eventbridge import EventBridgePublisher, from_eventbridge_event
from oms_events.testing.idempotency_contract import IdempotencyStoreContract
from oms_events.testing.outbox_contract import OutboxStoreContract
from tests.outbox.support import SHAPE, dynamo_client, items_of, wipe
from tests.provisioning.embedded import DeployedStack, deployed, queue_messages
from tests.provisioning.permissions import Call, Role, enforcing_emulator, sees_bus

BUS, OUTBOX, SEEN = "oms-events", "oms-events-outbox", "oms-events-idempotency"
ACCOUNT = "000000000000"
LARGE = "large-events"
KEY = {"pk": {"S": "a"}, "sk": {"S": "b"}}
PATTERN = '{"source": ["a"]}'

PRESET: dict[str, Any] = {
    # A queue of its own policy: those of the stack refuse us without TLS, which the emulator does not speak.
    "default_targets": [{"id": "inbox", "arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:inbox"}],
    "business_tables": [f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/orders"],
    "publisher_statements": [
        {"actions": ["s3:PutObject"], "resources": [f"arn:aws:s3:::{LARGE}/*"], "why": "the data of large events"}
    ],
    "relay": {"code": {"inline": "def handler(event, context):\n    return {}\n"}, "handler": "index.handler"},
}


def put_events(bus: str) -> Call:
    entry = {"Source": "oms.main", "DetailType": "a", "Detail": "{}", "EventBusName": bus}
    return Call("events", "PutEvents", {"Entries": [entry]}, bus)


def on_table(operation: str, table: str, **parameters: Any) -> Call:
    return Call("dynamodb", operation, {"TableName": table, **parameters}, table)


QUERY = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "a"}}}

NOBODYS = (
    put_events("other"),
    put_events("default"),
    Call("events", "DescribeEventBus", {"Name": "other"}, "other"),
    Call("events", "PutRule", {"Name": "r", "EventBusName": BUS, "EventPattern": PATTERN}),
    Call("events", "DisableRule", {"Name": "oms_schema_created_rule", "EventBusName": BUS}),
    Call("events", "RemoveTargets", {"Rule": "oms_schema_created_rule", "EventBusName": BUS, "Ids": ["inbox"]}),
    Call("events", "DeleteEventBus", {"Name": BUS}),
    Call("events", "DeleteArchive", {"ArchiveName": "oms-events-archive"}),
    on_table("Scan", OUTBOX),
    on_table("DeleteTable", OUTBOX),
    on_table("UpdateTable", OUTBOX, BillingMode="PAY_PER_REQUEST"),
    on_table("GetItem", "customers", Key=KEY),
    on_table("Query", "customers", **QUERY),
    on_table("Scan", "customers"),
    on_table("PutItem", "customers", Item=KEY),
    on_table("DeleteItem", "customers", Key=KEY),
    on_table("Scan", SEEN),
    on_table("DeleteTable", SEEN),
    on_table("UpdateItem", SEEN, Key={"pk": {"S": "a"}}),
    Call("dynamodb", "CreateTable", {"TableName": "mine", **SHAPE}),
    Call("dynamodb", "ListTables", {}),
    Call("sqs", "ListQueues", {}),
    Call("s3", "GetObject", {"Bucket": LARGE, "Key": "a"}),
    Call("s3", "DeleteObject", {"Bucket": LARGE, "Key": "a"}),
    Call("s3", "ListObjectsV2", {"Bucket": LARGE}),
    Call("s3", "PutObject", {"Bucket": "others", "Key": "a", "Body": b""}, "others"),
    Call("iam", "PutRolePolicy", {"RoleName": f"{BUS}-publisher-role", "PolicyName": "p", "PolicyDocument": "{}"}),
    Call("sts", "AssumeRole", {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/admin", "RoleSessionName": "mine"}),
    Call("cloudformation", "DeleteStack", {"StackName": BUS}),
    Call("lambda", "Invoke", {"FunctionName": f"{BUS}-relay"}),
)
PUBLISHERS = (
    *NOBODYS,
    on_table("Scan", "orders"),
    on_table("DeleteTable", "orders"),
    Call("dynamodbstreams", "ListStreams", {}),
)
RELAYS = (
    *NOBODYS,
    on_table("GetItem", SEEN, Key={"pk": {"S": "a"}}),
    on_table("PutItem", "orders", Item=KEY),
    Call("s3", "PutObject", {"Bucket": LARGE, "Key": "a", "Body": b""}, LARGE),
)


@pytest.fixture(scope="module")
def emulator() -> Iterator[AwsEmulator]:
    with enforcing_emulator() as started:
        yield started


@pytest_asyncio.fixture(scope="module")
async def stack(emulator: AwsEmulator) -> AsyncIterator[DeployedStack]:
    async with deployed(synthesize(OmsPreset(**PRESET).stack()), emulator) as made:
        dynamodb, events, queues, s3 = [await made.client(name) for name in ("dynamodb", "events", "sqs", "s3")]
        inbox = (await queues.create_queue(QueueName="inbox"))["QueueUrl"]
        for table in ("orders", "customers"):
            await dynamodb.create_table(TableName=table, **SHAPE)
        for bucket in (LARGE, "others"):
            await s3.create_bucket(Bucket=bucket)
        await events.create_event_bus(Name="other")
        iam, bus = await made.client("iam"), made.outputs["event_bus_arn"]
        async with (
            sees_bus(iam, f"{BUS}-publisher-role", bus),
            sees_bus(iam, f"{BUS}-relay-role", bus),
        ):
            yield made
        for table in ("orders", "customers"):
            await dynamodb.delete_table(TableName=table)
        for bucket in (LARGE, "others"):
            await s3.delete_bucket(Bucket=bucket)
        await events.delete_event_bus(Name="other")
        await queues.delete_queue(QueueUrl=inbox)


@pytest.fixture(scope="module")
def publisher(emulator: AwsEmulator, stack: DeployedStack) -> Role:
    return Role(emulator, stack.outputs["publisher_role_arn"])


@pytest.fixture(scope="module")
def relay(emulator: AwsEmulator, stack: DeployedStack) -> Role:
    return Role(emulator, f"arn:aws:iam::{ACCOUNT}:role/{BUS}-relay-role")


@pytest_asyncio.fixture(scope="module")
async def root(stack: DeployedStack) -> AsyncIterator[DynamoClient]:
    async with dynamo_client(stack.config) as client:
        yield client


def router(role: Role, bus: str = BUS) -> EventRouter:
    config = EventBridgeConfig(event_bus_name=bus, **role.settings)
    return EventRouter({"eventbridge": EventBridgePublisher(config)})


def outbox_config(role: Role, **more: Any) -> OutboxConfig:
    return OutboxConfig(table_name=OUTBOX, buckets=2, **role.settings, **more)


async def received(stack: DeployedStack, count: int) -> list[str | None]:
    queues = await stack.client("sqs")
    url = (await queues.get_queue_url(QueueName="inbox"))["QueueUrl"]
    return [from_eventbridge_event(event).get_id() for event in await queue_messages(queues, url, count=count)]


# ---------------------------------------------------------------------- what the library does


@pytest_asyncio.fixture(scope="module")
async def outbox_store(publisher: Role) -> AsyncIterator[DynamoDBOutboxStore]:
    store = DynamoDBOutboxStore(outbox_config(publisher))
    yield store
    await store.close()


class TestOutboxStoreAsThePublisher(OutboxStoreContract):
    @pytest.fixture
    async def store(self, outbox_store: DynamoDBOutboxStore, root: DynamoClient) -> DynamoDBOutboxStore:
        await outbox_store.open()
        await wipe(root, OUTBOX)
        return outbox_store


class TestIdempotencyStoreAsThePublisher(IdempotencyStoreContract):
    @pytest.fixture
    async def store(self, publisher: Role) -> AsyncIterator[DynamoDBIdempotencyStore]:
        async with DynamoDBIdempotencyStore(IdempotencyConfig(table_name=SEEN, **publisher.settings)) as store:
            yield store


async def test_the_publisher_publishes_through_the_router(stack: DeployedStack, publisher: Role) -> None:
    events = [build_event(kind, "/oms/main", {}) for kind in EventType]
    async with router(publisher) as publishing:
        assert [result.delivered for result in await publishing.publish_events(events)] == [True] * len(events)
    assert set(await received(stack, len(events))) == {event.get_id() for event in events}


async def test_the_publisher_runs_a_transaction_with_its_event_and_relays_it(
    stack: DeployedStack, publisher: Role, root: DynamoClient
) -> None:
    await wipe(root, OUTBOX)
    event = build_event(EventType.BRANCH_CREATED, "/oms/main", {}, partitionkey="main")
    async with (
        DynamoDBOutbox(outbox_config(publisher)) as outbox,
        router(publisher) as publishing,
        OutboxProcessor(outbox, publishing) as processor,
    ):
        async with outbox.transaction() as tx:
            tx.put("orders", {"pk": "A-1", "sk": "order"}, condition="attribute_not_exists(pk)")
            tx.check("orders", {"pk": "A-2", "sk": "order"}, "attribute_not_exists(pk)")
            tx.add(event)
        assert await processor.drain(timeout=20)
    assert await received(stack, 1) == [event.get_id()]


async def test_a_transaction_over_a_table_that_was_not_named_is_refused_whole(
    publisher: Role, root: DynamoClient
) -> None:
    await wipe(root, OUTBOX)
    async with DynamoDBOutbox(outbox_config(publisher)) as outbox:
        tx = outbox.transaction()
        await tx.__aenter__()
        tx.put("customers", {"pk": "C-1", "sk": "customer"})
        tx.add(build_event(EventType.BRANCH_CREATED, "/oms/main", {}, partitionkey="main"))
        with pytest.raises(StorageDeniedError, match="dynamodb:PutItem"):
            await tx.__aexit__(None, None, None)
    assert await items_of(root, "customers") == []
    keys = [item["pk"] for item in await items_of(root, OUTBOX)]
    # Counters and the layout, and no record.
    with_records = []
    for key in keys:
        with contextlib.suppress(ValueError):
            with_records.append(parse_partition(key))
    assert keys
    assert with_records == []


async def test_the_relay_delivers_what_the_publisher_stored(
    stack: DeployedStack, publisher: Role, relay: Role, root: DynamoClient
) -> None:
    await wipe(root, OUTBOX)
    event = build_event(EventType.BRANCH_DELETED, "/oms/main", {}, partitionkey="main")
    async with DynamoDBOutbox(outbox_config(publisher)) as outbox:
        await outbox.add(event)
    async with DynamoDBOutbox(outbox_config(relay)) as outbox, router(relay) as publishing:
        assert await GuestRelay(outbox.store, publishing).sweep(10.0) == 1
    assert await received(stack, 1) == [event.get_id()]


async def test_the_data_of_a_large_event_goes_into_the_bucket_that_a_statement_names(
    stack: DeployedStack, publisher: Role, root: DynamoClient
) -> None:
    await wipe(root, OUTBOX)
    event = build_event(EventType.SCHEMA_CREATED, "/oms/main", {"a": "b" * 2_000})
    claim = ClaimCheckConfig(bucket=LARGE, threshold=1_024, endpoint_url=publisher.settings["endpoint_url"])
    config = outbox_config(publisher, claim_check=claim)
    async with DynamoDBOutbox(config) as outbox, router(publisher) as publishing:
        await outbox.add(event)
        async with OutboxProcessor(outbox, publishing) as processor:
            assert await processor.drain(timeout=20)
    s3 = await stack.client("s3")
    (stored,) = (await s3.list_objects_v2(Bucket=LARGE))["Contents"]
    await s3.delete_object(Bucket=LARGE, Key=stored["Key"])
    assert await received(stack, 1) == [event.get_id()]


async def test_the_relay_may_find_the_stream_that_lambda_reads_as_its_role(relay: Role) -> None:
    assert not await relay.is_refused(Call("dynamodbstreams", "ListStreams", {}))


# ---------------------------------------------------------------------- what it cannot do


@pytest.mark.parametrize("call", PUBLISHERS, ids=str)
async def test_the_publisher_may_do_nothing_else(publisher: Role, call: Call) -> None:
    assert await publisher.is_refused(call)


@pytest.mark.parametrize("call", RELAYS, ids=str)
async def test_the_relay_may_do_nothing_else(relay: Role, call: Call) -> None:
    assert await relay.is_refused(call)


@pytest.mark.parametrize("action", ["PutEvents", "DescribeEventBus", "PutRule"])
async def test_on_its_bus_it_may_publish_and_look_and_on_no_other(
    stack: DeployedStack, publisher: Role, relay: Role, action: str
) -> None:
    iam, bus = await stack.client("iam"), stack.outputs["event_bus_arn"]
    for role in (publisher, relay):
        assert await role.allows(iam, f"events:{action}", bus) is (action != "PutRule")
        assert not await role.allows(iam, f"events:{action}", bus.replace(BUS, "other"))


async def test_a_call_that_is_allowed_is_not_called_refused(publisher: Role) -> None:
    # Nor one that the service itself refuses.
    for call in (put_events(BUS), on_table("GetItem", OUTBOX, Key=KEY), on_table("PutItem", OUTBOX, Item={})):
        assert not await publisher.is_refused(call), call


@pytest.mark.parametrize(
    ("package", "actions"), [("outbox", OUTBOX_ACTIONS), ("idempotency", IDEMPOTENCY_ACTIONS)]
)
def test_no_action_is_allowed_that_the_code_does_not_call(package: str, actions: tuple[str, ...]) -> None:
    folder = Path(oms_events.__file__).parent / package
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    calls = {action: action.removeprefix("dynamodb:").replace("CheckItem", "Check") for action in actions}
    assert [action for action, call in calls.items() if f'"{call}"' not in code] == []
