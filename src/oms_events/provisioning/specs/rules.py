"""EventBridge rules: which events of a bus, or what schedule, goes to which targets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import (
    Grant,
    Json,
    JsonObject,
    Reference,
    Resource,
    ResourceSpec,
    Scope,
    name_of,
    substituted,
    substituted_within,
)
from oms_events.provisioning.specs.buses import EVENTS_SERVICE, EventBusSpec
from oms_events.provisioning.specs.patterns import check_pattern
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.triggers.schedules import parse_schedule

MAX_TARGETS: Final = 5
"""Targets of a rule (EventBridge quotas; cannot be raised)."""

DEFAULT_BUS: Final = "default"

_MAX_NAME: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_BUS: Final = re.compile(r"(?:arn:\S+:event-bus/)?[/A-Za-z0-9._-]{1,256}")


class RuleSpec(ResourceSpec):
    """A rule with its targets: a `pattern`, on any bus, or a `schedule`, on the account's default bus.

    `bus` is a name, or `bus.reference("name")` of an EventBusSpec. Its targets in the stack, and functions outside
    it, get a policy that allows this rule alone; a queue or a topic that more than ten rules of a bus use allows
    any rule of that bus in this account and Region, because its policy would grow too long. Limits: EventBridge
    quotas and API reference, PutRule, PutTargets.
    """

    kind: ClassVar[str] = "rule"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "name"}

    description: str | None = Field(default=None, max_length=512)
    bus: Annotated[str | Reference, name_of("bus")] = DEFAULT_BUS
    pattern: JsonObject | None = None
    schedule: str | None = None
    """`cron(...)` or `rate(...)`, in UTC, in EventBridge's own syntax."""
    enabled: bool = True
    targets: tuple[TargetSpec, ...] = ()

    def value_of(self, attribute: str) -> Json:
        # `Ref` gives `bus|rule` for a rule on a custom bus.
        return self.name if attribute == "name" else super().value_of(attribute)

    def resources(self, scope: Scope) -> dict[str, Resource]:
        properties: dict[str, Json] = {
            "Name": self.name,
            "Description": self.description,
            "EventBusName": scope.resolve(self._bus(scope)),
            "EventPattern": substituted_within(self.pattern),
            "ScheduleExpression": self.schedule,
            "State": "ENABLED" if self.enabled else "DISABLED",
            "Targets": [target.document(scope) for target in self.targets] or None,
        }
        return {self.logical_id: Resource(type="AWS::Events::Rule", properties=properties)}

    def grants(self, scope: Scope) -> Iterator[Grant]:
        for target in self.targets:
            if (action := target.policy_action) is not None:
                yield self._grant(target.arn, action, scope)
            if target.dead_letter is not None:
                yield self._grant(target.dead_letter, "sqs:SendMessage", scope)

    def _grant(self, to: str | Reference, action: str, scope: Scope) -> Grant:
        bus = scope.find(self.bus).name if isinstance(self.bus, Reference) else self.bus
        # The ARNs of rules on the default bus do not name it.
        of_bus = "" if bus == DEFAULT_BUS else f"{bus.rpartition(':event-bus/')[2]}/"
        return Grant(
            to=to,
            principal=EVENTS_SERVICE,
            actions=(action,),
            source=self.value_of("arn"),
            group=substituted(
                f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:rule/{of_bus}*"
            ),
        )

    def _bus(self, scope: Scope) -> str | Reference:
        """A bus of the stack also where it is named by text: the rule must wait for it."""
        named = [bus for bus in scope.of_type(EventBusSpec) if bus.name == self.bus]
        return named[0].reference("name") if named else self.bus

    @field_validator("bus")
    @classmethod
    def _check_bus(cls, bus: str | Reference) -> str | Reference:
        if isinstance(bus, str) and _BUS.fullmatch(bus) is None:
            raise ValueError("is no bus; write its name: up to 256 letters, digits, '.', '-', '_' and '/'")
        return bus

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None or len(name) > _MAX_NAME:
            remedy = "shorten it" if len(name) > _MAX_NAME else "change it"
            raise ValueError(f"a rule's name is 1 to {_MAX_NAME} letters, digits, '.', '-' and '_'; {remedy}")
        return name

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, pattern: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        return None if pattern is None else check_pattern(pattern)

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, schedule: str | None) -> str | None:
        return None if schedule is None else str(parse_schedule(schedule))

    def _problems_together(self) -> Iterator[str]:
        if (self.pattern is None) == (self.schedule is None):
            yield "give pattern or schedule, one of them"
        if self.schedule is not None and self.bus != DEFAULT_BUS:
            yield f"schedule: only the bus {DEFAULT_BUS!r} takes schedules; leave `bus` out"
        if len(self.targets) > MAX_TARGETS:
            yield (
                f"targets: {len(self.targets)}, and a rule takes {MAX_TARGETS}; add a rule with the same pattern, "
                "or put an SNS topic between"
            )
        ids = [target.id for target in self.targets]
        for twice in sorted({name for name in ids if ids.count(name) > 1}):
            yield f"targets: id {twice!r} stands twice; every target has an id of its own"
