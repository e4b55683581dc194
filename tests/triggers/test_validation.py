from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events.triggers.config import RunOptions, TriggerConfig, TriggerDefaults
from oms_events.triggers.problems import STRUCTURAL, Code
from oms_events.triggers.request import MAX_CORRELATION_ID, TriggerRequest, TriggerType
from oms_events.triggers.start import Draft
from oms_events.triggers.validation import Completed, complete, date_of, key_of, options_of, payload_of
from tests.strategies import json_values

NOW = datetime(2026, 9, 9, 23, 30, tzinfo=UTC)
CONFIG = TriggerConfig.of("dev")


def make_draft(fields: dict[str, Any] | None = None, *, of: TriggerType = "manual", **more: Any) -> Draft:
    return Draft(trigger_type=of, raw=fields or {}, fields=fields or {}, **more)


def check(draft: Draft, config: TriggerConfig = CONFIG) -> Completed:
    return complete(draft, config, now=NOW, make_id=lambda: "made-up")


def request_of(draft: Draft, config: TriggerConfig = CONFIG) -> TriggerRequest:
    request, problems, _ = check(draft, config)
    assert request is not None, problems
    return request


def codes(draft: Draft, config: TriggerConfig = CONFIG) -> list[tuple[str, str | None]]:
    request, problems, _ = check(draft, config)
    assert (request is None) == bool(problems)
    assert all(problem.remedy for problem in problems)
    return [(problem.code, problem.field) for problem in problems]


def test_the_shortest_manual_call_is_completed_by_the_environment() -> None:
    request, problems, defaulted = check(make_draft({"symbols": ["AAPL"], "period": "1d", "urgent": True}))
    assert request is not None
    assert not problems
    assert request.document() == {
        "data_source": "yahoo_finance",
        "data_type": "prices",
        "domain": "market",
        "table_name": "prices",
        "symbols": ["AAPL"],
        "period": "1d",
        "interval": "1d",
        "file_format": "json",
        "trigger_type": "manual",
        "trigger_time": "2026-09-09T23:30:00.000Z",
        "correlation_id": "made-up",
        "urgent": True,
    }
    assert defaulted == ["data_source", "data_type", "domain", "table_name", "interval", "file_format"]


def test_defaults_are_those_of_the_configuration_and_null_is_absent() -> None:
    config = TriggerConfig(defaults=TriggerDefaults(domain="macro", period="5y"))
    request, _, defaulted = check(make_draft({"domain": None, "symbols": None, "urgent": None}), config)
    assert request is not None
    assert (request.domain, request.period, request.symbols, request.urgent) == ("macro", "5y", (), False)
    assert "domain" in defaulted


def test_all_problems_are_in_one_answer() -> None:
    draft = make_draft(
        {
            "data_source": "no such",
            "data_type": 5,
            "domain": "",
            "table_name": "prices2",
            "symbols": ["AAPL", 5930, "not a symbol", None],
            "period": "",
            "interval": ["1d"],
            "file_format": "é",
            "trigger_time": "yesterday",
            "urgent": "yes",
        },
        correlation_id="two\nlines",
        override_config={"chunk_size": 0, "chunksize": 5},
    )
    assert codes(draft) == [
        (Code.INVALID_DATA_SOURCE, "data_source"),
        (Code.WRONG_TYPE, "data_type"),
        (Code.INVALID_DOMAIN, "domain"),
        (Code.INVALID_TABLE_NAME, "table_name"),
        (Code.INVALID_PERIOD, "period"),
        (Code.WRONG_TYPE, "interval"),
        (Code.INVALID_FILE_FORMAT, "file_format"),
        (Code.WRONG_TYPE, "symbols.1"),
        (Code.INVALID_SYMBOLS, "symbols.2"),
        (Code.WRONG_TYPE, "symbols.3"),
        (Code.WRONG_TYPE, "urgent"),
        (Code.INVALID_TRIGGER_TIME, "trigger_time"),
        (Code.INVALID_CORRELATION_ID, "correlation_id"),
        (Code.INVALID_OVERRIDE, "override_config"),
        (Code.INVALID_OVERRIDE, "override_config.chunk_size"),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("table_name", "prices2"),
        ("table_name", "p" * 51),
        ("table_name", "prices\n"),
        ("table_name", "p-q"),
        ("domain", "a:b"),
        ("data_source", "x" * 51),
        ("period", "1 mo"),
    ],
)
def test_names_have_their_letters_and_lengths(field: str, value: str) -> None:
    assert codes(make_draft({field: value})) == [(f"INVALID_{field.upper()}", field)]


def test_symbols_are_trimmed_and_named_once_each_in_their_order_and_case() -> None:
    request = request_of(make_draft({"symbols": [" MSFT ", "aapl", "MSFT", "AAPL", "BRK.B", "^GSPC"]}))
    assert request.symbols == ("MSFT", "aapl", "AAPL", "BRK.B", "^GSPC")


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ([f"S{at}" for at in range(101)], [(Code.INVALID_SYMBOLS, "symbols")]),
        ([""], [(Code.INVALID_SYMBOLS, "symbols.0")]),
        (["x" * 21], [(Code.INVALID_SYMBOLS, "symbols.0")]),
        ("AAPL", [(Code.WRONG_TYPE, "symbols")]),
        ({"AAPL": 1}, [(Code.WRONG_TYPE, "symbols")]),
        ([True], [(Code.WRONG_TYPE, "symbols.0")]),
    ],
)
def test_symbols_that_are_none(symbols: object, expected: list[tuple[str, str]]) -> None:
    assert codes(make_draft({"symbols": symbols})) == expected


def test_a_hundred_symbols_are_fine_however_often_they_are_named() -> None:
    assert len(request_of(make_draft({"symbols": [f"S{at % 100}" for at in range(300)]})).symbols) == 100


def test_a_number_is_no_symbol_and_the_remedy_says_to_quote_it() -> None:
    (problem,) = check(make_draft({"symbols": [5930]})).problems
    assert problem.value == 5930
    assert '"005930"' in problem.remedy


def test_of_many_wrong_symbols_ten_are_named_and_of_too_many_none() -> None:
    problems = check(make_draft({"symbols": [f"no symbol {at}" for at in range(90)]})).problems
    assert [problem.field for problem in problems] == [f"symbols.{at}" for at in range(10)] + ["symbols"]
    assert "80 more are wrong too" in problems[-1].remedy
    (problem,) = check(make_draft({"symbols": [[]] * 5000})).problems
    assert (problem.field, problem.value) == ("symbols", "5,000 symbols")


def test_forcing_symbols_needs_some() -> None:
    assert codes(make_draft({"symbols": []}, force_symbols=True)) == [(Code.INVALID_SYMBOLS, "symbols")]
    assert request_of(make_draft({"symbols": ["AAPL"]}, force_symbols=True)).symbols == ("AAPL",)


@pytest.mark.parametrize(
    ("time", "ds"),
    [
        ("2026-09-09T22:00:00Z", "2026-09-09"),
        ("2026-09-10T00:30:00+09:00", "2026-09-09"),
        ("2026-09-09t22:00:00.123z", "2026-09-09"),
        ("2026-09-09 20:00:00-05:00", "2026-09-10"),
    ],
)
def test_the_day_is_the_utc_date_of_the_time(time: str, ds: str) -> None:
    draft = make_draft({"trigger_time": time})
    request = request_of(draft)
    assert request.trigger_time == time
    assert date_of(draft, request) == ds


@pytest.mark.parametrize(
    "time",
    [
        "2026-09-09T22:00:00", "2026-09-09", "2026-13-09T22:00:00Z", "0001-01-01T00:00:00+01:00", "",
        f"2026-09-09T22:00:00.{'1' * 44}Z",
    ],
)  # fmt: skip
def test_times_without_an_offset_or_a_date_are_none(time: str) -> None:
    assert codes(make_draft({"trigger_time": time})) == [(Code.INVALID_TRIGGER_TIME, "trigger_time")]


def test_the_key_has_the_partitions_day_where_there_is_one() -> None:
    draft = make_draft({"domain": "macro"}, of="s3", ds="2026-08-01", correlation_id="bucket/key#1")
    assert key_of(draft, request_of(draft)) == "macro:prices:2026-08-01:bucket/key#1"
    assert codes(make_draft(ds="2026-8-1")) == [(Code.INVALID_DETAIL, "ds")]


@pytest.mark.parametrize("wrong", ["", "a\x00b", "x" * (MAX_CORRELATION_ID + 1), "\ud800"])
def test_correlation_ids_are_printable_and_not_too_long(wrong: str) -> None:
    assert codes(make_draft(correlation_id=wrong)) == [(Code.INVALID_CORRELATION_ID, "correlation_id")]
    assert request_of(make_draft(correlation_id="x" * MAX_CORRELATION_ID)).correlation_id


def test_what_has_another_type_is_structural() -> None:
    draft = make_draft({"urgent": 1}, correlation_id=5, dry_run="no", force_symbols=0, override_config=[1])
    assert codes(draft) == [
        (Code.WRONG_TYPE, field)
        for field in ("urgent", "correlation_id", "dry_run", "force_symbols", "override_config")
    ]


def test_overrides_change_what_they_name() -> None:
    draft = make_draft(override_config={"chunk_size": 100, "worker_timeout": 1})
    assert request_of(draft)
    config = TriggerConfig(options=RunOptions(sqs_send_batch_size=3))
    assert options_of(draft, config) == RunOptions(chunk_size=100, sqs_send_batch_size=3, worker_timeout=1)


@pytest.mark.parametrize(
    "overrides",
    [
        {"chunk_size": True},
        {"chunk_size": "5"},
        {"chunk_size": 5.0},
        {"sqs_send_batch_size": 11},
        {"worker_timeout": 43_201},
        {"quotas": {}},
        {"": 1},
    ],
)
def test_overrides_are_known_options_within_their_limits(overrides: dict[str, Any]) -> None:
    assert [code for code, _ in codes(make_draft(override_config=overrides))] == [Code.INVALID_OVERRIDE]


def test_only_sources_and_domains_that_are_allowed() -> None:
    config = TriggerConfig(
        data_sources=frozenset(("yahoo_finance", "transform.pipeline")), domains=frozenset(("market",))
    )
    assert request_of(make_draft({"data_source": "extract.pipeline"}), config).data_source == "extract.pipeline"
    problems = check(make_draft({"data_source": "other", "domain": "macro"}), config).problems
    assert [problem.code for problem in problems] == [Code.INVALID_DATA_SOURCE, Code.INVALID_DOMAIN]
    assert "transform.pipeline, yahoo_finance" in problems[0].remedy


def test_a_manual_calls_payload_is_what_was_asked_for() -> None:
    def payload(fields: dict[str, Any], **more: Any) -> object:
        draft = make_draft(fields, **more)
        return payload_of(draft, request_of(draft))

    asked = payload({"symbols": ["A", "B"]})
    assert asked == payload({"symbols": ["B", "A ", "B"], "trigger_time": "2026-09-09T22:00:00Z"})
    assert asked != payload({"symbols": ["A"]})
    assert asked != payload({"symbols": ["A", "B"], "period": "5y"})
    assert asked != payload({"symbols": ["A", "B"]}, override_config={"chunk_size": 1})
    assert payload({}) == payload({"symbols": []})
    assert payload({"symbols": ["A"]}, of="event") is None


words = st.one_of(json_values, st.sampled_from(["market", "prices", "AAPL"]), st.text(max_size=60))


@settings(max_examples=100)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(TriggerRequest.model_fields, words)),
    st.one_of(st.none(), words),
    words,
)
def test_whatever_the_fields_hold_there_is_a_request_or_a_problem(
    fields: dict[str, Any], correlation_id: Any, overrides: Any
) -> None:
    request, problems, _ = check(make_draft(fields, correlation_id=correlation_id, override_config=overrides))
    assert (request is None) == bool(problems)
    known = {*STRUCTURAL, *(code for code in Code if code.startswith("INVALID_"))}
    assert {problem.code for problem in problems} <= known
