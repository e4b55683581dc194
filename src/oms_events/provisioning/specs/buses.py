"""Event buses, who else may put events on them, and their archives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import Field, field_validator, model_validator

from oms_events.provisioning.specs.base import (
    BusArn,
    Grant,
    Json,
    JsonObject,
    KeyArn,
    QueueArn,
    Resource,
    ResourceSpec,
    Scope,
    substituted_within,
)
from oms_events.provisioning.specs.patterns import check_pattern

EVENTS_SERVICE: Final = "events.amazonaws.com"

_BUS_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,256}")
_MAX_ARCHIVE_NAME: Final = 48
_ARCHIVE_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_ACCOUNT: Final = re.compile(r"\d{12}")


class EventBusSpec(ResourceSpec):
    """A custom event bus, encrypted; other accounts may put events on it when they are named.

    `dead_letter` gets events that the bus could not encrypt or hand to its rules; a target's own dead-letter queue
    stands with the target. Names as in the EventBridge API reference, CreateEventBus.
    """

    kind: ClassVar[str] = "bus"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    description: str | None = Field(default=None, max_length=512)
    kms_key: KeyArn | None = None
    """A key of your own; its policy must let `events.amazonaws.com` use it. EventBridge's own key without."""
    dead_letter: QueueArn | None = None
    allowed_accounts: tuple[str, ...] = ()
    """Accounts whose identities may put events on this bus, each as far as its own policies allow."""
    allowed_sources: tuple[str, ...] = ()
    """The event sources that those accounts may use; any without."""

    def resources(self, scope: Scope) -> dict[str, Resource]:
        dead_letter = None if self.dead_letter is None else {"Arn": scope.resolve(self.dead_letter)}
        properties: dict[str, Json] = {
            "Name": self.name,
            "Description": self.description,
            "KmsKeyIdentifier": None if self.kms_key is None else scope.resolve(self.kms_key),
            "DeadLetterConfig": dead_letter,
        }
        made = {self.logical_id: Resource(type="AWS::Events::EventBus", properties=properties)}
        for account in self.allowed_accounts:
            made[f"{self.logical_id}Allow{account}"] = self._policy(account)
        return made

    def grants(self, scope: Scope) -> Iterator[Grant]:
        if self.dead_letter is not None:
            yield Grant(
                to=self.dead_letter,
                principal=EVENTS_SERVICE,
                actions=("sqs:SendMessage",),
                source=self.value_of("arn"),
            )

    def _policy(self, account: str) -> Resource:
        statement: dict[str, Json] = {
            "Effect": "Allow",
            "Principal": {"AWS": {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::{account}:root"}},
            "Action": "events:PutEvents",
            "Resource": self.value_of("arn"),
        }
        if self.allowed_sources:
            statement["Condition"] = {"StringEquals": {"events:source": list(self.allowed_sources)}}
        properties = {
            "EventBusName": self.value_of("name"),
            "StatementId": f"put-events-{account}",
            "Statement": {"Sid": f"put-events-{account}", **statement},
        }
        return Resource(type="AWS::Events::EventBusPolicy", properties=properties)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _BUS_NAME.fullmatch(name) is None or name == "default":
            raise ValueError(
                "a custom bus's name is 1 to 256 letters, digits, '.', '-' and '_', and not 'default', which "
                "every account has"
            )
        return name

    @field_validator("allowed_accounts")
    @classmethod
    def _check_accounts(cls, accounts: tuple[str, ...]) -> tuple[str, ...]:
        for account in accounts:
            if _ACCOUNT.fullmatch(account) is None:
                raise ValueError(f"{account!r} is no account: write its 12 digits as text")
        if len(set(accounts)) < len(accounts):
            raise ValueError("an account stands twice; name each once")
        return accounts

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if self.allowed_sources and not self.allowed_accounts:
            raise ValueError("allowed_sources needs allowed_accounts: it limits what other accounts send")
        return self


class ArchiveSpec(ResourceSpec):
    """An archive of a bus's events, of all or of those that `pattern` matches; the service can replay them.

    `retention_days` 0 keeps them for ever. Limits: EventBridge API reference, CreateArchive.
    """

    kind: ClassVar[str] = "archive"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    bus: BusArn
    """The bus's ARN: `bus.arn` of an EventBusSpec."""
    pattern: JsonObject | None = None
    retention_days: int = Field(default=0, ge=0, le=36_500)
    description: str | None = Field(default=None, max_length=512)
    kms_key: KeyArn | None = None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        properties: dict[str, Json] = {
            "ArchiveName": self.name,
            "SourceArn": scope.resolve(self.bus),
            "EventPattern": substituted_within(self.pattern),
            "RetentionDays": self.retention_days,
            "Description": self.description,
            "KmsKeyIdentifier": None if self.kms_key is None else scope.resolve(self.kms_key),
        }
        made = Resource(
            type="AWS::Events::Archive", properties=properties, deletion_policy="Delete", replace_policy="Retain"
        )
        return {self.logical_id: made}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _ARCHIVE_NAME.fullmatch(name) is None or len(name) > _MAX_ARCHIVE_NAME:
            remedy = "shorten it" if len(name) > _MAX_ARCHIVE_NAME else "change it"
            raise ValueError(
                f"an archive's name is 1 to {_MAX_ARCHIVE_NAME} letters, digits, '.', '-' and '_'; {remedy}"
            )
        return name

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, pattern: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        return None if pattern is None else check_pattern(pattern)
