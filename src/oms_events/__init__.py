"""Routes CloudEvents to several platforms at once: NATS JetStream, AWS EventBridge and your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms_events._nats.config import NatsConfig
    from oms_events.errors import (
        AccessError,
        AddressDeniedError,
        AppendLimitError,
        CommandRejectedError,
        CommitOutcomeUnknownError,
        ConcurrencyError,
        ConditionFailedError,
        ConfigurationError,
        DataLossRefusedError,
        DeploymentError,
        DuplicateCommandError,
        EventRejectedError,
        EventStoreError,
        EventUnreadableError,
        FailureClass,
        IdempotencyError,
        InvalidEventError,
        MissingExtraError,
        NotFoundError,
        OmsEventsError,
        OutboxLimitError,
        PayloadMismatchError,
        PersonalDataError,
        PersonForgottenError,
        PlanOutdatedError,
        PlatformDeniedError,
        PreparedActionsError,
        ProjectionError,
        ProvisioningError,
        PublishError,
        ReplayError,
        RequestError,
        RouterClosedError,
        RuleError,
        RunInProgressError,
        SkippedError,
        SpecError,
        StackBusyError,
        StackNotFoundError,
        StackStateError,
        StorageDeniedError,
        StorageError,
        StorageOutcomeUnknownError,
        StorageRejectedError,
        StorageUnavailableError,
        TransactionCanceledError,
        TransactionConflictError,
        TransientError,
        UnknownOutcomeError,
        UnroutableEventError,
    )
    from oms_events.events import (
        EncodedEvent,
        build_event,
        encode,
        parse_event,
    )
    from oms_events.idempotency.cache import CachedIdempotencyStore
    from oms_events.idempotency.config import IdempotencyConfig, IdempotencyOptions
    from oms_events.idempotency.decorator import idempotent
    from oms_events.idempotency.dynamodb import DynamoDBIdempotencyStore
    from oms_events.idempotency.memory import MemoryIdempotencyStore
    from oms_events.idempotency.run import IdempotentRun
    from oms_events.idempotency.store import IdempotencyStore
    from oms_events.idempotency.table import create_idempotency_table
    from oms_events.instrumentation.logs import LoggingHook
    from oms_events.oms.catalogue import EventType
    from oms_events.oms.factory import create_oms_multi_platform_router
    from oms_events.oms.outbox import create_oms_outbox_processor
    from oms_events.oms.rules import default_rules
    from oms_events.oms.service import EnhancedEventService
    from oms_events.outbox.admin import OutboxAdmin
    from oms_events.outbox.claimcheck import resolve_dataref
    from oms_events.outbox.config import ClaimCheckConfig, OutboxConfig, ProcessorConfig
    from oms_events.outbox.filters import OutboxFilter
    from oms_events.outbox.outbox import DynamoDBOutbox, MemoryOutbox, Outbox
    from oms_events.outbox.prepared import Prepared
    from oms_events.outbox.processor import OutboxProcessor, RelaySummary
    from oms_events.outbox.streams import create_streams_handler
    from oms_events.outbox.table import create_table
    from oms_events.outbox.transaction import Transaction
    from oms_events.publishers.eventbridge.config import EventBridgeConfig
    from oms_events.publishers.jetstream.config import JetStreamOptions, StreamPolicy, StreamSpec
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
    "AccessError",
    "AddressDeniedError",
    "AppendLimitError",
    "BreakerConfig",
    "CachedIdempotencyStore",
    "ClaimCheckConfig",
    "CommandRejectedError",
    "CommitOutcomeUnknownError",
    "ConcurrencyError",
    "ConditionFailedError",
    "ConfigurationError",
    "DataLossRefusedError",
    "DeploymentError",
    "DestinationConfig",
    "DuplicateCommandError",
    "DynamoDBIdempotencyStore",
    "DynamoDBOutbox",
    "EncodedEvent",
    "EnhancedEventService",
    "EventBridgeConfig",
    "EventRejectedError",
    "EventRouter",
    "EventStoreError",
    "EventType",
    "EventUnreadableError",
    "FailureClass",
    "IdempotencyConfig",
    "IdempotencyError",
    "IdempotencyOptions",
    "IdempotencyStore",
    "IdempotentRun",
    "InvalidEventError",
    "JetStreamOptions",
    "LoggingHook",
    "MemoryIdempotencyStore",
    "MemoryOutbox",
    "MemoryPublisher",
    "MissingExtraError",
    "NatsConfig",
    "NotFoundError",
    "OmsEventsError",
    "Outbox",
    "OutboxAdmin",
    "OutboxConfig",
    "OutboxFilter",
    "OutboxLimitError",
    "OutboxProcessor",
    "Outcome",
    "PayloadMismatchError",
    "PersonForgottenError",
    "PersonalDataError",
    "PlanOutdatedError",
    "Platform",
    "PlatformDeniedError",
    "Prepared",
    "PreparedActionsError",
    "ProcessorConfig",
    "ProjectionError",
    "ProvisioningError",
    "PublishError",
    "PublishResult",
    "PublishResults",
    "Publisher",
    "PublisherTraits",
    "Receipt",
    "RelaySummary",
    "ReplayError",
    "RequestError",
    "RetryConfig",
    "RouterClosedError",
    "RouterConfig",
    "RoutingRule",
    "RoutingStrategy",
    "RuleError",
    "RunInProgressError",
    "SkippedError",
    "SpecError",
    "StackBusyError",
    "StackNotFoundError",
    "StackStateError",
    "StorageDeniedError",
    "StorageError",
    "StorageOutcomeUnknownError",
    "StorageRejectedError",
    "StorageUnavailableError",
    "StreamPolicy",
    "StreamSpec",
    "Transaction",
    "TransactionCanceledError",
    "TransactionConflictError",
    "TransientError",
    "UnknownOutcomeError",
    "UnroutableEventError",
    "build_event",
    "create_idempotency_table",
    "create_oms_multi_platform_router",
    "create_oms_outbox_processor",
    "create_streams_handler",
    "create_table",
    "default_rules",
    "encode",
    "idempotent",
    "load_rules",
    "parse_event",
    "resolve_dataref",
]

# Imported when first asked for: the pytest plugin is loaded in every test run of everybody who has the
# package installed, and must not cost them the import of all of it.
_MODULES = {
    "AccessError": "oms_events.errors",
    "AddressDeniedError": "oms_events.errors",
    "AppendLimitError": "oms_events.errors",
    "BreakerConfig": "oms_events.resilience.breaker",
    "CachedIdempotencyStore": "oms_events.idempotency.cache",
    "ClaimCheckConfig": "oms_events.outbox.config",
    "CommandRejectedError": "oms_events.errors",
    "CommitOutcomeUnknownError": "oms_events.errors",
    "ConcurrencyError": "oms_events.errors",
    "ConditionFailedError": "oms_events.errors",
    "ConfigurationError": "oms_events.errors",
    "DataLossRefusedError": "oms_events.errors",
    "DeploymentError": "oms_events.errors",
    "DestinationConfig": "oms_events.routing.config",
    "DuplicateCommandError": "oms_events.errors",
    "DynamoDBIdempotencyStore": "oms_events.idempotency.dynamodb",
    "DynamoDBOutbox": "oms_events.outbox.outbox",
    "EncodedEvent": "oms_events.events",
    "EnhancedEventService": "oms_events.oms.service",
    "EventBridgeConfig": "oms_events.publishers.eventbridge.config",
    "EventRejectedError": "oms_events.errors",
    "EventRouter": "oms_events.routing.router",
    "EventStoreError": "oms_events.errors",
    "EventType": "oms_events.oms.catalogue",
    "EventUnreadableError": "oms_events.errors",
    "FailureClass": "oms_events.errors",
    "IdempotencyConfig": "oms_events.idempotency.config",
    "IdempotencyError": "oms_events.errors",
    "IdempotencyOptions": "oms_events.idempotency.config",
    "IdempotencyStore": "oms_events.idempotency.store",
    "IdempotentRun": "oms_events.idempotency.run",
    "InvalidEventError": "oms_events.errors",
    "JetStreamOptions": "oms_events.publishers.jetstream.config",
    "LoggingHook": "oms_events.instrumentation.logs",
    "MemoryIdempotencyStore": "oms_events.idempotency.memory",
    "MemoryOutbox": "oms_events.outbox.outbox",
    "MemoryPublisher": "oms_events.publishers.memory",
    "MissingExtraError": "oms_events.errors",
    "NatsConfig": "oms_events._nats.config",
    "NotFoundError": "oms_events.errors",
    "OmsEventsError": "oms_events.errors",
    "Outbox": "oms_events.outbox.outbox",
    "OutboxAdmin": "oms_events.outbox.admin",
    "OutboxConfig": "oms_events.outbox.config",
    "OutboxFilter": "oms_events.outbox.filters",
    "OutboxLimitError": "oms_events.errors",
    "OutboxProcessor": "oms_events.outbox.processor",
    "Outcome": "oms_events.publishing",
    "PayloadMismatchError": "oms_events.errors",
    "PersonForgottenError": "oms_events.errors",
    "PersonalDataError": "oms_events.errors",
    "PlanOutdatedError": "oms_events.errors",
    "Platform": "oms_events.publishing",
    "PlatformDeniedError": "oms_events.errors",
    "Prepared": "oms_events.outbox.prepared",
    "PreparedActionsError": "oms_events.errors",
    "ProcessorConfig": "oms_events.outbox.config",
    "ProjectionError": "oms_events.errors",
    "ProvisioningError": "oms_events.errors",
    "PublishError": "oms_events.errors",
    "PublishResult": "oms_events.publishing",
    "PublishResults": "oms_events.publishing",
    "Publisher": "oms_events.publishing",
    "PublisherTraits": "oms_events.publishing",
    "Receipt": "oms_events.publishing",
    "RelaySummary": "oms_events.outbox.processor",
    "ReplayError": "oms_events.errors",
    "RequestError": "oms_events.errors",
    "RetryConfig": "oms_events.resilience.backoff",
    "RouterClosedError": "oms_events.errors",
    "RouterConfig": "oms_events.routing.config",
    "RoutingRule": "oms_events.routing.rules",
    "RoutingStrategy": "oms_events.routing.rules",
    "RuleError": "oms_events.errors",
    "RunInProgressError": "oms_events.errors",
    "SkippedError": "oms_events.errors",
    "SpecError": "oms_events.errors",
    "StackBusyError": "oms_events.errors",
    "StackNotFoundError": "oms_events.errors",
    "StackStateError": "oms_events.errors",
    "StorageDeniedError": "oms_events.errors",
    "StorageError": "oms_events.errors",
    "StorageOutcomeUnknownError": "oms_events.errors",
    "StorageRejectedError": "oms_events.errors",
    "StorageUnavailableError": "oms_events.errors",
    "StreamPolicy": "oms_events.publishers.jetstream.config",
    "StreamSpec": "oms_events.publishers.jetstream.config",
    "Transaction": "oms_events.outbox.transaction",
    "TransactionCanceledError": "oms_events.errors",
    "TransactionConflictError": "oms_events.errors",
    "TransientError": "oms_events.errors",
    "UnknownOutcomeError": "oms_events.errors",
    "UnroutableEventError": "oms_events.errors",
    "build_event": "oms_events.events",
    "create_idempotency_table": "oms_events.idempotency.table",
    "create_oms_multi_platform_router": "oms_events.oms.factory",
    "create_oms_outbox_processor": "oms_events.oms.outbox",
    "create_streams_handler": "oms_events.outbox.streams",
    "create_table": "oms_events.outbox.table",
    "default_rules": "oms_events.oms.rules",
    "encode": "oms_events.events",
    "idempotent": "oms_events.idempotency.decorator",
    "load_rules": "oms_events.routing.rulefile",
    "parse_event": "oms_events.events",
    "resolve_dataref": "oms_events.outbox.claimcheck",
}
