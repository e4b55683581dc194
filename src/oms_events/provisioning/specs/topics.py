"""SNS topics, who is subscribed, and which services may publish."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final, Literal

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import (
    Grant,
    Json,
    JsonObject,
    KeyArn,
    Name,
    QueueArn,
    Reference,
    Resource,
    ResourceSpec,
    RoleArn,
    Scope,
    Spec,
    arn_service,
    check_arn,
    logical_id,
)
from oms_events.provisioning.specs.policies import grant_statements, policy_document, tls_statement

SNS_SERVICE: Final = "sns.amazonaws.com"

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_DIGEST_LENGTH: Final = 8
_ID_LENGTH: Final = 100
_AWS_KEY: Final = "alias/aws/sns"
_RAW: Final = ("firehose", "https", "sqs")
_ENDPOINTS: Final = {
    "email": (re.compile(r"[^@\s]+@[^@\s]+"), "an address such as team@example.com"),
    "email-json": (re.compile(r"[^@\s]+@[^@\s]+"), "an address such as team@example.com"),
    "https": (re.compile(r"https://\S+"), "a URL that begins with https://"),
    "sms": (re.compile(r"\+\d{6,15}"), "a number such as +15555550100"),
}
_BY_REFERENCE: Final = {"sqs": ("queue", "sqs:SendMessage"), "lambda": ("function", "lambda:InvokeFunction")}
"""Protocol to the kind of spec that can be its endpoint, and what SNS does there."""


class SubscriptionSpec(Spec):
    """Who gets a topic's messages. Addresses of people are asked to confirm first; plain HTTP is refused.

    Queues and functions of the same stack allow the topic by themselves.
    """

    protocol: Literal["email", "email-json", "firehose", "https", "lambda", "sms", "sqs"]
    endpoint: Name
    """An address, URL or ARN, or `queue.arn`, `function.arn`."""
    role: RoleArn | None = None
    """Firehose only: the role under which SNS writes to the delivery stream."""
    filter_policy: JsonObject | None = None
    filter_on: Literal["MessageAttributes", "MessageBody"] = "MessageAttributes"
    raw: bool = False
    """Whether the message comes as it was published, without SNS's envelope."""
    dead_letter: QueueArn | None = None
    """The queue for messages that could not be delivered."""

    def resource(self, topic: Json, scope: Scope) -> Resource:
        """The subscription to the topic of that ARN."""
        redrive = None
        if self.dead_letter is not None:
            redrive = {"deadLetterTargetArn": scope.resolve(self.dead_letter)}
        properties: dict[str, Json] = {
            "TopicArn": topic,
            "Protocol": self.protocol,
            "Endpoint": scope.resolve(self.endpoint),
            "SubscriptionRoleArn": None if self.role is None else scope.resolve(self.role),
            "FilterPolicy": self.filter_policy,
            "FilterPolicyScope": self.filter_on if self.filter_policy else None,
            "RawMessageDelivery": self.raw or None,
            "RedrivePolicy": redrive,
        }
        return Resource(type="AWS::SNS::Subscription", properties=properties)

    @property
    def logical_id(self) -> str:
        """What stands for it in the subscription's logical id."""
        if isinstance(self.endpoint, Reference):
            return logical_id("to", self.protocol, self.endpoint.ref)
        # Two addresses may differ in signs only, which a logical id does not take.
        digest = hashlib.sha256(self.endpoint.encode()).hexdigest()[:_DIGEST_LENGTH]
        return logical_id("to", self.protocol, self.endpoint)[:_ID_LENGTH] + digest

    def _problems_together(self) -> Iterator[str]:
        if isinstance(self.endpoint, Reference):
            kind = _BY_REFERENCE.get(self.protocol, ("",))[0]
            if (self.endpoint.kind, self.endpoint.attribute) != (kind, "arn"):
                yield f"endpoint: {self.endpoint.ref!r} cannot be reached by {self.protocol}"
        elif self.protocol in _ENDPOINTS:
            pattern, wanted = _ENDPOINTS[self.protocol]
            if pattern.fullmatch(self.endpoint) is None:
                yield f"endpoint = {self.endpoint!r}: for {self.protocol} write {wanted}"
        else:
            try:
                check_arn(self.endpoint)
            except ValueError as error:
                yield f"endpoint = {self.endpoint!r}: {error}"
            else:
                if arn_service(self.endpoint) != self.protocol:
                    yield f"endpoint = {self.endpoint!r} cannot be reached by {self.protocol}; give the ARN of one"
        if self.raw and self.protocol not in _RAW:
            yield f"raw is for {', '.join(_RAW)}, not for {self.protocol}"
        if (self.role is None) is (self.protocol == "firehose"):
            yield "role is for firehose, which needs it; add it or take it out"


class TopicSpec(ResourceSpec):
    """A standard SNS topic that refuses everybody who does not publish over TLS.

    SNS encrypts at rest only with a `kms_key`, whose policy must let those publish that use it: for alarms
    `cloudwatch.amazonaws.com`, for rules `events.amazonaws.com` (see KeySpec). SNS's own key `alias/aws/sns` lets
    neither, so it is refused.
    """

    kind: ClassVar[str] = "topic"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Ref", "name": "TopicName"}

    display_name: str | None = Field(default=None, max_length=100)
    kms_key: KeyArn | None = None
    subscriptions: tuple[SubscriptionSpec, ...] = ()

    def resources(self, scope: Scope) -> dict[str, Resource]:
        properties: dict[str, Json] = {
            "TopicName": self.name,
            "DisplayName": self.display_name,
            "KmsMasterKeyId": None if self.kms_key is None else scope.resolve(self.kms_key),
        }
        made = {self.logical_id: Resource(type="AWS::SNS::Topic", properties=properties)}
        for subscription in self.subscriptions:
            name = f"{self.logical_id}{subscription.logical_id}"
            made[name] = subscription.resource(self.value_of("arn"), scope)
        return made

    def grants(self, scope: Scope) -> Iterator[Grant]:
        arn = self.value_of("arn")
        for subscription in self.subscriptions:
            if subscription.protocol in _BY_REFERENCE:
                action = _BY_REFERENCE[subscription.protocol][1]
                yield Grant(to=subscription.endpoint, principal=SNS_SERVICE, actions=(action,), source=arn)
            if subscription.dead_letter is not None:
                yield Grant(
                    to=subscription.dead_letter, principal=SNS_SERVICE, actions=("sqs:SendMessage",), source=arn
                )

    def granted(self, grants: Sequence[Grant], scope: Scope) -> dict[str, Resource]:
        arn = self.value_of("arn")
        document = policy_document([*grant_statements(grants, arn), tls_statement("sns:Publish", arn)])
        properties = {"Topics": [arn], "PolicyDocument": document}
        return {f"{self.logical_id}Policy": Resource(type="AWS::SNS::TopicPolicy", properties=properties)}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError("a standard topic's name is 1 to 256 letters, digits, '-' and '_'")
        return name

    @field_validator("kms_key", mode="before")
    @classmethod
    def _check_key(cls, key: object) -> object:
        if isinstance(key, str) and key.endswith(_AWS_KEY):
            raise ValueError(
                "alarms and rules cannot publish with SNS's own key; give the ARN of a key whose policy lets "
                "cloudwatch.amazonaws.com and events.amazonaws.com use it"
            )
        return key

    @field_validator("subscriptions")
    @classmethod
    def _check_subscriptions(cls, subscriptions: tuple[SubscriptionSpec, ...]) -> tuple[SubscriptionSpec, ...]:
        endpoints = [(subscription.protocol, str(subscription.endpoint)) for subscription in subscriptions]
        if len(set(endpoints)) < len(endpoints):
            raise ValueError("an endpoint stands twice; subscribe each once")
        return subscriptions
