"""What the answer to PutEvents says of each entry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.publishing import Receipt

# Codes of PutEventsResultEntry in the service model; those not listed say "not stored" and may pass.
_BY_CODE: Final[Mapping[str, type[PublishError]]] = {
    "InternalFailure": TransientError,
    "ThrottlingException": TransientError,
    "AccessDeniedException": AddressDeniedError,
    "NotAuthorizedForSourceException": AddressDeniedError,
    "NotAuthorizedForDetailTypeException": AddressDeniedError,
    # The account in the bus's ARN: no event can ever pass.
    "InvalidAccountIdException": PlatformDeniedError,
    "InvalidArgument": EventRejectedError,
    "MalformedDetail": EventRejectedError,
    "RedactionFailure": EventRejectedError,
}
_THROTTLED: Final = ("ThrottlingException",)


def read_answer(answer: Mapping[str, Any], count: int) -> list[Receipt | PublishError]:
    """One outcome for each of the `count` entries sent; an entry that nobody marked is unknown.

    So are all of them when the number of failures in the answer contradicts its marks.
    """
    marks = answer.get("Entries")
    if not isinstance(marks, list) or len(marks) != count:
        found = len(marks) if isinstance(marks, list) else "no"
        # Which mark belongs to which entry cannot be told any more.
        return _unknown(f"PutEvents answered with {found} results for {count} entries", count)
    outcomes = [_read_mark(mark) for mark in marks]
    stored = sum(isinstance(outcome, Receipt) for outcome in outcomes)
    unmarked = sum(isinstance(outcome, UnknownOutcomeError) for outcome in outcomes)
    said = answer.get("FailedEntryCount")
    if said is not None and said not in range(count - stored - unmarked, count - stored + 1):
        return _unknown(f"PutEvents answered that {said} entries failed, but marked {stored} as stored", count)
    return outcomes


def _unknown(text: str, count: int) -> list[Receipt | PublishError]:
    return [UnknownOutcomeError(text, code="MisalignedAnswer") for _ in range(count)]


def _read_mark(mark: object) -> Receipt | PublishError:
    if isinstance(mark, Mapping):
        if mark.get("ErrorCode"):
            code = str(mark["ErrorCode"])
            text = f"EventBridge refused the entry: {code}: {mark.get('ErrorMessage') or 'no message'}"
            return _BY_CODE.get(code, TransientError)(text, code=code, throttled=code in _THROTTLED)
        if event_id := mark.get("EventId"):
            return Receipt(id=str(event_id))
    return UnknownOutcomeError("EventBridge marked the entry neither stored nor failed", code="UnmarkedEntry")
