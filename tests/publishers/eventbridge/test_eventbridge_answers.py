from __future__ import annotations

from typing import Any

import pytest

from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.publishers.eventbridge.answers import read_answer
from oms_events.publishing import Receipt


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InternalFailure", TransientError),
        ("ThrottlingException", TransientError),
        ("AccessDeniedException", AddressDeniedError),
        ("NotAuthorizedForSourceException", AddressDeniedError),
        ("NotAuthorizedForDetailTypeException", AddressDeniedError),
        ("InvalidAccountIdException", PlatformDeniedError),
        ("InvalidArgument", EventRejectedError),
        ("MalformedDetail", EventRejectedError),
        ("RedactionFailure", EventRejectedError),
        ("SomethingNewException", TransientError),
    ],
)
def test_the_code_of_an_entry_decides_its_failure(code: str, kind: type[PublishError]) -> None:
    marks = [{"EventId": "1"}, {"ErrorCode": code, "ErrorMessage": "why"}]
    stored, failed = read_answer({"FailedEntryCount": 1, "Entries": marks}, 2)
    assert stored == Receipt(id="1")
    assert type(failed) is kind
    assert failed.code == code
    assert failed.throttled == (code == "ThrottlingException")
    assert "why" in str(failed)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"Entries": None},
        {"FailedEntryCount": 0, "Entries": []},
        {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]},
        {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}] * 3},
        {"FailedEntryCount": 0, "Entries": [{}, None]},
        {"FailedEntryCount": 0, "Entries": [{"EventId": ""}, {"ErrorCode": None}]},
        {"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, {"EventId": "2"}]},
        {"FailedEntryCount": 2, "Entries": [{"EventId": "1"}, {"ErrorCode": "InternalFailure"}]},
        {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}, {"ErrorCode": "InternalFailure"}]},
        {"FailedEntryCount": "none", "Entries": [{"EventId": "1"}, {"EventId": "2"}]},
    ],
)
def test_what_nobody_marked_is_unknown(answer: dict[str, Any]) -> None:
    assert [type(outcome) for outcome in read_answer(answer, 2)] == [UnknownOutcomeError] * 2


@pytest.mark.parametrize("failed", [{}, {"FailedEntryCount": 0}, {"FailedEntryCount": 1}])
def test_an_unmarked_entry_costs_no_other(failed: dict[str, int]) -> None:
    outcomes = read_answer({**failed, "Entries": [{"EventId": "1"}, {}]}, 2)
    assert [type(outcome) for outcome in outcomes] == [Receipt, UnknownOutcomeError]
