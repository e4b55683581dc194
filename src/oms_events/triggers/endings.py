"""What each code means for a start: status, loudness of the log, and whether it is tried again or kept. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from oms_events.triggers.problems import STRUCTURAL, Code, Problem
from oms_events.triggers.responses import Status, TriggerResponse

_MOST_PROBLEMS: Final = 100
"""Problems that one answer has; the others are counted."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a start ends that does not go on.

    `retryable`: the same input may go well later. `may_wait`: events and new objects do so in the delay queue.
    `dead_letter`: it is kept, so that somebody can run it again.
    """

    status_code: int
    status: Status
    level: int = logging.WARNING
    retryable: bool = False
    may_wait: bool = False
    dead_letter: bool = False


BROKEN: Final = Ending(400, Status.REJECTED, logging.ERROR)
INVALID: Final = Ending(400, Status.REJECTED)
REFUSED: Final = Ending(422, Status.REFUSED, logging.ERROR, dead_letter=True)
SKIPPED: Final = Ending(409, Status.BUSY)
"""A schedule whose run before still goes on."""
FAILED: Final = Ending(500, Status.FAILED, logging.ERROR, retryable=True)
_UNAVAILABLE: Final = Ending(503, Status.FAILED, logging.ERROR, retryable=True)
BUSY: Final = Ending(409, Status.BUSY, retryable=True, may_wait=True)

ENDINGS: Final[Mapping[Code, Ending]] = {
    **dict.fromkeys(Code, INVALID),
    **dict.fromkeys(STRUCTURAL, BROKEN),
    Code.BUSINESS_RULE: REFUSED,
    Code.RATE_LIMITED: Ending(429, Status.LIMITED, retryable=True, may_wait=True),
    Code.BREAKER_OPEN: Ending(503, Status.STOPPED, retryable=True, dead_letter=True),
    Code.ALREADY_RUNNING: BUSY,
    Code.IN_PROGRESS: Ending(409, Status.BUSY, retryable=True),
    Code.PAYLOAD_MISMATCH: Ending(409, Status.REJECTED),
    Code.SYMBOLS_UNAVAILABLE: _UNAVAILABLE,
    Code.STORAGE_UNAVAILABLE: _UNAVAILABLE,
    Code.FAILED: FAILED,
}


class Stopped(Exception):  # noqa: N818
    """A start that does not go on, on its way out of the guards; never seen outside.

    `counts`: its breaker counts it. Its `__cause__` is the error behind it, where there is one.
    """

    def __init__(
        self,
        *problems: Problem,
        ending: Ending | None = None,
        retry_after: float | None = None,
        counts: bool = False,
    ) -> None:
        super().__init__(*map(str, problems))
        self.problems = problems
        self.ending = ending or ENDINGS[Code(problems[0].code)]
        self.retry_after = retry_after
        self.counts = counts

    @property
    def is_mismatch(self) -> bool:
        """Whether another start stands under its key; business rules may have such a code too."""
        return self.problems[0].code == Code.PAYLOAD_MISMATCH and self.ending.status is Status.REJECTED


def rejection(problems: Iterable[Problem]) -> Ending:
    """How an input ends that has these problems: failed or broken when one of them says so, else invalid."""
    problems = list(problems)
    if any(problem.code == Code.FAILED for problem in problems):
        return FAILED
    return BROKEN if any(problem.code in STRUCTURAL for problem in problems) else INVALID


def answer(
    ending: Ending,
    problems: Sequence[Problem],
    *,
    correlation_id: str | None = None,
    retry_after: float | None = None,
) -> TriggerResponse:
    """The response of a start that ended so; at most 100 problems are in it, each once."""
    told = list(dict.fromkeys((str(one.code), one.field, str(one)) for one in problems))
    kept = {(str(one.code), one.field, str(one)): one for one in problems}
    shown = [kept[one] for one in told[:_MOST_PROBLEMS]]
    if len(told) > len(shown):
        shown.append(Problem(shown[0].code, f"{len(told) - len(shown):,} more problems are not shown"))
    return TriggerResponse(
        status_code=ending.status_code,
        status=ending.status,
        correlation_id=correlation_id,
        problems=tuple(shown),
        retry_after=retry_after,
        retryable=ending.retryable,
    )


def success(status: Status, *, correlation_id: str | None = None, result: Any = None) -> TriggerResponse:
    """The response of a start that went on, now, before or soon."""
    code = 202 if status is Status.DELAYED else 200
    return TriggerResponse(status_code=code, status=status, correlation_id=correlation_id, result=result)


def together(responses: Sequence[TriggerResponse]) -> TriggerResponse:
    """One response for several starts: their status code when all have the same, else 207."""
    codes = {one.status_code for one in responses}
    # The first that did not go well says how the whole did.
    worst = max(responses, key=lambda one: (one.retryable, not one.ok))
    waits = [one.retry_after for one in responses if one.retryable and one.retry_after is not None]
    return replace(
        success(worst.status),
        status_code=codes.pop() if len(codes) == 1 else 207,
        retry_after=max(waits, default=None),
        retryable=worst.retryable,
        results=tuple(responses),
    )
