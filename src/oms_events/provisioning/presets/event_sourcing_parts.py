"""What the functions of an event-sourced system work with, and what the role of each may do with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from oms_events.eventstore.schema import BY_TYPE
from oms_events.provisioning.presets.handlers import FIND_STREAMS, allow, function_role
from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.permissions import StatementSpec, Suffixed
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.tables import TableSpec

_READ_KEYS: Final = "the keys of people's data, to read it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The bus, the tables and the dead-letter queue."""

    bus: EventBusSpec
    dead_letters: QueueSpec
    event_store: TableSpec
    read_model: TableSpec
    snapshots: TableSpec
    checkpoints: TableSpec
    outbox: TableSpec | None
    personal_keys: TableSpec | None
    personal_key_arn: str | Reference | None

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        known = (self.event_store, self.read_model, self.snapshots, self.checkpoints)
        return (*known, *(table for table in (self.outbox, self.personal_keys) if table is not None))

    @property
    def environment(self) -> Mapping[str, str | Reference]:
        """The functions' environment variables; what a function may do with them is its role's to say."""
        known: dict[str, str | Reference] = {
            "EVENT_BUS_NAME": self.bus.reference("name"),
            "EVENT_STORE_TABLE": self.event_store.reference("name"),
            "READ_MODEL_TABLE": self.read_model.reference("name"),
            "SNAPSHOT_TABLE": self.snapshots.reference("name"),
            "CHECKPOINT_TABLE": self.checkpoints.reference("name"),
        }
        if self.outbox is not None:
            known["OMS_OUTBOX_TABLE"] = self.outbox.reference("name")
        if self.personal_keys is not None:
            known["PERSONAL_KEYS_TABLE"] = self.personal_keys.reference("name")
        if self.personal_key_arn is not None:
            known["PERSONAL_KEY_ARN"] = self.personal_key_arn
        return known


def command_role(function: str, parts: Parts, *, tracing: bool) -> RoleSpec:
    """Appends events, alone and in transactions.

    No role here has UpdateItem, DeleteItem or BatchWriteItem on the event store; a put without a condition would
    replace an event, so appends carry one.
    """
    with_outbox = () if parts.outbox is None else (_outbox(parts.outbox),)
    return function_role(
        "command-handler",
        function,
        allow(
            "AppendEvents",
            "conditional appends, alone and in transactions",
            parts.event_store.arn,
            *("dynamodb:PutItem", "dynamodb:ConditionCheckItem"),
        ),
        allow(
            "ReadEvents",
            "the state that a command is decided on",
            parts.event_store.arn,
            *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query"),
        ),
        allow(
            "KeepSnapshots",
            "state is rebuilt from the last snapshot on",
            parts.snapshots.arn,
            *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem"),
        ),
        allow(
            "Publish",
            "events go to this bus, which is looked up first: PutEvents to a missing one would lose them",
            parts.bus.arn,
            *("events:PutEvents", "events:DescribeEventBus"),
        ),
        *with_outbox,
        *_personal_keys(
            parts,
            "KeepKeys",
            "the keys of people's data: used, made for new people, deleted to forget a person",
            *("dynamodb:DescribeTable", "dynamodb:BatchGetItem", "dynamodb:GetItem"),
            *("dynamodb:PutItem", "dynamodb:UpdateItem"),
        ),
        *_kms_key(parts, "kms:Encrypt", "kms:Decrypt"),
        tracing=tracing,
    )


def projection_role(function: str, parts: Parts, *, tracing: bool) -> RoleSpec:
    """Reads the event store's stream, and where that leaves gaps its table; writes read models and checkpoints."""
    return function_role(
        "projection-handler",
        function,
        allow(
            "ReadStream",
            "Lambda reads the event store's stream as this role",
            parts.event_store.reference("stream_arn"),
            *("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"),
        ),
        FIND_STREAMS,
        allow(
            "FillGaps",
            "events that a batch lacks are read from the history of their aggregate",
            parts.event_store.arn,
            *("dynamodb:DescribeTable", "dynamodb:Query"),
        ),
        allow(
            "Project",
            "a row and its checkpoint in one transaction; parked events; a new version beside the old",
            (parts.read_model.arn, parts.checkpoints.arn),
            *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"),
            *("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:ConditionCheckItem"),
        ),
        allow("GiveUp", "Lambda says here which records it gave up", parts.dead_letters.arn, "sqs:SendMessage"),
        *_personal_keys(parts, "ReadKeys", _READ_KEYS, "dynamodb:DescribeTable", "dynamodb:BatchGetItem"),
        *_kms_key(parts, "kms:Decrypt"),
        tracing=tracing,
    )


def query_role(function: str, parts: Parts, *, tracing: bool) -> RoleSpec:
    """Reads, and nothing else."""
    index = Suffixed.of(parts.event_store.arn, f"/index/{BY_TYPE}")
    return function_role(
        "query-handler",
        function,
        allow(
            "ReadTables",
            "read models, and the history of an aggregate from a snapshot on",
            (parts.event_store.arn, parts.read_model.arn, parts.snapshots.arn),
            *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query"),
        ),
        allow("ReadByType", "events of one type, by time", index, "dynamodb:Query"),
        *_personal_keys(parts, "ReadKeys", _READ_KEYS, "dynamodb:DescribeTable", "dynamodb:BatchGetItem"),
        *_kms_key(parts, "kms:Decrypt"),
        tracing=tracing,
    )


def _personal_keys(parts: Parts, sid: str, why: str, *actions: str) -> tuple[StatementSpec, ...]:
    keys = parts.personal_keys
    return () if keys is None else (allow(sid, why, keys.arn, *actions),)


def _kms_key(parts: Parts, *actions: str) -> tuple[StatementSpec, ...]:
    arn = parts.personal_key_arn
    why = "the KMS key that the keys of people's data are wrapped with"
    return () if arn is None else (allow("WrapKeys", why, (arn,), *actions),)


def _outbox(table: TableSpec) -> StatementSpec:
    return allow(
        "AddToOutbox",
        "outbox records in the transaction that appends, their counters, and the layout",
        table.arn,
        *("dynamodb:DescribeTable", "dynamodb:GetItem"),
        *("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:ConditionCheckItem"),
    )
