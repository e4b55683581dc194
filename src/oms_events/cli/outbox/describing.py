"""Dead letters and pending records as JSON values and as rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from oms_events.events import EncodedEvent
from oms_events.outbox.filters import record_id
from oms_events.outbox.records import DeadLetter, StoredRecord
from oms_events.publishing import Plan

LETTER_COLUMNS = ("id", "event type", "event", "key", "code", "attempts", "failed")
RECORD_COLUMNS = ("id", "event type", "event", "key", "plan", "states", "attempts", "added", "last error")


def letter_row(letter: DeadLetter) -> tuple[object, ...]:
    event = letter.event
    name = (None, None) if event is None else (event.type, event.id)
    return letter.id, *name, letter.key, letter.code, letter.attempts, _time(letter.failed)


def record_row(record: StoredRecord) -> tuple[object, ...]:
    event, state = record.event, record.state
    name = (None, None) if event is None else (event.type, event.id)
    plan = None if state.plan is None else ", ".join(state.plan.platforms)
    states = ", ".join(f"{platform} {found.value}" for platform, found in state.states.items()) or None
    error = record.problem or state.last_error
    return record_id(record), *name, record.key, plan, states, state.attempts, _time(record.added), error


def plan_in_words(plan: Plan) -> str:
    """Where a plan has an event go, and why."""
    goal = "the first that works of " if plan.first_that_works and len(plan.platforms) > 1 else ""
    rule = "no rule" if plan.rule is None else f"rule {plan.rule}"
    return f"{goal}{', '.join(plan.platforms)} ({rule}, strategy {plan.strategy})"


def describe(found: DeadLetter | StoredRecord, *, whole: bool = False) -> Mapping[str, Any]:
    """All there is to know; the event's data and the raw item only when `whole`."""
    return _letter(found, whole=whole) if isinstance(found, DeadLetter) else _record(found, whole=whole)


def _letter(letter: DeadLetter, *, whole: bool) -> Mapping[str, Any]:
    return {
        "kind": "dead letter",
        "id": letter.id,
        **_event(letter.event, whole=whole),
        "key": letter.key,
        "platform": letter.platform,
        "platforms": letter.platforms,
        "code": letter.code,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "added": _time(letter.added),
        "failed": _time(letter.failed),
        "held": letter.held,
        "problem": letter.problem,
        "plan": _plan(letter.plan),
        "history": [dict(entry) for entry in letter.history],
        **({"raw": letter.raw} if whole and letter.raw is not None else {}),
    }


def _record(record: StoredRecord, *, whole: bool) -> Mapping[str, Any]:
    state = record.state
    return {
        "kind": "pending",
        "id": record_id(record),
        **_event(record.event, whole=whole),
        "key": record.key,
        "added": _time(record.added),
        "plan": _plan(state.plan),
        "states": {platform: found.value for platform, found in state.states.items()},
        "attempts": state.attempts,
        "tried_for": round(state.tried_for, 3),
        "last_error": state.last_error,
        "generation": state.generation,
        "format": record.format,
        "bytes": record.size,
        "problem": record.problem,
        "history": [dict(entry) for entry in record.history],
        **({"raw": record.raw} if whole and record.raw is not None else {}),
    }


def _event(event: EncodedEvent | None, *, whole: bool) -> Mapping[str, Any]:
    if event is None:
        return {"event": None}
    if whole:
        # As it will be sent, digit by digit.
        return {"event": orjson.Fragment(event.json)}
    return {"event": {"source": event.source, "id": event.id, "type": event.type}}


def _plan(plan: Plan | None) -> Mapping[str, Any] | None:
    if plan is None:
        return None
    return {
        "rule": plan.rule,
        "strategy": plan.strategy,
        "platforms": plan.platforms,
        "first_that_works": plan.first_that_works,
    }


def _time(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
