"""The bus, its rules and archives: which events somebody takes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from oms_events.devstack import AwsEmulator
from tests.provisioning.checks.altered import altered, saying
from tests.provisioning.checks.broken import (
    NOT_CHECKED,
    PROBLEM,
    WARNING,
    Broken,
    Expected,
    assert_exactly,
    assert_told,
    both,
    broken,
    delete_queue,
    on,
    rule,
    target,
)
from tests.provisioning.checks.checked import CREATED, PATTERNS, SCHEMA, SYSTEM, World, Worlds, at


async def delete_rules(world: World, *names: str) -> None:
    for name in names:
        await world.clients["events"].remove_targets(Rule=name, EventBusName=world.name, Ids=["target"])
        await world.clients["events"].delete_rule(Name=name, EventBusName=world.name)


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
        ("events", SCHEMA, WARNING, "is taken by rule logged alone, which only logs it"),
        ("rules", "schema", PROBLEM, "is DISABLED"),
    ),
    broken(
        "an event that only a rule for everything takes",
        both(
            rule("orders", pattern={"source": ["shop.invoices"]}),
            rule("everything", pattern={"source": [{"prefix": ""}]}),
            target("everything", lambda world: world.queue("orders")),
            lambda world: world.allow_queue("orders", "orders", "everything"),
        ),
        ("events", CREATED, WARNING, "is taken by rule everything alone, which takes whatever is sent"),
        ("rules", "orders", WARNING, "takes none of the events"),
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
        ("events", CREATED, PROBLEM, "only rule orders takes it, without targets"),
    ),
    broken(
        "a target without dead letters",
        target("orders", lambda world: world.queue("orders"), dead=None),
        ("rules", "orders", WARNING, "target target has no dead-letter queue"),
    ),
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_one_broken_thing_exactly_that_is_told(worlds: Worlds, case: Broken) -> None:
    await assert_told(worlds, case)


def with_managed_rule(_: bytes, answer: bytes) -> bytes:
    rules = json.loads(answer)["Rules"]
    managed = {
        **rules[0],
        "Name": "Events-Archive-a",
        "ManagedBy": "prod.vhs.events.aws.internal",
        "State": "DISABLED",
    }
    return json.dumps({"Rules": [*rules, managed]}).encode()


def in_two_parts(request: bytes, answer: bytes) -> bytes:
    rules = json.loads(answer)["Rules"]
    is_second = json.loads(request).get("NextToken") == "more"
    return json.dumps({"Rules": rules[1:]} if is_second else {"Rules": rules[:1], "NextToken": "more"}).encode()


@pytest.mark.parametrize(
    ("operation", "alter", "expected"),
    [
        ("ListArchives", saying('"ENABLED"', '"CREATE_FAILED"'), [("archive", "{}", PROBLEM, "is CREATE_FAILED")]),
        ("ListArchives", saying('"ENABLED"', '"DISABLED"'), [("archive", "{}", WARNING, "is DISABLED")]),
        ("ListRules", with_managed_rule, []),
        (
            "AWSEvents.DescribeEventBus",
            saying('"DeadLetterConfig"', '"KmsKeyIdentifier": "key", "Other"'),
            [("bus", "{}", WARNING, "no dead-letter queue"), ("bus", "{}", PROBLEM, "its key key does not exist")],
        ),
        ("ListRules", in_two_parts, []),
    ],
)
async def test_states_that_the_emulator_never_has(
    bus_world: World,
    emulator: AwsEmulator,
    operation: str,
    alter: Callable[[bytes, bytes], bytes],
    expected: list[Expected],
) -> None:
    async with altered(emulator.endpoint_url, operation, alter) as url:
        report = await bus_world.check(aws=at(url))
    assert_exactly(report, expected, bus_world.name)
