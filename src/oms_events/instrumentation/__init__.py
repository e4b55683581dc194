"""Hooks that report every attempt, state change and decision. Only `PrometheusHook` needs prometheus_client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oms_events.instrumentation.cloudwatch import CloudWatchHook
from oms_events.instrumentation.correlation import CorrelationFilter, correlated, current_correlation_id
from oms_events.instrumentation.hooks import (
    ApiRequested,
    AppendConflict,
    Appended,
    BacklogMeasured,
    BreakerChanged,
    CallEnded,
    CheckEnded,
    ChunksSent,
    DeadLettered,
    Decided,
    Detail,
    DuplicateAcks,
    EventParked,
    FailedOver,
    GapsProbed,
    Hook,
    Hooks,
    LateRecords,
    LeaseChanged,
    OutboxAlert,
    Projected,
    QuotaUsedUp,
    Relayed,
    RelayRetried,
    Replayed,
    Retried,
    Settled,
    SnapshotFailed,
    TriggerBreakerChanged,
    Triggered,
)
from oms_events.instrumentation.logs import LoggingHook

if TYPE_CHECKING:
    from oms_events.instrumentation.prometheus import PrometheusHook

__all__ = [
    "ApiRequested",
    "AppendConflict",
    "Appended",
    "BacklogMeasured",
    "BreakerChanged",
    "CallEnded",
    "CheckEnded",
    "ChunksSent",
    "CloudWatchHook",
    "CorrelationFilter",
    "DeadLettered",
    "Decided",
    "Detail",
    "DuplicateAcks",
    "EventParked",
    "FailedOver",
    "GapsProbed",
    "Hook",
    "Hooks",
    "LateRecords",
    "LeaseChanged",
    "LoggingHook",
    "OutboxAlert",
    "Projected",
    "PrometheusHook",
    "QuotaUsedUp",
    "RelayRetried",
    "Relayed",
    "Replayed",
    "Retried",
    "Settled",
    "SnapshotFailed",
    "TriggerBreakerChanged",
    "Triggered",
    "correlated",
    "current_correlation_id",
]


def __getattr__(name: str) -> Any:
    if name == "PrometheusHook":
        from oms_events.instrumentation.prometheus import PrometheusHook

        return PrometheusHook
    raise AttributeError(name)
