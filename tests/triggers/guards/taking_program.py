"""Processes that take a quota 50 times at once each, whenever a line on stdin names one.

`taking_program.py <configuration> <processes>`: answers each line with how many takes passed and failed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from multiprocessing.connection import Connection
from typing import Any

# Loaded before the fork: it takes longer than all else.
import oms_events._aws.session  # noqa: F401
from oms_events.errors import StorageError
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter

TAKES = 50
QUOTA = Quota(limit=10, window=3600)


async def take(config: GuardTableConfig, orders: Connection) -> None:
    async with DynamoDBRateLimiter(config) as limiter:
        orders.send("ready")
        while name := await asyncio.to_thread(orders.recv):
            takes = (limiter.take(name, QUOTA) for _ in range(TAKES))
            waits = await asyncio.gather(*takes, return_exceptions=True)
            failed = [wait for wait in waits if isinstance(wait, StorageError)]
            wrong = [repr(wait) for wait in waits if isinstance(wait, BaseException) and wait not in failed]
            orders.send({"passed": waits.count(0.0), "failed": len(failed), "wrong": wrong})


def one_process(fields: dict[str, Any], orders: Connection) -> None:
    asyncio.run(take(GuardTableConfig(**fields), orders))


def main(fields: dict[str, Any], count: int) -> None:
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(count)]
    processes = [fork.Process(target=one_process, args=(fields, inside)) for _, inside in pipes]
    for process in processes:
        process.start()
    for outside, _ in pipes:
        outside.recv()
    print("ready", flush=True)
    for line in sys.stdin:
        for outside, _ in pipes:
            outside.send(line.strip())
        print(json.dumps([outside.recv() for outside, _ in pipes]), flush=True)
    for outside, _ in pipes:
        outside.send("")
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
