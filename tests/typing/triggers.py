"""Triggers as a type checker sees them. Never executed; mypy --strict checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_type

from pydantic import BaseModel

from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.publishing import EventPublisher
from oms_events.receiving import JetStreamReceiver, ReceiverConfig
from oms_events.triggers import (
    DEFAULT_EVENTS,
    ChunkSender,
    DeadLetters,
    DelayQueue,
    DynamoDBBreakers,
    DynamoDBLeases,
    DynamoDBRateLimiter,
    EventReader,
    EventReaders,
    EventSender,
    Exclusive,
    GuardTableConfig,
    Handler,
    Lease,
    Leases,
    MarketClose,
    MemoryBreakers,
    MemoryDeadLetters,
    MemoryDelayQueue,
    MemoryLeases,
    MemoryRateLimiter,
    OutboundLimiter,
    ParameterStoreSymbols,
    QueueConfig,
    Quota,
    RateLimiter,
    RuleViolation,
    Start,
    Status,
    SymbolSource,
    TriggerBreakers,
    TriggerConfig,
    TriggerPipeline,
    TriggerRequest,
    TriggerResponse,
    received_starts_handler,
)


async def handler(start: Start) -> dict[str, int]:
    assert_type(start.request, TriggerRequest)
    assert_type(start.fence, int | None)
    return {"symbols": len(start.request.symbols)}


def no_minutes(request: TriggerRequest) -> RuleViolation | None:
    return RuleViolation("NO_MINUTES", "ask for days", "interval", request.interval, fallback={"interval": "1d"})


async def known_here(request: TriggerRequest) -> RuleViolation | None:
    return None


class Rebalanced(BaseModel):
    portfolio: str
    symbols: tuple[str, ...]


def asked(detail: Rebalanced) -> Mapping[str, Any]:
    return {"symbols": detail.symbols}


async def loaded(request: TriggerRequest) -> Sequence[str]:
    return ["AAPL"]


guards = GuardTableConfig(table_name="guards")
rates: list[RateLimiter] = [MemoryRateLimiter(), DynamoDBRateLimiter(guards)]
breakers: list[TriggerBreakers] = [MemoryBreakers(), DynamoDBBreakers(guards)]
all_leases: list[Leases] = [MemoryLeases(), DynamoDBLeases(guards)]
sources: list[SymbolSource] = [loaded, ParameterStoreSymbols("/symbols")]
queue = QueueConfig(queue_url="https://sqs.eu-central-1.amazonaws.com/111122223333/chunks")
delay: DelayQueue = MemoryDelayQueue()
dead_letters: DeadLetters = MemoryDeadLetters()


async def use(publisher: EventPublisher, receiver_config: ReceiverConfig, client: Any) -> None:
    handlers: list[Handler] = [handler, ChunkSender(queue), EventSender(publisher)]
    events = EventReaders(DEFAULT_EVENTS)
    events.register("portfolio.service", "Rebalanced", Rebalanced, asked)
    events.register("market.events", "Market Close", MarketClose, asked)  # type: ignore[arg-type]
    EventReader("market.events", "Market Close", MarketClose, asked)  # type: ignore[arg-type]
    assert_type(EventReader("x", "y", Rebalanced, asked), EventReader[Rebalanced])
    pipeline = TriggerPipeline(
        handlers[0],
        config=TriggerConfig(quotas={"manual": Quota(limit=10, window=3600)}),
        idempotency=MemoryIdempotencyStore(),
        rate=rates[0],
        breaker=breakers[0],
        leases=all_leases[0],
        symbols=sources[0],
        rules=[no_minutes, known_here],
        events=events,
        delay=delay,
        dead_letters=dead_letters,
    )
    async with pipeline:
        response = await pipeline.handle({"symbols": ["AAPL"]})
        assert_type(response, TriggerResponse)
        assert_type(response.status, Status)
        assert_type(response.body, dict[str, Any])
    async with JetStreamReceiver(client, receiver_config, received_starts_handler(pipeline)):
        pass
    async with Exclusive(all_leases[0], "market:prices", seconds=30) as lease:
        assert_type(lease, Lease)
    limiter = OutboundLimiter(rates[0], "yahoo_finance")
    async for batch in limiter.batches(["AAPL", "MSFT"]):
        assert_type(batch, tuple[str, ...])
