"""Routes CloudEvents to several platforms at once: NATS JetStream, AWS EventBridge and your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
else:

    def __getattr__(name):
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


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

# Imported when first asked for: the pytest plugin is loaded in every test run of everybody who has the
# package installed, and must not cost them the import of all of it.
_MODULES = {
    "AddressDeniedError": "oms_events.errors",
    "BreakerConfig": "oms_events.resilience.breaker",
    "ConfigurationError": "oms_events.errors",
    "DestinationConfig": "oms_events.routing.config",
    "EncodedEvent": "oms_events.events",
    "EnhancedEventService": "oms_events.oms.service",
    "EventBridgeConfig": "oms_events.publishers.eventbridge.config",
    "EventRejectedError": "oms_events.errors",
    "EventRouter": "oms_events.routing.router",
    "EventType": "oms_events.oms.catalogue",
    "FailureClass": "oms_events.errors",
    "InvalidEventError": "oms_events.errors",
    "JetStreamOptions": "oms_events.publishers.jetstream.config",
    "MemoryPublisher": "oms_events.publishers.memory",
    "MissingExtraError": "oms_events.errors",
    "NatsConfig": "oms_events.publishers.jetstream.config",
    "OmsEventsError": "oms_events.errors",
    "Outcome": "oms_events.publishing",
    "Platform": "oms_events.publishing",
    "PlatformDeniedError": "oms_events.errors",
    "PublishError": "oms_events.errors",
    "PublishResult": "oms_events.publishing",
    "PublishResults": "oms_events.publishing",
    "Publisher": "oms_events.publishing",
    "PublisherTraits": "oms_events.publishing",
    "Receipt": "oms_events.publishing",
    "RetryConfig": "oms_events.resilience.backoff",
    "RouterClosedError": "oms_events.errors",
    "RouterConfig": "oms_events.routing.config",
    "RoutingRule": "oms_events.routing.rules",
    "RoutingStrategy": "oms_events.routing.rules",
    "RuleError": "oms_events.errors",
    "SkippedError": "oms_events.errors",
    "StreamPolicy": "oms_events.publishers.jetstream.config",
    "StreamSpec": "oms_events.publishers.jetstream.config",
    "TransientError": "oms_events.errors",
    "UnknownOutcomeError": "oms_events.errors",
    "UnroutableEventError": "oms_events.errors",
    "build_event": "oms_events.events",
    "create_oms_multi_platform_router": "oms_events.oms.factory",
    "default_rules": "oms_events.oms.rules",
    "encode": "oms_events.events",
    "load_rules": "oms_events.routing.rulefile",
    "parse_event": "oms_events.events",
}
