"""Stacks on the embedded emulator: deployed, looked at through the services' own APIs, changed, destroyed."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import cache
from typing import Any

import aioboto3
import jmespath
from botocore.exceptions import ClientError

from oms_events._aio import SystemClock
from oms_events._aws.config import AwsConfig
from oms_events.devstack import AwsEmulator
from oms_events.devstack.left_out import make_left_out, remove_left_out
from oms_events.devstack.taken_names import refuse_taken_names
from oms_events.devstack.templates import Adapted, adapt
from oms_events.errors import StackNotFoundError
from oms_events.provisioning.deployment.deploy import deploy
from oms_events.provisioning.deployment.destroy import destroy
from oms_events.provisioning.deployment.stacks import outputs
from oms_events.provisioning.template import Template

_DEADLINE = 10.0

# What the services list, by the part of a template's types that makes it; JMESPath of the ids in the answers.
_LISTS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "AWS::CloudWatch": (
        ("cloudwatch", "describe_alarms", "[MetricAlarms, CompositeAlarms][].AlarmName"),
        ("cloudwatch", "list_dashboards", "DashboardEntries[].DashboardName"),
    ),
    "AWS::DynamoDB": (("dynamodb", "list_tables", "TableNames"),),
    "AWS::EC2": (("ec2", "describe_vpc_endpoints", "VpcEndpoints[].VpcEndpointId"),),
    "AWS::Events": (
        ("events", "list_event_buses", "EventBuses[].Name"),
        ("events", "list_archives", "Archives[].ArchiveName"),
        ("events", "list_connections", "Connections[].Name"),
        ("events", "list_api_destinations", "ApiDestinations[].Name"),
    ),
    "AWS::IAM": (("iam", "list_roles", "Roles[].RoleName"),),
    "AWS::KMS": (("kms", "list_aliases", "Aliases[].AliasName"),),
    "AWS::Lambda": (
        ("lambda", "list_functions", "Functions[].FunctionName"),
        ("lambda", "list_event_source_mappings", "EventSourceMappings[].UUID"),
    ),
    "AWS::Logs": (
        # Lambda makes a function's log group again when a late call writes to it, in AWS as here.
        (
            "logs",
            "describe_log_groups",
            "logGroups[?!starts_with(logGroupName, '/aws/lambda/')].logGroupName",
        ),
        ("logs", "describe_resource_policies", "resourcePolicies[].policyName"),
    ),
    "AWS::S3": (("s3", "list_buckets", "Buckets[].Name"),),
    "AWS::SNS": (
        ("sns", "list_topics", "Topics[].TopicArn"),
        ("sns", "list_subscriptions", "Subscriptions[].SubscriptionArn"),
    ),
    "AWS::SQS": (("sqs", "list_queues", "QueueUrls"),),
    "": (("ssm", "describe_parameters", "Parameters[].Name"),),
}


def aws_config(emulator: AwsEmulator) -> AwsConfig:
    """What our own code takes to reach the emulator."""
    return AwsConfig(
        endpoint_url=emulator.endpoint_url,
        aws_region=emulator.region,
        aws_access_key_id=emulator.access_key,
        aws_secret_access_key=emulator.secret_key,
    )


class DeployedStack:
    """A stack on the emulator. Made by `deployed`."""

    def __init__(self, emulator: AwsEmulator, name: str, stack: AsyncExitStack) -> None:
        self.emulator = emulator
        self.name = name
        self.config = aws_config(emulator)
        self.session = _session(emulator.access_key, emulator.secret_key, emulator.region)
        self.outputs: dict[str, Any] = {}
        self.adapted = Adapted({}, ())
        self._stack = stack
        self._clients: dict[str, Any] = {}
        self._kinds: set[str] = set()
        self._before: set[str] = set()
        self._kept: set[tuple[str, str]] = set()

    async def client(self, service: str) -> Any:
        """A plain aioboto3 client, open as long as the stack is."""
        if service not in self._clients:
            # No TLS there, and reading the certificates takes longest.
            made = self.session.client(service, endpoint_url=self.emulator.endpoint_url, verify=False)
            self._clients[service] = await self._stack.enter_async_context(made)
        return self._clients[service]

    async def redeploy(self, template: Template, *, allow_data_loss: bool = False) -> None:
        """Deploys another template as this stack, and reads its outputs."""
        await self._note(template)
        self.adapted = adapt(template.document)
        await refuse_taken_names(self.adapted, self.name, self.config, session=self.session)
        await deploy(
            replace(template, stack_name=self.name, document=self.adapted.document),
            self.config,
            allow_data_loss=allow_data_loss,
            clock=_QuickClock(),
            session=self.session,
        )
        await make_left_out(self.adapted, self.name, self.config, session=self.session)
        self.outputs = await outputs(self.name, self.config, session=self.session)

    async def physical_ids(self) -> dict[str, str]:
        """Logical id to what the service calls it."""
        cloudformation = await self.client("cloudformation")
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=self.name)
        return {
            item["LogicalResourceId"]: item["PhysicalResourceId"]
            async for page in pages
            for item in page["StackResourceSummaries"]
        }

    async def alarms(self, *names: str) -> dict[str, dict[str, Any]]:
        """Alarms with all their properties: the answer that aioboto3 gets from the emulator lacks most."""
        answer = await asyncio.to_thread(_describe_alarms, self.emulator, names)
        return {alarm["AlarmName"]: alarm for alarm in (*answer["MetricAlarms"], *answer["CompositeAlarms"])}

    async def destroy(self) -> None:
        """Deletes the stack, and what the emulator's CloudFormation had left out of it."""
        with suppress(StackNotFoundError):
            self._kept |= await self._kept_by_policy()
            await destroy(self.name, self.config, force=True, clock=_QuickClock(), session=self.session)
        await remove_left_out(self.name, self.config, session=self.session)

    async def left(self) -> set[str]:
        """What is there now, of the kinds that this stack has had, and was not before.

        What its own template keeps when it is destroyed does not count, and buckets among it are deleted here.
        """
        left = await self._listed(self._kinds) - self._before
        for bucket in [name for kind, name in self._kept if kind == "AWS::S3::Bucket" and name in left]:
            await self._delete_bucket(bucket)
        return left - {name for _, name in self._kept}

    async def _kept_by_policy(self) -> set[tuple[str, str]]:
        try:
            ids = await self.physical_ids()
        except ClientError:
            # It never came to be.
            return set()
        resources = self.adapted.document["Resources"]
        return {
            (resources[name]["Type"], physical)
            for name, physical in ids.items()
            if resources.get(name, {}).get("DeletionPolicy", "").startswith("Retain")
        }

    async def _delete_bucket(self, name: str) -> None:
        s3 = await self.client("s3")
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=name)
        async for page in pages:
            for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                await s3.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"])
        await s3.delete_bucket(Bucket=name)

    async def _note(self, template: Template) -> None:
        kinds = {entry["Type"].rpartition("::")[0] for entry in template.resources.values()} | {""}
        self._before |= await self._listed(kinds - self._kinds)
        self._kinds |= kinds

    async def _listed(self, kinds: Collection[str]) -> set[str]:
        found: set[str] = set()
        for service, operation, ids in (row for kind in kinds for row in _LISTS.get(kind, ())):
            client = await self.client(service)
            listed = await _every(client, operation, ids)
            found.update(listed)
            if operation == "list_event_buses":
                for bus in listed:
                    found.update(rule["Arn"] for rule in (await client.list_rules(EventBusName=bus))["Rules"])
        return found


@asynccontextmanager
async def deployed(
    template: Template, emulator: AwsEmulator, *, keep: Collection[str] = ()
) -> AsyncIterator[DeployedStack]:
    """Deploys the template, and destroys the stack at the end; then nothing may be there that was not before.

    `keep` names what the test replaced, which stays by the template's own policy.
    """
    async with AsyncExitStack() as stack:
        made = DeployedStack(emulator, template.stack_name, stack)
        try:
            await made.redeploy(template)
            yield made
        except BaseException:
            await made.destroy()
            raise
        await made.destroy()
        left = await made.left() - set(keep)
        assert not left, f"left after the stack was destroyed: {', '.join(sorted(left))}"


async def queue_messages(
    client: Any, url: str, *, count: int = 1, deadline: float = _DEADLINE
) -> list[dict[str, Any]]:
    """Receives and deletes messages until `count` have come, and what else is there; their bodies, as JSON.

    Fails with what has come after `deadline` seconds. With `count` 0 it takes what is there.
    """
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while True:
        wait = 1 if len(found) < count else 0
        answer = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait)
        messages = answer.get("Messages", [])
        for message in messages:
            found.append(json.loads(message["Body"]))
            await client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        if not messages and len(found) >= count:
            return found
        assert loop.time() < end, f"{len(found)} of {count} messages within {deadline} s: {found}"


def echo_code(queue_name: str | None = None) -> str:
    """The source of a function (`index.handler`) that records each event as JSON and returns it.

    Into the queue of that name, or else the queue of the variable `ECHO_QUEUE_URL`, or the table of `ECHO_TABLE`
    (keys `pk`, the request's id, and `sk`, always `event`; attribute `event`).
    """
    return _ECHO.replace("'QUEUE'", repr(queue_name))


# Without boto3, which the emulator does not have.
_ECHO = """\
import json
import os

import botocore.session

QUEUE = 'QUEUE'


def client(service):
    return botocore.session.get_session().create_client(service, region_name=os.environ["AWS_REGION"])


def handler(event, context):
    text = json.dumps(event)
    if QUEUE or "ECHO_QUEUE_URL" in os.environ:
        sqs = client("sqs")
        url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"] if QUEUE else os.environ["ECHO_QUEUE_URL"]
        sqs.send_message(QueueUrl=url, MessageBody=text)
    else:
        item = {"pk": {"S": context.aws_request_id}, "sk": {"S": "event"}, "event": {"S": text}}
        client("dynamodb").put_item(TableName=os.environ["ECHO_TABLE"], Item=item)
    return event
"""


class _QuickClock(SystemClock):
    """Waits a fiftieth: the emulator deploys in milliseconds."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 50)


@cache
def _session(access_key: str, secret_key: str, region: str) -> aioboto3.Session:
    # One for all tests: it reads the services' models once.
    return aioboto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=region)


async def _every(client: Any, operation: str, ids: str) -> list[str]:
    if not client.can_paginate(operation):
        return jmespath.search(ids, await getattr(client, operation)()) or []
    pages = client.get_paginator(operation).paginate()
    return [found async for page in pages for found in jmespath.search(ids, page) or []]


def _describe_alarms(emulator: AwsEmulator, names: Collection[str]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=_DEADLINE)
    try:
        connection.request(
            "POST",
            "/",
            body=json.dumps({"AlarmNames": list(names), "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]}),
            headers={
                "X-Amz-Target": "GraniteServiceVersion20100801.DescribeAlarms",
                "Content-Type": "application/x-amz-json-1.0",
                # Who asks, where the emulator checks permissions.
                "Authorization": f"AWS4-HMAC-SHA256 Credential={emulator.access_key}/20260101/"
                f"{emulator.region}/monitoring/aws4_request, SignedHeaders=host, Signature=0",
            },
        )
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
