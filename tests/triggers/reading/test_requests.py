"""Request documents: manual calls, and what says itself what triggered it."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.start import Draft
from tests.triggers.strategies import payload

CONFIG = TriggerConfig()


def only(document: dict[str, Any]) -> Draft:
    reading = read_starts(document, config=CONFIG)
    assert not reading.problems
    (draft,) = reading.drafts
    return draft


def problems(document: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(problem.code, problem.field) for problem in read_starts(document, config=CONFIG).problems]


def test_an_empty_object_asks_for_the_defaults() -> None:
    assert only({}) == Draft(trigger_type="manual", raw={})


def test_an_object_without_a_known_name_starts_nothing() -> None:
    (typo,) = read_starts({"symbol": ["AAPL"]}, config=CONFIG).problems
    assert (typo.code, typo.value) == ("UNKNOWN_SHAPE", "symbol")
    assert "'symbols'" in typo.remedy
    assert problems({"key1": "value1", "key2": "value2"}) == [("UNKNOWN_SHAPE", None)]
    assert problems({"detail": {}}) == [("UNKNOWN_SHAPE", None)]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("Symbols", "symbols"),
        ("symbol", "symbols"),
        ("sybmols", "symbols"),
        ("dryrun", "dry_run"),
        ("dry-run", "dry_run"),
        ("dryRn", "dry_run"),
        ("forceSymbols", "force_symbols"),
        ("force_symbol", "force_symbols"),
        ("override-configs", "override_config"),
    ],
)
def test_a_key_that_is_nearly_a_dangerous_one_is_refused(key: str, meant: str) -> None:
    for known in ({"urgent": True}, {meant: None}, {"symbols": ["AAPL"]}):
        (problem,) = read_starts({**known, key: ["TSLA"]}, config=CONFIG).problems
        assert (problem.code, problem.field, problem.value) == ("UNKNOWN_SHAPE", key, ["TSLA"])
        assert problem.remedy.startswith(f"did you mean '{meant}'?")


def test_other_unknown_keys_are_kept() -> None:
    others = {"symbology": "ric", "dry": True, "run": 5, "sym": 1, "symbols_note": "x", "": 0, "s" * 99: 1}
    assert only({"urgent": True, **others}).unknown == others


def test_misspelt_keys_are_named_up_to_a_number() -> None:
    many = {"symbols" + "_" * number: 1 for number in range(1, 40)}
    assert len(problems({"urgent": True, **many})) == 20


def test_null_is_absent_and_wrong_values_are_passed_on() -> None:
    draft = only({"symbols": None, "period": 5, "correlation_id": None, "dry_run": "yes", "override_config": None})
    assert (draft.fields, draft.correlation_id) == ({"period": 5}, None)
    # Told together with all else that is wrong, when the draft is completed.
    assert (draft.dry_run, draft.override_config) == ("yes", {})
    assert only({"correlation_id": 5}).correlation_id == 5
    assert only({"correlation_id": "a\nb" * 300}).correlation_id == "a\nb" * 300


def test_a_long_correlation_id_is_told_by_its_digest() -> None:
    first, second = (only({"correlation_id": character * 513}).correlation_id for character in "ab")
    assert str(first).startswith("sha256:")
    assert first != second
    assert only({"correlation_id": "a" * 512}).correlation_id == "a" * 512


@pytest.mark.parametrize(
    ("said", "symbols", "forced"),
    [
        ({"force_symbols": True, "symbols": ["AAPL"]}, ["AAPL"], True),
        ({"force_symbols": ["AAPL"]}, ["AAPL"], True),
        ({"force_symbols": ["AAPL"], "symbols": ["AAPL"]}, ["AAPL"], True),
        ({"force_symbols": []}, [], True),
        ({"force_symbols": False, "symbols": ["AAPL"]}, ["AAPL"], False),
        ({"force_symbols": None, "symbols": ["AAPL"]}, ["AAPL"], False),
        ({"force_symbols": "AAPL"}, None, "AAPL"),
    ],
)
def test_symbols_may_be_forced(said: dict[str, Any], symbols: Any, forced: Any) -> None:
    draft = only(said)
    assert (draft.fields.get("symbols"), draft.force_symbols) == (symbols, forced)


def test_two_different_lists_of_symbols_are_a_problem() -> None:
    assert problems({"force_symbols": ["AAPL"], "symbols": ["MSFT"]}) == [("INVALID_SYMBOLS", "force_symbols")]


def test_a_manual_call_may_name_an_object() -> None:
    key = "market/prices/ds=2026-09-09/symbol=AAPL/a.json"
    for bucket in ("raw", {"name": "raw"}):
        draft = only({"bucket": bucket, "key": key, "table_name": "ticks", "note": "again"})
        assert (draft.trigger_type, draft.ds, draft.detail.bucket, draft.detail.key) == (
            "manual", "2026-09-09", "raw", key,
        )  # fmt: skip
        assert draft.fields == {"table_name": "ticks", "symbols": ["AAPL"]}
        assert draft.unknown == {"note": "again"}
    assert only({"bucket": {"name": "raw"}}).unknown == {"bucket": "raw"}
    assert problems({"bucket": 5, "period": "1d"}) == [("WRONG_TYPE", "bucket")]
    assert problems({"bucket": "raw", "key": ["a"]}) == [("WRONG_TYPE", "key")]


def test_a_manual_call_may_say_where_it_is_from() -> None:
    assert only({"source": "extract.pipeline", "period": "1d"}).unknown == {"source": "transform.pipeline"}
    assert only({"source": "somebody", "period": "1d"}).unknown == {"source": "somebody"}


def test_a_document_says_itself_what_triggered_it() -> None:
    for trigger_type in ("manual", "schedule", "event", "s3"):
        assert only({"trigger_type": trigger_type, "correlation_id": "c"}).trigger_type == trigger_type
    assert only({"trigger_type": None}).trigger_type == "manual"
    for wrong in ("cron", 5, ["manual"], {}):
        assert problems({"trigger_type": wrong}) == [("WRONG_TYPE", "trigger_type")]


def test_a_transformed_run_without_an_id_is_recognized_by_its_time() -> None:
    run = payload("scheduled_transformed")
    del run["correlation_id"]
    derived = only(run).correlation_id
    assert str(derived).startswith("schedule:2026-09-09T22:00:00Z:")
    assert only(dict(reversed(run.items()))).correlation_id == derived
    assert only({**run, "symbols": []}).correlation_id != derived
    assert only({**run, "trigger_time": "2026-09-10T22:00:00Z"}).correlation_id != derived
    # Nothing tells such a run from its redelivery: better twice than never again.
    assert only({**run, "trigger_time": None}).correlation_id is None


def test_an_object_in_a_document_has_the_id_of_its_notification() -> None:
    (record, _) = payload("s3_notification")["Records"]
    (notified,) = read_starts({"Records": [record]}, config=CONFIG).drafts
    document = {
        "trigger_type": "s3", "bucket": "market-data-raw", "key": notified.detail.key,
        "sequencer": "0055AED6DCD90281E5",
    }  # fmt: skip
    draft = only(document)
    assert draft.correlation_id == notified.correlation_id
    assert (draft.detail.sequencer, draft.unknown) == ("0055AED6DCD90281E5", {})
    assert only({**document, "sequencer": None, "trigger_time": "t"}).correlation_id == (
        str(notified.correlation_id).replace("0055AED6DCD90281E5", "t")
    )
    assert only({**document, "trigger_type": "manual"}).correlation_id is None
    assert problems({**document, "sequencer": 5}) == [("WRONG_TYPE", "sequencer")]


@pytest.mark.parametrize(
    ("detail", "found"),
    [("{}", []), ("[]", ["NOT_AN_OBJECT"]), ("{", ["NOT_JSON"]), ({}, []), (5, ["WRONG_TYPE"])],
)
def test_a_detail_of_eventbridge_scheduler_is_text(detail: Any, found: list[str]) -> None:
    run = {**payload("scheduled_scheduler"), "detail": detail}
    assert problems(run) == [(code, "detail") for code in found]
    if detail == "{}":
        assert problems({**run, "source": "aws.events"}) == [("WRONG_TYPE", "detail")]


def test_a_transformed_run_may_be_tried() -> None:
    assert only({**payload("scheduled_transformed"), "dry_run": True, "symbols": []}).dry_run is True


@pytest.mark.parametrize(
    ("change", "correlation_id"),
    [
        ({"source": "aws.scheduler", "resources": ["arn:aws:scheduler:eu-central-1:1:schedule/default/daily"]},
         "default/daily:2026-09-09T22:00:00Z"),
        ({"resources": ["arn:aws:events:eu-central-1:1:rule/other-bus/daily"]},
         "other-bus/daily:2026-09-09T22:00:00Z"),
        ({"resources": []}, "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa"),
        ({"time": None}, "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa"),
        ({"resources": [], "id": None}, None),
        ({"resources": ["a/b\nc"]}, "b%0Ac:2026-09-09T22:00:00Z"),
    ],
)  # fmt: skip
def test_a_scheduled_run_is_its_rule_and_time(change: dict[str, Any], correlation_id: str | None) -> None:
    draft = only({**payload("scheduled_default"), **change})
    assert (draft.trigger_type, draft.correlation_id) == ("schedule", correlation_id)
