"""Chunks to a queue, starts that wait, and dead letters that are started again: in one process, in memory."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.triggers import (
    ChunkSender,
    DeadLetterAdmin,
    DelayedStarts,
    MemoryBreakers,
    MemoryDeadLetters,
    MemoryDelayQueue,
    MemoryQueue,
    MemoryRateLimiter,
    MessageQueue,
    PipelineTarget,
    Quota,
    RuleViolation,
    TriggerConfig,
    TriggerPipeline,
    TriggerRequest,
)

MARKETS = {"market"}


def known_market(request: TriggerRequest) -> RuleViolation | None:
    """Refuse what nobody subscribed to."""
    if request.domain in MARKETS:
        return None
    return RuleViolation("UNKNOWN_MARKET", "subscribe to it first", "domain", request.domain)


def adhoc(number: int, **detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": f"00000000-0000-0000-0000-{number:012}",
        "source": "ops.manual",
        "detail-type": "Adhoc Ingestion",
        "account": "111122223333",
        "region": "eu-central-1",
        "time": "2026-09-09T16:30:00Z",
        "resources": [],
        "detail": detail,
    }


# [start:worker]
async def work(queue: MessageQueue) -> None:
    """Takes chunks as they come; one that fails is not deleted, and comes back."""
    while received := await queue.receive(hidden_for=300):
        for message in received:
            chunk = json.loads(message.body)
            print(f"  chunk {chunk['chunk_index'] + 1} of {chunk['chunk_count']}: {chunk['symbols']}")
            await queue.delete(message.receipt_handle)


# [end:worker]


async def serve(pipeline: TriggerPipeline) -> None:
    for number, symbols in enumerate((["AAPL", "MSFT", "GOOGL", "NVDA", "TSLA", "AMD"], ["IBM"])):
        response = await pipeline.handle(adhoc(number, symbols=symbols))
        print(f"{response.status_code} {response.status}")


# [start:letters]
async def redrive(pipeline: TriggerPipeline, dead_letters: MemoryDeadLetters) -> None:
    admin = DeadLetterAdmin(dead_letters.queue)  # of SQS: DeadLetterAdmin(QueueConfig(queue_url=...))
    for letter in await admin.letters():
        print(f"  {letter.kind} {letter.reason} {letter.trigger_type} {letter.raw['symbols']}")
    for handled in await admin.redrive(PipelineTarget(pipeline.handle)):
        print(f"  {handled.outcome}")


# [end:letters]


async def main() -> None:
    chunks, delay, dead_letters = MemoryQueue(), MemoryDelayQueue(), MemoryDeadLetters()
    # [start:pipeline]
    pipeline = TriggerPipeline(
        ChunkSender(chunks),  # to SQS: ChunkSender(QueueConfig(queue_url="https://sqs..."))
        config=TriggerConfig(quotas={"event": Quota(limit=1, window=0.2)}),
        idempotency=MemoryIdempotencyStore(),
        breaker=MemoryBreakers(),
        rate=MemoryRateLimiter(),
        rules=[known_market],
        delay=delay,
        dead_letters=dead_letters,
    )
    # [end:pipeline]
    # [start:later]
    async with pipeline, DelayedStarts(pipeline, delay, poll=0.3):
        await serve(pipeline)  # your service
        # [end:later]
        await work(chunks)
        while delay.documents:  # noqa: ASYNC110 - it tells nobody when a start leaves it
            await asyncio.sleep(0.05)
        print("nothing waits any more")
        await work(chunks)

        response = await pipeline.handle({"symbols": ["BTC-USD"], "domain": "crypto"})
        print(f"{response.status_code} {response.status} {response.problems[0]}")
        MARKETS.add("crypto")
        await redrive(pipeline, dead_letters)
        await work(chunks)


if __name__ == "__main__":
    logging.getLogger("oms_events").setLevel(logging.CRITICAL)  # the answers say it all here
    asyncio.run(main())
