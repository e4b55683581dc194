"""Whether AWS takes the policies of a template, which it counts only once CloudFormation has filled them in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from oms_events.provisioning.circles import VARIABLE
from oms_events.provisioning.specs.base import Json, Resource

_QUEUE: Final = 8192
"""SQS quotas, "Amazon SQS policy quotas"."""

_TOPIC: Final = 30_720
"""SNS guide, "Amazon SNS API permissions", policy quotas."""

_INLINE: Final = 10_240
"""IAM quotas: the inline policies of a role together."""

_TRUST: Final = 2048
"""IAM quotas, "Role trust policy length"."""

_KEY: Final = 32_768
"""KMS quotas, "Key policy document size"."""

_LOGS: Final = 5120
"""CloudWatch Logs API reference, PutResourcePolicy: policyDocument."""

_LIMITS: Final[Mapping[tuple[str, str], tuple[int, str]]] = {
    ("AWS::SQS::QueuePolicy", "PolicyDocument"): (_QUEUE, "let fewer use it, and split it into more queues"),
    ("AWS::SNS::TopicPolicy", "PolicyDocument"): (_TOPIC, "let fewer use it, and split it into more topics"),
    ("AWS::Logs::ResourcePolicy", "PolicyDocument"): (
        _LOGS,
        "let fewer rules use it, and split it into more log groups",
    ),
    ("AWS::KMS::Key", "KeyPolicy"): (_KEY, "split it into more keys"),
    ("AWS::IAM::Role", "Policies"): (_INLINE, "split the role, or put statements into managed_policies"),
    ("AWS::IAM::Role", "AssumeRolePolicyDocument"): (_TRUST, "split the role, each with a part of `trust`"),
}

_AT: Final = "ap-southeast-1:123456789012"
_PSEUDO: Final[Mapping[str, str]] = {
    "AWS::Partition": "aws-us-gov",
    "AWS::Region": "ap-southeast-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com.cn",
    "AWS::StackName": "x" * 128,
}
"""As long as they are anywhere."""

_ARNS: Final[Mapping[str, str]] = {
    "AWS::CloudWatch::Alarm": f"cloudwatch:{_AT}:alarm:{{AlarmName}}",
    "AWS::DynamoDB::Table": f"dynamodb:{_AT}:table/{{TableName}}",
    "AWS::Events::Archive": f"events:{_AT}:archive/{{ArchiveName}}",
    "AWS::Events::EventBus": f"events:{_AT}:event-bus/{{Name}}",
    "AWS::Events::Rule": f"events:{_AT}:rule/{{EventBusName}}/{{Name}}",
    "AWS::IAM::Role": "iam::123456789012:role/{RoleName}",
    "AWS::Lambda::Function": f"lambda:{_AT}:function:{{FunctionName}}",
    "AWS::Logs::LogGroup": f"logs:{_AT}:log-group:{{LogGroupName}}:*",
    "AWS::S3::Bucket": "s3:::{BucketName}",
    "AWS::SNS::Topic": f"sns:{_AT}:{{TopicName}}",
    "AWS::SQS::Queue": f"sqs:{_AT}:{{QueueName}}",
}
"""Type to its ARN; for all others it is as long as that of a key."""

_OTHER_ARN: Final = f"kms:{_AT}:key/{{KeyId}}"
_NO_NAME: Final = "x" * 63
"""A name that CloudFormation makes up, at its longest, for a bucket."""

_STREAM: Final = "/stream/2026-01-01T00:00:00.000"
_PLACE: Final = re.compile(r"\{(\w+)\}")


def size_problems(resources: Mapping[str, Resource]) -> Iterator[str]:
    """What is wrong with the policies' sizes, if anything, as they are in the partition where ARNs are longest."""
    for logical_id, resource in resources.items():
        for (type_, field), (limit, remedy) in _LIMITS.items():
            policies = resource.properties.get(field) if resource.type == type_ else None
            if policies is None:
                continue
            # A role has a list of them, each with its name.
            parts = [each["PolicyDocument"] for each in policies] if isinstance(policies, list) else [policies]
            size = sum(len(_text(_filled(part, resources))) for part in parts)
            if size > limit:
                yield f"{logical_id}: {field} has up to {size} bytes, and AWS takes {limit}; {remedy}"


def _text(policy: Json) -> bytes:
    return policy.encode() if isinstance(policy, str) else orjson.dumps(policy)


def _filled(value: Json, resources: Mapping[str, Resource]) -> Json:
    """The value with text, of the greatest length, in place of intrinsic functions."""
    if isinstance(value, Mapping):
        match dict(value):
            case {"Ref": name}:
                return _returned(name, "Ref", resources)
            case {"Fn::GetAtt": [name, attribute]}:
                return _returned(name, attribute, resources)
            case {"Fn::Sub": [text, variables]}:
                return _substituted(text, variables, resources)
            case {"Fn::Sub": text}:
                return _substituted(text, {}, resources)
        return {key: _filled(item, resources) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, resources) for item in value]
    return value


def _substituted(text: str, variables: Mapping[str, Json], resources: Mapping[str, Resource]) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[1] in variables:
            return str(_filled(variables[found[1]], resources))
        name, _, attribute = found[1].partition(".")
        return _returned(name, attribute or "Ref", resources)

    return VARIABLE.sub(fill, text).replace("${!", "${")


def _returned(name: str, attribute: str, resources: Mapping[str, Resource]) -> str:
    if name in _PSEUDO:
        return _PSEUDO[name]
    resource = resources[name]
    arn = _ARNS.get(resource.type, _OTHER_ARN)
    fields: list[str] = _PLACE.findall(arn)
    values = {field: str(_filled(resource.properties.get(field) or _NO_NAME, resources)) for field in fields}
    if attribute.endswith("Arn") or (resource.type, attribute) == ("AWS::SNS::Topic", "Ref"):
        stream = _STREAM if attribute == "StreamArn" else ""
        return f"arn:{_PSEUDO['AWS::Partition']}:{arn.format_map(values)}{stream}"
    return values[fields[-1]]
