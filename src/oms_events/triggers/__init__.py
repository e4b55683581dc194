"""Starts from schedules, events, notifications and people, as one kind of request; guarded, and sent on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms_events.triggers.config import (
        BreakerOptions,
        Environment,
        Quota,
        QuotaName,
        RunOptions,
        TriggerConfig,
        TriggerDefaults,
    )
    from oms_events.triggers.delayed_starts import DelayedStarts
    from oms_events.triggers.deployed_schedules import DeployedSchedule, DeployedSchedules, ScheduleChange
    from oms_events.triggers.environment import IngestionEnvironment, create_ingestion_pipeline
    from oms_events.triggers.guards.breaker import BreakerView, MemoryBreakers, Permit, TriggerBreakers
    from oms_events.triggers.guards.breaker_dynamodb import DynamoDBBreakers
    from oms_events.triggers.guards.config import GuardTableConfig
    from oms_events.triggers.guards.exclusion import Exclusive, Lease, Leases, MemoryLeases
    from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases
    from oms_events.triggers.guards.outbound import OutboundLimiter
    from oms_events.triggers.guards.rate import Behind, MemoryRateLimiter, RateLimiter
    from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
    from oms_events.triggers.lambda_entry import Handled, LambdaHandler
    from oms_events.triggers.pipeline import TriggerPipeline
    from oms_events.triggers.problems import Code, Problem
    from oms_events.triggers.reading.custom_events import (
        DEFAULT_EVENTS,
        AdhocIngestion,
        IngestionDetail,
        MarketClose,
        ProcessingComplete,
        UniverseUpdated,
    )
    from oms_events.triggers.reading.event_table import EventReader, EventReaders, NothingToStart
    from oms_events.triggers.reading.recognition import read_starts
    from oms_events.triggers.reading.results import Reading
    from oms_events.triggers.reading.s3 import S3Object
    from oms_events.triggers.receiving import Starter, received_starts_handler
    from oms_events.triggers.request import DEFAULT_SYMBOLS, TriggerRequest, TriggerType
    from oms_events.triggers.responses import Status, TriggerResponse
    from oms_events.triggers.rules import BusinessRule, RuleViolation
    from oms_events.triggers.schedule_times import next_runs
    from oms_events.triggers.schedule_words import explain_schedule
    from oms_events.triggers.schedules import Cron, Rate, parse_schedule
    from oms_events.triggers.sending.bus import BusSender
    from oms_events.triggers.sending.chunk_sender import ChunkSender
    from oms_events.triggers.sending.chunks import Chunk
    from oms_events.triggers.sending.dead_letters import DeadLetters, MemoryDeadLetters, SqsDeadLetters
    from oms_events.triggers.sending.delay import DelayQueue, MemoryDelayQueue, SqsDelayQueue
    from oms_events.triggers.sending.letters import DeadLetter, LetterKind, StoredLetter
    from oms_events.triggers.sending.memory_queue import MemoryQueue
    from oms_events.triggers.sending.publishing import EventSender
    from oms_events.triggers.sending.queues import MessageQueue, OutgoingMessage, ReceivedMessage
    from oms_events.triggers.sending.redrive import (
        DeadLetterAdmin,
        FunctionTarget,
        HandledLetter,
        LetterMovedError,
        LetterOutcome,
        PipelineTarget,
        QueueTarget,
        RedriveTarget,
    )
    from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue
    from oms_events.triggers.settings import TriggerSettings
    from oms_events.triggers.start import Handler, Start
    from oms_events.triggers.symbols import ParameterStoreSymbols, StaticSymbols, SymbolSource
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
    "DEFAULT_EVENTS",
    "DEFAULT_SYMBOLS",
    "AdhocIngestion",
    "Behind",
    "BreakerOptions",
    "BreakerView",
    "BusSender",
    "BusinessRule",
    "Chunk",
    "ChunkSender",
    "Code",
    "Cron",
    "DeadLetter",
    "DeadLetterAdmin",
    "DeadLetters",
    "DelayQueue",
    "DelayedStarts",
    "DeployedSchedule",
    "DeployedSchedules",
    "DynamoDBBreakers",
    "DynamoDBLeases",
    "DynamoDBRateLimiter",
    "Environment",
    "EventReader",
    "EventReaders",
    "EventSender",
    "Exclusive",
    "FunctionTarget",
    "GuardTableConfig",
    "Handled",
    "HandledLetter",
    "Handler",
    "IngestionDetail",
    "IngestionEnvironment",
    "LambdaHandler",
    "Lease",
    "Leases",
    "LetterKind",
    "LetterMovedError",
    "LetterOutcome",
    "MarketClose",
    "MemoryBreakers",
    "MemoryDeadLetters",
    "MemoryDelayQueue",
    "MemoryLeases",
    "MemoryQueue",
    "MemoryRateLimiter",
    "MessageQueue",
    "NothingToStart",
    "OutboundLimiter",
    "OutgoingMessage",
    "ParameterStoreSymbols",
    "Permit",
    "PipelineTarget",
    "Problem",
    "ProcessingComplete",
    "QueueConfig",
    "QueueTarget",
    "Quota",
    "QuotaName",
    "Rate",
    "RateLimiter",
    "Reading",
    "ReceivedMessage",
    "RedriveTarget",
    "RuleViolation",
    "RunOptions",
    "S3Object",
    "ScheduleChange",
    "SqsDeadLetters",
    "SqsDelayQueue",
    "SqsQueue",
    "Start",
    "Starter",
    "StaticSymbols",
    "Status",
    "StoredLetter",
    "SymbolSource",
    "TriggerBreakers",
    "TriggerConfig",
    "TriggerDefaults",
    "TriggerPipeline",
    "TriggerRequest",
    "TriggerResponse",
    "TriggerSettings",
    "TriggerType",
    "UniverseUpdated",
    "create_ingestion_pipeline",
    "explain_schedule",
    "next_runs",
    "parse_schedule",
    "read_starts",
    "received_starts_handler",
]

_MODULES = {
    "DEFAULT_EVENTS": "oms_events.triggers.reading.custom_events",
    "DEFAULT_SYMBOLS": "oms_events.triggers.request",
    "AdhocIngestion": "oms_events.triggers.reading.custom_events",
    "Behind": "oms_events.triggers.guards.rate",
    "BreakerOptions": "oms_events.triggers.config",
    "BreakerView": "oms_events.triggers.guards.breaker",
    "BusSender": "oms_events.triggers.sending.bus",
    "BusinessRule": "oms_events.triggers.rules",
    "Chunk": "oms_events.triggers.sending.chunks",
    "ChunkSender": "oms_events.triggers.sending.chunk_sender",
    "Code": "oms_events.triggers.problems",
    "Cron": "oms_events.triggers.schedules",
    "DeadLetter": "oms_events.triggers.sending.letters",
    "DeadLetterAdmin": "oms_events.triggers.sending.redrive",
    "DeadLetters": "oms_events.triggers.sending.dead_letters",
    "DelayQueue": "oms_events.triggers.sending.delay",
    "DelayedStarts": "oms_events.triggers.delayed_starts",
    "DeployedSchedule": "oms_events.triggers.deployed_schedules",
    "DeployedSchedules": "oms_events.triggers.deployed_schedules",
    "DynamoDBBreakers": "oms_events.triggers.guards.breaker_dynamodb",
    "DynamoDBLeases": "oms_events.triggers.guards.exclusion_dynamodb",
    "DynamoDBRateLimiter": "oms_events.triggers.guards.rate_dynamodb",
    "Environment": "oms_events.triggers.config",
    "EventReader": "oms_events.triggers.reading.event_table",
    "EventReaders": "oms_events.triggers.reading.event_table",
    "EventSender": "oms_events.triggers.sending.publishing",
    "Exclusive": "oms_events.triggers.guards.exclusion",
    "FunctionTarget": "oms_events.triggers.sending.redrive",
    "GuardTableConfig": "oms_events.triggers.guards.config",
    "Handled": "oms_events.triggers.lambda_entry",
    "HandledLetter": "oms_events.triggers.sending.redrive",
    "Handler": "oms_events.triggers.start",
    "IngestionDetail": "oms_events.triggers.reading.custom_events",
    "IngestionEnvironment": "oms_events.triggers.environment",
    "LambdaHandler": "oms_events.triggers.lambda_entry",
    "Lease": "oms_events.triggers.guards.exclusion",
    "Leases": "oms_events.triggers.guards.exclusion",
    "LetterKind": "oms_events.triggers.sending.letters",
    "LetterMovedError": "oms_events.triggers.sending.redrive",
    "LetterOutcome": "oms_events.triggers.sending.redrive",
    "MarketClose": "oms_events.triggers.reading.custom_events",
    "MemoryBreakers": "oms_events.triggers.guards.breaker",
    "MemoryDeadLetters": "oms_events.triggers.sending.dead_letters",
    "MemoryDelayQueue": "oms_events.triggers.sending.delay",
    "MemoryLeases": "oms_events.triggers.guards.exclusion",
    "MemoryQueue": "oms_events.triggers.sending.memory_queue",
    "MemoryRateLimiter": "oms_events.triggers.guards.rate",
    "MessageQueue": "oms_events.triggers.sending.queues",
    "NothingToStart": "oms_events.triggers.reading.event_table",
    "OutboundLimiter": "oms_events.triggers.guards.outbound",
    "OutgoingMessage": "oms_events.triggers.sending.queues",
    "ParameterStoreSymbols": "oms_events.triggers.symbols",
    "Permit": "oms_events.triggers.guards.breaker",
    "PipelineTarget": "oms_events.triggers.sending.redrive",
    "Problem": "oms_events.triggers.problems",
    "ProcessingComplete": "oms_events.triggers.reading.custom_events",
    "QueueConfig": "oms_events.triggers.sending.sqs",
    "QueueTarget": "oms_events.triggers.sending.redrive",
    "Quota": "oms_events.triggers.config",
    "QuotaName": "oms_events.triggers.config",
    "Rate": "oms_events.triggers.schedules",
    "RateLimiter": "oms_events.triggers.guards.rate",
    "Reading": "oms_events.triggers.reading.results",
    "ReceivedMessage": "oms_events.triggers.sending.queues",
    "RedriveTarget": "oms_events.triggers.sending.redrive",
    "RuleViolation": "oms_events.triggers.rules",
    "RunOptions": "oms_events.triggers.config",
    "S3Object": "oms_events.triggers.reading.s3",
    "ScheduleChange": "oms_events.triggers.deployed_schedules",
    "SqsDeadLetters": "oms_events.triggers.sending.dead_letters",
    "SqsDelayQueue": "oms_events.triggers.sending.delay",
    "SqsQueue": "oms_events.triggers.sending.sqs",
    "Start": "oms_events.triggers.start",
    "Starter": "oms_events.triggers.receiving",
    "StaticSymbols": "oms_events.triggers.symbols",
    "Status": "oms_events.triggers.responses",
    "StoredLetter": "oms_events.triggers.sending.letters",
    "SymbolSource": "oms_events.triggers.symbols",
    "TriggerBreakers": "oms_events.triggers.guards.breaker",
    "TriggerConfig": "oms_events.triggers.config",
    "TriggerDefaults": "oms_events.triggers.config",
    "TriggerPipeline": "oms_events.triggers.pipeline",
    "TriggerRequest": "oms_events.triggers.request",
    "TriggerResponse": "oms_events.triggers.responses",
    "TriggerSettings": "oms_events.triggers.settings",
    "TriggerType": "oms_events.triggers.request",
    "UniverseUpdated": "oms_events.triggers.reading.custom_events",
    "create_ingestion_pipeline": "oms_events.triggers.environment",
    "explain_schedule": "oms_events.triggers.schedule_words",
    "next_runs": "oms_events.triggers.schedule_times",
    "parse_schedule": "oms_events.triggers.schedules",
    "read_starts": "oms_events.triggers.reading.recognition",
    "received_starts_handler": "oms_events.triggers.receiving",
}
