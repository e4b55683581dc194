"""Event sourcing on DynamoDB: event store, aggregates, projections, queries, replay, personal data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms_events.eventstore.aggregates.aggregate import Aggregate
    from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
    from oms_events.eventstore.aggregates.repository import Executed, Loaded, Repository, RepositoryConfig
    from oms_events.eventstore.aggregates.snapshots import MemorySnapshotStore, Snapshot, SnapshotStore
    from oms_events.eventstore.config import (
        EventStoreConfig,
        KmsConfig,
        PersonalKeysConfig,
        ProjectionTables,
        ProjectorConfig,
        SnapshotConfig,
    )
    from oms_events.eventstore.dynamodb import DynamoDBEventStore
    from oms_events.eventstore.history import EventTable, ItemPage
    from oms_events.eventstore.inspection.item_checks import Problem, ProblemKind
    from oms_events.eventstore.inspection.store_stats import (
        HistoryStats,
        StoreEstimate,
        StoreStats,
        TypeStats,
        estimate,
        stats,
    )
    from oms_events.eventstore.inspection.stream_tailing import tail_stream
    from oms_events.eventstore.inspection.tailing import tail
    from oms_events.eventstore.inspection.verification import VerifyReport, verify
    from oms_events.eventstore.memory import MemoryEventStore
    from oms_events.eventstore.personal.cipher import FieldCipher
    from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys
    from oms_events.eventstore.personal.encryption import PersonalDataCipher
    from oms_events.eventstore.personal.keys import KeyWrapper, MemorySubjectKeys, SubjectKey, SubjectKeys
    from oms_events.eventstore.personal.kms import KmsKeyWrapper
    from oms_events.eventstore.personal.marks import NotPersonal, Personal
    from oms_events.eventstore.personal.sealed import masked
    from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
    from oms_events.eventstore.projections.items import Checkpoint, ParkedEvent
    from oms_events.eventstore.projections.platform import ProjectionPublisher, received_events_handler
    from oms_events.eventstore.projections.projection import Projection
    from oms_events.eventstore.projections.projector import Projector, Retried
    from oms_events.eventstore.projections.read_models import MemoryReadModels, ReadModels
    from oms_events.eventstore.projections.rebuilding import RebuildConfig, RebuildProgress, Rebuilt, rebuild
    from oms_events.eventstore.projections.streams import ProjectionHandler, create_projection_handler
    from oms_events.eventstore.projections.versions import (
        Retired,
        Switched,
        VerifiedProjection,
        retire,
        switch,
        verify_projection,
    )
    from oms_events.eventstore.records import RecordedEvent, recorded_of
    from oms_events.eventstore.registry import EventName, EventRegistry, default_registry, domain_event, upcaster
    from oms_events.eventstore.replay.archive import ArchiveReplays
    from oms_events.eventstore.replay.archive_replays import ArchiveReplay
    from oms_events.eventstore.replay.checkpoints import (
        FileReplayCheckpoint,
        MemoryReplayCheckpoint,
        ReplayCheckpoint,
        ReplayState,
    )
    from oms_events.eventstore.replay.config import ReplayConfig, ReplaySelection
    from oms_events.eventstore.replay.report import ReplayFailure, ReplayReport
    from oms_events.eventstore.replay.store_replay import StoreReplay
    from oms_events.eventstore.requests.commands import CommandDispatcher
    from oms_events.eventstore.requests.functions import RequestHandler, create_request_handler
    from oms_events.eventstore.requests.queries import QueryDispatcher
    from oms_events.eventstore.requests.requests import RequestModel
    from oms_events.eventstore.store import EventPage, EventStore
    from oms_events.eventstore.time_ranges import TimeRange, parse_time
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
    "Aggregate",
    "ArchiveReplay",
    "ArchiveReplays",
    "Checkpoint",
    "CommandDispatcher",
    "DynamoDBEventStore",
    "DynamoDBReadModels",
    "DynamoDBSnapshotStore",
    "DynamoDBSubjectKeys",
    "EventName",
    "EventPage",
    "EventRegistry",
    "EventStore",
    "EventStoreConfig",
    "EventTable",
    "Executed",
    "FieldCipher",
    "FileReplayCheckpoint",
    "HistoryStats",
    "ItemPage",
    "KeyWrapper",
    "KmsConfig",
    "KmsKeyWrapper",
    "Loaded",
    "MemoryEventStore",
    "MemoryReadModels",
    "MemoryReplayCheckpoint",
    "MemorySnapshotStore",
    "MemorySubjectKeys",
    "NotPersonal",
    "ParkedEvent",
    "Personal",
    "PersonalDataCipher",
    "PersonalKeysConfig",
    "Problem",
    "ProblemKind",
    "Projection",
    "ProjectionHandler",
    "ProjectionPublisher",
    "ProjectionTables",
    "Projector",
    "ProjectorConfig",
    "QueryDispatcher",
    "ReadModels",
    "RebuildConfig",
    "RebuildProgress",
    "Rebuilt",
    "RecordedEvent",
    "ReplayCheckpoint",
    "ReplayConfig",
    "ReplayFailure",
    "ReplayReport",
    "ReplaySelection",
    "ReplayState",
    "Repository",
    "RepositoryConfig",
    "RequestHandler",
    "RequestModel",
    "Retired",
    "Retried",
    "Snapshot",
    "SnapshotConfig",
    "SnapshotStore",
    "StoreEstimate",
    "StoreReplay",
    "StoreStats",
    "SubjectKey",
    "SubjectKeys",
    "Switched",
    "TimeRange",
    "TypeStats",
    "VerifiedProjection",
    "VerifyReport",
    "create_projection_handler",
    "create_request_handler",
    "default_registry",
    "domain_event",
    "estimate",
    "masked",
    "parse_time",
    "rebuild",
    "received_events_handler",
    "recorded_of",
    "retire",
    "stats",
    "switch",
    "tail",
    "tail_stream",
    "upcaster",
    "verify",
    "verify_projection",
]

_MODULES = {
    "Aggregate": "oms_events.eventstore.aggregates.aggregate",
    "ArchiveReplay": "oms_events.eventstore.replay.archive_replays",
    "ArchiveReplays": "oms_events.eventstore.replay.archive",
    "Checkpoint": "oms_events.eventstore.projections.items",
    "CommandDispatcher": "oms_events.eventstore.requests.commands",
    "DynamoDBEventStore": "oms_events.eventstore.dynamodb",
    "DynamoDBReadModels": "oms_events.eventstore.projections.dynamodb",
    "DynamoDBSnapshotStore": "oms_events.eventstore.aggregates.dynamodb",
    "DynamoDBSubjectKeys": "oms_events.eventstore.personal.dynamodb",
    "EventName": "oms_events.eventstore.registry",
    "EventPage": "oms_events.eventstore.store",
    "EventRegistry": "oms_events.eventstore.registry",
    "EventStore": "oms_events.eventstore.store",
    "EventStoreConfig": "oms_events.eventstore.config",
    "EventTable": "oms_events.eventstore.history",
    "Executed": "oms_events.eventstore.aggregates.repository",
    "FieldCipher": "oms_events.eventstore.personal.cipher",
    "FileReplayCheckpoint": "oms_events.eventstore.replay.checkpoints",
    "HistoryStats": "oms_events.eventstore.inspection.store_stats",
    "ItemPage": "oms_events.eventstore.history",
    "KeyWrapper": "oms_events.eventstore.personal.keys",
    "KmsConfig": "oms_events.eventstore.config",
    "KmsKeyWrapper": "oms_events.eventstore.personal.kms",
    "Loaded": "oms_events.eventstore.aggregates.repository",
    "MemoryEventStore": "oms_events.eventstore.memory",
    "MemoryReadModels": "oms_events.eventstore.projections.read_models",
    "MemoryReplayCheckpoint": "oms_events.eventstore.replay.checkpoints",
    "MemorySnapshotStore": "oms_events.eventstore.aggregates.snapshots",
    "MemorySubjectKeys": "oms_events.eventstore.personal.keys",
    "NotPersonal": "oms_events.eventstore.personal.marks",
    "ParkedEvent": "oms_events.eventstore.projections.items",
    "Personal": "oms_events.eventstore.personal.marks",
    "PersonalDataCipher": "oms_events.eventstore.personal.encryption",
    "PersonalKeysConfig": "oms_events.eventstore.config",
    "Problem": "oms_events.eventstore.inspection.item_checks",
    "ProblemKind": "oms_events.eventstore.inspection.item_checks",
    "Projection": "oms_events.eventstore.projections.projection",
    "ProjectionHandler": "oms_events.eventstore.projections.streams",
    "ProjectionPublisher": "oms_events.eventstore.projections.platform",
    "ProjectionTables": "oms_events.eventstore.config",
    "Projector": "oms_events.eventstore.projections.projector",
    "ProjectorConfig": "oms_events.eventstore.config",
    "QueryDispatcher": "oms_events.eventstore.requests.queries",
    "ReadModels": "oms_events.eventstore.projections.read_models",
    "RebuildConfig": "oms_events.eventstore.projections.rebuilding",
    "RebuildProgress": "oms_events.eventstore.projections.rebuilding",
    "Rebuilt": "oms_events.eventstore.projections.rebuilding",
    "RecordedEvent": "oms_events.eventstore.records",
    "ReplayCheckpoint": "oms_events.eventstore.replay.checkpoints",
    "ReplayConfig": "oms_events.eventstore.replay.config",
    "ReplayFailure": "oms_events.eventstore.replay.report",
    "ReplayReport": "oms_events.eventstore.replay.report",
    "ReplaySelection": "oms_events.eventstore.replay.config",
    "ReplayState": "oms_events.eventstore.replay.checkpoints",
    "Repository": "oms_events.eventstore.aggregates.repository",
    "RepositoryConfig": "oms_events.eventstore.aggregates.repository",
    "RequestHandler": "oms_events.eventstore.requests.functions",
    "RequestModel": "oms_events.eventstore.requests.requests",
    "Retired": "oms_events.eventstore.projections.versions",
    "Retried": "oms_events.eventstore.projections.projector",
    "Snapshot": "oms_events.eventstore.aggregates.snapshots",
    "SnapshotConfig": "oms_events.eventstore.config",
    "SnapshotStore": "oms_events.eventstore.aggregates.snapshots",
    "StoreEstimate": "oms_events.eventstore.inspection.store_stats",
    "StoreReplay": "oms_events.eventstore.replay.store_replay",
    "StoreStats": "oms_events.eventstore.inspection.store_stats",
    "SubjectKey": "oms_events.eventstore.personal.keys",
    "SubjectKeys": "oms_events.eventstore.personal.keys",
    "Switched": "oms_events.eventstore.projections.versions",
    "TimeRange": "oms_events.eventstore.time_ranges",
    "TypeStats": "oms_events.eventstore.inspection.store_stats",
    "VerifiedProjection": "oms_events.eventstore.projections.versions",
    "VerifyReport": "oms_events.eventstore.inspection.verification",
    "create_projection_handler": "oms_events.eventstore.projections.streams",
    "create_request_handler": "oms_events.eventstore.requests.functions",
    "default_registry": "oms_events.eventstore.registry",
    "domain_event": "oms_events.eventstore.registry",
    "estimate": "oms_events.eventstore.inspection.store_stats",
    "masked": "oms_events.eventstore.personal.sealed",
    "parse_time": "oms_events.eventstore.time_ranges",
    "rebuild": "oms_events.eventstore.projections.rebuilding",
    "received_events_handler": "oms_events.eventstore.projections.platform",
    "recorded_of": "oms_events.eventstore.records",
    "retire": "oms_events.eventstore.projections.versions",
    "stats": "oms_events.eventstore.inspection.store_stats",
    "switch": "oms_events.eventstore.projections.versions",
    "tail": "oms_events.eventstore.inspection.tailing",
    "tail_stream": "oms_events.eventstore.inspection.stream_tailing",
    "upcaster": "oms_events.eventstore.registry",
    "verify": "oms_events.eventstore.inspection.verification",
    "verify_projection": "oms_events.eventstore.projections.versions",
}
