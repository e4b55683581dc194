"""Answers as they go out, JSON objects: events, errors, and how large an answer may be. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from oms_events.errors import (
    AppendLimitError,
    ConcurrencyError,
    OutboxLimitError,
    PayloadMismatchError,
    PersonalDataError,
    PersonForgottenError,
    RequestError,
)
from oms_events.eventstore.personal.sealed import masked, may_have_sealed
from oms_events.eventstore.records import RecordedEvent

MAX_ANSWER_BYTES: Final = 6_000_000
"""A function's answer to a synchronous call takes 6,291,556 bytes (AWS Lambda guide, "Lambda quotas")."""

CONCURRENCY_CONFLICT: Final = "CONCURRENCY_CONFLICT"
COMMAND_ID_REUSED: Final = "COMMAND_ID_REUSED"
TOO_LARGE: Final = "TOO_LARGE"
PERSON_FORGOTTEN: Final = "PERSON_FORGOTTEN"


def event_answer(event: RecordedEvent, *, unreadable: str | None = None) -> dict[str, Any]:
    """A recorded event as queries answer it; `data` is in the `version` in which it was stored.

    Without a cipher personal data is "[encrypted]", and so it is when it is `unreadable`, which the answer says.
    """
    attributes = event.encoded.attributes
    try:
        data = event.data
    except ValueError as error:
        data, unreadable = None, unreadable or f"the data is no JSON: {error}"
    if may_have_sealed(event.payload):
        # What nobody here has a key for. Where masking fails, it is shown as it is: encrypted.
        with suppress(PersonalDataError):
            data = masked(data)
    answer = {
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
    return answer if unreadable is None else {**answer, "unreadable": unreadable}


def error_answer(error: Exception) -> dict[str, Any] | None:
    """The answer to a request that was refused, and would be again; None for what may work later, or is a bug."""
    match error:
        case RequestError():
            code, message, field = error.code, str(error), error.field
        case ConcurrencyError():
            code, message, field = CONCURRENCY_CONFLICT, str(error), "expectedSequence"
        case PayloadMismatchError():
            code, message, field = COMMAND_ID_REUSED, str(error), "commandId"
        case PersonForgottenError():
            code, message, field = PERSON_FORGOTTEN, str(error), None
        case AppendLimitError() | OutboxLimitError():
            code, message, field = TOO_LARGE, str(error), None
        case _:
            return None
    return {"ok": False, "error": {"code": code, "message": message, "field": field}}


def answer_size(answer: Mapping[str, Any]) -> int:
    """The bytes of a part of an answer at most, however it is written as JSON: Python's own way is the longest."""
    return len(json.dumps(answer))
