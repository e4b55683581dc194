"""SQS queues: for targets, for chunks of work, and for dead letters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import Grant, Json, KeyArn, QueueArn, Resource, ResourceSpec, Scope
from oms_events.provisioning.specs.policies import grant_statements, policy_document, tls_statement

MAX_RETENTION_SECONDS: Final = 1_209_600
"""14 days (SQS API reference, SetQueueAttributes: MessageRetentionPeriod)."""

_MIN_RETENTION_SECONDS: Final = 60

MAX_MESSAGE_BYTES: Final = 1_048_576
"""SQS quotas: message size."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
_FIFO: Final = ".fifo"


class QueueSpec(ResourceSpec):
    """An SQS queue, encrypted, that refuses everybody who does not come over TLS.

    A FIFO queue's name ends with `.fifo`. EventBridge can use a queue with a key of your own only when the key's
    policy lets `events.amazonaws.com` use it; without `kms_key` SQS encrypts with its own.
    """

    kind: ClassVar[str] = "queue"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "QueueName", "url": "Ref"}

    fifo: bool = False
    content_based_deduplication: bool = False
    """FIFO only: a message is known by a hash of its body where it brings no deduplication id."""
    retention_seconds: int = 345_600
    visibility_timeout: int = Field(default=30, ge=0, le=43_200)
    """Seconds that a received message is hidden; for a Lambda function at least six times its timeout."""
    delay_seconds: int = Field(default=0, ge=0, le=900)
    receive_wait_seconds: int = Field(default=20, ge=0, le=20)
    max_message_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1024, le=MAX_MESSAGE_BYTES)
    dead_letter: QueueArn | None = None
    """The queue that gets what was received `max_receive_count` times and not deleted."""
    max_receive_count: int = Field(default=5, ge=1, le=1000)
    kms_key: KeyArn | None = None

    def resources(self, scope: Scope) -> dict[str, Resource]:
        key = None if self.kms_key is None else scope.resolve(self.kms_key)
        redrive = None
        if self.dead_letter is not None:
            redrive = {
                "deadLetterTargetArn": scope.resolve(self.dead_letter),
                "maxReceiveCount": self.max_receive_count,
            }
        properties: dict[str, Json] = {
            "QueueName": self.name,
            "FifoQueue": self.fifo or None,
            "ContentBasedDeduplication": self.content_based_deduplication or None,
            "MessageRetentionPeriod": self.retention_seconds,
            "VisibilityTimeout": self.visibility_timeout,
            "DelaySeconds": self.delay_seconds,
            "ReceiveMessageWaitTimeSeconds": self.receive_wait_seconds,
            "MaximumMessageSize": self.max_message_bytes,
            "RedrivePolicy": redrive,
            "SqsManagedSseEnabled": True if key is None else None,
            "KmsMasterKeyId": key,
        }
        made = Resource(
            type="AWS::SQS::Queue", properties=properties, deletion_policy="Delete", replace_policy="Retain"
        )
        return {self.logical_id: made}

    def granted(self, grants: Sequence[Grant], scope: Scope) -> dict[str, Resource]:
        arn = self.value_of("arn")
        document = policy_document([*grant_statements(grants, arn), tls_statement("sqs:*", arn)])
        properties = {"Queues": [self.value_of("url")], "PolicyDocument": document}
        return {f"{self.logical_id}Policy": Resource(type="AWS::SQS::QueuePolicy", properties=properties)}

    @field_validator("retention_seconds")
    @classmethod
    def _check_retention(cls, seconds: int) -> int:
        if not _MIN_RETENTION_SECONDS <= seconds <= MAX_RETENTION_SECONDS:
            raise ValueError(
                f"SQS keeps a message for at most 14 days; write {_MIN_RETENTION_SECONDS} to "
                f"{MAX_RETENTION_SECONDS} seconds"
            )
        return seconds

    def _problems_together(self) -> Iterator[str]:
        if _NAME.fullmatch(self.name.removesuffix(_FIFO)) is None or len(self.name) > 80:
            yield f"name = {self.name!r}: a queue's name is 1 to 80 letters, digits, '-' and '_'"
        if self.fifo != self.name.endswith(_FIFO):
            yield f"name = {self.name!r}, fifo = {self.fifo}: a FIFO queue's name ends with '.fifo', no other's"
        if self.content_based_deduplication and not self.fifo:
            yield "content_based_deduplication needs fifo = true"
