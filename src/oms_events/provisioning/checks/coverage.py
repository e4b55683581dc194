"""Whether each event that is sent reaches somebody: which rules take it, and what they do with it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from oms_events.provisioning.checks.report import Finding, ok, problem, warning
from oms_events.provisioning.checks.samples import Sent

DISABLED: Final = "DISABLED"
_AREA: Final = "events"

Rule = Mapping[str, Any]
Targets = Sequence[Mapping[str, Any]]


def check_coverage(
    rules: Sequence[Rule],
    taken: Mapping[str, AbstractSet[int]],
    targets: Mapping[str, Targets | None],
    sent: Sequence[Sent],
) -> Iterator[Finding]:
    """One finding for each event; `taken` has places in `sent` and `targets` None for unknown, by rule."""
    on = [rule["Name"] for rule in rules if rule["State"] != DISABLED]
    off = [rule["Name"] for rule in rules if rule["Name"] not in on]
    watching = _watching(on, taken, targets, len(sent))
    for place, one in enumerate(sent):
        takers = [name for name in on if place in taken.get(name, ())]
        given = [name for name in takers if targets[name] is None or targets[name]]
        if not takers:
            disabled = next((name for name in off if place in taken.get(name, ())), None)
            remedy = "make a rule whose pattern takes it, or change one"
            if disabled is not None:
                remedy = f"enable rule {disabled}, which would take it"
            message = f"no ENABLED rule of the bus takes it ({one.described}): it is dropped"
            yield problem(_AREA, one.name, message, remedy)
        elif not given:
            message = f"only {_rules(takers)} takes it, without targets ({one.described}): it is dropped"
            yield problem(_AREA, one.name, message, "give the rule a target")
        elif all(name in watching for name in given):
            # As likely a rule of its own is missing or wrong, and the event reaches nobody who waits for it.
            why = " and ".join(dict.fromkeys(watching[name] for name in given))
            message = f"is taken by {_rules(given)} alone, which {why} ({one.described})"
            yield warning(_AREA, one.name, message, "make a rule for it, or mend its rule, unless that is enough")
        else:
            yield ok(_AREA, one.name, f"is taken by {_rules(given)}")


def _watching(
    on: Sequence[str], taken: Mapping[str, AbstractSet[int]], targets: Mapping[str, Targets | None], events: int
) -> dict[str, str]:
    """The rules that look on, and how: they write logs, or take whatever comes beside rules that choose."""
    found = {}
    choosing = any(0 < len(taken.get(name, ())) < events for name in on)
    for name in on:
        if (each := targets[name]) and all(target["Arn"].split(":")[2] == "logs" for target in each):
            found[name] = "only logs it"
        elif choosing and len(taken.get(name, ())) == events:
            found[name] = "takes whatever is sent"
    return found


def _rules(names: Sequence[str]) -> str:
    return f"rule{'s' if len(names) > 1 else ''} {', '.join(names)}"
