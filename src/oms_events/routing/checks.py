"""Checks of a whole set of rules, for `oms-events rules check` and for tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from oms_events.errors import RuleError
from oms_events.routing.export import Wildcard, to_wildcards
from oms_events.routing.patterns import PatternSet
from oms_events.routing.rules import RoutingRule
from oms_events.routing.wildcards import covers, sample_of


class FindingKind(StrEnum):
    """What is wrong with a rule."""

    SHADOWED = "shadowed"
    NO_PLATFORM = "no_platform"
    NOT_EXPORTABLE = "not_exportable"


class Severity(StrEnum):
    """How bad it is: events are lost to the rule, the rule does nothing, or it is only good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found, by the rule's name."""

    rule: str
    kind: FindingKind
    message: str
    severity: Severity


def check_rules(rules: Iterable[RoutingRule], *, configured: Collection[str]) -> list[Finding]:
    """Finds rules that never decide, rules without a configured platform, and rules EventBridge cannot say.

    In order of precedence. Shadowing is sound and not complete: a rule that is reported never decides, since
    one earlier rule, without conditions or with the same, has the same pattern or, both being exportable, a
    pattern that covers it. Rules that only several others shadow together, and other patterns, pass.
    """
    ordered = sorted(rules, key=lambda rule: -rule.priority)
    findings = []
    for rule, shadow in zip(ordered, _shadows(ordered), strict=True):
        if shadow is not None:
            findings.append(
                Finding(
                    rule.name,
                    FindingKind.SHADOWED,
                    f"never decides: rule {shadow.name!r} (priority {shadow.priority}) goes before and takes "
                    "all its events; raise this rule's priority, or remove it",
                    Severity.WARNING,
                )
            )
        if not any(name in configured for name in rule.platforms):
            findings.append(
                Finding(
                    rule.name,
                    FindingKind.NO_PLATFORM,
                    f"none of its platforms ({', '.join(rule.platforms)}) is configured: its events are "
                    "delivered nowhere; configure one, or change the rule",
                    Severity.ERROR,
                )
            )
        try:
            rule.to_event_pattern()
        except RuleError as error:
            findings.append(
                Finding(rule.name, FindingKind.NOT_EXPORTABLE, "; ".join(error.problems), Severity.INFO)
            )
    return findings


def _shadows(ordered: Sequence[RoutingRule]) -> list[RoutingRule | None]:
    readings = [_read(rule.event_type_pattern) for rule in ordered]
    # The set finds in microseconds the few patterns that may cover a rule, where all pairs would take minutes.
    patterns = PatternSet(rule.pattern for rule in ordered)
    by_text: dict[str, list[int]] = {}
    found: list[RoutingRule | None] = []
    for at, rule in enumerate(ordered):
        same = by_text.setdefault(rule.event_type_pattern, [])
        reading = readings[at]
        wider = patterns.matches(sample_of(reading[0])) if reading else ()
        earlier = sorted({*same, *(other for other in wider if other < at)})
        found.append(
            next(
                (
                    ordered[other]
                    for other in earlier
                    if _takes_whenever(ordered[other], rule)
                    and (other in same or _covers(readings[other], reading))
                ),
                None,
            )
        )
        same.append(at)
    return found


def _takes_whenever(earlier: RoutingRule, later: RoutingRule) -> bool:
    if earlier.condition is None:
        return True
    return later.condition is not None and earlier.condition.to_pattern() == later.condition.to_pattern()


def _read(pattern: str) -> tuple[Wildcard, ...] | None:
    try:
        return to_wildcards(pattern)
    except ValueError:
        return None


def _covers(general: Sequence[Wildcard] | None, special: Sequence[Wildcard] | None) -> bool:
    if general is None or special is None:
        return False
    return all(any(covers(wide, narrow) for wide in general) for narrow in special)
