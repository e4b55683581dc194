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
        if not name.startswith("sqs_")
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
        draft,
        raw=envelope,
        correlation_id="first",
        fields={**draft.fields, "trigger_time": LATER},
        key="market:prices:d:first",
        was_aside=True,
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
        ({"raw": payload("sqs_delayed")}, "UNKNOWN_SHAPE", "Records"),
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


def test_a_record_that_is_no_message_is_not_lost() -> None:
    noid, nobody = message({}), {**message({}, "other"), "body": 5}
    del noid["messageId"]
    for raw in ({"Records": [message({}), nobody, noid]}, json.dumps({"Records": [message({}), nobody, noid]})):
        reading = read_starts(raw, config=CONFIG)
        assert {name: [problem.code for problem in one.problems] for name, one in reading.messages.items()} == {
            "m": [],
            # Whoever answers says that these have to come again.
            "other": ["FAILED", "WRONG_TYPE"],
            "": ["FAILED", "WRONG_TYPE"],
        }
        assert reading.messages["other"].correlation_id == "other"
    many = batch(*[{"eventSource": "aws:sqs"}] * 1_000).messages[""]
    assert len(many.problems) < 30
    assert batch(message({}, "")).messages[""].problems


def test_a_message_that_comes_twice_is_read_once() -> None:
    reading = batch(message({"period": "1d"}), message({"period": "5d"}), message({}, "other"))
    assert {name: one.drafts[0].fields.get("period") for name, one in reading.messages.items()} == {
        "m": "1d",
        "other": None,
    }


def test_the_limit_is_that_of_a_message_and_a_batch_has_so_many() -> None:
    small = TriggerConfig(max_input_bytes=100)
    good, long = {"symbols": ["AAPL"]}, {"symbols": ["A" * 100]}
    reading = read_starts({"Records": [message(good), message(good, "b"), message(long, "c")]}, config=small)
    assert {name: [one.code for one in read.problems] for name, read in reading.messages.items()} == {
        "m": [],
        "b": [],
        "c": ["TOO_LARGE"],
    }
    forged = batch(*[message({}, str(at)) for at in range(10_001)])
    assert (forged.kind, [problem.code for problem in forged.problems]) == ("queue", ["TOO_LARGE"])
    topic = {"EventSource": "aws:sns", "Sns": notification(payload("s3_notification"))}
    (problem,) = read_starts({"Records": [topic] * 501}, config=CONFIG).problems
    assert (problem.code, problem.value) == ("TOO_LARGE", "1,002 records")
    assert len(read_starts({"Records": [topic] * 500}, config=CONFIG).drafts) == 1_000
    assert [one.code for one in read_starts({"Records": [topic] * 1001}, config=CONFIG).problems] == ["TOO_LARGE"]


def test_a_batch_in_another_input_is_a_problem() -> None:
    inner = {"Records": [message({"period": "1d"})]}
    direct = {"EventSource": "aws:sns", "Sns": notification(inner)}
    for reading in (
        batch(message(inner)).messages["m"],
        read_starts({"Records": [direct]}, config=CONFIG),
        read_starts(notification(inner), config=CONFIG),
        read_starts({DELAYED: {**delayed(single_drafts()[0])[DELAYED], "raw": inner}}, config=CONFIG),
    ):
        assert [problem.code for problem in reading.problems] == ["UNKNOWN_SHAPE"]
        assert (reading.messages, reading.kind == "queue", reading.is_wrapped) == ({}, False, True)


def test_a_problem_says_which_start_it_is_of() -> None:
    def known(raw: Any) -> str | None:
        return read_starts(raw, config=CONFIG).correlation_id

    broken = payload("universe_updated") | {"detail": {"added_symbols": 5}}
    assert known(broken) == known({**broken, "time": 5}) == broken["id"]
    assert known({**broken, "detail": {"added_symbols": 5, "correlation_id": "mine"}}) == "mine"
    assert known({**broken, "source": "x"}) == broken["id"]
    assert known(delayed(single_drafts()[0]) | {}) is None
    assert known({DELAYED: {"version": 2, "correlation_id": "first"}}) == "first"
    event = payload("cloudevent")
    assert known({**event, "data": 5}) == known({**event, "type": "x"}) == f"{event['id']}@symbol.universe"
    assert known({**event, "specversion": "0"}) == f"{event['id']}@symbol.universe"
    created = payload("s3_object_created")
    del created["detail"]["version"]
    created["detail"]["object"]["size"] = "1"
    assert str(known(created)).endswith("#0055AED6DCD90281E5")
    assert batch(message("{", "m 1")).messages["m 1"].correlation_id == "m%201"


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
    assert [part.problems[0].field for part in reading.parts] == ["Records.0.Sns", "Records.1.Sns.Message"]


def test_wrappings_in_wrappings_end() -> None:
    inner: dict[str, Any] = {"period": "1d"}
    for _ in range(4):
        inner = notification(inner)
    assert len(read_starts(inner, config=CONFIG).drafts) == 1
    (problem,) = read_starts(notification(inner), config=CONFIG).problems
    assert problem.code == "UNKNOWN_SHAPE"
