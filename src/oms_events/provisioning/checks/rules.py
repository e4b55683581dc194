"""The rules of the bus: do they take what is sent, are they on, and whom do they hand it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from oms_events.errors import ProvisioningError
from oms_events.provisioning.checks.caller import AREA, Calls, check_role
from oms_events.provisioning.checks.coverage import DISABLED, Rule, Targets, check_coverage
from oms_events.provisioning.checks.matching import Matcher
from oms_events.provisioning.checks.report import Finding, Level, failed, ok, problem, together, warning
from oms_events.provisioning.checks.resources import Use, area_of, check_resource, name_of
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.targets import BY_RESOURCE_POLICY

_AREA: Final = "rules"
_BY_ROLE: Final = {**BY_RESOURCE_POLICY, "events": "events:PutEvents", "states": "states:StartExecution"}


async def check_rules(services: Services, bus: str, matcher: Matcher) -> AsyncIterator[Finding]:
    """Looks at every rule of the bus that no AWS service manages, and at the targets."""
    listed = services.each("events", "ListRules", "Rules", EventBusName=bus)
    # Archives and discovery have rules of their own on the bus.
    rules = [rule async for rule in listed if not rule.get("ManagedBy")]
    if not rules:
        yield problem(
            _AREA,
            bus,
            "the bus has no rules: all events that are sent there are dropped",
            "make rules, in the stack that made the bus",
        )
        return
    targets = await asyncio.gather(*(_targets(services, bus, rule) for rule in rules))
    taken: Mapping[str, set[int]] | None = None
    try:
        # Where nothing is sent to the bus, its rules are for others.
        taken = await _taken(rules, matcher) if matcher.sent else None
    except ProvisioningError as error:
        yield failed("events", f"patterns of {bus}", error)
    else:
        handed = {
            rule["Name"]: None if isinstance(each, ProvisioningError) else each
            for rule, each in zip(rules, targets, strict=True)
        }
        for finding in check_coverage(rules, taken or {}, handed, matcher.sent):
            yield finding
    uses: dict[str, list[Use]] = {}
    roles: dict[tuple[str, str], list[str]] = {}
    for rule, each in zip(rules, targets, strict=True):
        for finding in _rule(rule, taken, each):
            yield finding
        for target in () if isinstance(each, ProvisioningError) else each:
            for arn, use in _uses(rule, target):
                uses.setdefault(arn, []).append(use)
            if "RoleArn" in target:
                roles.setdefault((target["RoleArn"], target["Arn"]), []).append(rule["Arn"])
    for finding in await together(_resources(services, uses, roles)):
        yield finding


def _resources(
    services: Services, uses: Mapping[str, Sequence[Use]], roles: Mapping[tuple[str, str], Sequence[str]]
) -> Iterator[tuple[str, str, AsyncIterator[Finding]]]:
    for arn, users in uses.items():
        yield area_of(users), name_of(arn), check_resource(services, arn, users)
    for (role, target), sources in roles.items():
        action = _BY_ROLE.get(target.split(":")[2])
        calls = None if action is None else Calls((action,), target)
        subject = f"role {role.rpartition('/')[2]}"
        yield AREA, subject, check_role(services, role, sources, calls, subject)


async def _taken(rules: Sequence[Rule], matcher: Matcher) -> dict[str, set[int]]:
    """By rule, the events that it takes; rules on a schedule are not in it."""
    with_pattern = [rule for rule in rules if "EventPattern" in rule]
    taken = await asyncio.gather(*(matcher.taken(rule["EventPattern"]) for rule in with_pattern))
    return {rule["Name"]: each for rule, each in zip(with_pattern, taken, strict=True)}


async def _targets(services: Services, bus: str, rule: Rule) -> Targets | ProvisioningError:
    which = {"Rule": rule["Name"], "EventBusName": bus}
    try:
        return [target async for target in services.each("events", "ListTargetsByRule", "Targets", **which)]
    except ProvisioningError as error:
        return error


def _rule(
    rule: Rule, taken: Mapping[str, set[int]] | None, targets: Targets | ProvisioningError
) -> Iterator[Finding]:
    name = rule["Name"]
    findings = list(_state(rule, taken))
    if isinstance(targets, ProvisioningError):
        yield failed(_AREA, name, targets)
    else:
        findings += _target_findings(name, targets)
        if not findings:
            yield ok(_AREA, name, f"is {rule['State']}, targets: {', '.join(target['Id'] for target in targets)}")
    yield from findings


def _state(rule: Rule, taken: Mapping[str, set[int]] | None) -> Iterator[Finding]:
    name = rule["Name"]
    is_used = taken is None or name not in taken or bool(taken[name])
    if rule["State"] == DISABLED:
        level = Level.PROBLEM if is_used else Level.WARNING
        yield Finding(_AREA, name, level, "is DISABLED", "enable it, or delete it when nobody needs it")
    if not is_used:
        yield warning(
            _AREA,
            name,
            "takes none of the events that are sent",
            "compare its pattern with what is sent, or check with events of your own",
        )


def _target_findings(name: str, targets: Targets) -> Iterator[Finding]:
    if not targets:
        yield problem(_AREA, name, "has no targets: what it takes is dropped", "give it a target")
    for target in targets:
        if "DeadLetterConfig" not in target:
            yield warning(
                _AREA,
                name,
                f"target {target['Id']} has no dead-letter queue: what it does not take in time is dropped",
                "give the target a dead-letter queue",
            )


def _uses(rule: Rule, target: Mapping[str, Any]) -> Iterator[tuple[str, Use]]:
    user = f"rule {rule['Name']}"
    yield target["Arn"], Use(user, rule["Arn"], role=target.get("RoleArn"))
    queue = target.get("DeadLetterConfig", {}).get("Arn")
    if queue is not None:
        yield queue, Use(user, rule["Arn"], for_dead_letters=True)
