"""What the resources of a stack hold: looked up at their own services, one by one, and nothing is changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import ProvisioningError

HOLDS_DATA: Final[Mapping[str, str]] = {
    "AWS::CloudFormation::Stack": "nested stack",
    "AWS::DynamoDB::GlobalTable": "table",
    "AWS::DynamoDB::Table": "table",
    "AWS::Events::Archive": "archive",
    "AWS::KMS::Key": "key",
    "AWS::Logs::LogGroup": "log group",
    "AWS::S3::Bucket": "bucket",
    "AWS::SQS::Queue": "queue",
}
"""Type to what people call it: resources that cannot be made again as they were."""
HOLDS_NOTHING: Final = frozenset(
    ("AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy",
     "AWS::CloudFormation::WaitConditionHandle", "AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard",
     "AWS::EC2::VPCEndpoint", "AWS::Events::EventBus", "AWS::Events::EventBusPolicy", "AWS::Events::Rule",
     "AWS::IAM::Role", "AWS::KMS::Alias", "AWS::Lambda::EventInvokeConfig", "AWS::Lambda::EventSourceMapping",
     "AWS::Lambda::Function", "AWS::Lambda::Permission", "AWS::Logs::ResourcePolicy", "AWS::S3::BucketPolicy",
     "AWS::SNS::Subscription", "AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy")
)  # fmt: skip
"""The other types that our specs render, and the one that stands for nothing in a template. A type that is in
neither may hold anything, and is treated so."""

_GONE: Final = frozenset(
    ("ResourceNotFoundException", "NotFoundException", "QueueDoesNotExist",
     "AWS.SimpleQueueService.NonExistentQueue", "NoSuchBucket", "NotFound", "404")
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Why a resource should not be deleted: a line for people. `refused` says that CloudFormation cannot delete
    it, whatever is forced; `protected` that it is a table with deletion protection."""

    physical_id: str
    reason: str
    refused: bool = False
    protected: bool = False


class Inspector:
    """Looks into resources; its clients are opened when they are needed first."""

    def __init__(self, stack: AsyncExitStack, config: AwsConfig, session: Any) -> None:
        self._stack = stack
        self._config = config
        self._session = session
        self._clients: dict[str, ControlClient] = {}

    async def client(self, service: str) -> ControlClient:
        if service not in self._clients:
            opened = open_control(self._config, service, session=self._session)
            self._clients[service] = await self._stack.enter_async_context(opened)
        return self._clients[service]

    async def holdings(self, kind: str, physical_id: str) -> Sequence[Holding]:
        """What speaks against deleting a resource; nothing for types that hold nothing, and for what is gone.

        What cannot be looked into is told as such: it may hold anything.
        """
        if kind in HOLDS_NOTHING:
            return ()
        if kind not in _LOOKS:
            what = HOLDS_DATA.get(kind, kind)
            reason = f"{what} {physical_id} could not be looked into: it may hold anything"
            return [Holding(physical_id=physical_id, reason=reason)]
        service, look = _LOOKS[kind]
        try:
            return await look(await self.client(service), physical_id)
        except ProvisioningError as error:
            if error.code in _GONE:
                return ()
            return [Holding(physical_id=physical_id, reason=f"{physical_id} could not be looked into: {error}")]


async def _look_at_table(dynamodb: ControlClient, table: str) -> list[Holding]:
    found = []
    described = await dynamodb.call("DescribeTable", TableName=table)
    if described["Table"].get("DeletionProtectionEnabled"):
        found.append(Holding(physical_id=table, reason=f"table {table} has deletion protection", protected=True))
    if (await dynamodb.call("Scan", TableName=table, Limit=1, ConsistentRead=True))["Count"]:
        found.append(Holding(physical_id=table, reason=f"table {table} has items"))
    return found


async def _look_at_queue(sqs: ControlClient, url: str) -> list[Holding]:
    names = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
    answer = await sqs.call("GetQueueAttributes", QueueUrl=url, AttributeNames=names)
    count = sum(int(answer.get("Attributes", {}).get(name, 0)) for name in names)
    name = url.rpartition("/")[2]
    return [Holding(physical_id=url, reason=f"queue {name} has about {count} messages")] if count else []


async def _look_at_bucket(s3: ControlClient, bucket: str) -> list[Holding]:
    # Old versions and delete markers keep a bucket from being deleted as objects do.
    found = await s3.call("ListObjectVersions", Bucket=bucket, MaxKeys=1)
    if not found.get("Versions") and not found.get("DeleteMarkers"):
        return []
    reason = f"bucket {bucket} has objects (or old versions): CloudFormation cannot delete it until it is emptied"
    return [Holding(physical_id=bucket, reason=reason, refused=True)]


async def _look_at_archive(events: ControlClient, archive: str) -> list[Holding]:
    # EventBridge counts with a delay: an archive that is young may hold events that are not counted.
    count = (await events.call("DescribeArchive", ArchiveName=archive)).get("EventCount", 0)
    return [Holding(physical_id=archive, reason=f"archive {archive} has {count} events")] if count else []


async def _look_at_key(kms: ControlClient, key: str) -> list[Holding]:
    state = (await kms.call("DescribeKey", KeyId=key))["KeyMetadata"]["KeyState"]
    if state.startswith("Pending"):
        return []
    return [Holding(physical_id=key, reason=f"key {key} is needed to read what it has encrypted")]


async def _look_at_log_group(logs: ControlClient, group: str) -> list[Holding]:
    found = await logs.call("DescribeLogStreams", logGroupName=group, limit=1)
    return [Holding(physical_id=group, reason=f"log group {group} has logs")] if found["logStreams"] else []


_LOOKS: Final[Mapping[str, tuple[str, Callable[[ControlClient, str], Awaitable[list[Holding]]]]]] = {
    "AWS::DynamoDB::Table": ("dynamodb", _look_at_table),
    "AWS::DynamoDB::GlobalTable": ("dynamodb", _look_at_table),
    "AWS::SQS::Queue": ("sqs", _look_at_queue),
    "AWS::S3::Bucket": ("s3", _look_at_bucket),
    "AWS::Events::Archive": ("events", _look_at_archive),
    "AWS::KMS::Key": ("kms", _look_at_key),
    "AWS::Logs::LogGroup": ("logs", _look_at_log_group),
}
