"""The preset `ticket-events`: a bus of its own with rules, their dead letters, an archive, roles and a log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from oms_events.provisioning.presets.base import Preset
from oms_events.provisioning.presets.named import by_name
from oms_events.provisioning.presets.table_arns import TableArn
from oms_events.provisioning.presets.ticket_roles import COMPUTE
from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Arn, Reference, Spec
from oms_events.provisioning.specs.buses import EVENTS_SERVICE, ArchiveSpec, EventBusSpec
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.patterns import check_pattern
from oms_events.provisioning.specs.permissions import StatementSpec
from oms_events.provisioning.specs.queues import MAX_RETENTION_SECONDS, QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import BY_RESOURCE_POLICY, TargetSpec
from oms_events.provisioning.specs.trust import ServiceTrust, TrustSpec

SOURCE: Final = "ticket.service"
"""What the ticket service writes as the source of its events."""

LOG_RETENTION_DAYS: Final = 30

_DAY: Final = 86_400
_MAX_DLQ_DAYS: Final = MAX_RETENTION_SECONDS // _DAY
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,37}")
"""So that the longest role's name has at most the 64 characters that IAM takes."""

_BUS_PART: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_MAX_ARCHIVE_NAME: Final = 48
"""EventBridge API reference, CreateArchive."""

_TARGET_ROLE: Final = "target"
_EVERYTHING: Final = {"source": [{"exists": True}]}
_LOG_RULE: Final = "to-log-group"
_TARGETS: Final = {"lambda": "InvokeFunctions", "sqs": "SendMessages", "sns": "PublishMessages"}
"""Services of the rules' targets, each with the statement of the target role."""


def _needs_role(target: TargetSpec) -> bool:
    """Queues and topics outside the stack have a policy that this one cannot write; functions take statements."""
    return isinstance(target.arn, str) and target.service in ("sqs", "sns") and target.role is None


def _function(name: str) -> str:
    return f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:{name}"


def _ticket_pattern(detail_type: str, *status: str) -> dict[str, Any]:
    return {"source": [SOURCE], "detail-type": [detail_type], "detail": {"status": list(status)}}


DEFAULT_RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    "ticket-created": {
        "description": "A ticket was created",
        "event_pattern": _ticket_pattern("Ticket Created", "created"),
        "targets": [{"id": "ticket-handler", "arn": _function("ticket-handler")}],
    },
    "ticket-status-changed": {
        "description": "A ticket was approved, rejected or completed",
        "event_pattern": _ticket_pattern("Ticket Status Changed", "approved", "rejected", "completed"),
        "targets": [{"id": "status-handler", "arn": _function("status-handler")}],
    },
}
"""The rules unless others are given; what a rule of one of these names does not say is taken from here."""


def _read_pattern(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"{value!r} is no JSON; write a table, or a pattern as JSON text") from None
    return check_pattern(value) if isinstance(value, Mapping) else value


Pattern = Annotated[Mapping[str, Any], BeforeValidator(_read_pattern)]
"""An event pattern, as a table or as its JSON text."""


class TicketRuleSpec(Spec):
    """One of the bus's rules. Its name in AWS has the preset's `name` before it."""

    name: str
    description: str | None = None
    event_pattern: Pattern
    targets: tuple[TargetSpec, ...] = ()
    """At most five: Lambda functions, SQS queues and SNS topics. A `dead_letter` of its own goes before the
    preset's queue."""


def _read_rules(value: object) -> object:
    return {name: {"name": name, **DEFAULT_RULES.get(name, {}), **given} for name, given in by_name(value).items()}


class ArchiveConfig(Spec):
    """The archive of the bus."""

    enabled: bool = True
    retention_days: int = Field(default=365, ge=0, le=36_500)
    """Days that events are kept; 0 keeps them for ever."""
    event_pattern: Pattern = Field(default_factory=lambda: {"source": [SOURCE]})
    """Which events are kept."""


class TicketEventsPreset(Preset):
    """An event bus for tickets: two rules or those that you give, with everything that makes them dependable."""

    name: str = "ticket"
    """What all names begin with."""
    custom_bus_name: str = "ticket-events"
    """The second part of the bus's name."""
    rules: Annotated[Mapping[str, TicketRuleSpec], BeforeValidator(_read_rules)] = Field(
        default=DEFAULT_RULES, validate_default=True
    )
    """The rules, by name or as a list; those that you give stand in place of the two default ones."""
    enable_dlq: bool = True
    """Whether events that a target did not take are kept in a queue."""
    dlq_retention_days: int = _MAX_DLQ_DAYS
    """Days that the dead-letter queue keeps an event; AWS allows no more than 14."""
    archive_config: ArchiveConfig = ArchiveConfig()
    dynamodb_table_arns: tuple[TableArn, ...] = ()
    """Tables that the target role may get, put and update items of."""
    service_trust: tuple[TrustSpec, ...] = Field(default=COMPUTE, min_length=1)
    """Who may take the service role: what the ticket service runs on."""
    alarm_topic_arn: Arn | None = None
    """A topic of yours that the alarms notify; its policy, and its key's, must let CloudWatch use it."""

    @property
    def bus_name(self) -> str:
        return f"{self.name}-{self.custom_bus_name}"

    @property
    def _archive_name(self) -> str:
        return f"{self.bus_name}-archive"

    def stack(self) -> StackSpec:
        bus = EventBusSpec(name=self.bus_name, key="tickets", description="Events of the ticket service")
        log_group = LogGroupSpec(
            name=f"/aws/events/{self.name}-eventbridge", key="events", retention_days=LOG_RETENTION_DAYS
        )
        dlq = self._dlq()
        rules = [self._rule(key, rule, bus, dlq) for key, rule in self.rules.items()]
        to_log = TargetSpec(id="log-group", arn=log_group.arn)
        log_rule = self._rule(
            _LOG_RULE,
            TicketRuleSpec(
                name=_LOG_RULE, description="Every event of the bus", event_pattern=_EVERYTHING, targets=(to_log,)
            ),
            bus,
            dlq,
        )
        archive = self._archive(bus)
        service = self._service_role(bus, log_group)
        target = self._target_role()
        return StackSpec(
            name=f"{self.name}-events",
            description=f"The event bus {self.bus_name} with its rules, archive, dead letters and roles",
            roles=(service, target),
            queues=(dlq,) if dlq else (),
            log_groups=(log_group,),
            buses=(bus,),
            rules=(*rules, log_rule),
            archives=(archive,) if archive else (),
            alarms=tuple(self._alarm(rule, bus) for rule in (*rules, log_rule)),
            outputs={
                "event_bus_name": bus.reference("name"),
                "event_bus_arn": bus.arn,
                "rule_arns": {rule.key: rule.arn for rule in rules},
                "rule_names": {rule.key: rule.reference("name") for rule in rules},
                "dlq_url": dlq.reference("url") if dlq else None,
                "dlq_arn": dlq.arn if dlq else None,
                "archive_arn": archive.arn if archive else None,
                "service_role_arn": service.arn,
                "target_role_arn": target.arn,
            },
        )

    def _dlq(self) -> QueueSpec | None:
        if not self.enable_dlq:
            return None
        return QueueSpec(
            name=f"{self.name}-events-dlq", key="dlq", retention_seconds=self.dlq_retention_days * _DAY
        )

    def _rule(self, key: str, rule: TicketRuleSpec, bus: EventBusSpec, dlq: QueueSpec | None) -> RuleSpec:
        return RuleSpec(
            name=f"{self.name}-{rule.name}",
            key=key,
            description=rule.description,
            bus=bus.reference("name"),
            pattern=rule.event_pattern,
            targets=tuple(self._attached(target, dlq) for target in rule.targets),
        )

    def _attached(self, target: TargetSpec, dlq: QueueSpec | None) -> TargetSpec:
        """The target with the preset's queue and role, where it has none of its own and needs one."""
        update: dict[str, Reference] = {}
        if dlq is not None and target.dead_letter is None:
            update["dead_letter"] = dlq.arn
        if _needs_role(target):
            update["role"] = Reference(ref=f"role:{_TARGET_ROLE}")
        return target.model_copy(update=update)

    def _archive(self, bus: EventBusSpec) -> ArchiveSpec | None:
        config = self.archive_config
        if not config.enabled:
            return None
        return ArchiveSpec(
            name=self._archive_name,
            key="tickets",
            bus=bus.arn,
            pattern=config.event_pattern,
            retention_days=config.retention_days,
        )

    def _alarm(self, rule: RuleSpec, bus: EventBusSpec) -> AlarmSpec:
        return AlarmSpec(
            name=f"{rule.name}-failed-invocations",
            key=f"{rule.key}-failed-invocations",
            description=f"A target of the rule {rule.name} did not take an event within 5 minutes",
            namespace="AWS/Events",
            metric_name="FailedInvocations",
            # Metrics of rules on a custom bus have both.
            dimensions={"EventBusName": bus.reference("name"), "RuleName": rule.reference("name")},
            threshold=0,
            period=300,
            actions=() if self.alarm_topic_arn is None else (self.alarm_topic_arn,),
        )

    def _service_role(self, bus: EventBusSpec, log_group: LogGroupSpec) -> RoleSpec:
        return RoleSpec(
            name=f"{self.name}-eventbridge-service-role",
            key="service",
            description=f"Publishes events on the bus {self.bus_name}",
            trust=self.service_trust,
            statements=(
                StatementSpec(
                    sid="PublishEvents",
                    actions=("events:PutEvents",),
                    resources=(bus.arn,),
                    why="The ticket service publishes its events",
                ),
                StatementSpec(
                    sid="WriteLogs",
                    actions=("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
                    resources=(log_group.arn,),
                    why="The ticket service writes beside the bus's events",
                ),
            ),
        )

    def _target_role(self) -> RoleSpec:
        rules = f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:rule/{self.bus_name}/*"
        return RoleSpec(
            name=f"{self.name}-eventbridge-target-role",
            key=_TARGET_ROLE,
            description=f"What the rules of the bus {self.bus_name} may reach",
            # Text instead of references: a rule that uses the role would wait for it, and the role for the rule.
            trust=(ServiceTrust(service=EVENTS_SERVICE, source_arns=(rules,)),),
            statements=tuple(self._target_statements()),
        )

    def _target_statements(self) -> list[StatementSpec]:
        statements = []
        for service, sid in _TARGETS.items():
            arns = [
                target.arn for rule in self.rules.values() for target in rule.targets if target.service == service
            ]
            if arns:
                statements.append(
                    StatementSpec(
                        sid=sid,
                        actions=(BY_RESOURCE_POLICY[service],),
                        resources=tuple(dict.fromkeys(arns)),
                        why="The rules' targets get their events",
                    )
                )
        if self.dynamodb_table_arns:
            statements.append(
                StatementSpec(
                    sid="UseTables",
                    actions=("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:GetItem"),
                    resources=self.dynamodb_table_arns,
                    why="What works on an event keeps its state in these tables",
                )
            )
        return statements

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError("begins with a letter, and has at most 38 letters, digits and '-'; shorten it")
        return name

    @field_validator("dlq_retention_days")
    @classmethod
    def _check_retention(cls, days: int) -> int:
        if not 1 <= days <= _MAX_DLQ_DAYS:
            raise ValueError(f"SQS keeps a message for at most {_MAX_DLQ_DAYS} days; write 1 to {_MAX_DLQ_DAYS}")
        return days

    @field_validator("custom_bus_name")
    @classmethod
    def _check_bus(cls, name: str) -> str:
        if _BUS_PART.fullmatch(name) is None:
            raise ValueError("has 1 to 200 letters, digits, '.', '-' and '_'; change it")
        return name

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: Mapping[str, TicketRuleSpec]) -> Mapping[str, TicketRuleSpec]:
        problems = [
            f"{rule.name}: target {target.id!r} is of {target.service}, and rules here reach "
            f"{', '.join(_TARGETS)} only; let one of those hand the event on"
            for rule in rules.values()
            for target in rule.targets
            if target.service not in _TARGETS
        ]
        if _LOG_RULE in rules:
            problems.append(f"{_LOG_RULE!r} is the rule of the log group; choose another name")
        if problems:
            raise ValueError("; ".join(problems))
        return rules

    @model_validator(mode="after")
    def _check_archive(self) -> Self:
        name = self._archive_name
        if self.archive_config.enabled and len(name) > _MAX_ARCHIVE_NAME:
            raise ValueError(
                f"name = {self.name!r}, custom_bus_name = {self.custom_bus_name!r}: the archive {name!r} has "
                f"{len(name)} characters, and AWS takes {_MAX_ARCHIVE_NAME}; shorten one of them"
            )
        return self
