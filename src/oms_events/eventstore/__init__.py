"""Event sourcing on DynamoDB: event store, aggregates, projections, queries, replay, personal data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oms_events.eventstore.aggregates import Aggregate
    from oms_events.eventstore.archive import ArchiveReplays
    from oms_events.eventstore.archive_replays import ArchiveReplay
    from oms_events.eventstore.commands import CommandDispatcher
    from oms_events.eventstore.config import (
        EventStoreConfig,
        KmsConfig,
        PersonalKeysConfig,
        ProjectionTables,
        ProjectorConfig,
        SnapshotConfig,
        TableAccess,
    )
    from oms_events.eventstore.dynamodb import DynamoDBEventStore
    from oms_events.eventstore.dynamodb_keys import DynamoDBSubjectKeys
    from oms_events.eventstore.dynamodb_read_models import DynamoDBReadModels
    from oms_events.eventstore.dynamodb_snapshots import DynamoDBSnapshotStore
    from oms_events.eventstore.functions import RequestHandler, create_request_handler
    from oms_events.eventstore.history import EventTable, ItemPage
    from oms_events.eventstore.item_checks import Problem, ProblemKind
    from oms_events.eventstore.kms_keys import KmsKeyWrapper
    from oms_events.eventstore.memory import MemoryEventStore
    from oms_events.eventstore.personal import FieldCipher
    from oms_events.eventstore.personal_data import PersonalDataCipher
    from oms_events.eventstore.personal_format import masked
    from oms_events.eventstore.personal_keys import KeyWrapper, MemorySubjectKeys, SubjectKey, SubjectKeys
    from oms_events.eventstore.personal_marks import Personal
    from oms_events.eventstore.projection_platform import ProjectionPublisher, received_events_handler
    from oms_events.eventstore.projection_streams import ProjectionHandler, create_projection_handler
    from oms_events.eventstore.projection_versions import (
        Retired,
        Switched,
        VerifiedProjection,
        retire,
        switch,
        verify_projection,
    )
    from oms_events.eventstore.projections import Projection
    from oms_events.eventstore.projector import Projector, Retried
    from oms_events.eventstore.queries import QueryDispatcher
    from oms_events.eventstore.read_model_items import Checkpoint, ParkedEvent
    from oms_events.eventstore.read_models import MemoryReadModels, ReadModels
    from oms_events.eventstore.rebuilding import RebuildConfig, RebuildProgress, Rebuilt, rebuild
    from oms_events.eventstore.records import RecordedEvent, recorded_of
    from oms_events.eventstore.registry import EventName, EventRegistry, default_registry, domain_event, upcaster
    from oms_events.eventstore.replay import StoreReplay
    from oms_events.eventstore.replay_checkpoints import (
        FileReplayCheckpoint,
        MemoryReplayCheckpoint,
        ReplayCheckpoint,
        ReplayState,
    )
    from oms_events.eventstore.replay_config import ReplayConfig, ReplaySelection
    from oms_events.eventstore.replay_report import ReplayFailure, ReplayReport
    from oms_events.eventstore.repository import Executed, Loaded, Repository, RepositoryConfig
    from oms_events.eventstore.snapshots import MemorySnapshotStore, Snapshot, SnapshotStore
    from oms_events.eventstore.store import EventPage, EventStore
    from oms_events.eventstore.store_stats import StoreEstimate, StoreStats, estimate, stats
    from oms_events.eventstore.tailing import tail
    from oms_events.eventstore.time_ranges import TimeRange, parse_time
    from oms_events.eventstore.verification import VerifyReport, verify
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
    "TableAccess",
    "TimeRange",
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
    "upcaster",
    "verify",
    "verify_projection",
]

_MODULES = {
    "Aggregate": "oms_events.eventstore.aggregates",
    "ArchiveReplay": "oms_events.eventstore.archive_replays",
    "ArchiveReplays": "oms_events.eventstore.archive",
    "Checkpoint": "oms_events.eventstore.read_model_items",
    "CommandDispatcher": "oms_events.eventstore.commands",
    "DynamoDBEventStore": "oms_events.eventstore.dynamodb",
    "DynamoDBReadModels": "oms_events.eventstore.dynamodb_read_models",
    "DynamoDBSnapshotStore": "oms_events.eventstore.dynamodb_snapshots",
    "DynamoDBSubjectKeys": "oms_events.eventstore.dynamodb_keys",
    "EventName": "oms_events.eventstore.registry",
    "EventPage": "oms_events.eventstore.store",
    "EventRegistry": "oms_events.eventstore.registry",
    "EventStore": "oms_events.eventstore.store",
    "EventStoreConfig": "oms_events.eventstore.config",
    "EventTable": "oms_events.eventstore.history",
    "Executed": "oms_events.eventstore.repository",
    "FieldCipher": "oms_events.eventstore.personal",
    "FileReplayCheckpoint": "oms_events.eventstore.replay_checkpoints",
    "ItemPage": "oms_events.eventstore.history",
    "KeyWrapper": "oms_events.eventstore.personal_keys",
    "KmsConfig": "oms_events.eventstore.config",
    "KmsKeyWrapper": "oms_events.eventstore.kms_keys",
    "Loaded": "oms_events.eventstore.repository",
    "MemoryEventStore": "oms_events.eventstore.memory",
    "MemoryReadModels": "oms_events.eventstore.read_models",
    "MemoryReplayCheckpoint": "oms_events.eventstore.replay_checkpoints",
    "MemorySnapshotStore": "oms_events.eventstore.snapshots",
    "MemorySubjectKeys": "oms_events.eventstore.personal_keys",
    "ParkedEvent": "oms_events.eventstore.read_model_items",
    "Personal": "oms_events.eventstore.personal_marks",
    "PersonalDataCipher": "oms_events.eventstore.personal_data",
    "PersonalKeysConfig": "oms_events.eventstore.config",
    "Problem": "oms_events.eventstore.item_checks",
    "ProblemKind": "oms_events.eventstore.item_checks",
    "Projection": "oms_events.eventstore.projections",
    "ProjectionHandler": "oms_events.eventstore.projection_streams",
    "ProjectionPublisher": "oms_events.eventstore.projection_platform",
    "ProjectionTables": "oms_events.eventstore.config",
    "Projector": "oms_events.eventstore.projector",
    "ProjectorConfig": "oms_events.eventstore.config",
    "QueryDispatcher": "oms_events.eventstore.queries",
    "ReadModels": "oms_events.eventstore.read_models",
    "RebuildConfig": "oms_events.eventstore.rebuilding",
    "RebuildProgress": "oms_events.eventstore.rebuilding",
    "Rebuilt": "oms_events.eventstore.rebuilding",
    "RecordedEvent": "oms_events.eventstore.records",
    "ReplayCheckpoint": "oms_events.eventstore.replay_checkpoints",
    "ReplayConfig": "oms_events.eventstore.replay_config",
    "ReplayFailure": "oms_events.eventstore.replay_report",
    "ReplayReport": "oms_events.eventstore.replay_report",
    "ReplaySelection": "oms_events.eventstore.replay_config",
    "ReplayState": "oms_events.eventstore.replay_checkpoints",
    "Repository": "oms_events.eventstore.repository",
    "RepositoryConfig": "oms_events.eventstore.repository",
    "RequestHandler": "oms_events.eventstore.functions",
    "Retired": "oms_events.eventstore.projection_versions",
    "Retried": "oms_events.eventstore.projector",
    "Snapshot": "oms_events.eventstore.snapshots",
    "SnapshotConfig": "oms_events.eventstore.config",
    "SnapshotStore": "oms_events.eventstore.snapshots",
    "StoreEstimate": "oms_events.eventstore.store_stats",
    "StoreReplay": "oms_events.eventstore.replay",
    "StoreStats": "oms_events.eventstore.store_stats",
    "SubjectKey": "oms_events.eventstore.personal_keys",
    "SubjectKeys": "oms_events.eventstore.personal_keys",
    "Switched": "oms_events.eventstore.projection_versions",
    "TableAccess": "oms_events.eventstore.config",
    "TimeRange": "oms_events.eventstore.time_ranges",
    "VerifiedProjection": "oms_events.eventstore.projection_versions",
    "VerifyReport": "oms_events.eventstore.verification",
    "create_projection_handler": "oms_events.eventstore.projection_streams",
    "create_request_handler": "oms_events.eventstore.functions",
    "default_registry": "oms_events.eventstore.registry",
    "domain_event": "oms_events.eventstore.registry",
    "estimate": "oms_events.eventstore.store_stats",
    "masked": "oms_events.eventstore.personal_format",
    "parse_time": "oms_events.eventstore.time_ranges",
    "rebuild": "oms_events.eventstore.rebuilding",
    "received_events_handler": "oms_events.eventstore.projection_platform",
    "recorded_of": "oms_events.eventstore.records",
    "retire": "oms_events.eventstore.projection_versions",
    "stats": "oms_events.eventstore.store_stats",
    "switch": "oms_events.eventstore.projection_versions",
    "tail": "oms_events.eventstore.tailing",
    "upcaster": "oms_events.eventstore.registry",
    "verify": "oms_events.eventstore.verification",
    "verify_projection": "oms_events.eventstore.projection_versions",
}
