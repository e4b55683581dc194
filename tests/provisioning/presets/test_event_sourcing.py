"""The preset `event-sourcing`: its template, and its stack on the emulator, used as its users would."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aioboto3
import botocore.exceptions
import pytest
import pytest_asyncio

from oms_events import EventBridgeConfig, EventRouter, build_event
from oms_events.devstack import AwsEmulator
from oms_events.devstack.background import run_in_thread
from oms_events.errors import SpecError
from oms_events.eventstore import schema
from oms_events.provisioning.presets.event_sourcing import EventSourcingPreset
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template
from oms_events.publishers.eventbridge import EventBridgePublisher
from oms_events.routing.rulefile import read_document
from tests.provisioning.embedded import DeployedStack, deployed, echo_code, queue_messages
from tests.provisioning.linting import findings

SOURCE = "event-sourcing.financial"
STORE = "event-store-dev"
EXAMPLE = Path(__file__).parents[3] / "examples" / "infra_event_sourcing.toml"
ECHO_QUEUE = "event-sourcing-echo"
ECHO = {"inline": echo_code(ECHO_QUEUE)}
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
TO_PROJECTION = {"id": "projection", "arn": {"ref": "function:projection-handler"}}

KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/12345678-1234-1234-1234-123456789012"
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "production": {
        "aws_region": "eu-central-1",
        "environment": "prod",
        "resource_suffix": "a1b2c3",
        "enable_deletion_protection": True,
        "alarm_topic_arn": TOPIC,
        "archive_retention_days": 0,
    },
    "code in S3": {
        "code": {"s3_bucket": "code", "s3_key": "handlers-1.zip"},
        "query_handler": "queries.main",
        "enable_xray_tracing": True,
    },
    "code as an image": {
        "code": {"image_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/handlers:1"},
    },
    "provisioned": {"event_store_read_capacity": 10, "event_store_write_capacity": 5},
    "no alarms": {"enable_cloudwatch_alarms": False},
    "other targets": {"financial_event_targets": [TO_PROJECTION]},
    "an outbox": {"enable_outbox": True},
    "personal data": {"enable_personal_data": True, "personal_key_arn": KMS_KEY},
    "an outbox with its relay": {
        "environment": "staging",
        "resource_suffix": "sixteen-letters1",
        "enable_outbox": True,
        "outbox_relay": {"code": {"s3_bucket": "code", "s3_key": "relay.zip"}, "handler": "relay.handler"},
    },
}

CHANGES_STORED_EVENTS = {
    "dynamodb:BatchWriteItem",
    "dynamodb:DeleteItem",
    "dynamodb:PartiQLDelete",
    "dynamodb:PartiQLInsert",
    "dynamodb:PartiQLUpdate",
    "dynamodb:UpdateItem",
}


def template(**variables: Any) -> Template:
    return synthesize(EventSourcingPreset(**variables).stack())


def together(*options: str) -> dict[str, Any]:
    return {name: value for option in options for name, value in OPTIONS[option].items()}


def resources(made: Template, kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in made.resources.items() if entry["Type"] == kind}


def statements(made: Template, role: str = "") -> Iterator[tuple[list[str], str]]:
    """Actions and one resource each, of all roles whose names begin so."""
    for properties in resources(made, "AWS::IAM::Role").values():
        for policy in properties["Policies"] if properties["RoleName"].startswith(role) else ():
            for statement in policy["PolicyDocument"]["Statement"]:
                for resource in statement["Resource"]:
                    yield statement["Action"], json.dumps(resource)


# ---------------------------------------------------------------------- the template


def test_cfn_lint_finds_nothing_in_any_option() -> None:
    # Several in one, as a template of this size costs cfn-lint most of a second.
    less = ("code as an image", "no alarms", "other targets", "an outbox", "personal data")
    more = ("an outbox with its relay", "production", "code in S3", "provisioned")
    assert findings(template(), *(template(**together(*options)) for options in (less, more))) == []


@pytest.mark.parametrize("variables", OPTIONS.values(), ids=OPTIONS)
def test_the_same_variables_give_the_same_short_template(variables: dict[str, Any]) -> None:
    made = template(**variables)
    assert made.body == template(**variables).body
    assert len(made.body.encode()) < 51_200


def test_outputs_are_exactly_those_of_the_issue() -> None:
    assert list(template().outputs_layout) == [
        "event_bus_name",
        "event_bus_arn",
        "event_store_table_name",
        "read_model_table_name",
        "command_handler_function_name",
        "query_handler_function_name",
        "test_command_payload",
        "test_query_payload",
        "testing_instructions",
    ]


@pytest.mark.parametrize("variables", OPTIONS.values(), ids=OPTIONS)
def test_no_role_may_change_or_delete_stored_events(variables: dict[str, Any]) -> None:
    of_store = [
        actions
        for actions, resource in statements(template(**variables))
        if "TableEventStore" in resource or resource == '"*"'
    ]
    assert len(of_store) >= 4
    assert [actions for actions in of_store if CHANGES_STORED_EVENTS & set(actions)] == []


def test_only_the_command_handler_writes_events_and_publishes_and_only_to_its_bus() -> None:
    made = template()
    for actions, resource in statements(made):
        if "dynamodb:PutItem" in actions and "TableEventStore" in resource:
            assert (actions, resource) in statements(made, "command-handler")
        if "events:PutEvents" in actions:
            assert (actions, resource) in statements(made, "command-handler")
            assert "BusEventSourcing" in resource


def test_the_query_handler_only_reads() -> None:
    allowed = {action for actions, _ in statements(template(), "query-handler") for action in actions}
    assert allowed == {
        "dynamodb:BatchGetItem",
        "dynamodb:DescribeTable",
        "dynamodb:GetItem",
        "dynamodb:Query",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }


def test_everything_is_allowed_for_nothing_but_listing_streams_and_tracing() -> None:
    everything = [
        action
        for actions, resource in statements(template(enable_xray_tracing=True))
        for action in actions
        if resource == '"*"'
    ]
    assert set(everything) == {
        "dynamodb:ListStreams",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    }


def test_the_stream_mapping_gives_up_after_some_tries_and_says_so() -> None:
    ((_, mapping),) = resources(template(), "AWS::Lambda::EventSourceMapping").items()
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BisectBatchOnFunctionError"] is True
    assert mapping["MaximumRetryAttempts"] == -1
    assert "QueueEventSourcingDlq" in json.dumps(mapping["DestinationConfig"]["OnFailure"])
    assert json.loads(mapping["FilterCriteria"]["Filters"][0]["Pattern"]) == {"eventName": ["INSERT"]}


def test_alarms_have_the_thresholds_of_the_issue_and_can_be_switched_off() -> None:
    alarms = {
        properties["MetricName"]: properties["Threshold"]
        for properties in resources(template(), "AWS::CloudWatch::Alarm").values()
    }
    assert alarms == {"WriteThrottleEvents": 5, "Errors": 10, "FailedInvocations": 5}
    assert resources(template(enable_cloudwatch_alarms=False), "AWS::CloudWatch::Alarm") == {}


@pytest.mark.parametrize("topic", [TOPIC, None])
def test_every_alarm_tells_the_topic_when_there_is_one(topic: str | None) -> None:
    alarms = resources(template(alarm_topic_arn=topic), "AWS::CloudWatch::Alarm").values()
    told = [topic] if topic else []
    assert len(alarms) == 3
    assert all(alarm.get("AlarmActions", []) == alarm.get("OKActions", []) == told for alarm in alarms)


def test_capacities_are_those_of_the_event_store_and_its_index_and_of_no_other_table() -> None:
    tables = resources(template(**OPTIONS["provisioned"]), "AWS::DynamoDB::Table")
    store = tables.pop("TableEventStore")
    units = {"ReadCapacityUnits": 10, "WriteCapacityUnits": 5}
    assert store["BillingMode"] == "PROVISIONED"
    assert store["ProvisionedThroughput"] == units
    assert store["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"] == units
    assert {table["BillingMode"] for table in tables.values()} == {"PAY_PER_REQUEST"}


def test_every_table_but_that_of_keys_is_recoverable_and_all_are_encrypted() -> None:
    tables = resources(template(enable_outbox=True, enable_personal_data=True), "AWS::DynamoDB::Table").values()
    assert len(tables) == 6
    recoverable = {
        str(table["TableName"]): table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        for table in tables
    }
    # It would keep the keys of people who were forgotten.
    assert [name for name, is_kept in recoverable.items() if not is_kept] == ["personal-keys-dev"]
    assert all(table["SSESpecification"]["SSEEnabled"] for table in tables)


def test_the_key_of_keys_is_used_by_all_and_encrypts_for_the_command_handler_alone() -> None:
    made = template(enable_personal_data=True, personal_key_arn=KMS_KEY)
    used = {
        role: [actions for actions, resource in statements(made, role) if KMS_KEY in resource]
        for role in ("command", "projection", "query")
    }
    decrypts = [["kms:Decrypt"]]
    assert {role: [[*actions] for actions in found] for role, found in used.items()} == {
        "command": [["kms:Encrypt", "kms:Decrypt"]], "projection": decrypts, "query": decrypts,
    }  # fmt: skip
    functions = resources(made, "AWS::Lambda::Function").values()
    assert {entry["Environment"]["Variables"].get("PERSONAL_KEY_ARN") for entry in functions} == {KMS_KEY}


def test_a_key_of_keys_needs_their_table_and_is_no_alias() -> None:
    with pytest.raises(ValueError, match="personal_key_arn needs enable_personal_data = true"):
        template(personal_key_arn=KMS_KEY)
    with pytest.raises(ValueError, match="is no key; give the ARN of one"):
        template(enable_personal_data=True, personal_key_arn="arn:aws:kms:eu-central-1:123456789012:alias/people")


def test_keys_of_people_are_read_by_all_and_made_and_deleted_by_the_command_handler_alone() -> None:
    made = template(enable_personal_data=True)
    keys = {
        role: {
            action
            for actions, resource in statements(made, role)
            if "PersonalKeys" in resource
            for action in actions
        }
        for role in ("command", "projection", "query")
    }
    reading = {"dynamodb:DescribeTable", "dynamodb:BatchGetItem"}
    writing = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
    assert keys == {"command": reading | writing, "projection": reading, "query": reading}
    functions = resources(made, "AWS::Lambda::Function").values()
    named = [entry["Environment"]["Variables"]["PERSONAL_KEYS_TABLE"] for entry in functions]
    assert named == [{"Ref": "TablePersonalKeys"}] * 3
    assert "PersonalKeys" not in json.dumps(template().resources)


def test_the_suffix_is_in_every_name_but_the_rules() -> None:
    made = template(resource_suffix="x9")
    names = {
        value
        for entry in made.resources.values()
        for key, value in entry["Properties"].items()
        if key.endswith("Name") and key not in ("EventBusName", "MetricName") and isinstance(value, str)
    }
    assert len(names) >= 18
    assert {name for name in names if not name.endswith(("-dev-x9", "-dev-x9-role"))} == {"financial-events-rule"}


def test_the_relay_has_the_stream_of_the_outbox() -> None:
    made = template(**OPTIONS["an outbox with its relay"])
    assert (["dynamodb:ListStreams"], '"*"') in statements(made, "event-outbox-staging")
    sources = [
        json.dumps(entry["EventSourceArn"])
        for entry in resources(made, "AWS::Lambda::EventSourceMapping").values()
    ]
    assert [("TableEventStore" in source, "TableEventOutbox" in source) for source in sources] == [
        (True, False),
        (False, True),
    ]


def test_handlers_depend_on_the_kind_of_code() -> None:
    def handlers(**variables: Any) -> list[str | None]:
        return [
            entry.get("Handler") for entry in resources(template(**variables), "AWS::Lambda::Function").values()
        ]

    assert handlers() == ["index.handler"] * 3
    assert handlers(**OPTIONS["code as an image"]) == [None] * 3
    of_one_image = resources(template(**OPTIONS["code as an image"]), "AWS::Lambda::Function").values()
    assert [entry["ImageConfig"]["Command"] for entry in of_one_image] == [
        ["command_handler.handler"],
        ["projection_handler.handler"],
        ["query_handler.handler"],
    ]
    assert handlers(**OPTIONS["code in S3"]) == [
        "command_handler.handler",
        "projection_handler.handler",
        "queries.main",
    ]


def test_without_code_the_runtime_and_the_handlers_of_the_code_to_come_do_not_count() -> None:
    made = template(runtime="nodejs22.x", command_handler="commands.main", query_handler="queries.main")
    functions = resources(made, "AWS::Lambda::Function").values()
    assert {(each["Runtime"], each["Handler"]) for each in functions} == {("python3.13", "index.handler")}


def test_test_payloads_are_json_and_the_instructions_have_lines_of_the_aws_cli() -> None:
    outputs = EventSourcingPreset(aws_region="eu-west-1", resource_suffix="x").stack().outputs
    command, query = (json.loads(str(outputs[f"test_{kind}_payload"])) for kind in ("command", "query"))
    assert set(command) == {"commandType", "aggregateId", "commandId", "commandData"}
    assert query == {"queryType": "getAccountSummary", "accountId": command["aggregateId"]}
    lines = [line for line in str(outputs["testing_instructions"]).splitlines() if not line.startswith("#")]
    words = [shlex.split(line) for line in lines]
    assert all(line[0] == "aws" and "eu-west-1" in line for line in words)
    assert json.loads(words[0][words[0].index("--payload") + 1]) == command
    assert json.loads(words[2][words[2].index("--payload") + 1]) == query
    named = {word for line in words for word in line}
    assert {"command-handler-dev-x", "query-handler-dev-x", "event-store-dev-x"} <= named


def test_the_example_is_a_stack_without_findings() -> None:
    variables = dict(read_document(EXAMPLE))
    assert variables.pop("preset") == "event-sourcing"
    made = template(**variables)
    (rule,) = resources(made, "AWS::Events::Rule").values()
    assert [target["Id"] for target in rule["Targets"]] == ["accounting", "fraud-checks"]
    # The projection handler takes no events of a rule.
    assert "Function" not in json.dumps([target["Arn"] for target in rule["Targets"]])
    assert findings(made) == []


# ---------------------------------------------------------------------- bad variables


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"environment": "test"}, ["environment = 'test'", "'dev', 'staging' or 'prod'"]),
        ({"resource_suffix": "A_1"}, ["resource_suffix = 'A_1'", "small letters"]),
        ({"resource_suffix": "a" * 17}, ["resource_suffix", "1 to 16"]),
        ({"resource_suffix": ""}, ["resource_suffix = ''", "leave it out"]),
        ({"aws_region": "Frankfurt"}, ["aws_region = 'Frankfurt'", "eu-central-1"]),
        ({"event_store_read_capacity": 5}, ["event_store_read_capacity = 5", "give both"]),
        ({"event_store_read_capacity": True}, ["event_store_read_capacity = True", "is no number of units"]),
        ({"event_store_write_capacity": 0}, ["event_store_write_capacity = 0", "1"]),
        ({"lambda_timeout": 901}, ["lambda_timeout = 901", "900"]),
        ({"lambda_memory_size": 64}, ["lambda_memory_size = 64", "128"]),
        ({"code": {"s3_bucket": "code"}}, ["code", "s3_key"]),
        ({"code": ECHO, "command_handler": "commands.main"}, ["commands.main", "index."]),
        ({"outbox_relay": {"code": ECHO}}, ["outbox_relay", "enable_outbox = true"]),
        ({"financial_event_targets": [{"id": "a", "arn": "x"}]}, ["financial_event_targets.0", "is no ARN"]),
        (
            {"financial_event_targets": [{"id": "a", "arn": {"ref": "function:other"}}]},
            ["function:other", "projection-handler"],
        ),
        ({"suffix": "a"}, ["unknown field 'suffix'", "resource_suffix"]),
    ],
)
def test_bad_variables_are_refused_with_field_value_and_remedy(
    variables: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        EventSourcingPreset(**variables).stack()
    assert [word for word in words if word not in str(refused.value)] == []


# ---------------------------------------------------------------------- on the emulator


class System:
    """The preset's stack, with functions that echo into a queue beside it."""

    def __init__(self, stack: DeployedStack) -> None:
        self.stack = stack

    async def publish(self, *event_types: str) -> None:
        """As the command handler does it: through a router, in the mapping `plain`."""
        config = EventBridgeConfig(
            event_bus_name="event-sourcing-bus-dev", mapping="plain", **dict(self.stack.config)
        )
        async with EventRouter({"eventbridge": EventBridgePublisher(config)}) as router:
            for event_type in event_types:
                results = await router.publish_event(build_event(event_type, SOURCE, {"accountId": "a-1"}))
                assert results.delivered

    async def received(self, queue: str, count: int = 1) -> list[dict[str, Any]]:
        client = await self.stack.client("sqs")
        url = (await client.get_queue_url(QueueName=queue))["QueueUrl"]
        return await queue_messages(client, url, count=count)

    async def invoke(self, function: str, payload: str) -> Any:
        functions = await self.stack.client("lambda")
        answer = await functions.invoke(FunctionName=function, Payload=payload)
        return json.loads(await answer["Payload"].read())


@pytest_asyncio.fixture(scope="module")
async def system() -> AsyncIterator[System]:
    """On an emulator of its own: its names are fixed, and tests of other files may have used them."""
    async with AwsEmulator() as emulator, AsyncExitStack() as outside:
        queues = await DeployedStack(emulator, "outside", outside).client("sqs")
        await queues.create_queue(QueueName=ECHO_QUEUE)
        async with deployed(template(code=ECHO), emulator) as made:
            yield System(made)


async def test_the_outputs_tell_what_was_made(system: System) -> None:
    outputs = system.stack.outputs
    assert outputs["event_bus_name"] == "event-sourcing-bus-dev"
    assert outputs["event_bus_arn"].endswith(":event-bus/event-sourcing-bus-dev")
    assert outputs["event_store_table_name"] == STORE
    assert outputs["read_model_table_name"] == "read-model-dev"
    assert outputs["command_handler_function_name"] == "command-handler-dev"
    assert outputs["query_handler_function_name"] == "query-handler-dev"
    assert f"--region {system.stack.emulator.region} " in outputs["testing_instructions"]


async def test_the_tables_are_those_that_the_event_store_needs(system: System) -> None:
    dynamodb = await system.stack.client("dynamodb")
    table = (await dynamodb.describe_table(TableName=STORE))["Table"]
    assert [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]] == [
        ("AggregateId", "HASH"),
        ("EventSequence", "RANGE"),
    ]
    assert {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}[
        "EventSequence"
    ] == "N"
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == [schema.BY_TYPE]
    assert table["StreamSpecification"]["StreamEnabled"]
    read_model = (await dynamodb.describe_table(TableName="read-model-dev"))["Table"]
    assert [key["AttributeName"] for key in read_model["KeySchema"]] == ["AccountId", "ProjectionType"]
    for name in ("snapshots-dev", "checkpoints-dev"):
        assert (await dynamodb.describe_table(TableName=name))["Table"]["TableStatus"] == "ACTIVE"


async def test_the_archive_keeps_the_buss_events_for_a_year(system: System) -> None:
    events = await system.stack.client("events")
    archive = await events.describe_archive(ArchiveName="event-sourcing-archive-dev")
    assert archive["RetentionDays"] == 365
    assert archive["EventSourceArn"] == system.stack.outputs["event_bus_arn"]


async def test_events_of_the_router_arrive_by_the_rule_and_replayed_from_the_archive_again(
    system: System,
) -> None:
    began = datetime.now(UTC) - timedelta(minutes=1)
    await system.publish("bank.AccountCreated", "bank.AccountRenamed", "bank.AccountClosed")
    got = await system.received("financial-events-dev", count=2)
    assert {event["detail-type"] for event in got} == {"AccountCreated", "AccountClosed"}
    events = await system.stack.client("events")
    archive = await events.describe_archive(ArchiveName="event-sourcing-archive-dev")
    await events.start_replay(
        ReplayName="event-sourcing-again",
        EventSourceArn=archive["ArchiveArn"],
        EventStartTime=began,
        EventEndTime=datetime.now(UTC) + timedelta(minutes=1),
        Destination={"Arn": archive["EventSourceArn"]},
    )
    again = await system.received("financial-events-dev", count=2)
    assert {event["detail-type"] for event in again} == {"AccountCreated", "AccountClosed"}


async def test_commands_and_queries_reach_their_functions(system: System) -> None:
    outputs = system.stack.outputs
    for kind in ("command", "query"):
        payload = outputs[f"test_{kind}_payload"]
        answer = await system.invoke(outputs[f"{kind}_handler_function_name"], payload)
        assert answer == json.loads(payload)
    await system.received(ECHO_QUEUE, count=2)


async def test_a_stored_event_reaches_the_projection_by_the_stream(system: System) -> None:
    dynamodb = await system.stack.client("dynamodb")
    item = {"AggregateId": {"S": "a-1"}, "EventSequence": {"N": "1"}, "EventType": {"S": "AccountCreated"}}
    await dynamodb.put_item(TableName=STORE, Item=item)
    (batch,) = await system.received(ECHO_QUEUE)
    (record,) = batch["Records"]
    assert (record["eventName"], record["dynamodb"]["NewImage"]) == ("INSERT", item)


async def test_a_second_deploy_changes_functions_alarms_and_the_rules_target(system: System) -> None:
    functions = await system.stack.client("lambda")
    assert set(await system.stack.alarms()) == {
        "event-store-write-throttles-dev",
        "command-handler-errors-dev",
        "eventbridge-failed-invocations-dev",
    }
    await system.stack.redeploy(
        template(
            code=ECHO,
            lambda_timeout=60,
            lambda_memory_size=512,
            enable_cloudwatch_alarms=False,
            financial_event_targets=[TO_PROJECTION],
        ),
        # The queue goes, which the rule no longer has as its target.
        allow_data_loss=True,
    )
    for name in ("command-handler-dev", "projection-handler-dev", "query-handler-dev"):
        said = (await functions.get_function(FunctionName=name))["Configuration"]
        assert (said["Timeout"], said["MemorySize"]) == (60, 512)
    assert await system.stack.alarms() == {}
    await system.publish("bank.TransactionProcessed")
    (event,) = await system.received(ECHO_QUEUE)
    assert event["detail-type"] == "TransactionProcessed"


# ---------------------------------------------------------------------- under the roles, with permissions enforced


@pytest_asyncio.fixture(scope="module")
async def guarded() -> AsyncIterator[DeployedStack]:
    with run_in_thread(AwsEmulator(settings={"AUTH": "true"})) as emulator:
        async with deployed(template(), emulator) as made:
            yield made


async def as_role(guarded: DeployedStack, stack: AsyncExitStack, role: str) -> Any:
    """A DynamoDB client with the role's permissions; the role's trust is widened to the account for that."""
    iam, sts = await guarded.client("iam"), await guarded.client("sts")
    account = (await sts.get_caller_identity())["Account"]
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": "sts:AssumeRole",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await iam.update_assume_role_policy(RoleName=role, PolicyDocument=policy)
    taken = await sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/{role}", RoleSessionName="test")
    keys = taken["Credentials"]
    session = aioboto3.Session(
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
        region_name=guarded.emulator.region,
    )
    client = session.client("dynamodb", endpoint_url=guarded.emulator.endpoint_url)
    return await stack.enter_async_context(client)


KEY = {"AggregateId": {"S": "a-1"}, "EventSequence": {"N": "1"}}
CHANGE = {
    "TableName": STORE,
    "Key": KEY,
    "UpdateExpression": "SET Data = :d",
    "ExpressionAttributeValues": {":d": {"S": "other"}},
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "update": ("update_item", CHANGE),
    "delete": ("delete_item", {"TableName": STORE, "Key": KEY}),
    "update in a transaction": ("transact_write_items", {"TransactItems": [{"Update": CHANGE}]}),
    "delete in a transaction": (
        "transact_write_items",
        {"TransactItems": [{"Delete": {"TableName": STORE, "Key": KEY}}]},
    ),
    "delete in a batch": (
        "batch_write_item",
        {"RequestItems": {STORE: [{"DeleteRequest": {"Key": KEY}}]}},
    ),
}


async def test_the_command_handlers_role_appends_once_and_nobodys_changes_what_is_stored(
    guarded: DeployedStack,
) -> None:
    new = "attribute_not_exists(AggregateId)"
    put = {"Put": {"TableName": STORE, "Item": KEY, "ConditionExpression": new}}
    async with AsyncExitStack() as stack:
        command = await as_role(guarded, stack, "command-handler-dev-role")
        await command.transact_write_items(TransactItems=[put])
        with pytest.raises(command.exceptions.TransactionCanceledException):
            await command.transact_write_items(TransactItems=[put])
        found = await command.query(
            TableName=STORE,
            KeyConditionExpression="AggregateId = :id",
            ExpressionAttributeValues={":id": KEY["AggregateId"]},
        )
        assert found["Items"] == [KEY]
        for role in ("command-handler", "projection-handler", "query-handler"):
            client = await as_role(guarded, stack, f"{role}-dev-role")
            for what, (operation, parameters) in REFUSED.items():
                with pytest.raises(botocore.exceptions.ClientError) as refused:
                    await getattr(client, operation)(**parameters)
                code = refused.value.response["Error"]["Code"]
                assert code == "AccessDeniedException", f"{role}: {what}: {refused.value}"


async def test_projections_write_read_models_only_and_queries_write_nothing(guarded: DeployedStack) -> None:
    row = {"AccountId": {"S": "a-1"}, "ProjectionType": {"S": "summary"}}
    checkpoint = {schema.CHECKPOINT: {"S": "a-1"}, schema.PROJECTION_NAME: {"S": "summary"}}
    together = [
        {"Put": {"TableName": "read-model-dev", "Item": row}},
        {"Put": {"TableName": "checkpoints-dev", "Item": checkpoint}},
    ]
    async with AsyncExitStack() as stack:
        projection = await as_role(guarded, stack, "projection-handler-dev-role")
        query = await as_role(guarded, stack, "query-handler-dev-role")
        await projection.transact_write_items(TransactItems=together)
        history = {
            "TableName": STORE,
            "KeyConditionExpression": f"{schema.AGGREGATE_ID} = :id",
            "ExpressionAttributeValues": {":id": {"S": "nobody"}},
            "ConsistentRead": True,
        }
        assert (await projection.query(**history))["Items"] == []
        assert (await query.get_item(TableName="read-model-dev", Key=row))["Item"] == row
        by_type = {
            "TableName": STORE,
            "IndexName": schema.BY_TYPE,
            "KeyConditionExpression": f"{schema.TYPE_SHARD} = :t",
            "ExpressionAttributeValues": {":t": {"S": "AccountCreated#00"}},
        }
        assert (await query.query(**by_type))["Items"] == []
        for client, table, item in (
            (projection, STORE, KEY),
            (query, STORE, KEY),
            (query, "read-model-dev", row),
            (query, "checkpoints-dev", checkpoint),
        ):
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                await client.put_item(TableName=table, Item=item)
            assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
