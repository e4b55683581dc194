"""KMS keys of your own, and the AWS services that may use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import Json, Resource, ResourceSpec, Scope, Spec, substituted
from oms_events.provisioning.specs.policies import policy_document

_ALIAS: Final = re.compile(r"(?!aws/)[A-Za-z0-9/_-]{1,250}")
_SERVICE: Final = re.compile(r"[a-z0-9.-]+(?:\$\{AWS::Region\}[a-z0-9.-]*)?\.amazonaws\.com")
_ACTION: Final = re.compile(r"kms:[A-Za-z]+\*?")
_USE: Final = ("kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*")
_LOGS: Final = "logs."
_LOGS_USE: Final = ("kms:Decrypt*", "kms:Describe*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*")
_EVENTS: Final = "events.amazonaws.com"
_OWN_LOG_GROUPS: Final = {
    "ArnLike": {
        "kms:EncryptionContext:aws:logs:arn": (
            "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:*"
        )
    }
}
_OWN_ACCOUNT: Final = {"StringEquals": {"aws:SourceAccount": "${AWS::AccountId}"}}


class KeyUseSpec(Spec):
    """A service that may use a key, for the actions and under the conditions that it documents unless given.

    Those are: for CloudWatch Logs (`logs.${AWS::Region}.amazonaws.com`) the log groups of this account; for
    EventBridge none, because what it sends to queues and topics with the key carries no source, and a condition
    would lose it silently (SNS guide, "Key management"); for all others the own account as `aws:SourceAccount`.
    """

    service: str
    actions: tuple[str, ...] = ()
    conditions: Mapping[str, Mapping[str, Any]] | None = None

    def statement(self) -> Json:
        is_logs = self.service.startswith(_LOGS)
        conditions = self.conditions
        if conditions is None and self.service != _EVENTS:
            conditions = _OWN_LOG_GROUPS if is_logs else _OWN_ACCOUNT
        statement: dict[str, Json] = {
            "Effect": "Allow",
            "Principal": {"Service": substituted(self.service)},
            "Action": list(self.actions or (_LOGS_USE if is_logs else _USE)),
            "Resource": "*",
        }
        if conditions:
            statement["Condition"] = _resolved(conditions)
        return statement

    @field_validator("service")
    @classmethod
    def _check_service(cls, service: str) -> str:
        if _SERVICE.fullmatch(service) is None:
            raise ValueError("is no service; write one such as events.amazonaws.com")
        return service

    @field_validator("actions")
    @classmethod
    def _check_actions(cls, actions: tuple[str, ...]) -> tuple[str, ...]:
        for action in actions:
            if _ACTION.fullmatch(action) is None:
                raise ValueError(f"{action!r}: write actions of KMS such as kms:Decrypt or kms:GenerateDataKey*")
        return actions


class KeySpec(ResourceSpec):
    """A symmetric KMS key with the alias `alias/<name>`, which turns over by itself.

    Its policy lets the account's administrators decide by IAM who uses it, and `users` use it at once; in a key's
    policy the resource `*` is the key itself. A stack that goes leaves it for `deletion_days`, in which it can be
    brought back: what it encrypted is lost after that. Limits: KMS API reference, CreateKey.
    """

    kind: ClassVar[str] = "key"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "id": "Ref"}

    description: str | None = Field(default=None, max_length=8192)
    users: tuple[KeyUseSpec, ...] = ()
    rotation_days: int = Field(default=365, ge=90, le=2560)
    deletion_days: int = Field(default=30, ge=7, le=30)

    def resources(self, scope: Scope) -> dict[str, Resource]:
        administration = {
            "Sid": "Administration",
            "Effect": "Allow",
            "Principal": {"AWS": substituted("arn:${AWS::Partition}:iam::${AWS::AccountId}:root")},
            "Action": "kms:*",
            "Resource": "*",
        }
        properties: dict[str, Json] = {
            "Description": self.description,
            "KeyPolicy": policy_document([administration, *(user.statement() for user in self.users)]),
            "EnableKeyRotation": True,
            "RotationPeriodInDays": self.rotation_days,
            "PendingWindowInDays": self.deletion_days,
        }
        alias = {"AliasName": f"alias/{self.name}", "TargetKeyId": self.value_of("id")}
        return {
            self.logical_id: Resource(
                type="AWS::KMS::Key", properties=properties, deletion_policy="Delete", replace_policy="Retain"
            ),
            f"{self.logical_id}Alias": Resource(type="AWS::KMS::Alias", properties=alias),
        }

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _ALIAS.fullmatch(name) is None:
            raise ValueError(
                "an alias is up to 250 letters, digits, '/', '_' and '-', without 'alias/'; 'aws/' belongs to AWS"
            )
        return name


def _resolved(value: Any) -> Json:
    if isinstance(value, Mapping):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item) for item in value]
    return substituted(value) if isinstance(value, str) else value
