"""Routes CloudEvents to several platforms at once: NATS JetStream, AWS EventBridge and your own."""

from __future__ import annotations

from oms_events.errors import (
    AddressDeniedError,
    ConfigurationError,
    EventRejectedError,
    FailureClass,
    InvalidEventError,
    MissingExtraError,
    OmsEventsError,
    PlatformDeniedError,
    PublishError,
    RouterClosedError,
    RuleError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
    UnroutableEventError,
)
from oms_events.events import EncodedEvent, build_event, encode, parse_event
from oms_events.oms.catalogue import EventType
from oms_events.oms.factory import create_oms_multi_platform_router
from oms_events.oms.rules import default_rules
from oms_events.oms.service import EnhancedEventService
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishers.jetstream.config import JetStreamOptions, NatsConfig, StreamPolicy, StreamSpec
from oms_events.publishers.memory import MemoryPublisher
from oms_events.publishing import (
    Outcome,
    Platform,
    Publisher,
    PublisherTraits,
    PublishResult,
    PublishResults,
    Receipt,
)
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.breaker import BreakerConfig
from oms_events.routing.config import DestinationConfig, RouterConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rulefile import load_rules
from oms_events.routing.rules import RoutingRule, RoutingStrategy

__all__ = [
    "AddressDeniedError",
    "BreakerConfig",
    "ConfigurationError",
    "DestinationConfig",
    "EncodedEvent",
    "EnhancedEventService",
    "EventBridgeConfig",
    "EventRejectedError",
    "EventRouter",
    "EventType",
    "FailureClass",
    "InvalidEventError",
    "JetStreamOptions",
    "MemoryPublisher",
    "MissingExtraError",
    "NatsConfig",
    "OmsEventsError",
    "Outcome",
    "Platform",
    "PlatformDeniedError",
    "PublishError",
    "PublishResult",
    "PublishResults",
    "Publisher",
    "PublisherTraits",
    "Receipt",
    "RetryConfig",
    "RouterClosedError",
    "RouterConfig",
    "RoutingRule",
    "RoutingStrategy",
    "RuleError",
    "SkippedError",
    "StreamPolicy",
    "StreamSpec",
    "TransientError",
    "UnknownOutcomeError",
    "UnroutableEventError",
    "build_event",
    "create_oms_multi_platform_router",
    "default_rules",
    "encode",
    "load_rules",
    "parse_event",
]
