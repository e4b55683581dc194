"""KMS keys of your own, and the AWS services that may use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from pydantic import Field, ValidationInfo, field_validator

from oms_events.provisioning.specs.base import (
    Json,
    Resource,
    ResourceSpec,
    Scope,
    Spec,
    substituted,
    substituted_within,
)
from oms_events.provisioning.specs.permissions import Conditions, condition_block
from oms_events.provisioning.specs.policies import policy_document, service_of

_ALIAS: Final = re.compile(r"(?!aws/)[A-Za-z0-9/_-]{1,250}")
_LOGS: Final = "logs"
_EVENTS: Final = "events"
_USE: Final = ("kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*")
_MORE_USE: Final = {_EVENTS: (*_USE, "kms:ReEncrypt*"), _LOGS: (*_USE, "kms:Encrypt", "kms:ReEncrypt*")}
"""EventBridge encrypts archives anew (user guide, "Encrypting archives"), as Logs does its groups."""

_ALL_USE: Final = (
    *_MORE_USE[_LOGS],
    "kms:CreateGrant",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)
"""What services do with a key; all else administers it, which is the account's."""

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

    It may encrypt, decrypt, make data keys and grants, and look at the key; it may not administer it.

    Those are: for CloudWatch Logs (`logs.${AWS::Region}.amazonaws.com`) the log groups of this account; for
    EventBridge none, because what it sends to queues and topics with the key carries no source, and a condition
    would lose it silently (SNS guide, "Key management"); for all others the own account as `aws:SourceAccount`.
    """

    service: str
    actions: tuple[str, ...] = ()
    conditions: Conditions | None = None

    def statement(self, scope: Scope) -> Json:
        """What stands for it in the key's policy."""
        service = service_of(self.service)
        statement: dict[str, Json] = {
            "Effect": "Allow",
            "Principal": {"Service": substituted(self.service)},
            "Action": list(self.actions or _MORE_USE.get(service, _USE)),
            "Resource": "*",
        }
        if self.conditions:
            statement["Condition"] = condition_block(self.conditions, scope)
        elif service != _EVENTS:
            statement["Condition"] = substituted_within(_OWN_LOG_GROUPS if service == _LOGS else _OWN_ACCOUNT)
        return statement

    @field_validator("service")
    @classmethod
    def _check_service(cls, service: str) -> str:
        if service_of(service) == _LOGS and service.startswith(f"{_LOGS}.amazonaws."):
            raise ValueError("CloudWatch Logs uses keys as logs.${AWS::Region}.amazonaws.com; write that")
        return service

    @field_validator("actions")
    @classmethod
    def _check_actions(cls, actions: tuple[str, ...]) -> tuple[str, ...]:
        for action in actions:
            if action not in _ALL_USE:
                raise ValueError(f"{action!r} is not for services; take of {', '.join(sorted(_ALL_USE))}")
        return actions

    @field_validator("conditions")
    @classmethod
    def _check_conditions(cls, conditions: Conditions | None, info: ValidationInfo) -> Conditions | None:
        service = info.data.get("service")
        if conditions == {} and service is not None and service_of(service) != _EVENTS:
            raise ValueError("is empty, and would let the service use the key for any account; leave it out")
        return conditions


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
            "KeyPolicy": policy_document([administration, *(user.statement(scope) for user in self.users)]),
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
