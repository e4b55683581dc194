"""Processes that make the same start many times at once, all at the same moment.

`start_many.py <job>`: prints a line with what came of it in each process.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

# Loaded before the fork: it takes longer than all else.
import oms_events._aws.session  # noqa: F401
from oms_events.idempotency import DynamoDBIdempotencyStore, IdempotencyConfig
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.start import Start


async def start_many(job: dict[str, Any], orders: Connection) -> None:
    ran = 0

    async def handler(start: Start) -> str:
        nonlocal ran
        ran += 1
        # Others come meanwhile.
        await asyncio.sleep(0.05)
        return "ran"

    records = IdempotencyConfig(table_name=job["idempotency_table"], **job["access"])
    pipeline = TriggerPipeline(
        handler,
        idempotency=DynamoDBIdempotencyStore(records),
        rate=DynamoDBRateLimiter(GuardTableConfig(table_name=job["rate_table"], **job["access"])),
    )
    async with pipeline:
        orders.send("ready")
        await asyncio.to_thread(orders.recv)
        call = {"symbols": ["AAPL"], "correlation_id": "the-same"}
        responses = await asyncio.gather(*(pipeline.handle(call) for _ in range(job["starts"])))
    orders.send({"ran": ran, "answers": Counter(response.status.value for response in responses)})


def one_process(job: dict[str, Any], orders: Connection) -> None:
    asyncio.run(start_many(job, orders))


def main(job: dict[str, Any]) -> None:
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(job["processes"])]
    processes = [fork.Process(target=one_process, args=(job, inside)) for _, inside in pipes]
    for process in processes:
        process.start()
    for outside, _ in pipes:
        outside.recv()
    for outside, _ in pipes:
        outside.send("go")
    print(json.dumps([outside.recv() for outside, _ in pipes]), flush=True)
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
