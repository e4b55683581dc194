"""Answers as they go out, JSON objects: events, errors, and how large an answer may be. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from oms_events.errors import (
    AppendLimitError,
    ConcurrencyError,
    PayloadMismatchError,
    PersonalDataError,
    RequestError,
)
from oms_events.eventstore.personal.sealed import masked, may_have_sealed
from oms_events.eventstore.records import RecordedEvent

MAX_ANSWER_BYTES: Final = 6_000_000
"""A function's answer to a synchronous call takes 6,291,556 bytes (AWS Lambda guide, "Lambda quotas")."""

CONCURRENCY_CONFLICT: Final = "CONCURRENCY_CONFLICT"
COMMAND_ID_REUSED: Final = "COMMAND_ID_REUSED"
TOO_LARGE: Final = "TOO_LARGE"


def event_answer(event: RecordedEvent) -> dict[str, Any]:
    """A recorded event as queries answer it; `data` is in the `version` in which it was stored.

    Without a cipher personal data is "[encrypted]".
    """
    attributes = event.encoded.attributes
    data = event.data
    if may_have_sealed(event.payload):
        # What nobody here has a key for. What only looks like it is shown as it is.
        with suppress(PersonalDataError):
            data = masked(data)
    return {
        "eventType": event.type,
        "aggregateId": event.aggregate_id,
        "sequence": event.sequence,
        "eventId": event.id,
        "time": event.time.isoformat().replace("+00:00", "Z"),
        "version": event.version,
        "data": data,
        "correlationId": attributes.get("correlationid"),
        "causationId": attributes.get("causationid"),
    }


def error_answer(error: Exception) -> dict[str, Any] | None:
    """The answer to a request that was refused, and would be again; None for what may work later, or is a bug."""
    match error:
        case RequestError():
            code, message, field = error.code, str(error), error.field
        case ConcurrencyError():
            code, message, field = CONCURRENCY_CONFLICT, str(error), "expectedSequence"
        case PayloadMismatchError():
            code, message, field = COMMAND_ID_REUSED, str(error), "commandId"
        case AppendLimitError():
            code, message, field = TOO_LARGE, str(error), None
        case _:
            return None
    return {"ok": False, "error": {"code": code, "message": message, "field": field}}


def answer_size(answer: Mapping[str, Any]) -> int:
    """The bytes of a part of an answer at most, however it is written as JSON: Python's own way is the longest."""
    return len(json.dumps(answer))
