"""A pipeline in memory: what comes in, what goes on, what is answered. Run: python examples/trigger_pipeline.py"""

from __future__ import annotations

import asyncio
from typing import Any

from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.triggers import (
    MemoryBreakers,
    MemoryDeadLetters,
    MemoryDelayQueue,
    MemoryLeases,
    MemoryRateLimiter,
    Start,
    TriggerConfig,
    TriggerPipeline,
)


# [start:pipeline]
async def handler(start: Start) -> dict[str, Any]:
    print(f"ingest {', '.join(start.request.symbols)} for {start.request.period}")
    return {"symbols": len(start.request.symbols)}


pipeline = TriggerPipeline(
    handler,
    config=TriggerConfig.of("dev"),
    idempotency=MemoryIdempotencyStore(),
    rate=MemoryRateLimiter(),
    breaker=MemoryBreakers(),
    leases=MemoryLeases(),
    delay=MemoryDelayQueue(),
    dead_letters=MemoryDeadLetters(),
)
lambda_handler = pipeline.lambda_handler  # the same as an AWS Lambda function: lambda_handler(event, context)


async def main() -> None:
    # A dict, JSON text or bytes, a CloudEvent: whatever came in.
    print((await pipeline.handle({"symbols": ["AAPL"], "period": "1d", "correlation_id": "call-1"})).body)
    print((await pipeline.handle('{"symbols": ["AAPL"], "period": "1d", "correlation_id": "call-1"}')).body)
    print((await pipeline.handle({"symbols": [5930], "table_name": "prices-2"})).body)
    # [end:pipeline]


if __name__ == "__main__":
    asyncio.run(main())
