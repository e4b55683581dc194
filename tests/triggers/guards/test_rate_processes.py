"""200 starts at once in four processes, against one quota of ten."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item, to_item
from oms_events.devstack import FaultProxy, LoseAnswer, Throttle
from oms_events.triggers.schema import rate_key
from tests.outbox.support import Settings
from tests.triggers.guards.conftest import Tables
from tests.triggers.guards.taking_program import QUOTA, TAKES

PROGRAM = Path(__file__).with_name("taking_program.py")
PROCESSES = 4


@asynccontextmanager
async def processes(aws: Settings, tables: Tables, **fields: Any) -> AsyncIterator[Process]:
    settings = {**aws, "table_name": tables.rate.table_name, **fields}
    config = json.dumps({**settings, "retry": {"max_attempts": 8, "initial": 0.001, "maximum": 0.01}})
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), config, str(PROCESSES)), stdin=PIPE, stdout=PIPE
    )
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await started.stdout.readline() == b"ready\n"
        yield started
    finally:
        started.stdin.close()
        assert await started.wait() == 0


async def take_at_once(program: Process, name: str) -> tuple[int, int]:
    """How many takes passed and failed, of all processes."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(f"{name}\n".encode())
    async with asyncio.timeout(60):
        answers = json.loads(await program.stdout.readline())
    assert len(answers) == PROCESSES
    assert [answer["wrong"] for answer in answers] == [[]] * PROCESSES
    return sum(answer["passed"] for answer in answers), sum(answer["failed"] for answer in answers)


async def counted(dynamo: DynamoClient, tables: Tables, name: str) -> int:
    table = tables.rate.table_name
    key = {"TableName": table, "Key": to_item(rate_key(name)), "ConsistentRead": True}
    return len(from_item((await dynamo.call("GetItem", key, table=table))["Item"])["starts"])


async def test_exactly_ten_pass(aws: Settings, dynamo: DynamoClient, tables: Tables) -> None:
    name = f"quota-{uuid.uuid4()}"
    async with processes(aws, tables) as program:
        assert await take_at_once(program, name) == (QUOTA.limit, 0)
    assert await counted(dynamo, tables, name) == QUOTA.limit


@pytest.mark.nightly
async def test_when_answers_are_lost_never_more_than_ten_pass(
    aws: Settings, dynamo: DynamoClient, tables: Tables, proxy: FaultProxy
) -> None:
    async with processes(aws, tables, endpoint_url=proxy.endpoint_url) as program:
        for seed in range(5):
            name = f"quota-{uuid.uuid4()}"
            proxy.forget_calls()
            proxy.seeded(seed, {LoseAnswer(): 0.25, Throttle(): 0.15}, operation="UpdateItem")
            passed, failed = await take_at_once(program, name)
            assert len(proxy.calls_of("UpdateItem")) > PROCESSES * TAKES
            # One that gave up may be counted; one that passed is.
            assert QUOTA.limit - failed <= passed <= QUOTA.limit
            assert await counted(dynamo, tables, name) == QUOTA.limit
            proxy.clear()
