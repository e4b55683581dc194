from __future__ import annotations

from typing import Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, field_validator, model_validator

from oms_events.errors import ConfigurationError
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS
from oms_events.triggers.reading.event_table import EventReaders, NothingToStart
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.start import Draft
from tests.triggers.strategies import payload

CONFIG = TriggerConfig()


def read(name: str, events: EventReaders = DEFAULT_EVENTS, **detail: Any) -> Reading:
    event = payload(name)
    return read_starts({**event, "detail": {**event["detail"], **detail}}, config=CONFIG, events=events)


def draft_of(name: str, **detail: Any) -> Draft:
    reading = read(name, **detail)
    assert not reading.problems
    (draft,) = reading.drafts
    return draft


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("processing_complete", {"trigger_reingestion": False}),
        ("processing_complete", {"trigger_reingestion": None}),
        ("universe_updated", {"immediate_ingestion": False}),
        # Without symbols everything would be loaded.
        ("universe_updated", {"added_symbols": []}),
        ("universe_updated", {"added_symbols": None}),
    ],
)
def test_an_event_may_ask_for_nothing(name: str, detail: dict[str, Any]) -> None:
    reading = read(name, **detail)
    assert (reading.kind, reading.ignored, reading.drafts, reading.problems) == ("event", 1, (), ())
    assert len(reading.reasons) == 1


def test_an_update_that_does_not_say_when_is_ingested_at_once() -> None:
    assert draft_of("universe_updated", immediate_ingestion=None).fields["symbols"] == ["NVDA", "AMD"]


@pytest.mark.parametrize("name", ["processing_complete", "universe_updated", "market_close", "adhoc_ingestion"])
def test_a_misspelt_key_of_a_detail_is_refused(name: str) -> None:
    (problem,) = read(name, Symbols=["TSLA"]).problems
    assert (problem.code, problem.field) == ("UNKNOWN_SHAPE", "detail.Symbols")
    assert "did you mean 'symbols'?" in problem.remedy
    assert draft_of(name, symbology="ric").unknown == {"symbology": "ric"}


def test_the_details_of_users_may_have_such_names() -> None:
    class Detail(BaseModel):
        symbols: list[str]

    events = EventReaders()
    events.register("market.events", "Market Close", Detail, lambda detail: {"symbols": detail.symbols})
    reading = read("market_close", events, symbols=["A"], symbol="B")
    assert not reading.problems


@pytest.mark.parametrize(
    ("partition", "ds", "symbols"),
    [
        ("ds=2026-09-09/symbol=NVDA", "2026-09-09", ["NVDA"]),
        ("2026-09-09", "2026-09-09", None),
        ("20260909", "2026-09-09", None),
        ({"date": "2026-09-09", "symbol": "BRK.B"}, "2026-09-09", ["BRK.B"]),
        ("year=2026/month=09/day=09", "2026-09-09", None),
        ({"ds": "2026-09-09", "hour": 3}, "2026-09-09", None),
        ("region=eu/symbol=NVDA", None, ["NVDA"]),
        (None, None, None),
        ("", None, None),
    ],
)
def test_a_partition_says_the_day_and_perhaps_symbols(partition: Any, ds: str | None, symbols: Any) -> None:
    draft = draft_of("processing_complete", partition=partition, symbols=[])
    assert (draft.ds, draft.fields.get("symbols")) == (ds, symbols)


@pytest.mark.parametrize(
    "partition",
    ["ds=2026-13-45", "2026-13-45", "2026/09/09", "2026-09-09T00:00:00Z", "dt=2026-09", "dt=2026-09/symbol=AAPL",
     "year=2026/month=09", "year=0/month=1/day=1", "AAPL", "17", {"day": 9}, {"hour": 3}],
)  # fmt: skip
def test_a_partition_that_is_not_understood_does_not_ingest_everything(partition: Any) -> None:
    (problem,) = read("processing_complete", partition=partition).problems
    assert (problem.code, problem.field, problem.value) == ("INVALID_DETAIL", "detail.partition", partition)
    assert read("processing_complete", partition=partition, trigger_reingestion=False).ignored == 1


def test_the_symbols_of_the_detail_come_first() -> None:
    draft = draft_of("processing_complete", partition="ds=2026-09-09/symbol=NVDA/table=other")
    assert (draft.fields["symbols"], draft.fields["table_name"]) == (["AAPL", "MSFT"], "prices")


def test_two_names_are_one_source() -> None:
    event = payload("processing_complete")
    other = read_starts({**event, "source": "extract.pipeline"}, config=CONFIG)
    assert other.drafts[0].fields == draft_of("processing_complete").fields
    events = EventReaders()
    events.register("extract.pipeline", "Processing Complete", Dividend, lambda detail: {})
    for source in ("extract.pipeline", "transform.pipeline"):
        assert events.find(source, "Processing Complete") is not None


def test_a_detail_may_have_any_field_and_others_are_kept() -> None:
    said = {"period": "5d", "correlation_id": "c" * 600, "trigger_time": "2026-09-08T20:00:00Z", "venue": {"a": 1}}
    draft = draft_of("market_close", **said)
    assert draft.fields == {"period": "5d", "trigger_time": "2026-09-08T20:00:00Z"}
    assert draft.unknown == {"venue": {"a": 1}}
    assert str(draft.correlation_id).startswith("sha256:")


def test_an_adhoc_ingestion_says_what_a_manual_call_says() -> None:
    draft = draft_of(
        "adhoc_ingestion", symbols=None, force_symbols=["NVDA"], dry_run=True, override_config={"a": 1}
    )
    assert (draft.fields["symbols"], draft.force_symbols, draft.dry_run) == (["NVDA"], True, True)
    assert draft.override_config == {"a": 1}


def test_all_wrong_types_are_named() -> None:
    reading = read(
        "universe_updated",
        added_symbols="NVDA",
        removed_symbols=["TWTR", 1],
        effective_date="soon",
        immediate_ingestion="true",
        urgent=1,
    )
    assert {(problem.code, problem.field) for problem in reading.problems} == {
        ("WRONG_TYPE", "detail.added_symbols"),
        ("WRONG_TYPE", "detail.removed_symbols.1"),
        ("INVALID_DETAIL", "detail.effective_date"),
        ("WRONG_TYPE", "detail.immediate_ingestion"),
        ("WRONG_TYPE", "detail.urgent"),
    }
    (date,) = (problem for problem in reading.problems if problem.field == "detail.effective_date")
    assert (date.value, date.remedy) == ("soon", "give a date such as 2026-09-09")
    assert not reading.drafts


@pytest.mark.parametrize(
    "date",
    [20260909, "20260909", "2026-W37-3", "2026-9-9", "2026-09-09T00:00:00Z", "1788971402", "2026-02-30", []],
)
def test_a_date_is_a_date_and_nothing_else(date: Any) -> None:
    (problem,) = read("market_close", date=date).problems
    assert (problem.field, problem.remedy) == ("detail.date", "give a date such as 2026-09-09")


def test_an_unknown_event_is_told_those_that_are_known() -> None:
    for change in ({"source": "order.service"}, {"detail-type": "Processing Started"}):
        reading = read_starts({**payload("processing_complete"), **change}, config=CONFIG)
        (problem,) = reading.problems
        assert (problem.code, problem.field) == ("UNKNOWN_EVENT", "detail-type")
        assert "symbol.universe: Universe Updated" in problem.remedy


def test_an_envelope_of_wrong_types_is_a_problem() -> None:
    event = {**payload("market_close"), "id": 1, "detail": "{}", "resources": "arn", "time": 5}
    found = {problem.field: problem.code for problem in read_starts(event, config=CONFIG).problems}
    assert found == {"id": "WRONG_TYPE", "detail": "WRONG_TYPE", "resources": "WRONG_TYPE", "time": "WRONG_TYPE"}


def test_an_event_written_by_hand_needs_no_envelope() -> None:
    event = {"source": "market.events", "detail-type": "Market Close"}
    (draft,) = read_starts(event, config=CONFIG).drafts
    assert (draft.correlation_id, draft.fields) == (None, {})


class Dividend(BaseModel):
    model_config = ConfigDict(extra="allow")

    ticker: str
    cents: int = 0

    @field_validator("ticker")
    @classmethod
    def _check(cls, ticker: str) -> str:
        if ticker == "boom":
            raise RuntimeError("a validator of the user's")
        if not ticker.isupper():
            raise ValueError("tickers are capitals")
        return ticker


def own_events(to_fields: Any = None) -> EventReaders:
    events = EventReaders(DEFAULT_EVENTS)
    events.register(
        "corporate.actions",
        "Dividend Declared",
        Dividend,
        to_fields or (lambda detail: {"symbols": [detail.ticker], "table_name": "dividends", "ds": "2026-09-09"}),
    )
    return events


def declared(events: EventReaders, **detail: Any) -> Reading:
    event = {"source": "corporate.actions", "detail-type": "Dividend Declared", "id": "1", "detail": detail}
    return read_starts(event, config=CONFIG, events=events)


def test_users_have_events_of_their_own() -> None:
    (draft,) = declared(own_events(), ticker="AAPL", cents=24, payable="soon").drafts
    assert draft.fields == {"symbols": ["AAPL"], "table_name": "dividends"}
    assert (draft.detail.cents, draft.unknown, draft.ds) == (24, {"payable": "soon"}, "2026-09-09")
    assert read("universe_updated", own_events()).drafts
    (unknown,) = declared(DEFAULT_EVENTS, ticker="AAPL").problems
    assert unknown.code == "UNKNOWN_EVENT"


def test_their_models_and_functions_may_refuse_one() -> None:
    def codes(events: EventReaders, **detail: Any) -> list[tuple[str, str | None, str]]:
        return [(problem.code, problem.field, problem.remedy) for problem in declared(events, **detail).problems]

    assert codes(own_events()) == [("INVALID_DETAIL", "detail.ticker", "it is missing; give it")]
    assert codes(own_events(), ticker="aapl") == [("INVALID_DETAIL", "detail.ticker", "tickers are capitals")]
    assert codes(own_events(), ticker=5)[0][:2] == ("WRONG_TYPE", "detail.ticker")
    refused = codes(own_events(lambda detail: {"period": int("soon")}), ticker="AAPL")
    assert refused[0][:2] == ("INVALID_DETAIL", "detail")
    assert "invalid literal" in refused[0][2]
    again = codes(own_events(lambda detail: Dividend(ticker="aapl").model_dump()), ticker="AAPL")
    assert again == [("INVALID_DETAIL", "detail.ticker", "tickers are capitals")]
    nothing = declared(own_events(lambda detail: NothingToStart("not ours")), ticker="AAPL")
    assert (nothing.ignored, nothing.reasons) == (1, ("not ours",))


@pytest.mark.parametrize(
    ("to_fields", "ticker", "error"),
    [
        (None, "boom", RuntimeError),
        (lambda detail: 1 // 0, "AAPL", ZeroDivisionError),
        (lambda detail: {"symbols": detail.missing}, "AAPL", AttributeError),
        (lambda detail: 5, "AAPL", TypeError),
    ],
)
def test_what_fails_in_them_is_no_fault_of_the_event(to_fields: Any, ticker: str, error: type[Exception]) -> None:
    reading = declared(own_events(to_fields), ticker=ticker)
    (problem,) = reading.problems
    assert (problem.code, problem.field, type(reading.error)) == ("FAILED", "detail", error)
    # Its text may hold secrets.
    assert "failed with" in problem.remedy
    assert str(reading.error) not in problem.remedy
    assert reading.correlation_id == "1"


class Flat(BaseModel):
    names: list[str]

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: dict[str, Any]) -> dict[str, Any]:
        value["names"] = value["of"].pop("tickers")
        return value


def test_what_came_in_is_kept_as_it_came_whatever_a_validator_does() -> None:
    events = EventReaders()
    events.register("acme", "Flat", Flat, lambda detail: {"symbols": detail.names})
    data = {"of": {"tickers": ["AAPL"]}}
    cloudevent = {"specversion": "1.0", "id": "1", "source": "acme", "type": "flat", "data": data}
    for document in (cloudevent, {"source": "acme", "detail-type": "Flat", "detail": data}):
        (draft,) = read_starts(document, config=CONFIG, events=events).drafts
        assert draft.raw == document
        assert read_starts(draft.raw, config=CONFIG, events=events).drafts[0].fields == {"symbols": ["AAPL"]}


class Aliased(BaseModel):
    symbols: list[str] = Field(validation_alias=AliasChoices("tickers", "names", AliasPath("more", "names")))


@pytest.mark.parametrize("detail", [{"tickers": ["A"]}, {"names": ["A"]}, {"more": {"names": ["A"]}}])
def test_any_alias_of_a_field_is_known(detail: dict[str, Any]) -> None:
    events = EventReaders()
    events.register("acme", "Aliased", Aliased, lambda detail: {"symbols": detail.symbols})
    event = {"source": "acme", "detail-type": "Aliased", "detail": {**detail, "x": 1}}
    (draft,) = read_starts(event, config=CONFIG, events=events).drafts
    assert (draft.fields, draft.unknown) == ({"symbols": ["A"]}, {"x": 1})


def test_the_shared_table_takes_no_more() -> None:
    with pytest.raises(ConfigurationError, match="shared"):
        DEFAULT_EVENTS.register("corporate.actions", "Dividend Declared", Dividend, lambda detail: {})
    for source, detail_type in ((" ", "Dividend"), ("corporate.actions", " ")):
        with pytest.raises(ConfigurationError, match="some text"):
            EventReaders().register(source, detail_type, Dividend, lambda detail: {})
