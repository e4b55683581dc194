"""What a replay has done. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oms_events.eventstore.time_ranges import TimeRange
from oms_events.publishing import Plan


@dataclass(frozen=True, slots=True)
class ReplayFailure:
    """An event that was not delivered everywhere: where it is in the history, and why, by platform.

    `kind` is `rejected`, `failed` (given up, may work later), or what counts as failed too: `unreadable`, and
    `missing` for a gap in a history, at its first event (one failure however long it is; type and id are `?`).
    """

    kind: str
    position: str
    event_type: str
    event_id: str
    reasons: Mapping[str, str]

    def __str__(self) -> str:
        why = "; ".join(f"{name}: {reason}" if name else reason for name, reason in self.reasons.items())
        return f"{self.position} ({self.event_type}) {self.kind}: {why}"


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What one run of a replay has done so far; of a dry run, what it would do.

    `matched` events were selected, `unrouted` of them are taken by no rule. Each other is `delivered` (to all
    platforms of its plan, or the first that works), `rejected` (a platform can never accept it) or `failed` (given
    up), unless the run ended before. `duplicates` were acknowledged by a platform that had them already and
    dropped these copies: their consumers see nothing. `by_rule` and `by_platform` say where matched events were to
    go (of the first that works, the first); the rule None is the primary platform's, or the selection's platform.
    """

    name: str
    time_range: TimeRange
    resumed: bool = False
    complete: bool = False
    read: int = 0
    matched: int = 0
    delivered: int = 0
    rejected: int = 0
    failed: int = 0
    unrouted: int = 0
    duplicates: int = 0
    by_type: Mapping[str, int] = field(default_factory=dict)
    by_rule: Mapping[str | None, int] = field(default_factory=dict)
    by_platform: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """The numbers of a run while it goes on."""

    name: str
    time_range: TimeRange
    resumed: bool = False
    complete: bool = False
    read: int = 0
    matched: int = 0
    delivered: int = 0
    rejected: int = 0
    failed: int = 0
    unrouted: int = 0
    duplicates: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str | None] = field(default_factory=Counter)
    by_platform: Counter[str] = field(default_factory=Counter)

    def plan(self, event_type: str, plan: Plan) -> None:
        """An event was selected, and is to go there."""
        self.matched += 1
        self.by_type[event_type] += 1
        self.by_rule[plan.rule] += 1
        self.by_platform.update(plan.platforms[:1] if plan.first_that_works else plan.platforms)

    def unroutable(self, event_type: str) -> None:
        """An event was selected, and no rule takes it."""
        self.matched += 1
        self.unrouted += 1
        self.by_type[event_type] += 1

    def report(self) -> ReplayReport:
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        # Copies: the counters go on.
        counters = {name: dict(fields[name]) for name in ("by_type", "by_rule", "by_platform")}
        return ReplayReport(**{**fields, **counters})
