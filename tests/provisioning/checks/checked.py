"""A bus with everything behind it, tables and a stream, as a configuration needs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aioboto3

from oms_events import RoutingRule, build_event
from oms_events._aws.config import AwsConfig
from oms_events.idempotency.table import create_idempotency_table
from oms_events.outbox.table import create_table
from oms_events.provisioning.checks.checking import check
from oms_events.provisioning.checks.configuration import CheckedConfiguration
from oms_events.provisioning.checks.report import Report

ACCOUNT, REGION = "000000000000", "us-east-1"
CA = str(Path(__file__).parents[2] / "aws" / "certificates" / "ca.pem")
"""Not used, but read by every client: that of all authorities takes more time than all calls of a check."""
CALLER = "caller"
"""The user whose credentials the session has."""

CREATED, SCHEMA, SYSTEM = "shop.order.created", "com.foundry.oms.schema.created", "com.foundry.oms.system.error"
SUBJECT = "oms.schema.created"
EVENTS = [
    build_event(CREATED, "/shop/orders", {"number": 1}),
    build_event(SCHEMA, "/oms/main", {"operation": "create"}),
    build_event(SYSTEM, "/oms/system/db", {"status": "bad"}),
]
NO_TLS = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "sqs:*",
    "Resource": "*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
RULES = (RoutingRule(name="all", event_type_pattern=".*", platforms=("nats", "eventbridge"), strategy="all"),)
PATTERNS = {
    "orders": {"source": [{"prefix": "shop."}], "detail-type": ["Order Created"]},
    "schema": {"detail": {"cloudEvents": {"type": [SCHEMA]}}},
    "system": {"detail-type": ["System Error"]},
    "logged": {"detail": {"cloudEvents": {"type": [{"prefix": "com.foundry."}]}}},
}


def at(url: str) -> AwsConfig:
    """Looks there, with the credentials of the session."""
    return AwsConfig(endpoint_url=url, aws_region=REGION, ca_bundle=CA)


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allowing(action: str, resource: str, *sources: str, **more: Any) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": action,
        "Resource": resource,
        "Condition": {"ArnEquals": {"aws:SourceArn": list(sources)}},
        **more,
    }


@dataclass
class World:
    """A bus with everything behind it, two tables and a stream: as a configuration needs them."""

    clients: dict[str, Any]
    name: str
    function: str
    session: aioboto3.Session | None
    configuration: CheckedConfiguration
    js: Any

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{resource}"

    @property
    def bus(self) -> str:
        return self.arn("events", f"event-bus/{self.name}")

    @property
    def group(self) -> str:
        return self.arn("logs", f"log-group:/aws/events/{self.name}")

    def rule(self, name: str) -> str:
        return self.arn("events", f"rule/{self.name}/{name}")

    def queue(self, name: str) -> str:
        return self.arn("sqs", f"{self.name}-{name}")

    async def make(self) -> None:
        if self.configuration.eventbridge is not None:
            await self.make_bus()
        if self.configuration.outbox is not None:
            await self.make_tables()
        if self.configuration.nats is not None:
            await self.js.add_stream(name=self.name, subjects=[f"{self.name}.>"])

    async def make_bus(self) -> None:
        events, sqs = self.clients["events"], self.clients["sqs"]
        for name, action, sources in (
            ("orders", "sqs:SendMessage", [self.rule("orders")]),
            ("dead", "sqs:*", [self.rule("*")]),
            ("bus", "sqs:SendMessage", [self.bus]),
        ):
            await sqs.create_queue(QueueName=f"{self.name}-{name}")
            await self.set_queue(name, Policy=policy(allowing(action, self.queue(name), *sources), NO_TLS))
        topic = (await self.clients["sns"].create_topic(Name=self.name))["TopicArn"]
        await self.set_topic(policy(allowing("sns:Publish", topic, self.rule("schema"))))
        await self.clients["sns"].subscribe(TopicArn=topic, Protocol="sqs", Endpoint=self.queue("orders"))
        await self.clients["logs"].create_log_group(logGroupName=f"/aws/events/{self.name}")
        await self.allow_function()
        await events.create_event_bus(Name=self.name, DeadLetterConfig={"Arn": self.queue("bus")})
        await events.create_archive(ArchiveName=self.name, EventSourceArn=self.bus, RetentionDays=3)
        targets = {"orders": self.queue("orders"), "schema": topic, "system": self.function, "logged": self.group}
        for name, arn in targets.items():
            await self.put_rule(name, PATTERNS[name])
            await self.put_target(name, arn)

    async def make_tables(self) -> None:
        outbox, idempotency = self.configuration.outbox, self.configuration.idempotency
        assert outbox is not None
        assert idempotency is not None
        await create_table(
            outbox, point_in_time_recovery=True, deletion_protection=True, client=self.clients["dynamodb"]
        )
        await create_idempotency_table(idempotency, client=self.clients["dynamodb"])

    async def set_queue(self, queue: str, **attributes: str) -> None:
        await self.clients["sqs"].set_queue_attributes(QueueUrl=await self.url(queue), Attributes=attributes)

    async def allow_queue(self, queue: str, *rules: str) -> None:
        """These rules may send there, and the queue has no other policy."""
        allowed = allowing("sqs:SendMessage", self.queue(queue), *map(self.rule, rules))
        await self.set_queue(queue, Policy=policy(allowed, NO_TLS))

    async def url(self, queue: str) -> str:
        url: str = (await self.clients["sqs"].get_queue_url(QueueName=f"{self.name}-{queue}"))["QueueUrl"]
        return url

    async def set_topic(self, text: str) -> None:
        await self.clients["sns"].set_topic_attributes(
            TopicArn=self.arn("sns", self.name), AttributeName="Policy", AttributeValue=text
        )

    async def allow_function(self) -> None:
        await self.clients["lambda"].add_permission(
            FunctionName="handler", StatementId=self.name, Action="lambda:InvokeFunction",
            Principal="events.amazonaws.com", SourceArn=self.rule("system"),
        )  # fmt: skip

    async def put_rule(self, name: str, pattern: Any, **more: Any) -> None:
        await self.clients["events"].put_rule(
            Name=name, EventBusName=self.name, EventPattern=json.dumps(pattern), **more
        )

    async def put_target(self, rule: str, arn: str, *, dead: str | None = "dead", **more: Any) -> None:
        """The rule's only target, whose id is always the same."""
        letters = {} if dead is None else {"DeadLetterConfig": {"Arn": self.queue(dead)}}
        target = {"Id": "target", "Arn": arn, **letters, **more}
        await self.clients["events"].put_targets(Rule=rule, EventBusName=self.name, Targets=[target])

    async def set_user(self, *statements: dict[str, Any]) -> None:
        """What the caller may do, in all worlds; made whole again when this one ends."""
        await self.clients["iam"].put_user_policy(
            UserName=CALLER, PolicyName="all", PolicyDocument=policy(*statements)
        )

    async def table(self, operation: str, *, table: str = "outbox", **parameters: Any) -> None:
        await getattr(self.clients["dynamodb"], operation)(TableName=f"{self.name}-{table}", **parameters)

    async def forget_layout(self) -> None:
        """Empties the outbox's table, as it is before its first writer."""
        items = (await self.clients["dynamodb"].scan(TableName=f"{self.name}-outbox"))["Items"]
        for item in items:
            await self.table("delete_item", Key={"pk": item["pk"], "sk": item["sk"]})

    async def check(self, *, events: Any = EVENTS, **changes: Any) -> Report:
        configuration = replace(self.configuration, **changes)
        return await check(configuration, events=events, session=self.session)


Worlds = Callable[..., AbstractAsyncContextManager[World]]
"""Makes a world of some parts of a configuration, or of all."""

BUS, TABLES, STREAM = ("eventbridge",), ("outbox", "idempotency"), ("nats", "jetstream")
