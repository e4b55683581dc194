"""Stacks are planned, deployed, changed and destroyed, on the emulator."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aioboto3
import pytest

from oms_events._aio import SystemClock
from oms_events._aws.control import ControlClient, open_control
from oms_events.devstack import AwsEmulator, Denied, FaultProxy
from oms_events.errors import (
    AccessError,
    ConfigurationError,
    DataLossRefusedError,
    PlanOutdatedError,
    ProvisioningError,
    StackNotFoundError,
)
from oms_events.provisioning.deployment.changes import BODY_LIMIT, Action, discard, plan
from oms_events.provisioning.deployment.deploy import apply, deploy
from oms_events.provisioning.deployment.destroy import destroy, look
from oms_events.provisioning.deployment.drift import Difference, DriftStatus, drift
from oms_events.provisioning.deployment.progress import StackEvent, follow
from oms_events.provisioning.deployment.stacks import SERVICE, outputs
from oms_events.provisioning.template import Template
from tests.provisioning.embedded import aws_config

KEY = "pk"


Here = dict[str, Any]


class QuickClock(SystemClock):
    """The emulator works in milliseconds."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 25)


QUICK = QuickClock()


@pytest.fixture(scope="module")
def here(oms_aws_emulator: AwsEmulator) -> Here:
    """What leads to the emulator: the tests share a session, which reads botocore's models once."""
    keys = {
        "aws_access_key_id": oms_aws_emulator.access_key,
        "aws_secret_access_key": oms_aws_emulator.secret_key,
    }
    return {"config": aws_config(oms_aws_emulator), "session": aioboto3.Session(**keys)}


@pytest.fixture
async def name(here: Here) -> AsyncIterator[str]:
    """A stack's name, and at the end no stack of this name."""
    made = f"stack-{uuid.uuid4().hex[:12]}"
    yield made
    with suppress(StackNotFoundError):
        await destroy(made, **here, clock=QUICK, force=True)


def template(
    name: str, *, delay: int = 0, table: bool = True, protected: bool = False, padding: int = 0, **more: Any
) -> Template:
    """A queue and a table, both named like the stack, and outputs in a map."""
    resources: dict[str, Any] = {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name, "DelaySeconds": delay}}
    }
    if table:
        properties = {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
            "DeletionProtectionEnabled": protected,
        }
        resources["Table"] = {"Type": "AWS::DynamoDB::Table", "Properties": properties}
    layout = {"OmsEvents": {"Outputs": {"queue_arns": {"orders": "QueueArn"}, "archive_arn": None}}}
    document = {
        "Metadata": {**layout, "Padding": "x" * padding},
        "Resources": resources,
        "Outputs": {"QueueArn": {"Value": {"Fn::GetAtt": ["Queue", "Arn"]}}},
    }
    return Template(name, document, **more)


@asynccontextmanager
async def service(here: Here, name: str) -> AsyncIterator[ControlClient]:
    async with open_control(service=name, **here) as client:
        yield client


async def put_item(here: Here, table: str) -> None:
    async with service(here, "dynamodb") as dynamodb:
        await dynamodb.call("PutItem", TableName=table, Item={KEY: {"S": "1"}})


async def delay_of(here: Here, queue: str) -> str:
    async with service(here, "sqs") as sqs:
        url = (await sqs.call("GetQueueUrl", QueueName=queue))["QueueUrl"]
        found = await sqs.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["DelaySeconds"])
    delay: str = found["Attributes"]["DelaySeconds"]
    return delay


async def test_a_discarded_plan_leaves_nothing_behind(here: Here, name: str) -> None:
    made = await plan(template(name), **here)
    assert [(change.action, change.logical_id) for change in made.changes] == [
        (Action.ADD, "Queue"),
        (Action.ADD, "Table"),
    ]
    assert (made.creates, made.data_loss) == (True, ())
    await discard(made, **here, clock=QUICK)
    with pytest.raises(StackNotFoundError, match=f"there is no stack '{name}' in region us-east-1"):
        await outputs(name, **here)
    async with service(here, SERVICE) as cloudformation:
        with pytest.raises(ProvisioningError) as caught:
            await cloudformation.call("DescribeChangeSet", ChangeSetName=made.change_set_id)
    assert caught.value.code == "ChangeSetNotFound"


async def test_a_stack_is_deployed_and_deployed_again_without_changes(here: Here, name: str) -> None:
    told: list[StackEvent] = []
    state = await deploy(template(name), **here, clock=QUICK, on_event=told.append)
    assert state.status == "CREATE_COMPLETE"
    assert [one.logical_id for one in told if one.status == "CREATE_COMPLETE"] == ["Queue", "Table", name]
    assert len({one.id for one in told}) == len(told)
    arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
    assert await outputs(name, **here) == {"queue_arns": {"orders": arn}, "archive_arn": None}
    assert (await plan(template(name), **here)).is_empty
    assert await deploy(template(name), **here, clock=QUICK) == state
    assert await follow(name, **here, clock=QUICK) == state


async def test_a_second_deployment_changes_what_is_shown(here: Here, name: str) -> None:
    await deploy(template(name), **here, clock=QUICK)
    made = await plan(template(name, delay=7), **here)
    (change,) = made.changes
    assert (change.action, change.logical_id) == (Action.CHANGE, "Queue")
    assert [one.path for one in change.properties] == ["DelaySeconds"]
    assert await delay_of(here, name) == "0"
    assert (await apply(made, **here, clock=QUICK)).status == "UPDATE_COMPLETE"
    assert await delay_of(here, name) == "7"


async def test_of_two_plans_only_the_first_is_applied(here: Here, name: str) -> None:
    await deploy(template(name), **here, clock=QUICK)
    first = await plan(template(name, delay=1), **here)
    second = await plan(template(name, delay=2), **here)
    await apply(first, **here, clock=QUICK)
    with pytest.raises(PlanOutdatedError, match="plan again"):
        await apply(second, **here, clock=QUICK)
    assert await delay_of(here, name) == "1"
    with pytest.raises(PlanOutdatedError):
        await apply(first, **here, clock=QUICK)


async def test_a_table_is_removed_only_if_its_loss_is_allowed(here: Here, name: str) -> None:
    await deploy(template(name), **here, clock=QUICK)
    await put_item(here, name)
    with pytest.raises(DataLossRefusedError) as caught:
        await deploy(template(name, table=False), **here, clock=QUICK)
    assert list(caught.value.reasons) == [f"table {name} (Table) would be deleted"]
    assert {one.logical_id for one in (await look(name, **here)).resources} == {"Queue", "Table"}
    await deploy(template(name, table=False), **here, clock=QUICK, allow_data_loss=True)
    assert {one.logical_id for one in (await look(name, **here)).resources} == {"Queue"}


async def test_a_large_template_goes_through_a_bucket(here: Here, name: str) -> None:
    large = template(name, padding=BODY_LIMIT)
    with pytest.raises(ConfigurationError, match="above 51,200 give template_bucket"):
        await deploy(large, **here, clock=QUICK)
    async with service(here, "s3") as s3:
        await s3.call("CreateBucket", Bucket=name)
        assert (await deploy(large, **here, clock=QUICK, template_bucket=name)).status == "CREATE_COMPLETE"
        kept = await s3.call("HeadObject", Bucket=name, Key=f"{name}/{large.digest}.json")
        assert kept["ContentLength"] == len(large.body)


async def test_what_was_changed_by_hand_is_drift(here: Here, name: str) -> None:
    await deploy(template(name), **here, clock=QUICK)
    assert await drift(name, **here, clock=QUICK) == ()
    async with service(here, "sqs") as sqs:
        url = (await sqs.call("GetQueueUrl", QueueName=name))["QueueUrl"]
        await sqs.call("SetQueueAttributes", QueueUrl=url, Attributes={"DelaySeconds": "9"})
    (found,) = await drift(name, **here, clock=QUICK)
    assert (found.logical_id, found.status) == ("Queue", DriftStatus.MODIFIED)
    assert found.differences == (Difference(path="/DelaySeconds", expected="0", actual="9"),)


async def test_a_stack_is_destroyed_only_if_it_holds_nothing_unless_forced(here: Here, name: str) -> None:
    await deploy(template(name, protected=True, termination_protection=True), **here, clock=QUICK)
    await put_item(here, name)
    async with service(here, "sqs") as sqs:
        url = (await sqs.call("GetQueueUrl", QueueName=name))["QueueUrl"]
        await sqs.call("SendMessage", QueueUrl=url, MessageBody="one")
    found = await look(name, **here)
    assert list(found.reasons) == [
        "the stack has termination protection",
        f"queue {name} has about 1 messages",
        f"table {name} has deletion protection",
        f"table {name} has items",
    ]
    assert found.refused == ()
    with pytest.raises(DataLossRefusedError) as caught:
        await destroy(name, **here, clock=QUICK)
    assert caught.value.reasons == found.reasons
    assert await look(name, **here) == found
    told: list[StackEvent] = []
    done = await destroy(name, **here, clock=QUICK, force=True, shown=found, on_event=told.append)
    assert done.status == "DELETE_COMPLETE"
    assert told[-1].ends
    with pytest.raises(StackNotFoundError):
        await look(name, **here)
    assert (await follow(done.id, **here, clock=QUICK)).status == "DELETE_COMPLETE"
    with pytest.raises(StackNotFoundError, match="deleted already"):
        await destroy(done.id, **here, clock=QUICK)


async def test_an_empty_stack_is_destroyed_without_force(here: Here, name: str) -> None:
    await deploy(template(name), **here, clock=QUICK)
    assert (await destroy(name, **here, clock=QUICK)).status == "DELETE_COMPLETE"
    async with service(here, "dynamodb") as dynamodb:
        with pytest.raises(ProvisioningError) as caught:
            await dynamodb.call("DescribeTable", TableName=name)
    assert caught.value.code == "ResourceNotFoundException"


async def test_a_bucket_with_old_versions_is_told_as_what_cannot_be_deleted(here: Here, name: str) -> None:
    versions = {"BucketName": name, "VersioningConfiguration": {"Status": "Enabled"}}
    bucket = {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": versions}}
    await deploy(Template(name, {"Resources": bucket}), **here, clock=QUICK)
    assert (await look(name, **here)).reasons == ()
    async with service(here, "s3") as s3:
        await s3.call("PutObject", Bucket=name, Key="one", Body=b"1")
        await s3.call("DeleteObject", Bucket=name, Key="one")
        found = await look(name, **here)
        assert len(found.refused) == 1
        assert f"bucket {name} has objects (or old versions)" in found.reasons[0]
        for version in ("Versions", "DeleteMarkers"):
            for item in (await s3.call("ListObjectVersions", Bucket=name)).get(version, ()):
                await s3.call("DeleteObject", Bucket=name, Key="one", VersionId=item["VersionId"])
    assert (await look(name, **here)).reasons == ()


async def test_a_deletion_that_is_refused_leaves_all_protected(
    here: Here, name: str, oms_fault_proxy: FaultProxy
) -> None:
    await deploy(template(name, protected=True, termination_protection=True), **here, clock=QUICK)
    found = await look(name, **here)
    oms_fault_proxy.always(Denied(), operation="DeleteStack")
    through = here["config"].model_copy(update={"endpoint_url": oms_fault_proxy.endpoint_url})
    with pytest.raises(AccessError):
        await destroy(name, through, session=here["session"], clock=QUICK, force=True)
    assert list(found.reasons) == ["the stack has termination protection", f"table {name} has deletion protection"]
    assert await look(name, **here) == found


async def test_keys_and_logs_speak_against_a_deletion(here: Here, name: str) -> None:
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": f"/{name}"}}
    key = {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {}}}
    await deploy(Template(name, {"Resources": {"Group": group, "Key": key}}), **here, clock=QUICK)
    ids = {one.logical_id: one.physical_id for one in (await look(name, **here)).resources}
    needed = f"key {ids['Key']} is needed to read what it has encrypted"
    assert list((await look(name, **here)).reasons) == [needed]
    async with service(here, "logs") as logs:
        await logs.call("CreateLogStream", logGroupName=f"/{name}", logStreamName="one")
    assert set((await look(name, **here)).reasons) == {needed, f"log group /{name} has logs"}
    async with service(here, "kms") as kms:
        await kms.call("ScheduleKeyDeletion", KeyId=ids["Key"])
    assert list((await look(name, **here)).reasons) == [f"log group /{name} has logs"]


async def test_what_cannot_be_looked_into_speaks_against_it(
    here: Here, name: str, oms_fault_proxy: FaultProxy
) -> None:
    await deploy(template(name), **here, clock=QUICK)
    oms_fault_proxy.always(Denied(), operation="Scan")
    through = here["config"].model_copy(update={"endpoint_url": oms_fault_proxy.endpoint_url})
    found = await look(name, through, session=here["session"])
    (reason,) = found.reasons
    assert f"{name} could not be looked into: Scan: AWS answered AccessDenied" in reason
