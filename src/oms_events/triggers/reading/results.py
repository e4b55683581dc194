"""What reading an input gives: drafts of starts, what is wrong with it, and what of it starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from oms_events.triggers.problems import Problem
from oms_events.triggers.request import TriggerType
from oms_events.triggers.start import Draft

Kind = Literal[
    "scheduled", "event", "cloudevent", "s3", "manual", "delayed", "queue", "notification", "unreadable"
]
"""What an input was recognized as; `queue` is a batch of messages, `notification` what SNS wraps."""


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
    drafts beside."""


def nothing(kind: Kind, trigger_type: TriggerType, *reasons: str, count: int = 1) -> Reading:
    """An input that starts nothing, and is right to."""
    return Reading(kind=kind, trigger_type=trigger_type, ignored=count, reasons=reasons)


def together(readings: Sequence[Reading], kind: Kind, trigger_type: TriggerType) -> Reading:
    """One reading of the parts of an input."""
    return Reading(
        drafts=[draft for reading in readings for draft in reading.drafts],
        problems=[problem for reading in readings for problem in reading.problems],
        kind=kind,
        trigger_type=trigger_type,
        ignored=sum(reading.ignored for reading in readings),
        reasons=list(dict.fromkeys(reason for reading in readings for reason in reading.reasons)),
    )
