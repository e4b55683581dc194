"""Functions that run once per event or key, however often it is delivered."""

from __future__ import annotations

from oms_events.idempotency.cache import CachedIdempotencyStore
from oms_events.idempotency.config import IdempotencyConfig, IdempotencyOptions
from oms_events.idempotency.decorator import idempotent
from oms_events.idempotency.dynamodb import DynamoDBIdempotencyStore
from oms_events.idempotency.memory import MemoryIdempotencyStore
from oms_events.idempotency.records import RunRecord, RunState
from oms_events.idempotency.run import IdempotentRun, Serializer
from oms_events.idempotency.store import IdempotencyStore
from oms_events.idempotency.table import create_idempotency_table

__all__ = [
    "CachedIdempotencyStore",
    "DynamoDBIdempotencyStore",
    "IdempotencyConfig",
    "IdempotencyOptions",
    "IdempotencyStore",
    "IdempotentRun",
    "MemoryIdempotencyStore",
    "RunRecord",
    "RunState",
    "Serializer",
    "create_idempotency_table",
    "idempotent",
]
