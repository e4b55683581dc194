"""What reading an input gives: drafts of starts, what is wrong with it, and what of it starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Final, Literal, NamedTuple

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.request import TriggerType, is_correlation_id
from oms_events.triggers.start import Draft, Queued

Kind = Literal[
    "scheduled", "event", "cloudevent", "s3", "manual", "delayed", "queue", "notification", "unreadable"
]
"""What an input was recognized as; `queue` is a batch of messages, `notification` what SNS wraps."""

MAX_RECORDS: Final = 1_000
"""Starts of one input. S3 and SNS send one; more would keep a service from all else while it reads them."""
_TOLD_APART: Final = 100
"""Records that each have an answer where all are wrong; more have one together."""


class Reading(NamedTuple):
    """An input as it was read.

    With `problems` nothing of it may run: the drafts beside them are there only to find all that is wrong with
    them. Without drafts and problems there is nothing to start, and that is no error: `ignored` counts what starts
    nothing on purpose (objects that the filters leave out, an event that says so), `reasons` has why, once each.
    """

    drafts: Sequence[Draft] = ()
    problems: Sequence[Problem] = ()
    kind: Kind = "unreadable"
    trigger_type: TriggerType = "manual"
    """What the input is, as far as it can be told: `manual` where nothing can."""
    ignored: int = 0
    reasons: Sequence[str] = ()
    messages: Mapping[str, Reading] = {}
    """Of a batch of messages, and empty otherwise: by the message's id what was read in it. Then there are no
    drafts beside. Records without an id are under the empty one."""
    parts: Sequence[Reading] = ()
    """Of an input of several records that are not all good: what each is. Then there are no drafts beside."""
    correlation_id: str | None = None
    """Of an input with problems, or that starts nothing, the id that its start would have, if that can be told."""
    error: Exception | None = None
    """What a user's own code raised, where a problem is `FAILED`: for the log, and not for the answer."""
    queued: Queued | None = None
    """The message of a batch that it came in."""
    is_wrapped: bool = False
    """Whether it came in a message or an envelope: then nobody waits for the answer."""

    def all_drafts(self) -> Iterator[Draft]:
        """Its drafts and those of its parts."""
        yield from self.drafts
        for part in self.parts:
            yield from part.all_drafts()

    def with_drafts(self, change: Callable[[Draft], Draft]) -> Reading:
        """It, with each draft changed, those of its parts too."""
        return self._replace(
            drafts=[change(draft) for draft in self.drafts],
            parts=[part.with_drafts(change) for part in self.parts],
        )

    def delivered_as(self, delivery_id: str | None) -> Reading:
        """It, its drafts all with an id, where the delivery has one; they say whether nobody waits for them."""
        several = sum(1 for _ in self.all_drafts()) > 1
        numbers = count()

        def tell(draft: Draft) -> Draft:
            at = next(numbers)
            if self.is_wrapped:
                draft = replace(draft, is_wrapped=True)
            if draft.correlation_id is not None or not is_correlation_id(delivery_id):
                return draft
            told = f"{delivery_id}.{at}" if several else delivery_id
            return replace(draft, correlation_id=told, is_timeless="trigger_time" not in draft.fields)

        return self.with_drafts(tell)


def nothing(kind: Kind, trigger_type: TriggerType, *reasons: str, count: int = 1) -> Reading:
    """An input that starts nothing, and is right to."""
    return Reading(kind=kind, trigger_type=trigger_type, ignored=count, reasons=reasons)


def too_many(kind: Kind, trigger_type: TriggerType, field: str, count: int, limit: int = MAX_RECORDS) -> Reading:
    """An input of more starts than one may have."""
    problem = Problem(Code.TOO_LARGE, f"give at most {limit:,} at a time", field, f"{count:,} records")
    return Reading(problems=[problem], kind=kind, trigger_type=trigger_type)


def together(readings: Sequence[Reading], kind: Kind, trigger_type: TriggerType) -> Reading:
    """One reading of the records of an input: with `parts` where one of them is wrong, so that the others run."""
    flat = [part for reading in readings for part in (reading.parts or (reading,))]
    if len(flat) == 1:
        return flat[0]
    wrong = sum(bool(reading.problems) for reading in flat)
    if wrong == len(flat) > _TOLD_APART:
        problems = [problem for reading in flat for problem in reading.problems]
        return Reading(problems=problems, kind=kind, trigger_type=trigger_type)
    if wrong:
        return Reading(kind=kind, trigger_type=trigger_type, parts=flat)
    return Reading(
        drafts=[draft for reading in flat for draft in reading.drafts],
        kind=kind,
        trigger_type=trigger_type,
        ignored=sum(reading.ignored for reading in flat),
        reasons=list(dict.fromkeys(reason for reading in flat for reason in reading.reasons)),
    )
