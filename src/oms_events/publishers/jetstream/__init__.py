"""The publisher for NATS JetStream. Only `JetStreamPublisher` needs nats-py; the rest imports without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oms_events.publishers.jetstream.binding import from_nats_message
from oms_events.publishers.jetstream.config import (
    ConnectionState,
    ContentMode,
    Discard,
    JetStreamOptions,
    NatsConfig,
    Retention,
    Storage,
    StreamPolicy,
    StreamSpec,
)
from oms_events.publishers.jetstream.subjects import SubjectTemplate

if TYPE_CHECKING:
    from oms_events.publishers.jetstream.publisher import JetStreamPublisher

__all__ = [
    "ConnectionState",
    "ContentMode",
    "Discard",
    "JetStreamOptions",
    "JetStreamPublisher",
    "NatsConfig",
    "Retention",
    "Storage",
    "StreamPolicy",
    "StreamSpec",
    "SubjectTemplate",
    "from_nats_message",
]


def __getattr__(name: str) -> Any:
    if name == "JetStreamPublisher":
        from oms_events.publishers.jetstream.publisher import JetStreamPublisher

        return JetStreamPublisher
    raise AttributeError(name)
