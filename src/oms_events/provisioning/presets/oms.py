"""The preset `oms`: the bus of the OMS with its rules, role, alarms, dashboard, archive, queue and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from oms_events.idempotency.schema import table_shape
from oms_events.oms.catalogue import EventType
from oms_events.outbox.schema import TABLE
from oms_events.provisioning.alarms import AlarmSpec
from oms_events.provisioning.base import Arn, Reference, ResourceSpec
from oms_events.provisioning.buses import ArchiveSpec, EventBusSpec
from oms_events.provisioning.dashboards import DashboardSpec
from oms_events.provisioning.outputs import OutputItem, OutputValue
from oms_events.provisioning.permissions import PolicyResource, StatementSpec
from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.oms_access import (
    business_statement,
    idempotency_statement,
    outbox_statement,
    publish_statement,
)
from oms_events.provisioning.presets.oms_relay import OmsRelay, RelayParts, relay_parts
from oms_events.provisioning.presets.oms_rules import family_of, make_rules, rule_problems
from oms_events.provisioning.presets.oms_watching import AlarmTopic, alarm_topic, make_alarms, make_dashboard
from oms_events.provisioning.queues import QueueSpec
from oms_events.provisioning.roles import PrincipalTrust, RoleSpec, ServiceTrust, TrustSpec
from oms_events.provisioning.rules import RuleSpec
from oms_events.provisioning.stack import StackSpec
from oms_events.provisioning.tables import TableSpec
from oms_events.provisioning.targets import TargetSpec
from oms_events.provisioning.trust import OWN_ACCOUNT

MAX_NAME: Final = 40
"""Characters of `name`: with what follows it, an archive's name has at most 48."""

MAX_BUS_NAME: Final = 100
"""Characters of a bus's name here: a queue's policy that names every rule, each with its bus, stays below SQS's
8,192 bytes (SQS quotas)."""

_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9-]{{0,{MAX_NAME - 1}}}")
_BUS_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_BUS_NAME}}}")
_METRICS_PREFIX: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
_METRICS_NAMESPACE: Final = r"^[A-Za-z0-9._/#-]{1,255}$"
_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9]+")
_DAY: Final = 86_400

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
    dlq_retention_days: int = Field(default=14, ge=1, le=14)
    enable_archive: bool = True
    archive_retention_days: int = Field(default=365, ge=0, le=36_500)
    """0 is for ever."""

    publisher_trust: tuple[TrustSpec, ...] = Field(
        default=(
            ServiceTrust(service="ecs-tasks.amazonaws.com"),
            ServiceTrust(service="lambda.amazonaws.com"),
            PrincipalTrust(principals=(OWN_ACCOUNT,)),
        ),
        min_length=1,
    )
    """Who may take the publisher's role; an account's identities also need a policy of their own that lets them."""
    business_tables: tuple[PolicyResource, ...] = ()
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
    """Of the invocations by the rules of one family in 5 minutes."""
    alarm_topic_arn: Arn | None = None
    """A topic of yours that the alarms notify; its policy, and its key's, must let CloudWatch use it."""
    alarm_emails: tuple[str, ...] = ()
    """Addresses that the alarms notify, through a topic that is made; each must confirm the mail that AWS sends."""

    enable_dashboard: bool = True
    metrics_namespace: str = Field(default="OmsEvents", pattern=_METRICS_NAMESPACE)
    """The CloudWatch namespace of the library's metrics, as the CloudWatch agent is told it."""
    metrics_prefix: str = Field(default="oms_events", pattern=_METRICS_PREFIX)
    """The `prefix` of PrometheusHook."""

    def stack(self) -> StackSpec:
        bus, dlq, rules, relay = self._bus(), self._dlq(), self._rules(), self._relay()
        archive, publisher = self._archive(), self._publisher()
        tables = (self._outbox_table(), self._idempotency_table())
        topic = alarm_topic(self._prefix, self.alarm_emails) if self.alarm_emails else None
        alarms = tuple(self._alarms(rules, topic))
        dashboard = self._dashboard(alarms)
        endpoint = None if self.endpoint is None else self.endpoint.spec(f"{self._prefix}-endpoint")
        ...
