"""What the results of one attempt mean for a lane. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from oms_events.errors import PublishError
from oms_events.outbox.records import PlatformState
from oms_events.outbox.window import Lane
from oms_events.publishing import Outcome, PublishResult


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt changed: new states, what refused the event, what failed, what was not even tried."""

    states: Mapping[str, PlatformState] = field(default_factory=dict)
    rejected: Mapping[str, PublishResult] = field(default_factory=dict)
    failed: Mapping[str, PublishResult] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    is_delivered: bool = False
    is_dead: bool = False


DELIVERED = PlatformState.DELIVERED


def judge(lane: Lane, results: Mapping[str, PublishResult]) -> Verdict:
    """Judges the results of a lane that were not plainly delivered.

    FAILOVER needs one platform: its rejections are history once another took the event, and it is dead only when
    all of its platforms rejected it. A platform without a result was not reached by FAILOVER, or has failed.
    """
    delivered = [name for name, result in results.items() if result.outcome is Outcome.DELIVERED]
    rejected = {name: result for name, result in results.items() if result.outcome is Outcome.REJECTED}
    states: dict[str, PlatformState] = dict.fromkeys(delivered, DELIVERED)
    if lane.plan.first_that_works:
        states.update(dict.fromkeys(rejected, PlatformState.REJECTED))
    if delivered:
        return Verdict(states=states, rejected=rejected, is_delivered=True)
    if len(rejected) == len(lane.plan.platforms):
        return Verdict(rejected=rejected, is_dead=True)
    skipped = tuple(name for name, result in results.items() if result.outcome is Outcome.SKIPPED)
    failed = {
        name: result for name, result in results.items() if result.outcome in (Outcome.FAILED, Outcome.UNKNOWN)
    }
    return Verdict(states=states, rejected=rejected, failed=failed, skipped=skipped)


def reason_of(results: Mapping[str, PublishResult]) -> tuple[str, str]:
    """The code and the text that a dead letter shows."""
    for result in results.values():
        if result.error is not None:
            code = result.error.code if isinstance(result.error, PublishError) else ""
            return code or type(result.error).__name__, str(result.error)[:1000]
    return "unknown", "no reason was given"
