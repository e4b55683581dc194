"""Properties that the emulator's CloudFormation takes and forgets, and what sets them instead. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from oms_events.devstack.supplies import Json, Properties, Request, Supply


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


def _lifecycle(bucket: str, value: Json) -> Supply:
    asked = {
        "Bucket": bucket,
        "LifecycleConfiguration": {"Rules": [_lifecycle_rule(rule) for rule in value["Rules"]]},
    }
    return Supply(
        make=Request("s3", "PutBucketLifecycleConfiguration", asked),
        undo=Request("s3", "DeleteBucketLifecycle", {"Bucket": bucket}),
    )


def _lifecycle_rule(said: Properties) -> Json:
    """The rule as the API has it, without transitions to other storage classes, which the emulator does not do."""
    same = ("Status", "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration")
    rule: dict[str, Json] = {name: said[name] for name in same if name in said}
    rule["Filter"] = {"Prefix": said.get("Prefix", "")}
    if "Id" in said:
        rule["ID"] = said["Id"]
    if "ExpirationInDays" in said:
        rule["Expiration"] = {"Days": said["ExpirationInDays"]}
    return rule


def _ownership(bucket: str, value: Json) -> Supply:
    of = {"Bucket": bucket}
    return Supply(
        make=Request("s3", "PutBucketOwnershipControls", {**of, "OwnershipControls": value}),
        undo=Request("s3", "DeleteBucketOwnershipControls", of),
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
        "LifecycleConfiguration": _lifecycle,
        "LoggingConfiguration": None,
        "ObjectLockConfiguration": None,
        "OwnershipControls": _ownership,
        "ReplicationConfiguration": None,
        "Tags": None,
    },
    "AWS::Lambda::EventSourceMapping": {"KmsKeyArn": None, "MetricsConfig": None, "Tags": None},
    "AWS::Logs::LogGroup": {"DataProtectionPolicy": None, "FieldIndexPolicies": None},
}
"""Properties that it takes and forgets, with what supplies them from the resource's physical id and the value."""
