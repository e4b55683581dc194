"""The rules of the bus: do they take what is sent, are they on, and whom do they hand it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from oms_events.errors import ProvisioningError
from oms_events.provisioning.checks.caller import AREA, Calls, check_role
from oms_events.provisioning.checks.matching import Matcher
from oms_events.provisioning.checks.report import Finding, Level, failed, ok, problem, together, warning
from oms_events.provisioning.checks.resources import Use, area_of, check_resource, name_of
from oms_events.provisioning.checks.services import Services
from oms_events.provisioning.specs.targets import BY_RESOURCE_POLICY

_AREA: Final = "rules"
_DISABLED: Final = "DISABLED"
_BY_ROLE: Final = {**BY_RESOURCE_POLICY, "events": "events:PutEvents", "states": "states:StartExecution"}

Rule = Mapping[str, Any]
Targets = Sequence[Mapping[str, Any]]


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
            "make rules (`oms-events infra apply oms`)",
        )
        return
    matched: Mapping[str, str | None] | None = None
    try:
        # Where nothing is sent to the bus, its rules are for others.
        matched = await _matched(rules, matcher) if matcher.names else None
        for finding in await _uncovered(rules, matched or {}, matcher):
            yield finding
    except ProvisioningError as error:
        yield failed("events", f"patterns of {bus}", error)
    uses: dict[str, list[Use]] = {}
    roles: dict[tuple[str, str], str] = {}
    handed = await asyncio.gather(*(_targets(services, bus, rule) for rule in rules))
    for rule, targets in zip(rules, handed, strict=True):
        for finding in _rule(rule, matched, targets):
            yield finding
        for target in () if isinstance(targets, ProvisioningError) else targets:
            for arn, use in _uses(rule, target):
                uses.setdefault(arn, []).append(use)
            if "RoleArn" in target:
                roles[target["RoleArn"], target["Arn"]] = rule["Arn"]
    for finding in await together(_resources(services, uses, roles)):
        yield finding


def _resources(
    services: Services, uses: Mapping[str, Sequence[Use]], roles: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, str, AsyncIterator[Finding]]]:
    for arn, users in uses.items():
        yield area_of(users), name_of(arn), check_resource(services, arn, users)
    for (role, target), source in roles.items():
        action = _BY_ROLE.get(target.split(":")[2])
        calls = None if action is None else Calls((action,), target)
        subject = f"role {role.rpartition('/')[2]}"
        yield AREA, subject, check_role(services, role, source, calls, subject)


async def _matched(rules: Sequence[Rule], matcher: Matcher) -> dict[str, str | None]:
    """By rule, one of the events that it takes, or None; rules on a schedule are not in it."""
    with_pattern = [rule for rule in rules if "EventPattern" in rule]
    firsts = await asyncio.gather(*(matcher.first(rule["EventPattern"]) for rule in with_pattern))
    return {rule["Name"]: first for rule, first in zip(with_pattern, firsts, strict=True)}


async def _uncovered(rules: Sequence[Rule], matched: Mapping[str, str | None], matcher: Matcher) -> list[Finding]:
    """One finding for each event: which rule takes it."""
    candidates = [rule for rule in rules if matched.get(rule["Name"]) is not None]
    enabled = [rule for rule in candidates if rule["State"] != _DISABLED]

    async def find(name: str) -> Finding:
        first = next((rule for rule in enabled if matched[rule["Name"]] == name), None)
        taker = first or await _taker(enabled, name, matcher)
        if taker is not None:
            return ok("events", name, f"is taken by rule {taker['Name']}")
        disabled = await _taker([rule for rule in candidates if rule not in enabled], name, matcher)
        if disabled is None:
            remedy = "make a rule whose pattern takes it, or change one"
        else:
            remedy = f"enable rule {disabled['Name']}, which would take it"
        message = f"no ENABLED rule of the bus takes it ({matcher.marks(name)}): it is dropped"
        return problem("events", name, message, remedy)

    return await asyncio.gather(*(find(name) for name in matcher.names))


async def _taker(rules: Sequence[Rule], name: str, matcher: Matcher) -> Rule | None:
    for rule in rules:
        if await matcher.takes(rule["EventPattern"], name):
            return rule
    return None


async def _targets(services: Services, bus: str, rule: Rule) -> Targets | ProvisioningError:
    which = {"Rule": rule["Name"], "EventBusName": bus}
    try:
        return [target async for target in services.each("events", "ListTargetsByRule", "Targets", **which)]
    except ProvisioningError as error:
        return error


def _rule(
    rule: Rule, matched: Mapping[str, str | None] | None, targets: Targets | ProvisioningError
) -> Iterator[Finding]:
    name = rule["Name"]
    findings = list(_state(rule, matched))
    if isinstance(targets, ProvisioningError):
        yield failed(_AREA, name, targets)
    else:
        findings += _target_findings(name, targets)
        if not findings:
            yield ok(_AREA, name, f"is {rule['State']}, targets: {', '.join(target['Id'] for target in targets)}")
    yield from findings


def _state(rule: Rule, matched: Mapping[str, str | None] | None) -> Iterator[Finding]:
    name = rule["Name"]
    is_used = matched is None or name not in matched or matched[name] is not None
    if rule["State"] == _DISABLED:
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
