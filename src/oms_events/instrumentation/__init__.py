"""Hooks that report every attempt, state change and decision; logging and Prometheus are two of them."""

from __future__ import annotations

from oms_events.instrumentation.hooks import (
    BacklogMeasured,
    BreakerChanged,
    CallEnded,
    CheckEnded,
    DeadLettered,
    Decided,
    Detail,
    DuplicateAcks,
    FailedOver,
    GapsProbed,
    Hook,
    Hooks,
    LateRecords,
    LeaseChanged,
    OutboxAlert,
    Relayed,
    RelayRetried,
    Retried,
    Settled,
)
from oms_events.instrumentation.logs import LoggingHook

__all__ = [
    "BacklogMeasured",
    "BreakerChanged",
    "CallEnded",
    "CheckEnded",
    "DeadLettered",
    "Decided",
    "Detail",
    "DuplicateAcks",
    "FailedOver",
    "GapsProbed",
    "Hook",
    "Hooks",
    "LateRecords",
    "LeaseChanged",
    "LoggingHook",
    "OutboxAlert",
    "RelayRetried",
    "Relayed",
    "Retried",
    "Settled",
]
