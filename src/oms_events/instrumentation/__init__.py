"""Hooks that report every attempt, state change and decision; logging and Prometheus are two of them."""

from __future__ import annotations

from oms_events.instrumentation.hooks import (
    BreakerChanged,
    CallEnded,
    CheckEnded,
    Decided,
    Detail,
    FailedOver,
    Hook,
    Hooks,
    Retried,
    Settled,
)
from oms_events.instrumentation.logs import LoggingHook

__all__ = [
    "BreakerChanged",
    "CallEnded",
    "CheckEnded",
    "Decided",
    "Detail",
    "FailedOver",
    "Hook",
    "Hooks",
    "LoggingHook",
    "Retried",
    "Settled",
]
