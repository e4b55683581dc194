"""A process of several that make the same start many times at once, and tell what came of it.

Run as `python -m tests.triggers.start_many '{"access": ..., "idempotency_table": ..., "rate_table": ..., "starts": 50}'`.
"""  # noqa: E501

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from oms_events.idempotency import DynamoDBIdempotencyStore, IdempotencyConfig
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.start import Start


async def main(job: dict[str, Any]) -> None:
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
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        call = {"symbols": ["AAPL"], "correlation_id": "the-same"}
        responses = await asyncio.gather(*(pipeline.handle(call) for _ in range(job["starts"])))
    answers = Counter(response.status.value for response in responses)
    print(json.dumps({"ran": ran, "answers": answers}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
