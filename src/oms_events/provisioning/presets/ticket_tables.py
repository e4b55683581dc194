"""The preset `ticket-tables`: the tables of tickets and reservations, who may use them, and throttle alarms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Final, Self

from pydantic import Field, PlainValidator, field_validator, model_validator

from oms_events.idempotency.schema import table_shape as idempotency_shape
from oms_events.outbox.schema import TABLE as OUTBOX_SHAPE
from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.named import by_name
from oms_events.provisioning.presets.ticket_roles import (
    COMPUTE,
    application_role,
    readonly_role,
    reservation_role,
)
from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Arn
from oms_events.provisioning.specs.permissions import StatementSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.tables import IndexSpec, TableSpec
from oms_events.provisioning.specs.trust import ServiceTrust, TrustSpec

RESERVATION: Final = "reservation-"
"""What the keys of the reservation service's tables begin with."""

TABLES: Final[Mapping[str, TableSpec]] = {
    table.key: table
    for table in (
        TableSpec(
            name="tickets",
            hash_key="ticket_id",
            indexes=(
                IndexSpec(name="user-index", hash_key="user_id"),
                IndexSpec(name="status-index", hash_key="status"),
            ),
        ),
        TableSpec(name="users", hash_key="user_id", indexes=(IndexSpec(name="email-index", hash_key="email"),)),
        TableSpec(name="ticket-events", hash_key="pk", range_key="sk"),
        *(
            TableSpec(
                name=f"{RESERVATION}{name}",
                hash_key="pk",
                range_key="sk",
                indexes=(IndexSpec(name="GSI1", hash_key="gsi1pk", range_key="gsi1sk"),),
            )
            for name in ("reservations", "orders")
        ),
        TableSpec.from_shape(f"{RESERVATION}idempotency", idempotency_shape()),
        TableSpec.from_shape(f"{RESERVATION}outbox", OUTBOX_SHAPE),
    )
}
"""The tables without the variables, by key: the part of a table's name after the preset's."""

OPTIONS: Final = (
    "enabled",
    "hash_key",
    "range_key",
    "attribute_types",
    "indexes",
    "ttl_attribute",
    "stream",
    "billing",
    "point_in_time_recovery",
    "deletion_protection",
    "table_class",
)
"""What can be said of one table: whether it is made, and these fields of a TableSpec."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,34}")
"""So that the longest role's name has at most the 64 characters that IAM takes."""

_KEY_ARN: Final = re.compile(r"arn:[^:]+:kms:[^:]+:[^:]+:key/[A-Za-z0-9-]+")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9-]{1,128}")


def _read_tables(value: object) -> Mapping[str, Mapping[str, Any]]:
    # A spec keeps what it was made of, whatever becomes of it outside.
    tables = deepcopy(by_name(value))
    for key, options in tables.items():
        # In a list, the name stood there to be the key.
        if options.pop("name", key) != key:
            raise ValueError(f"{key}: name is made of the preset's name and the key; leave it out")
        if unknown := sorted(options.keys() - set(OPTIONS)):
            raise ValueError(f"{key}: unknown option {unknown[0]!r}; a table has {', '.join(OPTIONS)}")
        if not isinstance(options.get("enabled", True), bool):
            raise ValueError(f"{key}: enabled = {options['enabled']!r} is neither true nor false")
        for role in ("hash_key", "range_key"):
            fixed = getattr(TABLES.get(key), role, None)
            if key in TABLES and options.get(role, fixed) != fixed:
                raise ValueError(
                    f"{key}: {role} = {options[role]!r}: this table's keys are what its users work with; leave "
                    "it out, or make another table"
                )
    return tables


class TicketTablesPreset(Preset):
    """The tables of a ticket shop and of its reservation service, ready for the outbox and for idempotency."""

    name: str = "ticket"
    """What all names begin with."""
    tables: Annotated[Mapping[str, Mapping[str, Any]], PlainValidator(_read_tables)] = {}
    """What is different about the seven tables, and tables of your own, by key or as a list with names.

    The options are those of `OPTIONS`. Tables that are not named here are made all the same, so that none is
    removed by leaving it out; `enabled = false` removes one, with its data.
    """
    enable_point_in_time_recovery: bool = True
    """Whether each table can be put back to any second of the last 35 days."""
    enable_deletion_protection: bool = False
    """Whether DynamoDB refuses to delete the tables."""
    server_side_encryption: bool = True
    """Whether they are encrypted with a key in KMS, AWS's `aws/dynamodb` unless `kms_key_id` names yours; with
    false, DynamoDB encrypts with a key that it shares among its customers."""
    kms_key_id: str | None = None
    """The id or the ARN of a key of your own; its policy must let the account's roles use it."""
    application_trust: tuple[TrustSpec, ...] = Field(default=COMPUTE, min_length=1)
    """Who may take the application role: what the applications run on."""
    readonly_trust: tuple[TrustSpec, ...] = Field(default=COMPUTE, min_length=1)
    """Who may take the read-only role."""
    reservation_trust: tuple[TrustSpec, ...] = Field(
        default=(ServiceTrust(service="ecs-tasks.amazonaws.com"),), min_length=1
    )
    """Who may take the reservation service's role: ECS tasks; add the service account of an EKS cluster, with the
    cluster's OIDC provider."""
    reservation_bus_name: str = Field(default="reservation-events", pattern=r"^[A-Za-z0-9._-]{1,256}$")
    """The bus that the reservation service puts its events on."""
    reservation_log_group: str = Field(default="/aws/ecs/reservation-api", pattern=r"^[./_#A-Za-z0-9-]{1,512}$")
    """The log group that the reservation service writes to; it is no part of the stack."""
    reservation_statements: tuple[StatementSpec, ...] = ()
    """What the reservation service may do besides, such as putting large events into a bucket."""
    alarm_topic_arn: Arn | None = None
    """A topic of yours that the alarms notify; its policy, and its key's, must let CloudWatch use it."""

    def stack(self) -> StackSpec:
        tables = tuple(self._tables())
        reserved = tuple(table for table in tables if table.key.startswith(RESERVATION))
        key = self._key_arn()
        application = application_role(self.name, self.application_trust, tables, key)
        readonly = readonly_role(self.name, self.readonly_trust, tables, key)
        reservation = reservation_role(
            self.name,
            self.reservation_trust,
            reserved,
            key,
            bus=self.reservation_bus_name,
            log_group=self.reservation_log_group,
            more=self.reservation_statements,
        )
        return StackSpec(
            name=f"{self.name}-tables",
            description=f"The tables {self.name}-*, their roles and throttle alarms",
            roles=(application, readonly, reservation),
            tables=tables,
            alarms=tuple(alarm for table in tables for alarm in _alarms(table, self.alarm_topic_arn)),
            outputs={
                "table_names": {table.key: table.reference("name") for table in tables},
                "table_arns": {table.key: table.arn for table in tables},
                "table_stream_arns": {
                    table.key: table.reference("stream_arn") for table in tables if table.stream is not None
                },
                "application_role_arn": application.arn,
                "application_role_name": application.reference("name"),
                "readonly_role_arn": readonly.arn,
                "readonly_role_name": readonly.reference("name"),
                "reservation_service_role_arn": reservation.arn,
                "reservation_service_role_name": reservation.reference("name"),
                "reservation_tables": {
                    table.key: {"name": table.reference("name"), "arn": table.arn} for table in reserved
                },
            },
        )

    def _tables(self) -> Iterator[TableSpec]:
        common = {
            "point_in_time_recovery": self.enable_point_in_time_recovery,
            "deletion_protection": self.enable_deletion_protection,
            "encryption": self.server_side_encryption,
            "kms_key": self._key_arn(),
        }
        for key in dict.fromkeys((*TABLES, *self.tables)):
            options = dict(self.tables.get(key, {}))
            if options.pop("enabled", True):
                default = dict(TABLES[key]) if key in TABLES else {}
                yield TableSpec(**{**default, **common, **options, "name": f"{self.name}-{key}", "key": key})

    def _key_arn(self) -> str | None:
        key = self.kms_key_id
        if key is None or key.startswith("arn:"):
            return key
        return f"arn:${{AWS::Partition}}:kms:${{AWS::Region}}:${{AWS::AccountId}}:key/{key}"

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError("begins with a letter, and has at most 35 letters, digits and '-'; shorten it")
        return name

    @field_validator("kms_key_id")
    @classmethod
    def _check_key(cls, key: str | None) -> str | None:
        if key is not None and _KEY_ID.fullmatch(key) is None and _KEY_ARN.fullmatch(key) is None:
            raise ValueError(
                "is neither a key's id nor its ARN; an alias does not do, as IAM takes keys only: look it up with "
                "`aws kms describe-key`"
            )
        return key

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        if self.kms_key_id is not None and not self.server_side_encryption:
            raise ValueError("kms_key_id needs server_side_encryption = true")
        if not list(self._tables()):
            raise ValueError("tables: none is left; enable one at least")
        return self


def _alarms(table: TableSpec, topic: Arn | None) -> Iterator[AlarmSpec]:
    for kind, metric in (("read", "ReadThrottleEvents"), ("write", "WriteThrottleEvents")):
        yield AlarmSpec(
            name=f"{table.name}-{kind}-throttle",
            key=f"{table.key}-{kind}-throttle",
            description=f"DynamoDB throttled {kind}s of the table {table.name} for 10 minutes",
            namespace="AWS/DynamoDB",
            metric_name=metric,
            dimensions={"TableName": table.reference("name")},
            threshold=0,
            period=300,
            evaluation_periods=2,
            actions=() if topic is None else (topic,),
        )
