"""What the emulator's CloudFormation refuses or drops, and the calls of the services that supply it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Any
Properties = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a service: its operation, and the parameters under AWS's names."""

    service: str
    operation: str
    parameters: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Supply:
    """How a thing is made, and undone; `change` is called instead of `make` where it exists already."""

    make: Request
    undo: Request
    change: Request | None = None


@dataclass(frozen=True, slots=True)
class RefusedType:
    """A resource type that makes the emulator refuse the whole template.

    `name` is the property that names the resource, `arn` its ARN up to that name; `supply` is None where the
    emulator lacks the service as well.
    """

    name: str = ""
    arn: str = ""
    supply: Callable[[Properties], Supply] | None = None


def _archive(said: Properties) -> Supply:
    pattern = said.get("EventPattern") or ""
    name = {"ArchiveName": said["ArchiveName"]}
    asked = {
        **name,
        # What is not said is sent as nothing, or an update would leave what was there.
        "Description": said.get("Description", ""),
        "EventPattern": pattern if isinstance(pattern, str) else json.dumps(pattern),
        "RetentionDays": said.get("RetentionDays", 0),
        "KmsKeyIdentifier": said.get("KmsKeyIdentifier", ""),
    }
    return Supply(
        make=Request("events", "CreateArchive", {**asked, "EventSourceArn": said["SourceArn"]}),
        change=Request("events", "UpdateArchive", asked),
        undo=Request("events", "DeleteArchive", name),
    )


def _connection(said: Properties) -> Supply:
    return Supply(
        make=Request("events", "CreateConnection", said),
        change=Request("events", "UpdateConnection", said),
        undo=Request("events", "DeleteConnection", {"Name": said["Name"]}),
    )


def _api_destination(said: Properties) -> Supply:
    return Supply(
        make=Request("events", "CreateApiDestination", said),
        change=Request("events", "UpdateApiDestination", said),
        undo=Request("events", "DeleteApiDestination", {"Name": said["Name"]}),
    )


def _bus_policy(said: Properties) -> Supply:
    statement = said.get("Statement") or said
    where = {"EventBusName": said.get("EventBusName", "default"), "StatementId": said["StatementId"]}
    principal = statement["Principal"]
    if isinstance(principal, Mapping):
        principal = principal["AWS"]
    asked = {**where, "Action": statement["Action"], "Principal": _account_of(principal)}
    if condition := _condition(statement.get("Condition")):
        asked["Condition"] = condition
    return Supply(
        make=Request("events", "PutPermission", asked), undo=Request("events", "RemovePermission", where)
    )


def _account_of(principal: str) -> str:
    return principal.split(":")[4] if principal.startswith("arn:") else principal


def _condition(said: Json) -> Json:
    # PutPermission takes one condition with one value: the others are for CloudFormation alone.
    if said is None or "Type" in said:
        return said
    found = [(kind, key, value) for kind, keys in said.items() for key, value in keys.items()]
    kind, key, value = found[0]
    values = value if isinstance(value, list) else [value]
    return {"Type": kind, "Key": key, "Value": values[0]} if len(found) == len(values) == 1 else None


def _composite_alarm(said: Properties) -> Supply:
    return Supply(make=Request("cloudwatch", "PutCompositeAlarm", said), undo=_without_alarm(said))


def _metric_alarm(said: Properties) -> Supply:
    return Supply(make=Request("cloudwatch", "PutMetricAlarm", said), undo=_without_alarm(said))


def _without_alarm(said: Properties) -> Request:
    return Request("cloudwatch", "DeleteAlarms", {"AlarmNames": [said["AlarmName"]]})


_EVENTS: Final = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}"
_ALARM: Final = "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:"

REFUSED: Final[Mapping[str, RefusedType]] = {
    "AWS::Events::Connection": RefusedType("Name", f"{_EVENTS}:connection/", _connection),
    "AWS::Events::ApiDestination": RefusedType("Name", f"{_EVENTS}:api-destination/", _api_destination),
    "AWS::Events::Archive": RefusedType("ArchiveName", f"{_EVENTS}:archive/", _archive),
    "AWS::Events::EventBusPolicy": RefusedType("StatementId", "", _bus_policy),
    "AWS::Events::Endpoint": RefusedType(),
    "AWS::CloudWatch::CompositeAlarm": RefusedType("AlarmName", _ALARM, _composite_alarm),
    "AWS::CloudWatch::AnomalyDetector": RefusedType(),
    "AWS::CloudWatch::MetricStream": RefusedType(),
    "AWS::ApplicationAutoScaling::ScalableTarget": RefusedType(),
    "AWS::ApplicationAutoScaling::ScalingPolicy": RefusedType(),
    "AWS::EventSchemas::Discoverer": RefusedType(),
    "AWS::Logs::Delivery": RefusedType(),
    "AWS::Logs::DeliveryDestination": RefusedType(),
    "AWS::Logs::DeliverySource": RefusedType(),
    "AWS::Logs::QueryDefinition": RefusedType(),
}
"""Types that it does not know, in the order in which they are made."""

_MATH_ALARM: Final = RefusedType("AlarmName", _ALARM, _metric_alarm)


def refused_type(kind: str, properties: Properties) -> RefusedType | None:
    """Why a resource must be left out as a whole; None where it may stay."""
    if kind == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
        return _MATH_ALARM
    return REFUSED.get(kind)


def _of_bus(name: str, empty: Json) -> Callable[[str, Json], Supply]:
    return lambda bus, value: Supply(
        make=Request("events", "UpdateEventBus", {"Name": bus, name: value}),
        undo=Request("events", "UpdateEventBus", {"Name": bus, name: empty}),
    )


def _time_to_live(table: str, value: Json) -> Supply:
    off = {**value, "Enabled": False}
    return Supply(
        make=Request("dynamodb", "UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": value}),
        undo=Request("dynamodb", "UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": off}),
    )


def _recovery(table: str, value: Json) -> Supply:
    off = {"PointInTimeRecoveryEnabled": False}
    of = {"TableName": table}
    return Supply(
        make=Request("dynamodb", "UpdateContinuousBackups", {**of, "PointInTimeRecoverySpecification": value}),
        undo=Request("dynamodb", "UpdateContinuousBackups", {**of, "PointInTimeRecoverySpecification": off}),
    )


def _encryption(table: str, value: Json) -> Supply:
    # CloudFormation says SSEEnabled, the API says Enabled.
    asked = {("Enabled" if name == "SSEEnabled" else name): item for name, item in value.items()}
    return Supply(
        make=Request("dynamodb", "UpdateTable", {"TableName": table, "SSESpecification": asked}),
        undo=Request("dynamodb", "UpdateTable", {"TableName": table, "SSESpecification": {"Enabled": False}}),
    )


def _table_class(table: str, value: Json) -> Supply:
    return Supply(
        make=Request("dynamodb", "UpdateTable", {"TableName": table, "TableClass": value}),
        undo=Request("dynamodb", "UpdateTable", {"TableName": table, "TableClass": "STANDARD"}),
    )


def _concurrency(function: str, value: Json) -> Supply:
    of = {"FunctionName": function}
    return Supply(
        make=Request("lambda", "PutFunctionConcurrency", {**of, "ReservedConcurrentExecutions": value}),
        undo=Request("lambda", "DeleteFunctionConcurrency", of),
    )


def _of_function(name: str, empty: Json) -> Callable[[str, Json], Supply]:
    return lambda function, value: Supply(
        make=Request("lambda", "UpdateFunctionConfiguration", {"FunctionName": function, name: value}),
        undo=Request("lambda", "UpdateFunctionConfiguration", {"FunctionName": function, name: empty}),
    )


def _of_topic(name: str, empty: str) -> Callable[[str, Json], Supply]:
    def supply(topic: str, value: Json) -> Supply:
        of = {"TopicArn": topic, "AttributeName": name}
        text = value if isinstance(value, str) else json.dumps(value)
        return Supply(
            make=Request("sns", "SetTopicAttributes", {**of, "AttributeValue": text}),
            undo=Request("sns", "SetTopicAttributes", {**of, "AttributeValue": empty}),
        )

    return supply


def _boundary(role: str, value: Json) -> Supply:
    return Supply(
        make=Request("iam", "PutRolePermissionsBoundary", {"RoleName": role, "PermissionsBoundary": value}),
        undo=Request("iam", "DeleteRolePermissionsBoundary", {"RoleName": role}),
    )


def _bucket_encryption(bucket: str, value: Json) -> Supply:
    # CloudFormation says ServerSideEncryptionByDefault, the API says ApplyServerSideEncryptionByDefault.
    said = "ServerSideEncryptionByDefault"
    rules = [
        {(f"Apply{name}" if name == said else name): item for name, item in rule.items()}
        for rule in value["ServerSideEncryptionConfiguration"]
    ]
    asked = {"Bucket": bucket, "ServerSideEncryptionConfiguration": {"Rules": rules}}
    return Supply(
        make=Request("s3", "PutBucketEncryption", asked),
        undo=Request("s3", "DeleteBucketEncryption", {"Bucket": bucket}),
    )


DROPPED: Final[Mapping[str, Mapping[str, Callable[[str, Json], Supply] | None]]] = {
    "AWS::Events::EventBus": {
        "DeadLetterConfig": _of_bus("DeadLetterConfig", {}),
        "KmsKeyIdentifier": _of_bus("KmsKeyIdentifier", ""),
        "LogConfig": _of_bus("LogConfig", {}),
        "Policy": None,
    },
    "AWS::DynamoDB::Table": {
        "TimeToLiveSpecification": _time_to_live,
        "PointInTimeRecoverySpecification": _recovery,
        "SSESpecification": _encryption,
        "TableClass": _table_class,
        "ContributorInsightsSpecification": None,
        "KinesisStreamSpecification": None,
        "OnDemandThroughput": None,
        "ResourcePolicy": None,
        "WarmThroughput": None,
    },
    "AWS::Lambda::Function": {
        "ReservedConcurrentExecutions": _concurrency,
        "DeadLetterConfig": _of_function("DeadLetterConfig", {"TargetArn": ""}),
        "KmsKeyArn": _of_function("KMSKeyArn", ""),
        "VpcConfig": _of_function("VpcConfig", {"SubnetIds": [], "SecurityGroupIds": []}),
        "CodeSigningConfigArn": None,
        "FileSystemConfigs": None,
        "RecursiveLoop": None,
        "RuntimeManagementConfig": None,
    },
    "AWS::SNS::Topic": {
        "KmsMasterKeyId": _of_topic("KmsMasterKeyId", ""),
        "SignatureVersion": _of_topic("SignatureVersion", "1"),
        "TracingConfig": _of_topic("TracingConfig", "PassThrough"),
        "ArchivePolicy": None,
        "ContentBasedDeduplication": None,
        "DataProtectionPolicy": None,
        "DeliveryStatusLogging": None,
        "FifoThroughputScope": None,
        "FifoTopic": None,
    },
    "AWS::IAM::Role": {"PermissionsBoundary": _boundary},
    "AWS::S3::Bucket": {
        "BucketEncryption": _bucket_encryption,
        "LifecycleConfiguration": None,
        "LoggingConfiguration": None,
        "ObjectLockConfiguration": None,
        "OwnershipControls": None,
        "ReplicationConfiguration": None,
        "Tags": None,
    },
    "AWS::Lambda::EventSourceMapping": {"KmsKeyArn": None, "MetricsConfig": None, "Tags": None},
    "AWS::Logs::LogGroup": {"DataProtectionPolicy": None, "FieldIndexPolicies": None},
}
"""Properties that it takes and forgets, with what supplies them from the resource's physical id and the value."""
