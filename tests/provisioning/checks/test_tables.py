"""The tables of the outbox and of idempotent runs."""

from __future__ import annotations

import pytest

from oms_events import OutboxConfig
from oms_events.devstack import AwsEmulator, Denied, FaultProxy
from tests.provisioning.checks.broken import (
    NOT_CHECKED,
    PROBLEM,
    WARNING,
    Broken,
    assert_exactly,
    assert_told,
    broken,
    wrong,
)
from tests.provisioning.checks.checked import TABLES, World, Worlds, at


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


BROKEN = [
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
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_one_broken_thing_exactly_that_is_told(worlds: Worlds, case: Broken) -> None:
    await assert_told(worlds, case)


async def test_tables_are_looked_at_one_question_at_a_time(worlds: Worlds, emulator: AwsEmulator) -> None:
    async with worlds(*TABLES) as world, FaultProxy(emulator.endpoint_url) as proxy:
        for operation, tables in (
            ("DescribeTimeToLive", ("outbox", "idempotency")),
            ("DescribeContinuousBackups", ("outbox",)),
            ("GetItem", ("outbox",)),
        ):
            proxy.clear()
            proxy.always(Denied(), operation=operation)
            through = at(proxy.endpoint_url)
            report = await world.check(aws=through)
            told = [(table, f"{{}}-{table}", NOT_CHECKED, operation) for table in tables]
            assert_exactly(report, told, world.name)


async def test_the_outbox_has_the_stream_the_layout_and_the_buckets_that_are_wanted(worlds: Worlds) -> None:
    async with worlds(*TABLES) as world:
        outbox = OutboxConfig(table_name=f"{world.name}-outbox", buckets=8)
        report = await world.check(outbox=outbox, outbox_stream=True)
        told = [("has no stream", ""), ("has 4 buckets", "")]
        assert_exactly(report, [("outbox", "{}-outbox", PROBLEM, text) for text, _ in told], world.name)
        await world.table(
            "update_table", StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
        )
        assert wrong(await world.check(outbox_stream=True)) == []
        await world.forget_layout()
        assert_exactly(await world.check(), [("outbox", "{}-outbox", WARNING, "no layout yet")], world.name)
