"""From a rule to a plan: which platforms, in which order, all of them or the first that works. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto

from oms_events.errors import UnroutableEventError
from oms_events.publishing import Plan
from oms_events.routing.rules import RoutingRule, RoutingStrategy


class Availability(Enum):
    """Whether FAILOVER may use a platform now: yes, only as a probe after all others, or not at all."""

    USABLE = auto()
    PROBE = auto()
    DOWN = auto()


def make_plan(rule: RoutingRule | None, *, registered: Sequence[str], primary: str | None) -> Plan:
    """The plan of the rule that took an event, or of none: then the primary platform alone.

    `registered` are the router's platforms in registration order. Raises `UnroutableEventError` when there
    is neither a rule nor a primary.
    """
    if rule is None:
        if primary is None:
            raise UnroutableEventError(
                "no rule takes the event; add a rule for its type, or set unrouted to 'primary'"
            )
        return Plan(None, RoutingStrategy.PRIMARY_ONLY.value, (primary,), first_that_works=False)
    named = rule.platforms
    if not rule.ordered:
        known = [name for name in registered if name in named]
        named = (*known, *(name for name in named if name not in known))
    platforms = named
    if rule.strategy is RoutingStrategy.PRIMARY_ONLY:
        platforms = (_single(named, registered=registered, primary=primary),)
    elif rule.strategy is RoutingStrategy.FAILOVER and primary in named:
        platforms = (primary, *(name for name in named if name != primary))
    return Plan(rule.name, rule.strategy.value, platforms, rule.strategy is RoutingStrategy.FAILOVER)


def _single(named: Sequence[str], *, registered: Sequence[str], primary: str | None) -> str:
    if primary is not None and primary in named:
        return primary
    return next((name for name in named if name in registered), named[0])


def failover_order(
    platforms: Sequence[str], availability: Callable[[str], Availability], *, sticky: str | None = None
) -> tuple[list[str], list[str]]:
    """The platforms to try one after the other, and those to pass over.

    Usable ones keep the plan's order, but the sticky one goes first; those that may only be probed go last.
    """
    found = {name: availability(name) for name in platforms}
    usable = [name for name in platforms if found[name] is Availability.USABLE]
    if sticky in usable:
        usable.remove(sticky)
        usable.insert(0, sticky)
    probes = [name for name in platforms if found[name] is Availability.PROBE]
    return usable + probes, [name for name in platforms if found[name] is Availability.DOWN]


def budget(remaining: float, platforms_left: int) -> float:
    """Seconds that FAILOVER gives the next platform: half of what remains, all of it to the last one.

    So a platform that hangs never starves its backups, whatever its own retries.
    """
    return remaining if platforms_left <= 1 else remaining / 2
