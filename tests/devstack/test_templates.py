from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from oms_events.devstack import AwsEmulator, DevstackError, FaultProxy, free_port
from oms_events.devstack.dropped import DROPPED
from oms_events.devstack.left_out import make_left_out, remove_left_out
from oms_events.devstack.refused import REFUSED
from oms_events.devstack.taken_names import refuse_taken_names
from oms_events.devstack.templates import STAND_IN, LeftOut, adapt, is_emulator
from oms_events.errors import ProvisioningError
from oms_events.provisioning.template import Template
from tests.devstack.support import aws_client
from tests.provisioning.embedded import DeployedStack, aws_config, deployed, echo_code, queue_messages

ACCOUNT = "000000000000"
EVENTS = f"arn:aws:events:us-east-1:{ACCOUNT}"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
CODE = "def handler(event, context):\n    return event\n"


def get(name: str, attribute: str = "Arn") -> dict[str, Any]:
    return {"Fn::GetAtt": [name, attribute]}


def resource(kind: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{kind}", "Properties": properties}


def table(**more: Any) -> dict[str, Any]:
    keys = {
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    }
    given = {"TableName": "left-table", "BillingMode": "PAY_PER_REQUEST", **keys, **more}
    return {**resource("DynamoDB::Table", **given), "DeletionPolicy": "Delete", "UpdateReplacePolicy": "Retain"}


def archive(**more: Any) -> dict[str, Any]:
    said = {"ArchiveName": "left-archive", "SourceArn": get("Bus"), "RetentionDays": 3, "Description": "of all"}
    return resource("Events::Archive", **said, EventPattern={"source": [{"prefix": "a"}]}, **more)


# --- the template


REFERENCES: dict[str, tuple[Any, Any]] = {
    "ref": ({"Ref": "Archive"}, "left-archive"),
    "attribute": (get("Archive"), f"{EVENTS}:archive/left-archive"),
    "attribute as text": ({"Fn::GetAtt": "Archive.Arn"}, f"{EVENTS}:archive/left-archive"),
    "in a text": ({"Fn::Sub": "${Archive}|${Archive.Arn}"}, f"left-archive|{EVENTS}:archive/left-archive"),
    "in a text with variables": (
        {"Fn::Sub": ["${a}|${Archive}|${AWS::Region}", {"a": get("Archive")}]},
        f"{EVENTS}:archive/left-archive|left-archive|us-east-1",
    ),
    "a name that hides it": ({"Fn::Sub": ["${Archive}", {"Archive": "x"}]}, "x"),
    "inside": ({"Fn::Join": ["-", ["x", {"Ref": "Archive"}, {"Ref": "Bus"}]]}, "x-left-archive-left-bus"),
    "without a name": ({"Ref": "Unnamed"}, "left-references-Unnamed"),
    "attribute without a name": (get("Unnamed"), f"{EVENTS}:archive/left-references-Unnamed"),
    "of a resource that stays": (get("Bus"), f"{EVENTS}:event-bus/left-bus"),
}


async def test_references_to_what_is_left_out_give_its_name_and_arn(oms_aws_emulator: AwsEmulator) -> None:
    unnamed = resource("Events::Archive", SourceArn=get("Bus"))
    document = {
        "Resources": {
            "Bus": resource("Events::EventBus", Name="left-bus"),
            "Archive": archive(),
            "Unnamed": unnamed,
            # In another resource as well as in outputs.
            "Queue": {
                **resource(
                    "SQS::Queue", QueueName="left-references", Tags=[{"Key": "a", "Value": get("Archive")}]
                ),
                "DependsOn": "Archive",
            },
        },
        "Outputs": {f"O{at}": {"Value": value} for at, (value, _) in enumerate(REFERENCES.values())},
    }
    async with deployed(Template("left-references", document), oms_aws_emulator) as stack:
        found = {name: stack.outputs[f"O{at}"] for at, name in enumerate(REFERENCES)}
        assert found == {name: value for name, (_, value) in REFERENCES.items()}
        sqs = await stack.client("sqs")
        tags = await sqs.list_queue_tags(QueueUrl=(await stack.physical_ids())["Queue"])
        assert tags["Tags"]["a"] == f"{EVENTS}:archive/left-archive"
        events = await stack.client("events")
        listed = (await events.list_archives(EventSourceArn=f"{EVENTS}:event-bus/left-bus"))["Archives"]
        assert {item["ArchiveName"] for item in listed} == {"left-archive", "left-references-Unnamed"}


def test_what_the_emulator_takes_stays_as_it_is() -> None:
    document = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Metadata": {"OmsEvents": {"Outputs": {"queue": "Queue"}}},
        "Resources": {
            "Queue": resource("SQS::Queue", QueueName="q"),
            "Alarm": resource("CloudWatch::Alarm", MetricName="m", Namespace="n"),
        },
        "Outputs": {"Queue": {"Value": {"Ref": "Queue"}}},
    }
    adapted = adapt(document)
    assert adapted.document == document
    assert list(adapted.document) == list(document)
    assert adapted.left_out == ()


def test_the_given_template_is_not_changed() -> None:
    document = {
        "Resources": {"Bus": resource("Events::EventBus", Name="b", DeadLetterConfig={}), "Archive": archive()}
    }
    before = copy.deepcopy(document)
    adapt(document)
    assert document == before


def test_a_stand_in_keeps_the_place_of_what_is_left_out() -> None:
    refused = {**archive(), "DependsOn": ["Bus"], "DeletionPolicy": "Delete", "Metadata": {"a": 1}}
    adapted = adapt({"Resources": {"Archive": refused, "Bus": resource("Events::EventBus", Name="b")}})
    assert list(adapted.document["Resources"]) == ["Archive", "Bus"]
    stand_in = adapted.document["Resources"]["Archive"]
    assert stand_in["Type"] == STAND_IN
    assert stand_in["DependsOn"] == ["Bus"]
    assert stand_in["DeletionPolicy"] == "Delete"
    assert stand_in["Metadata"]["a"] == 1
    assert "Properties" not in stand_in


def test_every_loss_is_listed_with_a_line() -> None:
    adapted = adapt(
        {
            "Resources": {
                "Archive": archive(),
                "Scaling": resource("ApplicationAutoScaling::ScalableTarget", MinCapacity=1),
                "Table": table(TimeToLiveSpecification={}, SSESpecification={}, WarmThroughput={}),
                "Rate": resource("CloudWatch::Alarm", AlarmName="rate", Metrics=[]),
            }
        }
    )
    assert adapted.left_out == (
        LeftOut("Archive", "AWS::Events::Archive", supplied=True),
        LeftOut("Scaling", "AWS::ApplicationAutoScaling::ScalableTarget"),
        LeftOut("Table", "AWS::DynamoDB::Table", ("TimeToLiveSpecification", "SSESpecification"), supplied=True),
        LeftOut("Table", "AWS::DynamoDB::Table", ("WarmThroughput",)),
        LeftOut("Rate", "AWS::CloudWatch::Alarm", supplied=True),
    )
    assert [str(item) for item in adapted.left_out[:3]] == [
        "Archive (AWS::Events::Archive): made through the service's own API",
        "Scaling (AWS::ApplicationAutoScaling::ScalableTarget): not there: the emulator cannot do it",
        "Table (AWS::DynamoDB::Table, TimeToLiveSpecification, SSESpecification): "
        "made through the service's own API",
    ]


async def test_only_what_the_emulator_refuses_is_left_out(oms_aws_emulator: AwsEmulator) -> None:
    async with aws_client("cloudformation", oms_aws_emulator) as cloudformation:

        async def refuses(kind: str) -> bool:
            body = json.dumps({"Resources": {"A": {"Type": kind, "Properties": {}}}})
            try:
                await cloudformation.validate_template(TemplateBody=body)
            except cloudformation.exceptions.ClientError as error:
                return f"Unrecognized resource types: [{kind}]" in str(error)
            return False

        assert [kind for kind in REFUSED if not await refuses(kind)] == []
        assert [kind for kind in (*DROPPED, STAND_IN) if await refuses(kind)] == []


# --- what is supplied


def everything(code: str = CODE) -> dict[str, Any]:
    """A stack with all that the emulator leaves out and its services can do."""
    alarm = {"EvaluationPeriods": 1, "Threshold": 10, "ComparisonOperator": "GreaterThanThreshold"}
    return {
        "Queue": resource("SQS::Queue", QueueName="left-queue"),
        "Bus": resource(
            "Events::EventBus",
            Name="left-bus",
            DeadLetterConfig={"Arn": get("Queue")},
            KmsKeyIdentifier="alias/bus",
        ),
        "Archive": archive(),
        "Policy": resource(
            "Events::EventBusPolicy",
            EventBusName={"Ref": "Bus"},
            StatementId="others",
            Statement={
                "Effect": "Allow",
                "Principal": {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::123456789012:root"}},
                "Action": "events:PutEvents",
                "Resource": get("Bus"),
                "Condition": {"StringEquals": {"events:source": ["a.b"]}},
            },
        ),
        "Destination": resource(
            "Events::ApiDestination",
            Name="left-destination",
            ConnectionArn=get("Connection"),
            HttpMethod="POST",
            InvocationEndpoint="https://example.com/hook",
        ),
        "Connection": resource(
            "Events::Connection",
            Name="left-connection",
            AuthorizationType="API_KEY",
            AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "k", "ApiKeyValue": "v"}},
        ),
        "Table": table(
            TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True},
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
            SSESpecification={"SSEEnabled": True},
            TableClass="STANDARD_INFREQUENT_ACCESS",
        ),
        "Role": resource(
            "IAM::Role",
            RoleName="left-role",
            AssumeRolePolicyDocument=TRUST,
            PermissionsBoundary="arn:aws:iam::aws:policy/ReadOnlyAccess",
        ),
        "Function": resource(
            "Lambda::Function",
            FunctionName="left-function",
            Runtime="python3.12",
            Handler="index.handler",
            Role=get("Role"),
            Code={"ZipFile": code},
            Timeout=10,
            ReservedConcurrentExecutions=1,
            DeadLetterConfig={"TargetArn": get("Queue")},
            KmsKeyArn=f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k",
            VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        ),
        "Topic": resource(
            "SNS::Topic",
            TopicName="left-topic",
            KmsMasterKeyId="alias/topic",
            TracingConfig="Active",
            SignatureVersion="2",
        ),
        "Bucket": resource(
            "S3::Bucket",
            BucketName="left-bucket",
            OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]},
            LifecycleConfiguration={"Rules": [{"Id": "old", "Status": "Enabled", "ExpirationInDays": 30}]},
            BucketEncryption={
                "ServerSideEncryptionConfiguration": [
                    {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}, "BucketKeyEnabled": True}
                ]
            },
        ),
        "Composite": resource(
            "CloudWatch::CompositeAlarm",
            AlarmName="left-composite",
            AlarmRule={"Fn::Sub": "ALARM(${Watched})"},
        ),
        "Watched": resource(
            "CloudWatch::Alarm",
            AlarmName="left-rate",
            AlarmActions=[{"Ref": "Topic"}],
            Metrics=[{"Id": "m", "Expression": "1", "ReturnData": True}],
            **alarm,
        ),
    }


def changed() -> dict[str, Any]:
    """The same stack after a change of each."""
    made = everything()
    properties = {name: entry["Properties"] for name, entry in made.items()}
    properties["Bus"]["KmsKeyIdentifier"] = "alias/other"
    properties["Archive"] |= {"RetentionDays": 9, "EventPattern": {"source": ["b"]}}
    del properties["Archive"]["Description"]
    properties["Policy"]["Statement"]["Principal"] = {"AWS": "arn:aws:iam::210987654321:root"}
    properties["Destination"]["HttpMethod"] = "PUT"
    properties["Connection"]["Description"] = "ours"
    properties["Table"] |= {
        "TimeToLiveSpecification": {"AttributeName": "expires", "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": False},
    }
    properties["Role"]["PermissionsBoundary"] = "arn:aws:iam::aws:policy/PowerUserAccess"
    properties["Function"]["ReservedConcurrentExecutions"] = 2
    properties["Topic"]["TracingConfig"] = "PassThrough"
    properties["Watched"]["Threshold"] = 20
    properties["Composite"]["AlarmRule"] = {"Fn::Sub": "OK(${Watched})"}
    return made


def bare() -> dict[str, Any]:
    """The same stack without what the emulator leaves out."""
    kept = {name: entry for name, entry in everything().items() if entry["Type"] not in REFUSED}
    del kept["Watched"]
    for entry in kept.values():
        for name in DROPPED.get(entry["Type"], {}):
            entry["Properties"].pop(name, None)
    return kept


async def answer_of(call: Awaitable[dict[str, Any]], part: str) -> Any:
    try:
        return (await call)[part]
    except ClientError as error:
        return error.response["Error"]["Code"]


async def seen(stack: DeployedStack) -> dict[str, Any]:
    """What the services say of the stack."""
    events = await stack.client("events")
    bus = await events.describe_event_bus(Name="left-bus")
    found: dict[str, Any] = {
        "bus": (bus.get("DeadLetterConfig"), bus.get("KmsKeyIdentifier")),
        "policy": [
            (item["Sid"], item["Principal"], item.get("Condition"))
            for item in json.loads(bus.get("Policy", '{"Statement": []}'))["Statement"]
        ],
        "archives": [],
        "connections": [item["Name"] for item in (await events.list_connections())["Connections"]],
        "destinations": [
            (item["Name"], item["ConnectionArn"], item["HttpMethod"])
            for item in (await events.list_api_destinations())["ApiDestinations"]
        ],
    }
    for item in (await events.list_archives())["Archives"]:
        told = await events.describe_archive(ArchiveName=item["ArchiveName"])
        keys = ("EventSourceArn", "EventPattern", "RetentionDays", "Description")
        found["archives"].append(tuple(told.get(key) for key in keys))

    dynamodb = await stack.client("dynamodb")
    ttl = (await dynamodb.describe_time_to_live(TableName="left-table"))["TimeToLiveDescription"]
    backups = await dynamodb.describe_continuous_backups(TableName="left-table")
    recovery = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    described = (await dynamodb.describe_table(TableName="left-table"))["Table"]
    found["table"] = (
        ttl.get("AttributeName") if ttl["TimeToLiveStatus"] == "ENABLED" else None,
        recovery["PointInTimeRecoveryStatus"],
        described.get("SSEDescription", {}).get("Status", "DISABLED"),
        described.get("TableClassSummary", {}).get("TableClass", "STANDARD"),
    )

    functions = await stack.client("lambda")
    concurrency = await functions.get_function_concurrency(FunctionName="left-function")
    told = await functions.get_function_configuration(FunctionName="left-function")
    found["function"] = (
        concurrency.get("ReservedConcurrentExecutions"),
        told.get("DeadLetterConfig", {}).get("TargetArn") or None,
        told.get("KMSKeyArn") or None,
        told.get("VpcConfig", {}).get("SubnetIds", []),
    )
    iam = await stack.client("iam")
    role = (await iam.get_role(RoleName="left-role"))["Role"]
    found["role"] = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
    sns = await stack.client("sns")
    topic = f"arn:aws:sns:us-east-1:{ACCOUNT}:left-topic"
    attributes = (await sns.get_topic_attributes(TopicArn=topic))["Attributes"]
    found["topic"] = (attributes.get("KmsMasterKeyId") or None, attributes.get("TracingConfig", "PassThrough"))
    s3 = await stack.client("s3")
    encryption = await s3.get_bucket_encryption(Bucket="left-bucket")
    (rule,) = encryption["ServerSideEncryptionConfiguration"]["Rules"]
    found["bucket"] = (rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], rule.get("BucketKeyEnabled"))
    found["owner"] = await answer_of(s3.get_bucket_ownership_controls(Bucket="left-bucket"), "OwnershipControls")
    found["lifecycle"] = await answer_of(s3.get_bucket_lifecycle_configuration(Bucket="left-bucket"), "Rules")
    alarms = await stack.alarms("left-rate", "left-composite")
    found["alarms"] = {name: alarm.get("AlarmRule") or alarm["Threshold"] for name, alarm in alarms.items()}
    return found


QUEUE_ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:left-queue"
BUS_ARN = f"{EVENTS}:event-bus/left-bus"
SOURCE = {"Type": "StringEquals", "Key": "events:source", "Value": "a.b"}
AT_FIRST: dict[str, Any] = {
    "bus": ({"Arn": QUEUE_ARN}, "alias/bus"),
    "policy": [("others", "123456789012", SOURCE)],
    "archives": [(BUS_ARN, '{"source": [{"prefix": "a"}]}', 3, "of all")],
    "connections": ["left-connection"],
    "destinations": [("left-destination", f"{EVENTS}:connection/left-connection", "POST")],
    "table": ("ttl", "ENABLED", "ENABLED", "STANDARD_INFREQUENT_ACCESS"),
    "function": (1, QUEUE_ARN, f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k", ["subnet-1"]),
    "role": "arn:aws:iam::aws:policy/ReadOnlyAccess",
    "topic": ("alias/topic", "Active"),
    "bucket": ("aws:kms", True),
    "owner": {"Rules": [{"ObjectOwnership": "ObjectWriter"}]},
    "lifecycle": [{"ID": "old", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}],
    "alarms": {"left-rate": 10.0, "left-composite": "ALARM(left-rate)"},
}
AFTER_A_CHANGE = AT_FIRST | {
    "bus": ({"Arn": QUEUE_ARN}, "alias/other"),
    "policy": [("others", "210987654321", SOURCE)],
    "archives": [(BUS_ARN, '{"source": ["b"]}', 9, "")],
    "destinations": [("left-destination", f"{EVENTS}:connection/left-connection", "PUT")],
    "table": ("expires", "DISABLED", "ENABLED", "STANDARD_INFREQUENT_ACCESS"),
    "function": (2, *AT_FIRST["function"][1:]),
    "role": "arn:aws:iam::aws:policy/PowerUserAccess",
    "topic": ("alias/topic", "PassThrough"),
    "alarms": {"left-rate": 20.0, "left-composite": "OK(left-rate)"},
}
WITHOUT: dict[str, Any] = {
    "bus": ({}, ""),
    "policy": [],
    "archives": [],
    "connections": [],
    "destinations": [],
    "table": (None, "DISABLED", "DISABLED", "STANDARD"),
    "function": (None, None, None, []),
    "role": None,
    "topic": (None, "PassThrough"),
    "bucket": ("AES256", False),
    "owner": "OwnershipControlsNotFoundError",
    "lifecycle": "NoSuchLifecycleConfiguration",
    "alarms": {},
}


async def test_what_is_left_out_is_made_changed_and_taken_away_with_the_template(
    oms_aws_emulator: AwsEmulator,
) -> None:
    first = Template("left-out", {"Resources": everything()})
    async with deployed(first, oms_aws_emulator) as stack:
        assert await seen(stack) == AT_FIRST
        await make_left_out(stack.adapted, stack.name, stack.config, session=stack.session)
        assert await seen(stack) == AT_FIRST
        await stack.redeploy(Template("left-out", {"Resources": changed()}))
        assert await seen(stack) == AFTER_A_CHANGE
        # Its change sets do not know which changes replace a bucket.
        await stack.redeploy(Template("left-out", {"Resources": bare()}), allow_data_loss=True)
        assert await seen(stack) == WITHOUT
        await stack.redeploy(first, allow_data_loss=True)
        assert await seen(stack) == AT_FIRST
        # What had the properties goes with them.
        queue = Template("left-out", {"Resources": {"Queue": everything()["Queue"]}})
        await stack.redeploy(queue, allow_data_loss=True)
        assert [name.rpartition("/")[2] for name in await stack.left()] == ["left-queue"]


async def test_a_change_of_what_is_left_out_alone_is_deployed(oms_aws_emulator: AwsEmulator) -> None:
    resources = {"Bus": resource("Events::EventBus", Name="left-bus"), "Archive": archive()}
    async with deployed(Template("left-alone", {"Resources": resources}), oms_aws_emulator) as stack:
        events = await stack.client("events")
        later = {"ArchiveName": "left-later"}
        renamed = {**resources, "Archive": {**archive(), "Properties": {**archive()["Properties"], **later}}}
        await stack.redeploy(Template("left-alone", {"Resources": renamed}))
        assert [item["ArchiveName"] for item in (await events.list_archives())["Archives"]] == ["left-later"]
        # The name goes to another logical id: nothing of the first may take it away.
        moved = {"Bus": resources["Bus"], "Another": renamed["Archive"]}
        await stack.redeploy(Template("left-alone", {"Resources": moved}))
        assert [item["ArchiveName"] for item in (await events.list_archives())["Archives"]] == ["left-later"]


async def test_removing_takes_each_stacks_own_and_may_be_repeated(oms_aws_emulator: AwsEmulator) -> None:
    one = {"Bus": resource("Events::EventBus", Name="left-bus"), "Archive": archive()}
    other = {
        "Connection": resource("Events::Connection", **everything()["Connection"]["Properties"]),
    }
    async with (
        deployed(Template("left-b", {"Resources": other}), oms_aws_emulator) as stack,
        deployed(Template("left-a", {"Resources": one}), oms_aws_emulator) as first,
    ):
        await first.destroy()
        events = await stack.client("events")
        assert (await events.list_archives())["Archives"] == []
        assert len((await events.list_connections())["Connections"]) == 1
        await remove_left_out("left-a", stack.config, session=stack.session)
        await remove_left_out("left-never", stack.config, session=stack.session)


async def test_table_keeps_its_items_over_every_kind_of_update(oms_aws_emulator: AwsEmulator) -> None:
    resources = {"Bus": resource("Events::EventBus", Name="left-bus"), "Table": table()}
    versions: list[dict[str, Any]] = [
        {"Bus": resource("Events::EventBus", Name="left-bus", Description="new")},
        {"Table": table(TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True})},
        {"Table": table(StreamSpecification={"StreamViewType": "NEW_IMAGE"})},
        {"Table": table(DeletionProtectionEnabled=True, Tags=[{"Key": "a", "Value": "b"}])},
        {"Table": table(SSESpecification={"SSEEnabled": True}), "Archive": archive()},
    ]
    async with deployed(Template("left-data", {"Resources": resources}), oms_aws_emulator) as stack:
        dynamodb = await stack.client("dynamodb")
        await dynamodb.put_item(TableName="left-table", Item={"pk": {"S": "kept"}})
        for version in versions:
            await stack.redeploy(Template("left-data", {"Resources": {**resources, **version}}))
            assert (await dynamodb.scan(TableName="left-table"))["Count"] == 1


# --- names that exist


TAKEN = {
    "dynamodb": (
        "create_table",
        {**table()["Properties"], "TableName": "left-table"},
        "delete_table",
        "TableName",
    ),
    "sqs": ("create_queue", {"QueueName": "left-queue"}, None, "QueueName"),
    "logs": ("create_log_group", {"logGroupName": "left/group"}, "delete_log_group", "logGroupName"),
    "events": ("create_event_bus", {"Name": "left-bus"}, "delete_event_bus", "Name"),
}
WANTED = {
    "dynamodb": table(),
    "sqs": resource("SQS::Queue", QueueName="left-queue"),
    "logs": resource("Logs::LogGroup", LogGroupName="left/group"),
    "events": resource("Events::EventBus", Name="left-bus"),
}


@pytest.fixture(params=TAKEN)
async def taken(oms_aws_emulator: AwsEmulator, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A service in which something exists outside any stack."""
    create, parameters, delete, name = TAKEN[request.param]
    async with aws_client(request.param, oms_aws_emulator) as client:
        made = await getattr(client, create)(**parameters)
        yield request.param
        if delete is None:
            await client.delete_queue(QueueUrl=made["QueueUrl"])
        else:
            await getattr(client, delete)(**{name: parameters[name]})


async def test_name_that_exists_outside_the_stack_is_refused(oms_aws_emulator: AwsEmulator, taken: str) -> None:
    adapted = adapt({"Resources": {"Mine": WANTED[taken]}})
    with pytest.raises(ProvisioningError, match=r"Mine: 'left[-/].*' exists, and not as a part of the stack"):
        await refuse_taken_names(adapted, "left-new", aws_config(oms_aws_emulator))


async def test_names_of_the_stack_itself_are_not_refused(oms_aws_emulator: AwsEmulator) -> None:
    resources = {name.title(): entry for name, entry in WANTED.items()}
    resources["Role"] = everything()["Role"]
    resources["Function"] = everything()["Function"]
    async with deployed(Template("left-own", {"Resources": resources}), oms_aws_emulator) as stack:
        await refuse_taken_names(stack.adapted, stack.name, stack.config, session=stack.session)
        with pytest.raises(ProvisioningError, match=r"Dynamodb: .*Sqs: .*Logs: .*Events: .*Role: .*Function: "):
            await refuse_taken_names(stack.adapted, "left-other", stack.config, session=stack.session)


# --- whose endpoint it is


async def test_the_emulator_is_known_by_its_answer(
    oms_aws_emulator: AwsEmulator, oms_fault_proxy: FaultProxy
) -> None:
    assert await is_emulator(oms_aws_emulator.endpoint_url)
    assert await is_emulator(f"{oms_aws_emulator.endpoint_url}/")
    assert await is_emulator(oms_fault_proxy.endpoint_url)


@pytest.mark.parametrize(
    "url",
    ["", "nothing", "http://", "http://127.0.0.1:x", "https://events.us-east-1.amazonaws.com", "nats://127.0.0.1"],
)
async def test_what_is_no_http_url_is_not_the_emulator(url: str) -> None:
    assert not await is_emulator(url)


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"services": []}', '{"services": {}}', '{"edition": "x"}', "<html>"]
)
async def test_another_server_is_not_the_emulator(body: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert not await is_emulator(f"http://127.0.0.1:{port}")


async def test_nobody_is_not_the_emulator() -> None:
    assert not await is_emulator(f"http://127.0.0.1:{free_port()}")


async def test_who_says_nothing_on_this_machine_may_be_the_emulator() -> None:
    def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    silent: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DevstackError, match=f"localhost:{port} does not say .* nothing was done"):
            await is_emulator(f"http://localhost:{port}")
        for writer in silent:
            writer.close()


# --- the helper that other tests rest on


async def test_what_a_stack_leaves_behind_is_told(oms_aws_emulator: AwsEmulator) -> None:
    template = Template("left-behind", {"Resources": {"Queue": resource("SQS::Queue", QueueName="left-queue")}})
    async with aws_client("sqs", oms_aws_emulator) as sqs:
        stack = deployed(template, oms_aws_emulator)
        await stack.__aenter__()
        url = (await sqs.create_queue(QueueName="left-forgotten"))["QueueUrl"]
        with pytest.raises(AssertionError, match=r"left after the stack was destroyed: .*left-forgotten"):
            await stack.__aexit__(None, None, None)
        await sqs.delete_queue(QueueUrl=url)


async def test_echo_function_records_its_events(oms_aws_emulator: AwsEmulator) -> None:
    resources = everything(echo_code("left-queue"))
    kept = {name: resources[name] for name in ("Queue", "Role", "Function")}
    async with deployed(Template("left-echo", {"Resources": kept}), oms_aws_emulator) as stack:
        functions = await stack.client("lambda")
        await functions.invoke(FunctionName="left-function", Payload=b'{"a": 1}')
        url = (await stack.physical_ids())["Queue"]
        sqs = await stack.client("sqs")
        assert await queue_messages(sqs, url) == [{"a": 1}]
        with pytest.raises(AssertionError, match="0 of 1 messages"):
            await queue_messages(sqs, url, deadline=0)
