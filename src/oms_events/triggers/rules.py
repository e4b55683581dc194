"""Business rules: what the user says about starts that are well-formed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from oms_events.errors import ConfigurationError
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.request import REQUEST_FIELDS, TriggerRequest

_FIXED: Final = frozenset(("domain", "table_name", "trigger_type", "trigger_time", "correlation_id"))
"""What the guards have let through: it stays."""


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """What a rule has against a start: `code` is stable, in capitals, `remedy` says what to do.

    `fallback` has the fields of a request to go on with, such as `{"period": "1mo"}`; without one the start is
    refused. It may change all but domain, table, trigger type and time, and correlation id.
    """

    code: str = Code.BUSINESS_RULE
    remedy: str = "see the rule"
    field: str | None = None
    value: Any = None
    fallback: Mapping[str, Any] | None = None

    def problem(self) -> Problem:
        """It as a problem of the answer."""
        return Problem(str(self.code), self.remedy, self.field, self.value)


BusinessRule = Callable[[TriggerRequest], RuleViolation | Awaitable[RuleViolation | None] | None]
"""None: nothing is wrong. A rule may be async; what it raises counts as a failure that is tried again."""


class Judged(NamedTuple):
    """What the rules say: the request to go on with, what speaks against that, and which fallbacks were taken."""

    request: TriggerRequest
    refusals: Sequence[Problem]
    fallbacks: Sequence[RuleViolation]


async def judge(request: TriggerRequest, rules: Sequence[BusinessRule]) -> Judged:
    """Asks all rules, one after the other; each sees the request with the fallbacks of those before it.

    Raises `ConfigurationError` for a fallback that no request may have, and what the rules raise.
    """
    refusals: list[Problem] = []
    fallbacks: list[RuleViolation] = []
    for rule in rules:
        said = rule(request)
        violation = await said if inspect.isawaitable(said) else said
        if violation is None:
            continue
        if violation.fallback is None:
            refusals.append(violation.problem())
        else:
            request = _with(request, violation)
            fallbacks.append(violation)
    return Judged(request, refusals, fallbacks)


def _with(request: TriggerRequest, violation: RuleViolation) -> TriggerRequest:
    fields = dict(violation.fallback or {})
    if wrong := sorted(set(fields) - set(REQUEST_FIELDS) | set(fields) & _FIXED):
        may = ", ".join(name for name in REQUEST_FIELDS if name not in _FIXED)
        raise ConfigurationError(
            f"fallback of {violation.code}", [f"it cannot set {', '.join(wrong)}; it may set {may}"]
        )
    return TriggerRequest(**{**dict(request), **fields})
