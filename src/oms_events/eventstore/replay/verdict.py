"""What the results of one attempt mean for an event of a replay. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from oms_events.errors import FailureClass, PublishError
from oms_events.eventstore.replay.window import Lane
from oms_events.publishing import Outcome, PublishResult, PublishResults

_HOPELESS = (FailureClass.PLATFORM_DENIED, FailureClass.ADDRESS_DENIED)


class Verdict(StrEnum):
    """What became of the event, or what is to be done about it."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    LATER = "later"
    HOPELESS = "hopeless"
    """Trying again changes nothing until somebody mends the address."""
    DENIED = "denied"
    """The platform takes nothing from us."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, the platforms that are left, and why, by platform."""

    verdict: Verdict
    left: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    retry_after: float = 0.0


def judge(lane: Lane, results: PublishResults, configured: Collection[str]) -> Judgement:
    """Judges one attempt.

    All of the plan's platforms must have the event; of the first that works, one. What a platform can never accept
    is left out from then on, and shows in the end. `configured` are the router's platforms: for others nobody need
    wait.
    """
    plan = lane.plan
    if results.delivered:
        return Judgement(Verdict.REJECTED if lane.refused and not plan.first_that_works else Verdict.DELIVERED)
    refused = {name: _reason(one) for name, one in results.items() if one.outcome is Outcome.REJECTED}
    done = {name for name, one in results.items() if one.outcome is Outcome.DELIVERED}
    left = tuple(name for name in plan.platforms if name not in refused and name not in done)
    if not left:
        return Judgement(Verdict.REJECTED, refused=refused)
    open_results = [results[name] for name in left if name in results]
    reasons = {one.platform: _reason(one) for one in open_results} or {"": "no platform gave an answer"}
    failures = [one.error.failure for one in open_results if isinstance(one.error, PublishError)]
    is_denied = FailureClass.PLATFORM_DENIED in failures
    verdict = Verdict.LATER
    if open_results and all(_is_hopeless(one, configured) for one in open_results):
        verdict = Verdict.DENIED if is_denied else Verdict.HOPELESS
    elif is_denied and not plan.first_that_works:
        verdict = Verdict.DENIED
    asked = [one.error.retry_after or 0.0 for one in open_results if isinstance(one.error, PublishError)]
    return Judgement(verdict, left, refused, reasons, max(asked, default=0.0))


def _is_hopeless(result: PublishResult, configured: Collection[str]) -> bool:
    if result.platform not in configured:
        return True
    return isinstance(result.error, PublishError) and result.error.failure in _HOPELESS


def _reason(result: PublishResult) -> str:
    return str(result.error or result.outcome.value)
