"""What the letters in a queue are understood as: ours, AWS's, and anything else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events.triggers.problems import Problem
from oms_events.triggers.sending.letters import (
    DeadLetter,
    LetterKind,
    LetterText,
    StoredLetter,
    letter_text,
    read_letter,
)
from oms_events.triggers.sending.queues import OutgoingMessage, check_messages

TIME = datetime(2026, 9, 9, 16, 30, tzinfo=UTC)
EVENT = {"source": "symbol.universe", "detail-type": "Universe Updated", "detail": {"correlation_id": "c"}}
CHUNK = {"chunk_id": "1", "chunk_index": 0, "correlation_id": "c", "trigger_type": "s3"}
DELAYED = {
    "delayed_start": {
        "version": 1, "raw": EVENT, "trigger_type": "event", "correlation_id": "c", "key": "k",
        "delayed_at": "2026-09-09T16:30:02Z", "reason": "RATE_LIMITED",
    }
}  # fmt: skip
SOURCE = {"DeadLetterQueueSourceArn": "arn:aws:sqs:eu-west-1:1:dev-ingestion-delay.fifo"}
OF_EVENTBRIDGE = {
    "RULE_ARN": "arn:aws:events:eu-west-1:1:rule/r", "TARGET_ARN": "arn:aws:lambda:eu-west-1:1:function:f",
    "ERROR_CODE": "NO_PERMISSIONS", "ERROR_MESSAGE": "no", "RETRY_ATTEMPTS": "0",
}  # fmt: skip
OF_LAMBDA = {"RequestID": "r", "ErrorCode": "200", "ErrorMessage": "boom"}
DESTINATION = {
    "version": "1.0",
    "timestamp": "2026-09-09T16:31:00.000Z",
    "requestContext": {"requestId": "r", "functionArn": "f", "condition": "RetriesExhausted"},
    "requestPayload": EVENT,
}


def read(document: Any, said: dict[str, str] | None = None, **attributes: str) -> StoredLetter:
    body = document if isinstance(document, str) else json.dumps(document)
    sent = {"SentTimestamp": "1788971400000", "ApproximateReceiveCount": "3", **attributes}
    return read_letter("m", body, attributes=sent, message_attributes=said or {})


@pytest.mark.parametrize(
    ("letter", "kind", "reason", "raw"),
    [
        (read(EVENT, OF_EVENTBRIDGE), LetterKind.EVENT, "NO_PERMISSIONS", EVENT),
        (read(EVENT, OF_LAMBDA), LetterKind.INVOCATION, "LAMBDA_200", EVENT),
        (read(DESTINATION), LetterKind.INVOCATION, "RetriesExhausted", EVENT),
        (read(DELAYED, **SOURCE), LetterKind.DELAYED, "RECEIVED_TOO_OFTEN", DELAYED),
        (read(CHUNK), LetterKind.CHUNK, "RECEIVED_TOO_OFTEN", CHUNK),
        (read(EVENT), LetterKind.OTHER, "UNKNOWN_LETTER", EVENT),
    ],
    ids=["eventbridge", "lambda", "destination", "delayed", "chunk", "other"],
)
def test_letters_of_aws_and_of_other_queues(letter: StoredLetter, kind: LetterKind, reason: str, raw: Any) -> None:
    assert (letter.kind, letter.reason, letter.raw, letter.is_whole) == (kind, reason, raw, True)
    assert (letter.correlation_id, letter.receive_count) == ("c", 3)
    assert letter.time in ("2026-09-09T16:30:00Z", DESTINATION["timestamp"])


def test_a_letter_has_what_its_sender_says_besides() -> None:
    assert read(EVENT, OF_EVENTBRIDGE).details == OF_EVENTBRIDGE
    details = read(DELAYED, **SOURCE).details
    assert details == {"reason": "RATE_LIMITED", "key": "k", "delayed_at": "2026-09-09T16:30:02Z", **SOURCE}
    assert read("no JSON", OF_LAMBDA).raw == "no JSON"


def test_no_attribute_makes_reading_fail() -> None:
    assert [read("{}", ApproximateReceiveCount=told).receive_count for told in ("x", "-1", "", "9" * 99, "2")] == [
        1, 1, 1, 1, 2,
    ]  # fmt: skip


def test_what_a_pipeline_or_lambda_gave_up_goes_in_an_envelope() -> None:
    said = {"version": 1, "reason": "R", "correlation_id": "c", "time": "2026-09-09T16:30:00Z"}
    ours = read({"dead_letter": {**said, "raw": {"symbols": []}}}).input()["delayed_start"]
    # One of an older version has no time of its start.
    assert (ours["raw"], ours["correlation_id"], ours["trigger_time"]) == ({"symbols": []}, "c", said["time"])
    as_text = read({"dead_letter": {**said, "raw": '{"symbols": []}'}}).input()["delayed_start"]
    assert as_text["raw"] == {"symbols": []}
    # It was in one, and is as it was.
    assert read({"dead_letter": {**said, "raw": DELAYED}}).input() == DELAYED
    for letter in (read(EVENT, OF_EVENTBRIDGE), read(EVENT), read(EVENT, {"RequestID": ""})):
        assert letter.input() == EVENT
    for letter in (read(EVENT, OF_LAMBDA), read(DESTINATION)):
        given_up = letter.input()["delayed_start"]
        assert (given_up["raw"], given_up["delivery_id"], "correlation_id" in given_up) == (EVENT, "r", False)
    batch = {"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": "{}"}]}
    for raw in (DELAYED, batch, "no JSON"):
        assert read(raw, OF_LAMBDA).input() == raw


def test_a_letter_of_a_later_version_is_not_guessed_at() -> None:
    letter = read({"dead_letter": {"version": 2, "reason": "R", "raw": 1}})
    assert (letter.kind, letter.is_whole, letter.raw) == (LetterKind.OTHER, False, None)
    assert "version 2 is not known here" in letter.details["problem"]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    ("version", "reason", "problems", "correlation_id", "trigger_type", "time", "raw", "raw_gzip", "raw_head")
)
KNOWN = ("dead_letter", "delayed_start", "requestContext", "requestPayload", "chunk_id", "detail")
PLAIN = st.none() | st.integers(1, 2) | st.text(max_size=3) | st.lists(st.integers(), max_size=1)
HOSTILE = st.one_of(
    st.text(),
    ANY_JSON.map(json.dumps),
    st.dictionaries(st.sampled_from(KNOWN), PLAIN | st.dictionaries(MEMBERS, PLAIN), max_size=2).map(json.dumps),
)


@settings(max_examples=60)
@given(body=HOSTILE, said=st.dictionaries(st.sampled_from((*OF_EVENTBRIDGE, *OF_LAMBDA)), st.text()))
def test_nothing_in_a_queue_makes_reading_fail(body: str, said: dict[str, str]) -> None:
    letter = read(body, said)
    assert letter.body == body
    json.dumps(letter.document())


@settings(max_examples=50)
@given(raw=ANY_JSON, limit=st.integers(1024, 4096), remedy=st.text(), size=st.integers(0, 2000))
def test_what_is_written_fits_and_is_read_as_it_was(raw: Any, limit: int, remedy: str, size: int) -> None:
    raw = {"raw": raw, "more": "ab" * size}
    letter = DeadLetter(reason="R", raw=raw, time=TIME, problems=[Problem("R", remedy[:50])], correlation_id="c")
    body, is_cut = letter_text(letter, limit=limit)
    check_messages([OutgoingMessage(body)], limit=limit, fifo=False)
    stored = read(body)
    assert (stored.reason, stored.correlation_id, stored.is_whole) == ("R", "c", not is_cut)
    assert is_cut or stored.raw == raw


def test_the_same_letter_is_the_same_text() -> None:
    letter = DeadLetter(reason="R", raw={"a": "x" * 5000}, time=TIME)
    first = letter_text(letter, limit=2048)
    assert first == letter_text(letter, limit=2048) == LetterText(first.body, is_cut=False)


def test_problems_never_crowd_the_input_out() -> None:
    problems = [Problem("R" * 9_000, "do " * 9_000, "field" * 9_000, "v" * 9_000)] * 9_000
    letter = DeadLetter(reason="R" * 9_000, raw={"a": 1}, time=TIME, problems=problems, correlation_id="c" * 9_000)
    body, is_cut = letter_text(letter, limit=262_144)
    assert not is_cut
    assert len(read(body).problems) == 50
