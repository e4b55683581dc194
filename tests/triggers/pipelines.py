"""What the tests of the pipeline share: one with all guards in memory, a handler that remembers, and payloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oms_events.idempotency.memory import MemoryIdempotencyStore
from oms_events.instrumentation.hooks import Detail, Triggered
from oms_events.testing.clock import ManualClock
from oms_events.triggers.config import Quota, TriggerConfig
from oms_events.triggers.guards.breaker import MemoryBreakers
from oms_events.triggers.guards.exclusion import MemoryLeases
from oms_events.triggers.guards.rate import MemoryRateLimiter
from oms_events.triggers.pipeline import TriggerPipeline
from oms_events.triggers.sending.dead_letters import MemoryDeadLetters
from oms_events.triggers.sending.delay import MemoryDelayQueue
from oms_events.triggers.start import Start
from tests.triggers.strategies import payload

CONFIG = TriggerConfig.of("dev")


@dataclass
class Recorder:
    """A handler that remembers its starts, and does what it is told."""

    result: Any = field(default_factory=lambda: {"chunks": 1})
    error: BaseException | None = None
    gate: asyncio.Event | None = None
    """It waits for this."""
    starts: list[Start] = field(default_factory=list)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, start: Start) -> Any:
        self.starts.append(start)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.result


class Scene:
    """A pipeline with everything in memory, on a clock that stands still."""

    def __init__(self, config: TriggerConfig = CONFIG, **more: Any) -> None:
        self.clock: ManualClock = more.get("clock", ManualClock())
        self.details: list[Detail] = []
        self.handler = Recorder()
        self.records: MemoryIdempotencyStore = more.get("idempotency", MemoryIdempotencyStore())
        own_breakers = MemoryBreakers(config.breaker, clock=self.clock)
        self.breakers: MemoryBreakers = more.get("breaker", own_breakers)
        self.leases: MemoryLeases = more.get("leases", MemoryLeases(clock=self.clock))
        self.delay = more.get("delay") or MemoryDelayQueue(clock=self.clock)
        self.dead_letters = MemoryDeadLetters(clock=self.clock)
        ids = (f"made-{at}" for at in range(1_000_000))
        parts: dict[str, Any] = {
            "handler": self.handler,
            "idempotency": self.records,
            "breaker": self.breakers,
            "rate": MemoryRateLimiter(clock=self.clock),
            "leases": self.leases,
            "delay": self.delay,
            "dead_letters": self.dead_letters,
            "hooks": (self.details.append,),
            "clock": self.clock,
            "make_id": lambda: next(ids),
            **more,
        }
        self.pipeline = TriggerPipeline(parts.pop("handler"), config=config, **parts)

    @property
    def handle(self) -> Callable[[object], Any]:
        return self.pipeline.handle

    @property
    def triggered(self) -> list[Triggered]:
        return [detail for detail in self.details if isinstance(detail, Triggered)]

    async def is_free(self) -> bool:
        """Whether no guard holds anything: neither a record, nor a trial, nor a lease."""
        permit = await self.breakers.admit("market", "prices")
        if isinstance(permit, float):
            return False
        await self.breakers.released(permit)
        lease = await self.leases.take("market:prices", seconds=1)
        if isinstance(lease, float):
            return False
        await self.leases.release(lease)
        return not len(self.records)


def limited(**limits: int) -> TriggerConfig:
    """A configuration in which so many starts may run in a minute."""
    quotas = {name: Quota(limit=limit, window=60) for name, limit in limits.items()}
    return CONFIG.model_copy(update={"quotas": quotas})


def manual(**fields: Any) -> dict[str, Any]:
    return {"symbols": ["AAPL"], "correlation_id": "call-1", **fields}


def event(event_id: str = "event-1", **detail: Any) -> dict[str, Any]:
    """An event of a known kind."""
    return {**payload("adhoc_ingestion"), "id": event_id, "detail": {"symbols": ["AAPL"], **detail}}


def schedule(time: str = "2026-09-09T22:00:00Z") -> dict[str, Any]:
    return {**payload("scheduled_default"), "time": time}


def new_objects(*names: str) -> dict[str, Any]:
    """A notification of S3 with a record for each key."""
    (record, *_) = payload("s3_notification")["Records"]
    return {
        "Records": [
            {**record, "s3": {**record["s3"], "object": {**record["s3"]["object"], "key": name}}} for name in names
        ]
    }


def again(raw: dict[str, Any], time: str = "2026-01-01T01:00:00Z") -> dict[str, Any]:
    """What was set aside, as it comes again."""
    correlation_id = raw.get("correlation_id", "first")
    return {"delayed_start": {"version": 1, "raw": raw, "correlation_id": correlation_id, "trigger_time": time}}
