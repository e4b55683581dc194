"""Who may call what: the caller, the roles of targets, and who looks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import aioboto3
import pytest

from oms_events import EventBridgeConfig
from oms_events._aws.config import AwsConfig
from oms_events.devstack import AwsEmulator, Denied, FaultProxy
from tests.provisioning.checks.altered import Alter, altered, saying
from tests.provisioning.checks.broken import (
    NOT_CHECKED,
    PROBLEM,
    Broken,
    assert_exactly,
    assert_told,
    broken,
    target,
)
from tests.provisioning.checks.checked import ACCOUNT, BUS, NO_TLS, PATTERNS, TABLES, World, Worlds, at, policy


async def only(world: World, *names: str, service: str) -> None:
    """The user may do these actions only, of one service; all of the others."""
    await world.set_user(
        {"Effect": "Allow", "Action": list(names), "Resource": "*"},
        {"Effect": "Allow", "NotAction": f"{service}:*", "Resource": "*"},
    )


def made_role(trusted: str, *actions: str, **more: Any) -> Callable[[World], Awaitable[Any]]:
    """The target of `orders` is reached by a role; the queue's own policy allows nobody."""

    async def act(world: World) -> None:
        await world.set_queue("orders", Policy=policy(NO_TLS))
        trust = {"Effect": "Allow", "Principal": {"Service": trusted}, "Action": "sts:AssumeRole", **more}
        role = await world.clients["iam"].create_role(RoleName=world.name, AssumeRolePolicyDocument=policy(trust))
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": world.queue("orders")}
        await world.clients["iam"].put_role_policy(
            RoleName=world.name, PolicyName="all", PolicyDocument=policy(allowed)
        )
        await world.put_target("orders", world.queue("orders"), RoleArn=role["Role"]["Arn"])

    return act


async def share_role(world: World) -> None:
    """Two rules reach a queue by one role, which EventBridge may take for one of them."""
    await made_role("events.amazonaws.com", "sqs:SendMessage", Condition=for_rule(world, "schema"))(world)
    role = f"arn:aws:iam::{ACCOUNT}:role/{world.name}"
    await world.put_target("schema", world.queue("orders"), RoleArn=role)


def for_rule(world: World, name: str) -> dict[str, Any]:
    account = {"aws:SourceAccount": ACCOUNT}
    return {"ArnEquals": {"aws:SourceArn": world.rule(name)}, "StringEquals": account}


BROKEN = [
    broken("a target that is reached by a role", made_role("events.amazonaws.com", "sqs:SendMessage")),
    broken(
        "a role that EventBridge may not assume",
        made_role("lambda.amazonaws.com", "sqs:SendMessage"),
        ("permissions", "role {}", PROBLEM, "events.amazonaws.com may assume it"),
    ),
    broken(
        "a role that EventBridge may assume for another rule",
        share_role,
        ("permissions", "role {}", PROBLEM, "may assume it for rule orders"),
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
        (
            "permissions",
            "{}-outbox",
            PROBLEM,
            "dynamodb:BatchWriteItem, dynamodb:ConditionCheckItem, dynamodb:DeleteItem, dynamodb:PutItem, "
            "dynamodb:UpdateItem on",
        ),
        ("permissions", "{}-idempotency", PROBLEM, "do not allow dynamodb:PutItem, dynamodb:DeleteItem on"),
        parts=TABLES,
    ),
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_one_broken_thing_exactly_that_is_told(worlds: Worlds, case: Broken) -> None:
    await assert_told(worlds, case)


HANDLER = f"arn%3Aaws%3Alambda%3Aus-east-1%3A{ACCOUNT}%3Afunction%3Ahandler"


@dataclass(frozen=True)
class Refused:
    """An operation that is denied, what is not checked then, and areas of which nobody can know all without it."""

    operation: str
    expected: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...] = ()


@pytest.mark.parametrize(
    "case",
    [
        Refused("DescribeEventBus", (("bus", "{}"),), ("dead letters",)),
        Refused("ListRules", (("rules", "{}"),), ("rules", "events", "targets", "dead letters")),
        Refused("TestEventPattern", (("events", "patterns of {}"),), ("events",)),
        Refused("ListTargetsByRule", tuple(("rules", name) for name in PATTERNS), ("targets", "dead letters")),
        Refused("ListArchives", (("archive", "{}"),)),
        Refused(
            "GetQueueAttributes",
            (("dead letters", "sqs {}-bus"), ("dead letters", "sqs {}-dead"), ("targets", "sqs {}-orders")),
        ),
        Refused("GetTopicAttributes", (("targets", "sns {}"),)),
        Refused("DescribeResourcePolicies", (("targets", "logs /aws/events/{}"),)),
        Refused(
            f"GET /2015-03-31/functions/{HANDLER}/policy",
            (("targets", "lambda handler"),),
        ),
        Refused(
            f"GET /2019-09-30/functions/{HANDLER}/concurrency",
            (("targets", "lambda handler"),),
        ),
        Refused("SimulatePrincipalPolicy", (("permissions", "{}"),)),
        Refused("GetCallerIdentity", (("permissions", "{}"),)),
    ],
    ids=lambda case: case.operation.partition(" ")[0],
)
async def test_what_is_denied_is_not_checked_and_hides_nothing_else(
    bus_world: World, emulator: AwsEmulator, case: Refused
) -> None:
    async with FaultProxy(emulator.endpoint_url) as proxy:
        through = at(proxy.endpoint_url)
        whole = await bus_world.check(aws=through)
        proxy.always(Denied(), operation=case.operation)
        report = await bus_world.check(aws=through)
    told = [(area, subject, NOT_CHECKED, "not authorized") for area, subject in case.expected]
    assert_exactly(report, told, bus_world.name)
    denied = {(area, subject.format(bus_world.name)) for area, subject in case.expected}
    rest = [
        one for one in whole.findings if one.area not in case.unknown and (one.area, one.subject) not in denied
    ]
    assert rest
    assert set(rest) <= set(report.findings)


async def test_who_looks_need_not_be_who_calls(worlds: Worlds, emulator: AwsEmulator) -> None:
    """The service's own role, whose path STS does not tell, is simulated; the operator's credentials ask."""
    async with worlds(*BUS) as world:
        role = await world.clients["iam"].create_role(
            RoleName=world.name, Path="/services/", AssumeRolePolicyDocument="{}"
        )
        own = EventBridgeConfig(
            event_bus_name=world.name,
            role_arn=role["Role"]["Arn"],
            sts_endpoint_url=emulator.endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        operator = AwsConfig(
            endpoint_url=emulator.endpoint_url,
            aws_region=emulator.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        report = await replace(world, session=None).check(eventbridge=own, aws=operator)
        arn = f"arn:aws:iam::{ACCOUNT}:role/services/{world.name}"
        # The emulator simulates no role that has a path; what matters here is which one it is asked about.
        text = f"the policies of {arn} do not allow events:PutEvents"
        assert_exactly(report, [("permissions", "{}", PROBLEM, text)], world.name)


async def test_of_the_root_user_nothing_can_be_simulated(bus_world: World, emulator: AwsEmulator) -> None:
    session = aioboto3.Session(region_name=emulator.region, aws_access_key_id="test", aws_secret_access_key="test")
    report = await replace(bus_world, session=session).check()
    [told] = [found for found in report.findings if found.area == "permissions"]
    assert told.level is NOT_CHECKED
    assert told.message.startswith(f"arn:aws:iam::{ACCOUNT}:root is no user or role")


def result(action: str, decision: str = "allowed", *more: str) -> str:
    """One of the results of a simulation."""
    told = f"<EvalActionName>events:{action}</EvalActionName><EvalDecision>{decision}</EvalDecision>"
    return f"<member>{told}{''.join(more)}</member>"


def simulating(*results: str, rest: str = "") -> Alter:
    """Answers that; `rest` comes when it is asked for the second part."""

    def alter(request: bytes, _: bytes) -> bytes:
        is_second = b"Marker=" in request
        marker = "<IsTruncated>true</IsTruncated><Marker>more</Marker>" if rest and not is_second else ""
        members = rest if is_second else "".join(results)
        document = f"<EvaluationResults>{members}</EvaluationResults>{marker}"
        name = "SimulatePrincipalPolicy"
        return f"<{name}Response><{name}Result>{document}</{name}Result></{name}Response>".encode()

    return alter


VPCE = "<MissingContextValues><member>aws:SourceVpce</member></MissingContextValues>"
OF_RESOURCE = (
    "<ResourceSpecificResults><member><EvalResourceName>b</EvalResourceName>"
    f"<EvalResourceDecision>implicitDeny</EvalResourceDecision>{VPCE}</member></ResourceSpecificResults>"
)
SCP = (
    "<OrganizationsDecisionDetail><AllowedByOrganizations>false</AllowedByOrganizations>"
    "</OrganizationsDecisionDetail>"
)
BOUNDARY = (
    "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>false</AllowedByPermissionsBoundary>"
    "</PermissionsBoundaryDecisionDetail>"
)
DESCRIBE = result("DescribeEventBus")
DO_NOT_ALLOW = "do not allow events:PutEvents on"


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (simulating(result("PutEvents"), DESCRIBE), ()),
        (simulating(result("PutEvents"), rest=DESCRIBE), ()),
        (simulating(result("PutEvents", "implicitDeny"), DESCRIBE), (PROBLEM, DO_NOT_ALLOW)),
        (simulating(DESCRIBE, rest=result("PutEvents", "explicitDeny")), (PROBLEM, DO_NOT_ALLOW)),
        (simulating(result("PutEvents", "implicitDeny", VPCE), DESCRIBE), (NOT_CHECKED, "aws:SourceVpce")),
        (simulating(result("PutEvents", "allowed", VPCE), DESCRIBE), (NOT_CHECKED, "aws:SourceVpce")),
        (simulating(result("PutEvents", "implicitDeny", OF_RESOURCE), DESCRIBE), (NOT_CHECKED, "aws:SourceVpce")),
        (simulating(result("PutEvents", "allowed", SCP), DESCRIBE), (PROBLEM, DO_NOT_ALLOW)),
        (simulating(result("PutEvents", "allowed", BOUNDARY), DESCRIBE), (PROBLEM, DO_NOT_ALLOW)),
        (simulating(DESCRIBE), (NOT_CHECKED, "it says nothing of events:PutEvents")),
        (simulating(), (NOT_CHECKED, "nothing of events:PutEvents, events:DescribeEventBus")),
    ],
)
async def test_a_simulation_is_read_to_its_end(
    bus_world: World, emulator: AwsEmulator, alter: Alter, expected: tuple[Any, ...]
) -> None:
    async with altered(emulator.endpoint_url, "SimulatePrincipalPolicy", alter) as url:
        report = await bus_world.check(aws=at(url))
    assert_exactly(report, [("permissions", "{}", *expected)] if expected else [], bus_world.name)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, (PROBLEM, "denies events:PutEvents to arn:aws:iam::")),
        ({"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}, (NOT_CHECKED, "only AWS can decide")),
        ({"Bool": {"aws:SecureTransport": "false"}}, ()),
    ],
)
async def test_the_policy_of_the_bus_may_deny_what_that_of_the_caller_allows(
    bus_world: World, emulator: AwsEmulator, condition: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    statement = {"Effect": "Deny", "Principal": "*", "Action": "events:PutEvents", "Resource": "*"}
    document = json.dumps(policy({**statement, "Condition": condition}))
    alter = saying('"DeadLetterConfig"', f'"Policy": {document}, "DeadLetterConfig"')
    async with altered(emulator.endpoint_url, "AWSEvents.DescribeEventBus", alter) as url:
        report = await bus_world.check(aws=at(url))
    assert_exactly(report, [("permissions", "{}", *expected)] if expected else [], bus_world.name)


async def test_a_bus_of_another_account_is_not_checked(bus_world: World) -> None:
    bus = bus_world.bus.replace(ACCOUNT, "111111111111")
    report = await bus_world.check(eventbridge=EventBridgeConfig(event_bus_name=bus))
    told = [
        ("bus", bus, NOT_CHECKED, "with credentials of that account"),
        ("rules", bus, NOT_CHECKED, "no such bus"),
        ("permissions", bus, NOT_CHECKED, "is of another account, 111111111111, whose policy"),
    ]
    assert_exactly(report, told, bus_world.name)
