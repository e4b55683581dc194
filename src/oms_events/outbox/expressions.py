"""The outbox's DynamoDB expressions: every condition by the situation it is for, and what updates change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from oms_events.outbox import schema
from oms_events.outbox.records import Lease, RecordState

Values = dict[str, dict[str, str]]
"""The values of an expression, by placeholder."""

# ---------------------------------------------------------------------- conditions

THERE: Final = "attribute_exists(pk)"
"""An update makes an item that is not there: a late writer would recreate a deleted record as a stub."""
SAME_GENERATION: Final = f"{THERE} AND g = :g"
"""A requeue in between has freed the record: what an owner found before does not count any more."""
NOT_MORE_TRIED: Final = "(attribute_not_exists(n) OR (n <= :n AND f <= :f))"
"""Another owner has tried more often meanwhile: attempts and the time they took never go down."""
PLANNED: Final = "attribute_exists(p)"
"""Nothing was recorded yet, or somebody else has had it forgotten: there is no plan to give up."""
NOT_CLOSED: Final = "attribute_not_exists(x)"
"""The layout epoch was closed: a number reserved now would belong to a bucket that nobody may look at again."""
SAME_LETTER: Final = f"{THERE} AND f = :failed"
"""The letter was requeued or purged meanwhile; a held record may even have died again under the same id."""
NO_HISTORY: Final = "attribute_not_exists(h)"
"""Another letter of the record was requeued since its history was read: that letter's would be lost."""
SAME_HISTORY: Final = "h = :history"
"""The same, of a record that has a history."""
NOT_READ: Final = f"{THERE} AND attribute_not_exists(f)"
"""`SAME_LETTER` of a letter that cannot be read and does not say when it was made."""
SAME_REVISION: Final = "r = :old"
"""Somebody else has changed the layout since it was read."""
SAME_BEAT: Final = "b = :beat"
"""The processor has shown a sign of life since it was last looked at."""
SILENT: Final = f"attribute_not_exists(pk) OR {SAME_BEAT}"
"""The lease's owner is alive after all; gone for good is as silent as it gets."""
SAME_VERSION: Final = "n = :n"
"""The bucket had another owner since the lease was read."""
NO_VERSION: Final = "attribute_not_exists(n)"
"""The same, of a bucket that nobody has had so far; its lease may exist for its wake counter."""
SAME_OWNER: Final = "o = :o"
"""The bucket was given up since the lease was read; its version changes only with the next owner."""
SAME_WAKE: Final = "w = :w"
"""Somebody committed to the bucket after its owner looked: the owner must look again before it goes."""
NO_WAKE: Final = "attribute_not_exists(w)"
"""The same, of a bucket that nobody has ever woken."""


def not_settled(index: int) -> str:
    """Another processor has settled that platform: a dead letter beside it would be a lie."""
    return f"(attribute_not_exists(s.#p{index}) OR s.#p{index} = :rejected)"


def is_held(index: int) -> str:
    """The record was requeued or purged meanwhile: its key waits no longer for that platform."""
    return f"s.#p{index} = :held"


def lease_condition(lease: Lease, *, wake: bool = False) -> tuple[str, Values]:
    """The lease is as it was read: its condition, and the condition's values."""
    parts: list[str] = []
    values: Values = {}
    if lease.version:
        parts.append(SAME_VERSION)
        values[":n"] = number(lease.version)
    else:
        parts.append(NO_VERSION)
    if lease.owner is not None:
        parts.append(SAME_OWNER)
        values[":o"] = text(lease.owner)
    if wake and lease.wake:
        parts.append(SAME_WAKE)
        values[":w"] = number(lease.wake)
    elif wake:
        parts.append(NO_WAKE)
    return " AND ".join(parts), values


# ---------------------------------------------------------------------- updates


class StateUpdate(NamedTuple):
    """An update of a record's state: its expression, and the names and values that this has."""

    update: str
    names: dict[str, str]
    values: Values


def platform_names(platforms: Sequence[str]) -> dict[str, str]:
    """The placeholders of platforms: `#p0` and so on."""
    return {f"#p{index}": platform for index, platform in enumerate(platforms)}


def state_update(state: RecordState, *, dead: Sequence[str] = ()) -> StateUpdate:
    """Adds to a record's state: a plan and states that are there stay, but for the `dead` platforms'.

    The placeholders of `dead` are those of `platform_names(dead)`.
    """
    platforms = (*dead, *(platform for platform in state.states if platform not in dead))
    values = {":g": number(state.generation), ":n": number(state.attempts), ":f": number(state.tried_for)}
    changes = ["n = :n", "f = :f"]
    if state.plan is not None:
        changes.append("p = if_not_exists(p, :p)")
        values[":p"] = text(schema.plan_text(state.plan))
    if state.last_error is not None:
        changes.append("m = :m")
        values[":m"] = text(schema.last_error(state.last_error))
    for index, platform in enumerate(platforms):
        if platform in state.states:
            values[f":p{index}"] = text(state.states[platform].value)
            new = f":p{index}" if index < len(dead) else f"if_not_exists(s.#p{index}, :p{index})"
            changes.append(f"s.#p{index} = {new}")
    return StateUpdate(f"SET {', '.join(changes)}", platform_names(platforms), values)


def letters_query(platform: str | None, after: str | None) -> tuple[str, Values]:
    """The key condition, and its values, of the letters after an id, of one platform or of all."""
    values = {":pk": text(schema.DEAD)}
    if platform is not None:
        # "$" comes right after "#", and no id is "nats$" itself. The next string after `after` has a NUL more.
        last = f"{platform}$"
        first = min(max(f"{platform}#", "" if after is None else f"{after}\0"), last)
        values |= {":first": text(first), ":last": text(last)}
        return "pk = :pk AND sk BETWEEN :first AND :last", values
    if after is not None:
        return "pk = :pk AND sk > :after", values | {":after": text(after)}
    return "pk = :pk", values


def text(value: str) -> dict[str, str]:
    return {"S": value}


def number(value: float) -> dict[str, str]:
    return {"N": repr(value)}
