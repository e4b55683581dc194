"""Schedules of deployed EventBridge rules: looked at, paused, resumed, set. Needs the extra `aws`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events._config import suggestion
from oms_events.errors import ConfigurationError, MissingExtraError, ProvisioningError, ScheduleError
from oms_events.triggers.schedules import Cron, Rate, parse_schedule

if TYPE_CHECKING:
    import aioboto3

DEFAULT_BUS: Final = "default"

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BUS: Final = re.compile(r"[A-Za-z0-9/._:-]{1,1600}")
_WORD: Final = re.compile(r"[A-Za-z0-9]+(?=[._-])")
_NOT_FOUND: Final = "ResourceNotFoundException"
_TOLD_RULES: Final = 10
_DISABLED: Final = "DISABLED"
_ENABLED: Final = "ENABLED"


@dataclass(frozen=True, slots=True)
class DeployedSchedule:
    """A rule as EventBridge has it. `expression` is None where it has an event pattern alone."""

    name: str
    bus: str
    arn: str
    state: str
    expression: str | None
    description: str | None = None
    has_pattern: bool = False
    managed_by: str | None = None
    role_arn: str | None = None

    @property
    def is_paused(self) -> bool:
        return self.state == _DISABLED

    @property
    def schedule(self) -> Cron | Rate | None:
        """What the expression says; None without one, and for one that this library does not read."""
        try:
            return None if self.expression is None else parse_schedule(self.expression)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """A rule as it was and as it is now, or would be."""

    before: DeployedSchedule
    after: DeployedSchedule

    @property
    def is_empty(self) -> bool:
        """Whether it was so already, and nothing was sent."""
        return self.before == self.after


class DeployedSchedules:
    """The schedules of EventBridge rules in one account and region; an async context manager.

    Give a `session` (aioboto3) or a `client` (its `events` client) to use your own; neither is ever closed. Needs
    `events:DescribeRule`, and for changes `EnableRule`, `DisableRule`, `PutRule`, with `iam:PassRole` where a rule
    has a role; `ListRules` makes errors clearer. Rules that have an event pattern, or that AWS manages, are not
    changed: methods raise `ScheduleError` for them, and when there is no such rule. All raise `AccessError` for
    credentials and permissions, `ProvisioningError` for what else AWS says. A change takes a short while to hold
    (EventBridge API reference, PutRule), and holds until a deployment that changes the rule sets it back.
    """

    def __init__(self, config: AwsConfig, *, session: aioboto3.Session | None = None, client: Any = None) -> None:
        self._config = config
        self._session = session
        self._borrowed = client
        self._stack = AsyncExitStack()
        self._control: ControlClient | None = None

    async def __aenter__(self) -> Self:
        """Makes the client; the first call connects.

        Raises `ConfigurationError` for a missing region, profile or file, `MissingExtraError` without aioboto3.
        """
        opening = open_control(self._config, "events", session=self._session, client=self._borrowed)
        try:
            self._control = await self._stack.enter_async_context(opening)
        except MissingExtraError as error:
            raise MissingExtraError(error.extra, needed_for="deployed schedules") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control = None
        await self._stack.aclose()

    async def show(self, name: str, *, bus: str = DEFAULT_BUS) -> DeployedSchedule:
        """A rule as it is now, with a schedule or without. `bus` is a name or an ARN.

        Raises `ConfigurationError` for names that cannot be.
        """
        problems = []
        if _NAME.fullmatch(name) is None:
            problems.append(f"rule = {name!r}: a rule's name is 1 to 64 letters, digits, '.', '-' and '_'")
        if _BUS.fullmatch(bus) is None:
            problems.append(f"bus = {bus!r}: give the name or the ARN of an event bus")
        if problems:
            raise ConfigurationError("schedule", problems)
        try:
            return _read(await self._call("DescribeRule", Name=name, EventBusName=bus), bus)
        except ProvisioningError as error:
            if error.code != _NOT_FOUND:
                raise
            raise ScheduleError(await self._missing(name, bus)) from error

    async def pause(self, name: str, *, bus: str = DEFAULT_BUS, dry_run: bool = False) -> ScheduleChange:
        """Disables a rule: it does not run until it is resumed; runs that have begun go on.

        With `dry_run` everything but the change is done. Cancelled, it may or may not have been done.
        """
        before = await self._changeable(name, bus)
        change = ScheduleChange(before, replace(before, state=_DISABLED))
        if not (dry_run or change.is_empty):
            await self._call("DisableRule", Name=name, EventBusName=bus)
        return change

    async def resume(self, name: str, *, bus: str = DEFAULT_BUS, dry_run: bool = False) -> ScheduleChange:
        """Enables a rule, from its next time on: runs that it missed are not made up for.

        With `dry_run` everything but the change is done. Cancelled, it may or may not have been done.
        """
        before = await self._changeable(name, bus)
        change = ScheduleChange(before, replace(before, state=_ENABLED) if before.is_paused else before)
        if not (dry_run or change.is_empty):
            await self._call("EnableRule", Name=name, EventBusName=bus)
        return change

    async def set(
        self, name: str, expression: str, *, bus: str = DEFAULT_BUS, dry_run: bool = False
    ) -> ScheduleChange:
        """Gives a rule another schedule; its targets, tags, description, role and state stay as they are.

        A paused rule stays paused. What somebody else changes at the same moment may be set back: EventBridge has
        no conditions. With `dry_run` everything but the change is done. Cancelled, it may or may not have been
        done. Raises `ConfigurationError` for an expression that EventBridge would refuse, before anything is sent.
        """
        try:
            schedule = parse_schedule(expression)
        except ValueError as error:
            raise ConfigurationError("schedule", [str(error)]) from None
        before = await self._changeable(name, bus)
        if before.schedule == schedule:
            return ScheduleChange(before, before)
        change = ScheduleChange(before, replace(before, expression=str(schedule)))
        if not dry_run:
            # What PutRule is not given it takes away; targets and tags are none of its business.
            kept = {"Description": before.description, "RoleArn": before.role_arn}
            await self._call(
                "PutRule",
                Name=name,
                EventBusName=bus,
                ScheduleExpression=str(schedule),
                State=before.state,
                **{field: value for field, value in kept.items() if value is not None},
            )
        return change

    # ------------------------------------------------------------------ inside

    async def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        if self._control is None:
            raise ScheduleError("not open; use it inside `async with DeployedSchedules(...)`")
        return await self._control.call(operation, **parameters)

    async def _changeable(self, name: str, bus: str) -> DeployedSchedule:
        found = await self.show(name, bus=bus)
        if found.managed_by is not None:
            raise ScheduleError(f"rule {name!r} is managed by {found.managed_by}: change it there")
        if found.has_pattern:
            what = "is for events" if found.expression is None else "is for events too"
            raise ScheduleError(f"rule {name!r} {what}, by an event pattern: change the stack that it is of")
        if found.expression is None:
            raise ScheduleError(f"rule {name!r} has no schedule")
        return found

    async def _missing(self, name: str, bus: str) -> str:
        """What to say of a rule that is not there: what it is called instead, or at least what there is."""
        text = f"there is no rule {name!r} on the bus {bus!r} {self._place}"
        # Names begin with what they share, such as the environment.
        shared = _WORD.match(name)
        try:
            known = await self._rules(shared[0], bus) if shared else []
            known = known or await self._rules("", bus)
        except ProvisioningError as error:
            return f"there is no bus {bus!r} {self._place}" if error.code == _NOT_FOUND else text
        hint = suggestion(name, known)
        return f"{text}; {hint or _told(known)}"

    @property
    def _place(self) -> str:
        return "" if self._control is None else f"in {self._control.region}"

    async def _rules(self, prefix: str, bus: str) -> list[str]:
        """Names of rules that run by a schedule, of the first hundred that begin so."""
        wanted = {"NamePrefix": prefix} if prefix else {}
        rules = (await self._call("ListRules", EventBusName=bus, **wanted)).get("Rules", ())
        return [rule["Name"] for rule in rules if rule.get("ScheduleExpression")]


def _told(names: list[str]) -> str:
    if not names:
        return "no rule there has a schedule; check the region and the account"
    more = f" and {len(names) - _TOLD_RULES} more" if len(names) > _TOLD_RULES else ""
    return f"rules with a schedule are: {', '.join(names[:_TOLD_RULES])}{more}"


def _read(answer: Mapping[str, Any], bus: str) -> DeployedSchedule:
    # Empty where AWS leaves them out, and where it does not.
    return DeployedSchedule(
        name=answer["Name"],
        bus=answer.get("EventBusName") or bus,
        arn=answer["Arn"],
        state=answer["State"],
        expression=answer.get("ScheduleExpression") or None,
        description=answer.get("Description") or None,
        has_pattern=bool(answer.get("EventPattern")),
        managed_by=answer.get("ManagedBy") or None,
        role_arn=answer.get("RoleArn") or None,
    )
