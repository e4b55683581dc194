"""One start, made by several processes at the same moment, on DynamoDB: it runs once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from oms_events._aws.dynamodb import DynamoClient
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from oms_events.triggers.schema import IDEMPOTENCY, RATE
from tests.eventstore.support import fresh_table
from tests.outbox.conftest import aws, dynamo
from tests.outbox.support import Settings

__all__ = ["aws", "dynamo"]

PROCESSES, STARTS = 4, 50
PROGRAM = Path(__file__).with_name("start_many.py")


async def test_of_200_deliveries_of_one_start_to_4_processes_exactly_one_runs(
    aws: Settings, dynamo: DynamoClient
) -> None:
    async with (
        fresh_table(dynamo, IDEMPOTENCY, "idempotency") as records,
        fresh_table(dynamo, RATE, "rate") as rate,
    ):
        job = {"access": aws, "idempotency_table": records, "rate_table": rate, "starts": STARTS}
        reports = await run_processes(job)
        answers = sum((Counter(report["answers"]) for report in reports), Counter[str]())
        # One ran; whoever came meanwhile was told so, and whoever came later got its answer.
        assert sum(report["ran"] for report in reports) == 1
        assert answers["success"] == 1
        assert answers["busy"] + answers["duplicate"] == PROCESSES * STARTS - 1
        # Together they took one of the quota.
        async with DynamoDBRateLimiter(GuardTableConfig(table_name=rate, **aws)) as limiter:
            assert await limiter.look("manual", Quota(limit=1, window=3600)) > 0
            assert await limiter.look("manual", Quota(limit=2, window=3600)) == 0


async def run_processes(job: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process tells at its end; all begin at the same moment."""
    command = [sys.executable, str(PROGRAM), json.dumps({**job, "processes": PROCESSES})]
    program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            out, _ = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == 0
    reports: list[dict[str, Any]] = json.loads(out)
    return reports
