"""Log groups, and who may write to them on behalf of EventBridge rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from pydantic import field_validator

from oms_events.provisioning.specs.base import Grant, Json, KeyArn, Resource, ResourceSpec, Scope, substituted
from oms_events.provisioning.specs.policies import policy_document, source_condition
from oms_events.provisioning.specs.texts import json_text

RETENTION_DAYS: Final = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
"""What CloudWatch Logs takes (API reference, PutRetentionPolicy)."""

DEFAULT_RETENTION_DAYS: Final = 30

_NAME: Final = re.compile(r"[./_#A-Za-z0-9-]{1,512}")
_POLICY_NAME_LENGTH: Final = 255


class LogGroupSpec(ResourceSpec):
    """A CloudWatch log group, encrypted by CloudWatch Logs, or with `kms_key`, whose policy must allow that.

    `key` is by default the name with '-' for its slashes. The ARN that it returns ends with `:*`, as policies want
    it. As the target of rules it takes one of the ten resource policies that an account has per Region
    (CloudWatch Logs quotas).
    """

    kind: ClassVar[str] = "log_group"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    retention_days: int = DEFAULT_RETENTION_DAYS
    kms_key: KeyArn | None = None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        properties: dict[str, Json] = {
            "LogGroupName": self.name,
            "RetentionInDays": self.retention_days,
            "KmsKeyId": None if self.kms_key is None else scope.resolve(self.kms_key),
        }
        made = Resource(
            type="AWS::Logs::LogGroup", properties=properties, deletion_policy="Delete", replace_policy="Retain"
        )
        return {self.logical_id: made}

    def granted(self, grants: Sequence[Grant], scope: Scope) -> dict[str, Resource]:
        if not grants:
            return {}
        services = dict.fromkeys(grant.principal for grant in grants)
        common = {
            "Effect": "Allow",
            "Principal": {"Service": [*services, "delivery.logs.amazonaws.com"]},
            "Resource": substituted(log_group_arn(self.name)),
        }
        document = policy_document(
            [
                # The request that makes a stream does not name the rule; with the condition it would be refused
                # (aws-samples/serverless-patterns, pull request 618).
                {"Sid": "MakeStreams", "Action": "logs:CreateLogStream", **common},
                {
                    "Sid": "WriteEvents",
                    "Action": "logs:PutLogEvents",
                    **common,
                    "Condition": source_condition(grants),
                },
            ]
        )
        properties = {
            "PolicyName": self.name.strip("/")[:_POLICY_NAME_LENGTH],
            "PolicyDocument": json_text(document),
        }
        return {f"{self.logical_id}Policy": Resource(type="AWS::Logs::ResourcePolicy", properties=properties)}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None or not name.strip("/"):
            raise ValueError("a log group's name is 1 to 512 letters, digits, '.', '/', '_', '#' and '-'")
        if name.startswith("aws/"):
            raise ValueError("names that begin with 'aws/' belong to AWS; begin with '/'")
        return name

    @field_validator("retention_days")
    @classmethod
    def _check_retention(cls, days: int) -> int:
        return check_retention(days)


def log_group_arn(name: str) -> str:
    """The ARN of a log group of this account and Region, with all its streams, for statements of policies."""
    return f"arn:${{AWS::Partition}}:logs:${{AWS::Region}}:${{AWS::AccountId}}:log-group:{name}:*"


def check_retention(days: int) -> int:
    """Days that CloudWatch Logs can keep logs. Raises `ValueError`."""
    if days not in RETENTION_DAYS:
        allowed = ", ".join(str(each) for each in RETENTION_DAYS)
        raise ValueError(f"CloudWatch Logs keeps logs for one of {allowed} days")
    return days
