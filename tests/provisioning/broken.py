"""What may be wrong with a deployment, one thing at a time, and exactly what is told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from oms_events.provisioning.checks.report import Finding, Level, Report
from tests.provisioning.checked import (
    ACCOUNT,
    BUS,
    CREATED,
    NO_TLS,
    PATTERNS,
    SCHEMA,
    STREAM,
    SYSTEM,
    TABLES,
    World,
    allowing,
    policy,
)

OK, PROBLEM, WARNING, NOT_CHECKED = Level.OK, Level.PROBLEM, Level.WARNING, Level.NOT_CHECKED

Expected = tuple[str, str, Level, str]
"""Area, subject with `{}` for the world's name, level, and a part of the message or the remedy."""


def wrong(report: Report) -> list[Finding]:
    return [found for found in report.findings if found.level is not Level.OK]


def assert_exactly(report: Report, expected: Sequence[Expected], name: str) -> None:
    found = wrong(report)
    told = [(one.area, one.subject, one.level) for one in found]
    assert sorted(told) == sorted((area, subject.format(name), level) for area, subject, level, _ in expected), (
        found
    )
    for area, subject, level, text in expected:
        assert any(
            (one.area, one.subject, one.level) == (area, subject.format(name), level)
            and text.format(name) in f"{one.message} {one.remedy}"
            for one in found
        ), (text, found)
    assert all(one.remedy for one in found)
    assert report.passed is all(level is not PROBLEM for _, _, level, _ in expected)


@dataclass(frozen=True)
class Broken:
    """One thing that is not as it should be, and exactly what is told of it."""

    name: str
    act: Callable[[World], Awaitable[Any]]
    expected: tuple[Expected, ...]
    parts: tuple[str, ...]


def broken(
    name: str, act: Callable[[World], Awaitable[Any]], *expected: Expected, parts: tuple[str, ...] = BUS
) -> Any:
    return pytest.param(Broken(name, act, expected, parts), id=name.replace(" ", "-"))


def on(service: str, operation: str, **parameters: Any) -> Callable[[World], Awaitable[Any]]:
    """A call with `{}` for the world's name in its texts."""

    def fill(value: Any, name: str) -> Any:
        return value.replace("{}", name) if isinstance(value, str) else value

    async def act(world: World) -> None:
        filled = {key: fill(value, world.name) for key, value in parameters.items()}
        await getattr(world.clients[service], operation)(**filled)

    return act


def both(*acts: Callable[[World], Awaitable[Any]]) -> Callable[[World], Awaitable[Any]]:
    async def act(world: World) -> None:
        for one in acts:
            await one(world)

    return act


async def delete_rules(world: World, *names: str) -> None:
    for name in names:
        await world.clients["events"].remove_targets(Rule=name, EventBusName=world.name, Ids=["target"])
        await world.clients["events"].delete_rule(Name=name, EventBusName=world.name)


async def send_to_dead(world: World) -> None:
    await world.clients["sqs"].send_message(QueueUrl=await world.url("dead"), MessageBody="lost")


async def delete_queue(world: World, name: str) -> None:
    await world.clients["sqs"].delete_queue(QueueUrl=await world.url(name))


async def remake_table(world: World, table: str, **key: str) -> None:
    name = f"{world.name}-{table}"
    dynamodb = world.clients["dynamodb"]
    await dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
    await dynamodb.delete_table(TableName=name)
    if key:
        await dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in key],
            KeySchema=[{"AttributeName": one, "KeyType": kind} for one, kind in key.items()],
        )


async def only(world: World, *names: str, service: str) -> None:
    """The user may do these actions only, of one service; all of the others."""
    await world.set_user(
        {"Effect": "Allow", "Action": list(names), "Resource": "*"},
        {"Effect": "Allow", "NotAction": f"{service}:*", "Resource": "*"},
    )


def target(rule: str, arn: Callable[[World], str], **more: Any) -> Callable[[World], Awaitable[Any]]:
    return lambda world: world.put_target(rule, arn(world), **more)


def rule(name: str, **more: Any) -> Callable[[World], Awaitable[Any]]:
    pattern = more.pop("pattern", PATTERNS.get(name))
    return lambda world: world.put_rule(name, pattern, **more)


def made_role(trusted: str, *actions: str) -> Callable[[World], Awaitable[Any]]:
    """The target of `orders` is reached by a role; the queue's own policy allows nobody."""

    async def act(world: World) -> None:
        await world.set_queue("orders", Policy=policy(NO_TLS))
        trust = {"Effect": "Allow", "Principal": {"Service": trusted}, "Action": "sts:AssumeRole"}
        role = await world.clients["iam"].create_role(RoleName=world.name, AssumeRolePolicyDocument=policy(trust))
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": world.queue("orders")}
        await world.clients["iam"].put_role_policy(
            RoleName=world.name, PolicyName="all", PolicyDocument=policy(allowed)
        )
        await world.put_target("orders", world.queue("orders"), RoleArn=role["Role"]["Arn"])

    return act


DEFAULT_TOPIC_POLICY = {
    "Effect": "Allow",
    "Principal": {"AWS": "*"},
    "Action": ["SNS:Publish", "SNS:Subscribe"],
    "Resource": "*",
    "Condition": {"StringEquals": {"AWS:SourceOwner": ACCOUNT}},
}

BROKEN = [
    broken(
        "no bus",
        on("events", "delete_event_bus", Name="{}"),
        ("bus", "{}", PROBLEM, "does not exist: EventBridge answers success"),
        ("rules", "{}", NOT_CHECKED, "no such bus"),
    ),
    broken(
        "no queue for the dead letters of the bus",
        lambda world: delete_queue(world, "bus"),
        ("dead letters", "sqs {}-bus", PROBLEM, "change bus {}"),
    ),
    broken(
        "no archive",
        on("events", "delete_archive", ArchiveName="{}"),
        ("archive", "{}", WARNING, "no archive"),
    ),
    broken(
        "an archive that leaves events out",
        on("events", "update_archive", ArchiveName="{}", EventPattern='{"detail-type":["Order Created"]}'),
        ("archive", "{}", WARNING, f"takes {SCHEMA}, {SYSTEM}"),
    ),
    broken(
        "no rules",
        lambda world: delete_rules(world, *PATTERNS),
        ("rules", "{}", PROBLEM, "no rules"),
    ),
    broken(
        "an event that no rule takes",
        rule("orders", pattern={"detail-type": [{"prefix": "Ord"}], "source": ["com.shop.orders"]}),
        ("events", CREATED, PROBLEM, "source 'shop.orders', detail-type 'Order Created'"),
        ("rules", "orders", WARNING, "takes none of the events"),
    ),
    broken(
        "a disabled rule that is needed",
        rule("orders", State="DISABLED"),
        ("events", CREATED, PROBLEM, "enable rule orders"),
        ("rules", "orders", PROBLEM, "is DISABLED"),
    ),
    broken(
        "a disabled rule that another stands in for",
        rule("schema", State="DISABLED"),
        ("rules", "schema", PROBLEM, "is DISABLED"),
    ),
    broken(
        "a rule for what is not sent",
        both(rule("other", pattern={"source": ["other"]}), target("other", lambda world: world.queue("dead"))),
        ("rules", "other", WARNING, "takes none of the events"),
    ),
    broken(
        "a disabled rule for what is not sent",
        both(
            rule("other", pattern={"source": ["other"]}, State="DISABLED"),
            target("other", lambda world: world.queue("dead")),
        ),
        ("rules", "other", WARNING, "is DISABLED"),
        ("rules", "other", WARNING, "takes none of the events"),
    ),
    broken(
        "a rule without targets",
        on("events", "remove_targets", Rule="orders", EventBusName="{}", Ids=["target"]),
        ("rules", "orders", PROBLEM, "has no targets"),
    ),
    broken(
        "a target without dead letters",
        target("orders", lambda world: world.queue("orders"), dead=None),
        ("rules", "orders", WARNING, "target target has no dead-letter queue"),
    ),
    broken(
        "a queue that does not exist",
        lambda world: delete_queue(world, "orders"),
        ("targets", "sqs {}-orders", PROBLEM, "does not exist"),
    ),
    broken(
        "a queue whose policy allows another rule",
        lambda world: world.set_queue(
            "orders", Policy=policy(allowing("sqs:SendMessage", world.queue("orders"), world.rule("schema")))
        ),
        ("targets", "sqs {}-orders", PROBLEM, "does not let EventBridge use it for rule orders"),
    ),
    broken(
        "a queue whose policy only AWS can decide",
        lambda world: world.set_queue(
            "orders",
            Policy=policy(
                allowing(
                    "sqs:SendMessage", "*", world.rule("*"), Condition={"StringEquals": {"aws:SourceOrgID": "o"}}
                )
            ),
        ),
        ("targets", "sqs {}-orders", NOT_CHECKED, "conditions that only AWS can decide, for rule orders"),
    ),
    broken(
        "a queue with a key of AWS",
        lambda world: world.set_queue("orders", KmsMasterKeyId="alias/aws/sqs"),
        ("targets", "sqs {}-orders", PROBLEM, "alias/aws/sqs"),
    ),
    broken(
        "dead letters that wait",
        send_to_dead,
        ("dead letters", "sqs {}-dead", WARNING, "messages: 1"),
    ),
    broken(
        "a dead-letter queue whose policy allows nobody",
        lambda world: world.set_queue("dead", Policy=policy(NO_TLS)),
        ("dead letters", "sqs {}-dead", PROBLEM, "rule logged, rule orders, rule schema and 1 more"),
    ),
    broken(
        "a topic that does not exist",
        on("sns", "delete_topic", TopicArn=f"arn:aws:sns:us-east-1:{ACCOUNT}:{{}}"),
        ("targets", "sns {}", PROBLEM, "does not exist"),
    ),
    broken(
        "a topic with the policy that SNS gives it",
        lambda world: world.set_topic(policy(DEFAULT_TOPIC_POLICY)),
        ("targets", "sns {}", PROBLEM, "allow sns:Publish"),
    ),
    broken(
        "a function that does not exist",
        target("system", lambda world: world.arn("lambda", "function:other")),
        ("targets", "lambda other", PROBLEM, "does not exist"),
    ),
    broken(
        "a function without permission",
        on("lambda", "remove_permission", FunctionName="handler", StatementId="{}"),
        ("targets", "lambda handler", PROBLEM, "allow lambda:InvokeFunction to events.amazonaws.com"),
    ),
    broken(
        "a log group that does not exist",
        on("logs", "delete_log_group", logGroupName="/aws/events/{}"),
        ("targets", "logs /aws/events/{}", PROBLEM, "does not exist"),
    ),
    broken(
        "a log group that no policy allows",
        both(
            on("logs", "create_log_group", logGroupName="/other/{}"),
            target("logged", lambda world: world.arn("logs", f"log-group:/other/{world.name}")),
        ),
        ("targets", "logs /other/{}", PROBLEM, "allow logs:PutLogEvents"),
    ),
    broken(
        "a target of another kind",
        target("orders", lambda world: world.arn("states", "stateMachine:orders")),
        ("targets", "states stateMachine:orders", NOT_CHECKED, "service states"),
    ),
    broken("a target that is reached by a role", made_role("events.amazonaws.com", "sqs:SendMessage")),
    broken(
        "a role that EventBridge may not assume",
        made_role("lambda.amazonaws.com", "sqs:SendMessage"),
        ("permissions", "role {}", PROBLEM, "events.amazonaws.com may assume it"),
    ),
    broken(
        "a role that may not send",
        made_role("events.amazonaws.com", "sqs:ReceiveMessage"),
        ("permissions", "role {}", PROBLEM, "do not allow sqs:SendMessage"),
    ),
    broken(
        "a role that does not exist",
        target("orders", lambda world: world.queue("orders"), RoleArn=f"arn:aws:iam::{ACCOUNT}:role/none"),
        ("permissions", "role none", PROBLEM, "does not exist"),
    ),
    broken(
        "a caller that may not put events",
        lambda world: only(world, "events:Describe*", service="events"),
        ("permissions", "{}", PROBLEM, "do not allow events:PutEvents on arn:aws:events:us-east-1"),
    ),
    broken(
        "a caller that may not write to tables",
        lambda world: only(
            world, "dynamodb:*Get*", "dynamodb:Query", "dynamodb:DescribeTable", service="dynamodb"
        ),
        ("permissions", "{}-outbox", PROBLEM, "dynamodb:BatchWriteItem, dynamodb:ConditionCheckItem on"),
        ("permissions", "{}-idempotency", PROBLEM, "do not allow dynamodb:PutItem, dynamodb:DeleteItem on"),
        parts=TABLES,
    ),
    broken(
        "no outbox table",
        lambda world: remake_table(world, "outbox"),
        ("outbox", "{}-outbox", PROBLEM, "does not exist"),
        parts=TABLES,
    ),
    broken(
        "an outbox table with other keys",
        lambda world: remake_table(world, "outbox", id="HASH"),
        ("outbox", "{}-outbox", PROBLEM, "its keys are id"),
        ("outbox", "{}-outbox", WARNING, "no point-in-time recovery"),
        ("outbox", "{}-outbox", WARNING, "no deletion protection"),
        parts=TABLES,
    ),
    broken(
        "an outbox table with TTL",
        lambda world: world.table(
            "update_time_to_live", TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": True}
        ),
        ("outbox", "{}-outbox", PROBLEM, "has TTL on 'ttl'"),
        parts=TABLES,
    ),
    broken(
        "an outbox table that cannot be restored",
        lambda world: world.table(
            "update_continuous_backups", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
        ),
        ("outbox", "{}-outbox", WARNING, "no point-in-time recovery"),
        parts=TABLES,
    ),
    broken(
        "an outbox table that can be deleted",
        lambda world: world.table("update_table", DeletionProtectionEnabled=False),
        ("outbox", "{}-outbox", WARNING, "no deletion protection"),
        parts=TABLES,
    ),
    broken(
        "no idempotency table",
        lambda world: remake_table(world, "idempotency"),
        ("idempotency", "{}-idempotency", PROBLEM, "does not exist"),
        parts=TABLES,
    ),
    broken(
        "an idempotency table with other keys",
        lambda world: remake_table(world, "idempotency", pk="HASH", sk="RANGE"),
        ("idempotency", "{}-idempotency", PROBLEM, "RANGE 'sk'"),
        ("idempotency", "{}-idempotency", WARNING, "has no TTL"),
        parts=TABLES,
    ),
    broken(
        "no stream",
        lambda world: world.js.delete_stream(world.name),
        ("stream", "{}", PROBLEM, "does not exist"),
        parts=STREAM,
    ),
    broken(
        "a stream that covers some of the subjects",
        lambda world: world.js.update_stream(name=world.name, subjects=[f"{world.name}.shop.>"]),
        ("stream", "{}.oms.schema.created", PROBLEM, SCHEMA),
        ("stream", "{}.oms.system.error", PROBLEM, SYSTEM),
        parts=STREAM,
    ),
]
