"""Says where an event would go and why, without publishing it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oms_events.events import EncodedEvent
from oms_events.publishing import Plan
from oms_events.routing.destination import Destination
from oms_events.routing.rules import RuleVerdict
from oms_events.routing.strategies import Availability, failover_order


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which rule takes an event, what each rule says, and what would happen on each platform of the plan.

    `goes_to` are the platforms that would get it now; of a FAILOVER plan the first is tried and the others
    stand behind it. `platforms` says for each platform of the plan why it is used, backup, or passed over.
    """

    event_type: str
    rule: str | None
    strategy: str
    goes_to: tuple[str, ...]
    platforms: Mapping[str, str]
    verdicts: Sequence[RuleVerdict]

    def describe(self) -> dict[str, Any]:
        """As plain values, fit for JSON."""
        return {
            "event_type": self.event_type,
            "rule": self.rule,
            "strategy": self.strategy,
            "goes_to": list(self.goes_to),
            "platforms": dict(self.platforms),
            "rules": [
                {
                    "name": verdict.rule.name,
                    "priority": verdict.rule.priority,
                    "taken": verdict.taken,
                    "reason": verdict.reason,
                }
                for verdict in self.verdicts
            ],
        }


def explain(
    event: EncodedEvent,
    verdicts: Sequence[RuleVerdict],
    plan: Plan,
    destinations: Mapping[str, Destination],
    assume_down: Collection[str],
    *,
    sticky: str | None = None,
) -> Explanation:
    """Explains one event on a router in its present state, with some platforms assumed to be down."""

    def availability(name: str) -> Availability:
        if name in assume_down or name not in destinations:
            return Availability.DOWN
        return destinations[name].availability

    usable, passed_over = failover_order(plan.platforms, availability, sticky=sticky)
    goes_to = usable[:1] if plan.first_that_works else [name for name in plan.platforms if name in usable]
    states = {}
    for name in plan.platforms:
        if name in passed_over:
            states[name] = _why_down(name, destinations, assume_down)
        elif name in goes_to:
            probe = availability(name) is Availability.PROBE
            states[name] = "gets it, as a probe of its half-open breaker" if probe else "gets it"
        else:
            states[name] = "backup: gets it when those before it fail"
    return Explanation(event.type, plan.rule, plan.strategy, tuple(goes_to), states, verdicts)


def _why_down(name: str, destinations: Mapping[str, Destination], assume_down: Collection[str]) -> str:
    if name in assume_down:
        return "assumed to be down"
    if name not in destinations:
        return "skipped: not configured on this router"
    return f"skipped: {destinations[name].why_skipped()}"
