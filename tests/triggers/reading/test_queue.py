"""What waits in queues and is wrapped by topics, around any other input."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.delayed import DELAYED, wrap_delayed
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.start import Draft
from tests.triggers.strategies import ALL_PAYLOADS, payload

CONFIG = TriggerConfig()
LATER = "2026-09-09T16:30:00Z"


def message(body: Any, name: str = "m", **changes: Any) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    made = payload("sqs_delayed")["Records"][0]
    return {**made, "messageId": name, "body": text, **changes}


def batch(*messages: dict[str, Any]) -> Any:
    return read_starts({"Records": list(messages)}, config=CONFIG)


def delayed(draft: Draft, correlation_id: str = "first", time: str = LATER) -> dict[str, Any]:
    request = TriggerRequest(trigger_type=draft.trigger_type, correlation_id=correlation_id, trigger_time=time)
    return wrap_delayed(draft, request, key="market:prices:d:first", delayed_at=time, reason="RATE_LIMITED")


def single_drafts() -> list[Draft]:
    return [
        draft
        for name, document in ALL_PAYLOADS.items()
        if name != "sqs_delayed"
        for draft in read_starts(document, config=CONFIG).drafts
    ]


def without_event(draft: Draft, **changes: Any) -> Draft:
    return dataclasses.replace(draft, event=None, **changes)


@pytest.mark.parametrize(
    "draft", single_drafts(), ids=lambda draft: f"{draft.trigger_type}-{draft.correlation_id}"
)
def test_a_delayed_start_is_the_same_start(draft: Draft) -> None:
    envelope = delayed(draft)
    (again,) = read_starts(json.dumps(envelope), config=CONFIG).drafts
    expected = without_event(
        draft, raw=envelope, correlation_id="first", fields={**draft.fields, "trigger_time": LATER}
    )
    assert without_event(again) == expected
    # Delayed a second time it stays one envelope, around what came in first.
    twice = delayed(again, "second")
    assert twice[DELAYED]["raw"] == draft.raw
    assert read_starts(twice, config=CONFIG).drafts[0].correlation_id == "second"


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"version": 2}, "INVALID_DETAIL", "delayed_start.version"),
        ({"raw": "{}"}, "WRONG_TYPE", "delayed_start.raw"),
        ({"correlation_id": None}, "WRONG_TYPE", "delayed_start.correlation_id"),
        ({"raw": {"key1": 1}}, "UNKNOWN_SHAPE", None),
        ({"raw": payload("s3_notification")}, "UNKNOWN_SHAPE", "delayed_start.raw"),
        ({"raw": payload("sqs_delayed")}, "UNKNOWN_SHAPE", "delayed_start.raw"),
    ],
)
def test_a_broken_envelope_is_a_problem(change: dict[str, Any], code: str, field: str | None) -> None:
    held = {**delayed(single_drafts()[0])[DELAYED], **change}
    reading = read_starts({DELAYED: held}, config=CONFIG)
    assert [(problem.code, problem.field) for problem in reading.problems] == [(code, field)]
    assert not reading.drafts
    (none,) = read_starts({DELAYED: None}, config=CONFIG).problems
    assert none.field == DELAYED


def test_a_delayed_start_that_the_filters_leave_out_by_now_is_ignored() -> None:
    envelope = delayed(read_starts(payload("s3_object_created"), config=CONFIG).drafts[0])
    reading = read_starts(envelope, config=TriggerConfig(object_suffix=".csv"))
    assert (reading.ignored, reading.drafts, reading.problems) == (1, [], ())


def test_messages_of_any_known_shape_are_read_each_for_itself() -> None:
    reading = batch(
        message(payload("universe_updated"), "event"),
        message("no JSON", "broken"),
        message(payload("s3_notification"), "objects"),
        message(payload("cloudevent"), "cloudevent"),
    )
    assert reading.problems == ()
    assert {name: len(one.drafts) for name, one in reading.messages.items()} == {
        "event": 1, "broken": 0, "objects": 2, "cloudevent": 1,
    }  # fmt: skip
    assert [problem.code for problem in reading.messages["broken"].problems] == ["NOT_JSON"]
    assert {draft.queued.message_id for draft in reading.messages["objects"].drafts} == {"objects"}
    assert reading.messages["event"].drafts[0].raw == payload("universe_updated")


def test_a_manual_call_in_a_queue_has_the_messages_id_and_time() -> None:
    (draft,) = batch(message({"period": "1d"}, "m 1")).messages["m 1"].drafts
    assert (draft.correlation_id, draft.fields["trigger_time"]) == ("m%201", "2026-09-09T16:30:02.000Z")
    own = {"period": "1d", "correlation_id": "mine", "trigger_time": LATER}
    (draft,) = batch(message(own)).messages["m"].drafts
    assert (draft.correlation_id, draft.fields["trigger_time"]) == ("mine", LATER)


@pytest.mark.parametrize(
    ("attributes", "count", "has_time"),
    [
        ({"ApproximateReceiveCount": "7", "SentTimestamp": "0"}, 7, True),
        ({"ApproximateReceiveCount": "many", "SentTimestamp": "soon"}, 1, False),
        ({"ApproximateReceiveCount": 0, "SentTimestamp": "9" * 19}, 1, False),
        ({}, 1, False),
    ],
)
def test_a_messages_attributes(attributes: dict[str, Any], count: int, has_time: bool) -> None:
    (draft,) = batch(message({}, attributes=attributes)).messages["m"].drafts
    assert (draft.queued.receive_count, "trigger_time" in draft.fields) == (count, has_time)


def test_what_is_no_message_spoils_the_batch() -> None:
    reading = batch(message({}), {**message({}, "other"), "body": 5}, message({}), message({}, ""))
    assert [(problem.code, problem.field) for problem in reading.problems] == [
        ("WRONG_TYPE", "Records.1.body"),
        ("UNKNOWN_SHAPE", "Records.2.messageId"),
        ("INVALID_DETAIL", "Records.3.messageId"),
    ]
    assert reading.messages == {}


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ("many", "WRONG_TYPE"),
        ([1], "WRONG_TYPE"),
        ([{}], "UNKNOWN_SHAPE"),
        ([{"eventSource": "aws:kinesis"}], "UNKNOWN_SHAPE"),
        ([message({}), *payload("s3_notification")["Records"]], "UNKNOWN_SHAPE"),
    ],
)
def test_records_of_others_are_a_problem(records: Any, code: str) -> None:
    assert [problem.code for problem in read_starts({"Records": records}, config=CONFIG).problems] == [code]


def notification(inner: Any, **changes: Any) -> dict[str, Any]:
    wrapped = {"Type": "Notification", "MessageId": "sns-1", "Timestamp": LATER, "Message": json.dumps(inner)}
    return {**wrapped, **changes}


def test_what_a_topic_sends_is_read_from_a_queue_and_by_itself() -> None:
    objects = payload("s3_notification")
    direct = read_starts({"Records": [{"EventSource": "aws:sns", "Sns": notification(objects)}]}, config=CONFIG)
    queued = batch(message(notification(objects))).messages["m"]
    ids = [draft.correlation_id for draft in read_starts(objects, config=CONFIG).drafts]
    for reading in (direct, queued):
        assert (reading.trigger_type, [draft.correlation_id for draft in reading.drafts]) == ("s3", ids)
    (manual,) = batch(message(notification({"period": "1d"}))).messages["m"].drafts
    assert (manual.correlation_id, manual.fields["trigger_time"]) == ("sns-1", LATER)


def test_a_broken_notification_is_a_problem() -> None:
    assert [problem.field for problem in read_starts(notification({}, Message=5), config=CONFIG).problems] == [
        "Message"
    ]
    records = [{"EventSource": "aws:sns"}, {"EventSource": "aws:sns", "Sns": notification({}, Message=5)}]
    reading = read_starts({"Records": records}, config=CONFIG)
    assert [problem.field for problem in reading.problems] == ["Records.0.Sns", "Records.1.Sns.Message"]


def test_wrappings_in_wrappings_end() -> None:
    inner: dict[str, Any] = {"period": "1d"}
    for _ in range(4):
        inner = notification(inner)
    assert len(read_starts(inner, config=CONFIG).drafts) == 1
    (problem,) = read_starts(notification(inner), config=CONFIG).problems
    assert problem.code == "UNKNOWN_SHAPE"
