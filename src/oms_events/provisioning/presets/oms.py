"""The preset `oms`: the bus of the OMS with its rules, role, alarms, dashboard, archive, queue and tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from pydantic import Field, field_validator

from oms_events.idempotency.schema import table_shape
from oms_events.oms.catalogue import EventType
from oms_events.outbox.schema import TABLE
from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.oms_access import (
    business_statement,
    idempotency_statement,
    outbox_statement,
    publish_statement,
)
from oms_events.provisioning.presets.oms_endpoint import OmsEndpoint
from oms_events.provisioning.presets.oms_relay import OmsRelay, RelayParts, relay_parts
from oms_events.provisioning.presets.oms_rules import make_rules, rule_problems
from oms_events.provisioning.presets.oms_watching import make_alarm_topic, make_alarms, make_dashboard
from oms_events.provisioning.presets.table_arns import TableArn
from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Arn, Reference, ResourceSpec
from oms_events.provisioning.specs.buses import ArchiveSpec, EventBusSpec
from oms_events.provisioning.specs.dashboards import DashboardSpec
from oms_events.provisioning.specs.endpoints import EndpointSpec
from oms_events.provisioning.specs.outputs import OutputItem, OutputValue
from oms_events.provisioning.specs.permissions import StatementSpec
from oms_events.provisioning.specs.queues import MAX_RETENTION_SECONDS, QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec, ServiceTrust, TrustSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.specs.targets import TargetSpec

MAX_NAME: Final = 40
"""Characters of `name`: with what follows it, a role's name has at most 64."""

MAX_BUS_NAME: Final = 256
"""EventBridge API reference, CreateEventBus."""

_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9-]{{0,{MAX_NAME - 1}}}")
_BUS_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_BUS_NAME}}}")
_METRICS_PREFIX: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
_METRICS_NAMESPACE: Final = r"^[A-Za-z0-9._/#-]{1,255}$"
_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9]+")
_DAY: Final = 86_400
_MAX_DLQ_DAYS: Final = MAX_RETENTION_SECONDS // _DAY

MAX_ARCHIVE_PREFIX: Final = 40
"""Characters of a bus's name in that of its archive, which has at most 48 (EventBridge API reference,
CreateArchive)."""
_DIGEST: Final = 8

_AnySpec = TypeVar("_AnySpec", bound=ResourceSpec)


class OmsPreset(Preset):
    """The AWS side of the OMS router. Raises `SpecError` with all problems of its variables."""

    event_bus_name: str = "oms-events"
    """The bus: `event_bus_name` of the publisher, or OMS_EVENTBRIDGE_BUS_NAME."""
    name: str = ""
    """The stack's name, with which all other names begin; the bus's, with '-' for other signs, unless given."""
    tags: Mapping[str, str] = Field(default_factory=dict)
    termination_protection: bool = False

    source_prefix: str | None = None
    """The publisher's `source_prefix`, where it has one."""
    event_types: tuple[str, ...] = Field(default=tuple(kind.value for kind in EventType), min_length=1)
    """The types that have a rule each, named by their last two segments."""
    targets: Mapping[str, tuple[TargetSpec, ...]] = Field(default_factory=dict)
    """Targets by event type, or by the name of its rule."""
    default_targets: tuple[TargetSpec, ...] = ()
    """Targets of the rules that `targets` does not name; a rule without targets matches, and does nothing."""
    queues: tuple[QueueSpec, ...] = ()
    """Queues to make with the rest; targets refer to them: `{arn: {ref: "queue:<name>"}}`."""

    enable_dlq: bool = True
    """Whether targets without a dead-letter queue get the stack's."""
    dlq_retention_days: int = _MAX_DLQ_DAYS
    enable_archive: bool = True
    archive_retention_days: int = Field(default=365, ge=0, le=36_500)
    """0 is for ever."""

    publisher_trust: tuple[TrustSpec, ...] = Field(
        default=(
            ServiceTrust(service="ecs-tasks.amazonaws.com"),
            ServiceTrust(service="lambda.amazonaws.com"),
        ),
        min_length=1,
    )
    """Who may take the publisher's role: ECS tasks and Lambda functions, unless given."""
    publisher_statements: tuple[StatementSpec, ...] = ()
    """What the publisher's role may do besides, such as putting large events into a bucket."""
    business_tables: tuple[TableArn, ...] = ()
    """ARNs of tables of yours that the publisher's role may use in the outbox's transactions."""

    enable_outbox: bool = True
    outbox_table_name: str = ""
    """`{name}-outbox` unless given."""
    enable_idempotency: bool = True
    idempotency_table_name: str = ""
    """`{name}-idempotency` unless given."""
    deletion_protection: bool = False
    """Of both tables."""
    relay: OmsRelay | None = None
    """The relay of the outbox on AWS Lambda; processors in your services need none."""
    endpoint: OmsEndpoint | None = None

    enable_alarms: bool = True
    min_invocations: int = Field(default=1, ge=0)
    """Of all rules together in 15 minutes; 0 is for a bus that may be quiet, and makes no such alarm."""
    max_error_percent: float = Field(default=10.0, ge=0, lt=100)
    """Of what was tried in 5 minutes, by all rules together."""
    alarm_topic_arn: Arn | None = None
    """A topic of yours that the alarms notify; its policy, and its key's, must let CloudWatch use it."""
    alarm_emails: tuple[str, ...] = ()
    """Addresses that the alarms notify through a topic that is made; each must confirm AWS's mail."""

    enable_dashboard: bool = True
    metrics_namespace: str = Field(default="OmsEvents", pattern=_METRICS_NAMESPACE)
    """The CloudWatch namespace of the library's metrics, as the CloudWatch agent is told it."""
    metrics_prefix: str = Field(default="oms_events", pattern=_METRICS_PREFIX)
    """The `prefix` of PrometheusHook."""

    def stack(self) -> StackSpec:
        name = self._name
        rules, relay, endpoint = self._rules(), self._relay(), self._endpoint()
        telling = make_alarm_topic(name, self.alarm_emails) if self.alarm_emails else None
        alarms = tuple(self._alarms(None if telling is None else telling.topic.arn))
        dashboard = self._dashboard(alarms)
        return StackSpec(
            name=name,
            description=f"oms-events: the event bus {self.event_bus_name} of the OMS",
            tags=self.tags,
            termination_protection=self.termination_protection,
            keys=_given(telling and telling.key),
            topics=_given(telling and telling.topic),
            roles=_given(self._publisher(), relay and relay.role),
            queues=_given(self._dlq(), *self.queues, relay and relay.failures),
            tables=_given(self._outbox_table(), self._idempotency_table()),
            functions=_given(relay and relay.function),
            buses=(self._bus(),),
            rules=_given(*rules.values(), relay and relay.sweep),
            archives=_given(self._archive()),
            endpoints=_given(endpoint),
            alarms=alarms,
            dashboards=_given(dashboard),
            outputs={
                **self._outputs(rules),
                "alarm_topic_arn": self.alarm_topic_arn if telling is None else telling.topic.arn,
                "dashboard_name": _of(dashboard, "name"),
                "relay_function_name": _of(None if relay is None else relay.function, "name"),
                "relay_failures_url": _of(None if relay is None else relay.failures, "url"),
                "vpc_endpoint_id": _of(endpoint, "id"),
            },
        )

    @property
    def _name(self) -> str:
        return self.name or _NOT_IN_NAME.sub("-", self.event_bus_name).strip("-")

    def _bus(self) -> EventBusSpec:
        return EventBusSpec(name=self.event_bus_name, description="Events of the OMS, published by oms-events")

    def _rules(self) -> dict[str, RuleSpec]:
        return make_rules(
            self.event_types,
            bus=self._bus().reference("name"),
            source_prefix=self.source_prefix,
            targets=self.targets,
            default_targets=self.default_targets,
            dead_letter=self._dead_letter(),
        )

    def _dlq(self) -> QueueSpec | None:
        if not self.enable_dlq:
            return None
        return QueueSpec(name=f"{self._name}-dlq", retention_seconds=self.dlq_retention_days * _DAY)

    def _dead_letter(self) -> Reference | None:
        dlq = self._dlq()
        return None if dlq is None else dlq.arn

    def _archive(self) -> ArchiveSpec | None:
        if not self.enable_archive:
            return None
        return ArchiveSpec(
            name=_archive_name(self.event_bus_name),
            description=f"All events of {self.event_bus_name}",
            bus=self._bus().arn,
            retention_days=self.archive_retention_days,
        )

    def _outbox_table(self) -> TableSpec | None:
        if not self.enable_outbox:
            return None
        # The function looks up what a record wakes; the record itself it reads from the table.
        stream = None if self.relay is None else "keys_only"
        name = self.outbox_table_name or f"{self._name}-outbox"
        return TableSpec.from_shape(name, TABLE, stream=stream, deletion_protection=self.deletion_protection)

    def _idempotency_table(self) -> TableSpec | None:
        if not self.enable_idempotency:
            return None
        name = self.idempotency_table_name or f"{self._name}-idempotency"
        return TableSpec.from_shape(name, table_shape(), deletion_protection=self.deletion_protection)

    def _publisher(self) -> RoleSpec:
        outbox, idempotency = self._outbox_table(), self._idempotency_table()
        statements = [publish_statement(self._bus().arn)]
        if outbox is not None:
            statements.append(outbox_statement(outbox.arn))
        if idempotency is not None:
            statements.append(idempotency_statement(idempotency.arn))
        if self.business_tables:
            statements.append(business_statement(self.business_tables))
        return RoleSpec(
            name=f"{self._name}-publisher-role",
            description=f"Publishes to {self.event_bus_name}, directly and through the outbox",
            trust=self.publisher_trust,
            statements=(*statements, *self.publisher_statements),
        )

    def _relay(self) -> RelayParts | None:
        table = self._outbox_table()
        if self.relay is None or table is None:
            return None
        return relay_parts(
            self.relay, name=self._name, bus=self._bus(), table=table, dead_letter=self._dead_letter()
        )

    def _endpoint(self) -> EndpointSpec | None:
        return None if self.endpoint is None else self.endpoint.spec(f"{self._name}-events", self._bus().arn)

    def _alarms(self, topic: Reference | None) -> Iterator[AlarmSpec]:
        if self.enable_alarms:
            yield from make_alarms(
                name=self._name,
                bus=self.event_bus_name,
                min_invocations=self.min_invocations,
                max_error_percent=self.max_error_percent,
                topic=topic or self.alarm_topic_arn,
            )

    def _dashboard(self, alarms: tuple[AlarmSpec, ...]) -> DashboardSpec | None:
        if not self.enable_dashboard:
            return None
        return make_dashboard(
            name=self._name,
            bus=self.event_bus_name,
            alarms=alarms,
            namespace=self.metrics_namespace,
            prefix=self.metrics_prefix,
        )

    def _outputs(self, rules: Mapping[str, RuleSpec]) -> dict[str, OutputValue]:
        bus, dlq, archive, publisher = self._bus(), self._dlq(), self._archive(), self._publisher()
        outbox, idempotency = self._outbox_table(), self._idempotency_table()
        return {
            "event_bus_name": bus.reference("name"),
            "event_bus_arn": bus.arn,
            "rule_arns": {event_type: rule.arn for event_type, rule in rules.items()},
            "rule_names": {event_type: rule.name for event_type, rule in rules.items()},
            "dlq_url": _of(dlq, "url"),
            "dlq_arn": _of(dlq, "arn"),
            "archive_arn": _of(archive, "arn"),
            "publisher_role_arn": publisher.arn,
            "publisher_role_name": publisher.reference("name"),
            "outbox_table_name": _of(outbox, "name"),
            "outbox_table_arn": _of(outbox, "arn"),
            "idempotency_table_name": _of(idempotency, "name"),
            "idempotency_table_arn": _of(idempotency, "arn"),
        }

    @field_validator("dlq_retention_days")
    @classmethod
    def _check_retention(cls, days: int) -> int:
        if not 1 <= days <= _MAX_DLQ_DAYS:
            raise ValueError(f"SQS keeps a message for at most {_MAX_DLQ_DAYS} days; write 1 to {_MAX_DLQ_DAYS}")
        return days

    @field_validator("event_bus_name")
    @classmethod
    def _check_bus_name(cls, name: str) -> str:
        if _BUS_NAME.fullmatch(name) is None:
            raise ValueError(f"a bus's name is 1 to {MAX_BUS_NAME} letters, digits, '.', '-' and '_'")
        return name

    def _problems_together(self) -> Iterator[str]:
        if _NAME.fullmatch(self._name) is None:
            given = "name" if self.name else "event_bus_name"
            yield (
                f"{given} = {getattr(self, given)!r}: what all names begin with is a letter and up to "
                f"{MAX_NAME - 1} letters, digits and '-'; {'shorten it' if self.name else 'give `name`'}"
            )
        yield from rule_problems(self.event_types, self.targets, self.source_prefix)
        if self.relay is not None and not self.enable_outbox:
            yield "relay needs enable_outbox = true: it relays that table"
        for table in ("outbox", "idempotency"):
            if getattr(self, f"{table}_table_name") and not getattr(self, f"enable_{table}"):
                yield f"{table}_table_name needs enable_{table} = true; take one out"
        if self.alarm_topic_arn is not None and self.alarm_emails:
            yield "alarm_topic_arn and alarm_emails exclude each other; subscribe the addresses to your topic"
        if (self.alarm_topic_arn is not None or self.alarm_emails) and not self.enable_alarms:
            yield "alarm_topic_arn and alarm_emails need enable_alarms = true"


def _archive_name(bus: str) -> str:
    """Of the bus, for an archive cannot be given another bus: one of this name is for this one."""
    if len(bus) > MAX_ARCHIVE_PREFIX:
        digest = hashlib.sha256(bus.encode()).hexdigest()[:_DIGEST]
        bus = f"{bus[: MAX_ARCHIVE_PREFIX - _DIGEST - 1]}-{digest}"
    return f"{bus}-archive"


def _given(*specs: _AnySpec | None) -> tuple[_AnySpec, ...]:
    return tuple(spec for spec in specs if spec is not None)


def _of(spec: ResourceSpec | None, attribute: str) -> OutputItem | None:
    return None if spec is None else spec.reference(attribute)
