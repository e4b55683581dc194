"""The preset `event-sourcing`: commands, an event store, projections and queries, as three functions and a bus."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from oms_events._aws.tables import TableShape
from oms_events.eventstore import schema
from oms_events.outbox.schema import TABLE as OUTBOX
from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.event_sourcing_parts import Parts, command_role, projection_role, query_role
from oms_events.provisioning.presets.event_sourcing_samples import COMMAND, QUERY, testing_instructions
from oms_events.provisioning.presets.handlers import code_options
from oms_events.provisioning.presets.oms_relay import OmsRelay, relay_parts
from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Arn, Reference, arn_of
from oms_events.provisioning.specs.buses import ArchiveSpec, EventBusSpec
from oms_events.provisioning.specs.capacity import OnDemandSpec, ProvisionedSpec
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.mappings import StreamSourceSpec
from oms_events.provisioning.specs.queues import MAX_RETENTION_SECONDS, QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.rules import MAX_TARGETS, RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.specs.targets import TargetSpec

EVENT_SOURCE: Final = "event-sourcing.financial"
DETAIL_TYPES: Final = ("AccountCreated", "TransactionProcessed", "AccountClosed")
"""What `financial-events-rule` matches."""

WRITE_THROTTLES: Final = 5
COMMAND_ERRORS: Final = 10
FAILED_INVOCATIONS: Final = 5
"""What may happen in five minutes before the alarms of these names go off."""

_STREAM_RETRIES: Final = -1
"""Until a record is a day old: what is wrong with an event is parked, so a batch fails only of what passes."""
_SUFFIX: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,14}[a-z0-9])?")
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")


class EventSourcingPreset(Preset):
    """An event-sourced system: a bus with its archive, the event store and three more tables, three functions.

    All names but the rule's are `<part>-<environment>`, with `-<resource_suffix>` where one is given. Names
    of roles are the account's, not the Region's: give each Region its own suffix. Without `code` the functions are
    made and refuse every call; what comes meanwhile goes to the dead-letter queue.
    """

    aws_region: str | None = None
    """The Region that `testing_instructions` names; the one deployed to when absent."""
    environment: Literal["dev", "staging", "prod"] = "dev"
    resource_suffix: str | None = None
    """The end of all names, for several systems in one account: 1 to 16 small letters, digits and '-'."""
    event_store_read_capacity: int | None = Field(default=None, ge=1)
    """Read units per second of the event store, and of its index; on-demand when absent."""
    event_store_write_capacity: int | None = Field(default=None, ge=1)
    """Write units per second of the event store, and of its index; on-demand when absent."""
    lambda_timeout: int = Field(default=30, ge=1, le=900)
    """Seconds, of each function."""
    lambda_memory_size: int = Field(default=256, ge=128, le=10_240)
    """MB, of each function."""
    enable_cloudwatch_alarms: bool = True

    code: CodeSpec | None = None
    """Where the code is, one package for the three functions; functions without code when absent."""
    command_handler: str | None = None
    """`module.function`; `command_handler.handler` when absent, `index.handler` of inline code."""
    projection_handler: str | None = None
    """As `command_handler`; `projection_handler.handler` when absent."""
    query_handler: str | None = None
    """As `command_handler`; `query_handler.handler` when absent."""
    runtime: str = "python3.13"
    enable_xray_tracing: bool = False
    archive_retention_days: int = Field(default=365, ge=0, le=36_500)
    """Days; 0 keeps the events for ever."""
    enable_deletion_protection: bool = False
    """Whether the tables refuse to be deleted."""
    financial_event_targets: tuple[TargetSpec, ...] = Field(default=(), max_length=MAX_TARGETS)
    """The targets of `financial-events-rule`, instead of the queue `financial-events`."""
    enable_outbox: bool = False
    """Whether appends can carry outbox records, in the table `event-outbox`."""
    outbox_relay: OmsRelay | None = None
    """The function that relays the outbox to the bus; without it your own processors do."""
    enable_personal_data: bool = False
    """Whether there is a table of the keys that personal data is encrypted under, `personal-keys`. It has no
    point-in-time recovery, which would keep deleted keys for 35 days."""
    personal_key_arn: Annotated[str | Reference, arn_of(key="kms:key/")] | None = None
    """The KMS key that those keys are wrapped with, for `KmsKeyWrapper`: its ARN, no alias. The roles may use
    it where its policy leaves that to IAM."""
    alarm_topic_arn: Arn | None = None
    """A topic of yours that is told of alarms and of their end; its policy, and its key's, must let CloudWatch use
    it."""

    def stack(self) -> StackSpec:
        dead_letters = self._queue("event-sourcing-dlq")
        events = self._queue("financial-events")
        targets = self.financial_event_targets or (
            TargetSpec(id="financial-events", arn=events.arn, dead_letter=dead_letters.arn),
        )
        parts = Parts(
            bus=EventBusSpec(name=self._name("event-sourcing-bus"), key="event-sourcing"),
            dead_letters=dead_letters,
            event_store=self._table("event-store", schema.EVENT_STORE, billing=self._billing()),
            read_model=self._table("read-model", schema.READ_MODEL),
            snapshots=self._table("snapshots", schema.SNAPSHOTS),
            checkpoints=self._table("checkpoints", schema.CHECKPOINTS),
            outbox=self._outbox() if self.enable_outbox else None,
            personal_keys=self._personal_keys() if self.enable_personal_data else None,
            personal_key_arn=self.personal_key_arn,
        )
        rule = RuleSpec(
            name="financial-events-rule",
            description="The financial events that commands led to",
            bus=parts.bus.reference("name"),
            pattern={"source": [EVENT_SOURCE], "detail-type": list(DETAIL_TYPES)},
            targets=targets,
        )
        functions, roles = self._functions(parts)
        queues = [dead_letters] if self.financial_event_targets else [dead_letters, events]
        rules = [rule]
        if self.outbox_relay is not None and parts.outbox is not None:
            relay = relay_parts(
                self.outbox_relay,
                name=self._name("event-outbox"),
                bus=parts.bus,
                table=parts.outbox,
                dead_letter=dead_letters.arn,
            )
            functions, roles = (*functions, relay.function), (*roles, relay.role)
            queues.append(relay.failures)
            rules.append(relay.sweep)
        return StackSpec(
            name=self._name("event-sourcing"),
            description=f"Event sourcing on DynamoDB and EventBridge, {self.environment}",
            tags={"Environment": self.environment},
            roles=roles,
            queues=tuple(queues),
            tables=parts.tables,
            functions=functions,
            buses=(parts.bus,),
            rules=tuple(rules),
            archives=(
                ArchiveSpec(
                    name=self._name("event-sourcing-archive"),
                    key="event-sourcing",
                    description="All events of the bus",
                    bus=parts.bus.arn,
                    retention_days=self.archive_retention_days,
                ),
            ),
            alarms=self._alarms(parts, rule) if self.enable_cloudwatch_alarms else (),
            outputs={
                "event_bus_name": parts.bus.reference("name"),
                "event_bus_arn": parts.bus.arn,
                "event_store_table_name": parts.event_store.reference("name"),
                "read_model_table_name": parts.read_model.reference("name"),
                "command_handler_function_name": self._name("command-handler"),
                "query_handler_function_name": self._name("query-handler"),
                "test_command_payload": COMMAND,
                "test_query_payload": QUERY,
                "testing_instructions": testing_instructions(
                    region=self.aws_region or "${AWS::Region}",
                    command_handler=self._name("command-handler"),
                    query_handler=self._name("query-handler"),
                    event_store=parts.event_store.name,
                    dead_letters=dead_letters.name,
                ),
            },
        )

    def _functions(self, parts: Parts) -> tuple[tuple[FunctionSpec, ...], tuple[RoleSpec, ...]]:
        command, projection, query = (
            self._name(part) for part in ("command-handler", "projection-handler", "query-handler")
        )
        roles = (
            command_role(command, parts, tracing=self.enable_xray_tracing),
            projection_role(projection, parts, tracing=self.enable_xray_tracing),
            query_role(query, parts, tracing=self.enable_xray_tracing),
        )
        stream = StreamSourceSpec(
            source=parts.event_store.reference("stream_arn"),
            batch_size=100,
            # Stored events are only ever added.
            filters=({"eventName": ["INSERT"]},),
            maximum_retry_attempts=_STREAM_RETRIES,
            bisect_on_error=True,
            on_failure=parts.dead_letters.arn,
        )
        functions = (
            self._function(command, roles[0], self.command_handler, parts, "Takes commands, and appends events"),
            self._function(
                projection, roles[1], self.projection_handler, parts, "Makes read models of events", stream
            ),
            self._function(query, roles[2], self.query_handler, parts, "Answers queries"),
        )
        return functions, roles

    def _function(
        self,
        name: str,
        role: RoleSpec,
        handler: str | None,
        parts: Parts,
        description: str,
        *sources: StreamSourceSpec,
    ) -> FunctionSpec:
        key = role.key
        return FunctionSpec(
            name=name,
            key=key,
            description=description,
            **code_options(
                self.code, handler=handler, default=f"{key.replace('-', '_')}.handler", runtime=self.runtime
            ),
            role=role.arn,
            timeout=self.lambda_timeout,
            memory=self.lambda_memory_size,
            tracing=self.enable_xray_tracing,
            environment={"ENVIRONMENT": self.environment, **parts.environment},
            sources=sources,
        )

    def _alarms(self, parts: Parts, rule: RuleSpec) -> tuple[AlarmSpec, ...]:
        actions = () if self.alarm_topic_arn is None else (self.alarm_topic_arn,)
        return (
            AlarmSpec(
                name=self._name("event-store-write-throttles"),
                key="event-store-write-throttles",
                description="DynamoDB throttles writes to the event store",
                namespace="AWS/DynamoDB",
                metric_name="WriteThrottleEvents",
                dimensions={"TableName": parts.event_store.reference("name")},
                threshold=WRITE_THROTTLES,
                actions=actions,
                ok_actions=actions,
            ),
            AlarmSpec(
                name=self._name("command-handler-errors"),
                key="command-handler-errors",
                description="Commands fail",
                namespace="AWS/Lambda",
                metric_name="Errors",
                dimensions={"FunctionName": self._name("command-handler")},
                threshold=COMMAND_ERRORS,
                actions=actions,
                ok_actions=actions,
            ),
            AlarmSpec(
                name=self._name("eventbridge-failed-invocations"),
                key="eventbridge-failed-invocations",
                description="EventBridge gives up events that a target did not take",
                namespace="AWS/Events",
                metric_name="FailedInvocations",
                dimensions={"EventBusName": parts.bus.reference("name"), "RuleName": rule.reference("name")},
                threshold=FAILED_INVOCATIONS,
                actions=actions,
                ok_actions=actions,
            ),
        )

    def _name(self, part: str) -> str:
        return "-".join(filter(None, (part, self.environment, self.resource_suffix)))

    def _table(self, part: str, shape: TableShape, **options: Any) -> TableSpec:
        protection = self.enable_deletion_protection
        return TableSpec.from_shape(self._name(part), shape, key=part, deletion_protection=protection, **options)

    def _outbox(self) -> TableSpec:
        stream = None if self.outbox_relay is None else "keys_only"
        return self._table("event-outbox", OUTBOX, stream=stream)

    def _personal_keys(self) -> TableSpec:
        # Recovery would bring back for 35 days the keys, and the people, that were to be forgotten.
        return self._table("personal-keys", schema.PERSONAL_KEYS, point_in_time_recovery=False)

    def _queue(self, part: str) -> QueueSpec:
        return QueueSpec(name=self._name(part), key=part, retention_seconds=MAX_RETENTION_SECONDS)

    def _billing(self) -> OnDemandSpec | ProvisionedSpec:
        read, write = self.event_store_read_capacity, self.event_store_write_capacity
        return OnDemandSpec() if read is None or write is None else ProvisionedSpec(read=read, write=write)

    @field_validator("event_store_read_capacity", "event_store_write_capacity", mode="before")
    @classmethod
    def _check_capacity(cls, units: object) -> object:
        # It would be taken for 1.
        if isinstance(units, bool):
            raise ValueError("is no number of units; write one such as 5, or leave it out for on-demand")
        return units

    @field_validator("aws_region")
    @classmethod
    def _check_region(cls, region: str | None) -> str | None:
        if region is not None and _REGION.fullmatch(region) is None:
            raise ValueError("is no Region; write one such as eu-central-1, or leave it out")
        return region

    @field_validator("resource_suffix")
    @classmethod
    def _check_suffix(cls, suffix: str | None) -> str | None:
        if suffix is not None and _SUFFIX.fullmatch(suffix) is None:
            raise ValueError("write 1 to 16 small letters, digits and '-', no '-' at its ends, or leave it out")
        return suffix

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.outbox_relay is not None and not self.enable_outbox:
            raise ValueError("outbox_relay needs enable_outbox = true: it relays that table")
        if self.personal_key_arn is not None and not self.enable_personal_data:
            raise ValueError("personal_key_arn needs enable_personal_data = true: it wraps the keys in that table")
        if (self.event_store_read_capacity is None) != (self.event_store_write_capacity is None):
            raise ValueError(
                f"event_store_read_capacity = {self.event_store_read_capacity}, event_store_write_capacity = "
                f"{self.event_store_write_capacity}: give both, or none for on-demand"
            )
        return self
