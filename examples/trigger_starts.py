"""Starts of all kinds through one pipeline, in one process: checked, guarded, answered."""

# [start:imports]
from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.triggers import (
    DEFAULT_EVENTS,
    EventReaders,
    MemoryBreakers,
    MemoryDeadLetters,
    MemoryDelayQueue,
    MemoryLeases,
    MemoryRateLimiter,
    Quota,
    RuleViolation,
    Start,
    TriggerConfig,
    TriggerPipeline,
    TriggerRequest,
)

# [end:imports]


# [start:handler]
class Ingestion:
    """What a start is for."""

    async def __call__(self, start: Start) -> Mapping[str, Any]:
        request = start.request
        print(
            f"  ingesting {', '.join(request.symbols)} for {request.domain}.{request.table_name}, {request.period}"
        )
        return {"symbols": len(request.symbols)}

    def plan(self, start: Start) -> Mapping[str, Any]:
        """What a dry run shows."""
        return {"would ingest": list(start.request.symbols)}


# [end:handler]


# [start:symbols]
async def load_symbols(request: TriggerRequest) -> Sequence[str]:
    """Asked when a start names none: from your database, a file, a service."""
    return ["AAPL", "MSFT"]


# [end:symbols]


# [start:rules]
def minutes_of_a_week(request: TriggerRequest) -> RuleViolation | None:
    """The upstream keeps minutes for seven days: go on with what there is."""
    if request.interval != "1m" or request.period in ("1d", "5d"):
        return None
    remedy = "minutes are kept for seven days; ask for 5d at most"
    return RuleViolation("TOO_LONG_FOR_MINUTES", remedy, "period", request.period, fallback={"period": "5d"})


async def known_table(request: TriggerRequest) -> RuleViolation | None:
    """Nobody would read any other: refuse it."""
    if request.table_name in ("prices", "dividends"):
        return None
    return RuleViolation("UNKNOWN_TABLE", "create the table first", "table_name", request.table_name)


# [end:rules]


# [start:events]
class IndexChanged(BaseModel):
    """The detail of the events `Index Changed` of `compliance`."""

    index: str
    members: list[str]


def to_fields(detail: IndexChanged) -> Mapping[str, Any]:
    return {"symbols": detail.members, "period": "1y"}


EVENTS = EventReaders(DEFAULT_EVENTS)  # the four of the preset, and yours
EVENTS.register("compliance", "Index Changed", IndexChanged, to_fields)
# [end:events]

# [start:inputs]
SCHEDULED = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "source": "aws.events",
    "detail-type": "Scheduled Event",
    "account": "111122223333",
    "region": "eu-central-1",
    "time": "2026-09-09T22:00:00Z",
    "resources": ["arn:aws:events:eu-central-1:111122223333:rule/daily"],
    "detail": {},
}
MARKET_CLOSE = {
    **SCHEDULED,
    "id": "6f9a1c1e-8a53-4a1e-9f0e-3f3c1f0a7b11",
    "source": "market.events",
    "detail-type": "Market Close",
    "detail": {"market": "NYSE", "date": "2026-09-09", "symbols": ["NVDA"]},
}
INDEX_CHANGED = {
    **SCHEDULED,
    "id": "7d0c2b52-5a0b-4d0e-8a49-0a6f6d9e6b22",
    "source": "compliance",
    "detail-type": "Index Changed",
    "detail": {"index": "DAX", "members": ["SAP.DE", "SIE.DE"]},
}
NEW_OBJECT = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "eu-central-1",
            "eventTime": "2026-09-09T22:05:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": "dev-ingestion"},
                "object": {
                    "key": "market/prices/ds%3D2026-09-09/symbol%3DTSLA/part-0.json",
                    "size": 1024,
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        }
    ]
}
BY_HAND = {"correlation_id": "by-hand-1", "symbols": ["AAPL"], "period": "1d", "urgent": True}
# [end:inputs]


# [start:pipeline]
pipeline = TriggerPipeline(
    Ingestion(),
    config=TriggerConfig(
        quotas={"manual": Quota(limit=5, window=3600), "event": Quota(limit=3, window=60)},
        object_suffix=".json",
    ),
    idempotency=MemoryIdempotencyStore(),
    breaker=MemoryBreakers(),
    rate=MemoryRateLimiter(),
    leases=MemoryLeases(),
    symbols=load_symbols,
    rules=[minutes_of_a_week, known_table],
    events=EVENTS,
    delay=MemoryDelayQueue(),
    dead_letters=MemoryDeadLetters(),
)
# [end:pipeline]


# [start:show]
async def show(what: str, raw: object) -> None:
    print(f"{what}:")
    response = await pipeline.handle(raw)
    told = [str(problem) for problem in response.problems] or response.result
    print(f"  {response.status_code} {response.status} {told}")


# [end:show]


# [start:starts]
async def main() -> None:
    async with pipeline:
        await show("scheduled", SCHEDULED)
        await show("the same again", SCHEDULED)
        await show("custom event", MARKET_CLOSE)
        await show("your own event", INDEX_CHANGED)
        await show("new object", NEW_OBJECT)
        await show("too many events", {**INDEX_CHANGED, "id": "8b2d4a30-11aa-4a6b-bb4f-4f0f3f0c9c33"})
        await show("by hand", BY_HAND)
        await show("with a fallback", {"symbols": ["AAPL"], "interval": "1m", "period": "1y"})
        await show("refused", {"symbols": ["AAPL"], "table_name": "splits"})
        await show("broken", "{")
        await show("invalid", {"symbols": ["AAPL", "?"], "table_name": "prices-1"})
        await show("by hand again", {"symbols": ["MSFT"]})
        await show("dry run", {**BY_HAND, "correlation_id": "by-hand-2", "dry_run": True})
        await show("too many by hand", {"symbols": ["GOOGL"]})


if __name__ == "__main__":
    logging.getLogger("oms_events").setLevel(logging.CRITICAL)  # the answers say it all here
    asyncio.run(main())
# [end:starts]
