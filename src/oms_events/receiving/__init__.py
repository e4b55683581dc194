"""Consumers that give CloudEvents to handlers. Only `JetStreamReceiver` needs nats-py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oms_events.receiving.config import ReceiverConfig
from oms_events.receiving.deliveries import Dropped

if TYPE_CHECKING:
    from oms_events.receiving.jetstream import JetStreamReceiver

__all__ = ["Dropped", "JetStreamReceiver", "ReceiverConfig"]


def __getattr__(name: str) -> Any:
    if name == "JetStreamReceiver":
        from oms_events.receiving.jetstream import JetStreamReceiver

        return JetStreamReceiver
    raise AttributeError(name)
