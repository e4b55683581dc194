"""The publisher for NATS JetStream. Only `JetStreamPublisher` needs nats-py; the rest imports without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oms_events._nats.config import ConnectionState, NatsConfig
from oms_events._nats.messages import from_nats_message
from oms_events.publishers.jetstream.config import (
    ContentMode,
    Discard,
    JetStreamOptions,
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
