"""Log groups as targets: two calls, all policies of the account together, and no role."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from oms_events.devstack import AwsEmulator
from oms_events.provisioning.checks.report import Level
from tests.provisioning.checks.altered import Alter, altered
from tests.provisioning.checks.broken import NOT_CHECKED, PROBLEM, Act, Broken, assert_exactly, broken, target
from tests.provisioning.checks.checked import ACCOUNT, World, Worlds, allowing, at, policy

GROUP = ("targets", "logs /other/{}")
Making = Callable[[str, str], dict[str, Any]]
"""Makes a statement of the log group's ARN and the rule's."""


def log_group(*statements: Making, role: str | None = None) -> Act:
    """The target of the rule `logged`, with a policy for each statement."""

    async def act(world: World) -> None:
        arn = world.arn("logs", f"log-group:/other/{world.name}")
        logs = world.clients["logs"]
        await logs.create_log_group(logGroupName=f"/other/{world.name}")
        for number, make in enumerate(statements):
            document = policy(make(f"{arn}:*", world.rule("logged")))
            await logs.put_resource_policy(policyName=f"{world.name}-{number}", policyDocument=document)
        more = {} if role is None else {"RoleArn": await make_role(world, role)}
        await world.put_target("logged", arn, **more)

    return act


async def make_role(world: World, service: str) -> str:
    trust = policy({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})
    iam = world.clients["iam"]
    role = await iam.create_role(RoleName=world.name, AssumeRolePolicyDocument=trust)
    allowed = policy({"Effect": "Allow", "Action": "logs:*", "Resource": "*"})
    await iam.put_role_policy(RoleName=world.name, PolicyName="all", PolicyDocument=allowed)
    arn: str = role["Role"]["Arn"]
    return arn


def making(group: str, _: str) -> dict[str, Any]:
    return {**allowing("logs:CreateLogStream", group), "Condition": {}}


def making_for_rule(group: str, rule: str) -> dict[str, Any]:
    return allowing("logs:CreateLogStream", group, rule)


def writing(group: str, rule: str) -> dict[str, Any]:
    return allowing("logs:PutLogEvents", group, rule)


def denying(group: str, _: str) -> dict[str, Any]:
    return {"Effect": "Deny", "Principal": "*", "Action": "logs:*", "Resource": group}


BROKEN = [
    broken("a log group that two policies allow", log_group(writing, making)),
    broken(
        "a log group that no policy allows",
        log_group(),
        (*GROUP, PROBLEM, "allow logs:PutLogEvents and logs:CreateLogStream to"),
    ),
    broken(
        "a log group without leave to make streams",
        log_group(writing),
        (*GROUP, PROBLEM, "allow logs:CreateLogStream to"),
    ),
    broken(
        "a log group with a condition on who makes streams",
        log_group(writing, making_for_rule),
        (*GROUP, NOT_CHECKED, "whether it allows logs:CreateLogStream"),
    ),
    broken(
        "a log group that another policy denies",
        log_group(writing, making, denying),
        (*GROUP, PROBLEM, "allow logs:PutLogEvents and logs:CreateLogStream"),
    ),
    broken(
        "a log group whose role does not count",
        log_group(role="events.amazonaws.com"),
        (*GROUP, PROBLEM, "allow logs:PutLogEvents and logs:CreateLogStream"),
    ),
    broken(
        "a log group of another account",
        target("logged", lambda world: world.group.replace(ACCOUNT, "111111111111")),
        ("targets", "logs /aws/events/{}", PROBLEM, "does not exist"),
    ),
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_a_log_group_exactly_what_is_wrong_is_told(worlds: Worlds, case: Broken) -> None:
    async with worlds(*case.parts) as world:
        await case.act(world)
        try:
            assert_exactly(await world.check(), case.expected, world.name)
        finally:
            # An account has ten of them.
            logs = world.clients["logs"]
            for one in (await logs.describe_resource_policies())["resourcePolicies"]:
                if one["policyName"].startswith(world.name):
                    await logs.delete_resource_policy(policyName=one["policyName"])


def denied_by_itself(request: bytes, answer: bytes) -> bytes:
    if b'"RESOURCE"' not in request:
        return answer
    document = policy(denying("*", ""))
    return json.dumps({"resourcePolicies": [{"policyDocument": document, "policyScope": "RESOURCE"}]}).encode()


def not_told(request: bytes, answer: bytes) -> bytes | None:
    return None if b'"RESOURCE"' in request else answer


@pytest.mark.parametrize(
    ("alter", "level", "text"),
    [
        (denied_by_itself, PROBLEM, "allow logs:PutLogEvents and logs:CreateLogStream"),
        (not_told, NOT_CHECKED, "policies of the log group itself"),
    ],
)
async def test_a_log_group_has_policies_of_its_own(
    bus_world: World, emulator: AwsEmulator, alter: Alter, level: Level, text: str
) -> None:
    async with altered(emulator.endpoint_url, "Logs_20140328.DescribeResourcePolicies", alter) as url:
        report = await bus_world.check(aws=at(url))
    assert_exactly(report, [("targets", "logs /aws/events/{}", level, text)], bus_world.name)
