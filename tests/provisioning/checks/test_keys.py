"""The KMS keys of queues, topics and the bus: what EventBridge may not use loses every event."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events.devstack import AwsEmulator, Denied, FaultProxy
from tests.provisioning.checks.altered import altered, saying
from tests.provisioning.checks.broken import (
    NOT_CHECKED,
    PROBLEM,
    Act,
    Broken,
    assert_exactly,
    assert_told,
    broken,
    target,
)
from tests.provisioning.checks.checked import ACCOUNT, BUS, World, Worlds, at, policy

USE: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": {"Service": "events.amazonaws.com"},
    "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
    "Resource": "*",
}
BY_ACCOUNT = {"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}
QUEUE, TOPIC = ("targets", "sqs {}-orders"), ("targets", "sns {}")


async def make_key(world: World, *statements: dict[str, Any]) -> str:
    kms = world.clients["kms"]
    key: str = (await kms.create_key(Policy=policy(*statements)))["KeyMetadata"]["KeyId"]
    await kms.create_alias(AliasName=f"alias/{world.name}", TargetKeyId=key)
    return key


def of_queue(*statements: dict[str, Any]) -> Act:
    async def act(world: World) -> None:
        await make_key(world, *statements)
        await world.set_queue("orders", KmsMasterKeyId=f"alias/{world.name}")

    return act


def of_topic(*statements: dict[str, Any]) -> Act:
    async def act(world: World) -> None:
        key = await make_key(world, *statements)
        await world.clients["sns"].set_topic_attributes(
            TopicArn=world.arn("sns", world.name), AttributeName="KmsMasterKeyId", AttributeValue=key
        )

    return act


def of_bus(*statements: dict[str, Any]) -> Act:
    async def act(world: World) -> None:
        key = await make_key(world, *statements)
        await world.clients["events"].update_event_bus(
            Name=world.name, KmsKeyIdentifier=key, DeadLetterConfig={"Arn": world.queue("bus")}
        )

    return act


async def switch_off(world: World) -> None:
    key = await make_key(world, USE)
    await world.clients["kms"].disable_key(KeyId=key)
    await world.set_queue("orders", KmsMasterKeyId=world.arn("kms", f"key/{key}"))


async def use_role(world: World) -> None:
    await of_queue(USE)(world)
    role = await world.clients["iam"].create_role(
        RoleName=world.name, AssumeRolePolicyDocument=policy({**USE, "Action": "sts:AssumeRole"})
    )
    allowed = policy({"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"})
    await world.clients["iam"].put_role_policy(RoleName=world.name, PolicyName="all", PolicyDocument=allowed)
    await target("orders", lambda world: world.queue("orders"), RoleArn=role["Role"]["Arn"])(world)


BROKEN = [
    broken("a queue whose key may be used", of_queue(USE)),
    broken("a topic whose key may be used", of_topic(USE)),
    broken("a bus whose key may be used", of_bus({**USE, **BY_ACCOUNT})),
    broken("a key that nobody may use", of_queue(), (*QUEUE, PROBLEM, "alias/{} does not let EventBridge use it")),
    broken(
        "a key for encryption alone",
        of_queue({**USE, "Action": "kms:GenerateDataKey"}),
        (*QUEUE, PROBLEM, "allow kms:GenerateDataKey and kms:Decrypt"),
    ),
    broken("a key of a queue for an account", of_queue({**USE, **BY_ACCOUNT}), (*QUEUE, NOT_CHECKED, "only AWS")),
    broken(
        "a key of a topic for an account",
        of_topic({**USE, **BY_ACCOUNT}),
        (*TOPIC, PROBLEM, "without a condition on the source"),
    ),
    broken("a key of a bus that nobody may use", of_bus(), ("bus", "{}", PROBLEM, "does not let EventBridge use")),
    broken("a key that is off", switch_off, (*QUEUE, PROBLEM, "is Disabled")),
    broken(
        "a key that does not exist",
        lambda world: world.set_queue("orders", KmsMasterKeyId="alias/none"),
        (*QUEUE, PROBLEM, "its key alias/none does not exist"),
    ),
    broken(
        "a key of AWS by its ARN",
        lambda world: world.set_queue("orders", KmsMasterKeyId=world.arn("kms", "alias/aws/sqs")),
        (*QUEUE, PROBLEM, "AWS's own key"),
    ),
    broken("a key for a role", use_role, (*QUEUE, NOT_CHECKED, "whether the role of rule orders may use its key")),
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_a_key_exactly_what_is_wrong_is_told(worlds: Worlds, case: Broken) -> None:
    await assert_told(worlds, case)


async def test_a_key_that_may_not_be_looked_at_is_not_checked(worlds: Worlds, emulator: AwsEmulator) -> None:
    async with worlds(*BUS) as world, FaultProxy(emulator.endpoint_url) as proxy:
        await of_queue(USE)(world)
        for operation in ("DescribeKey", "GetKeyPolicy"):
            proxy.clear()
            proxy.always(Denied(), operation=operation)
            report = await world.check(aws=at(proxy.endpoint_url))
            assert_exactly(report, [(*QUEUE, NOT_CHECKED, f"its key alias/{world.name}: ")], world.name)


async def test_a_key_that_aws_manages_is_none_for_eventbridge(worlds: Worlds, emulator: AwsEmulator) -> None:
    async with worlds(*BUS) as world:
        await of_queue(USE)(world)
        async with altered(emulator.endpoint_url, "DescribeKey", saying('"CUSTOMER"', '"AWS"')) as url:
            report = await world.check(aws=at(url))
    assert_exactly(report, [(*QUEUE, PROBLEM, "AWS's own key")], world.name)
