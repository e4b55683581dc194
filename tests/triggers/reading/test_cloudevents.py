from __future__ import annotations

import json
from typing import Any

import pytest

from oms_events import EventBridgeConfig, build_event
from oms_events.events import encode
from oms_events.publishers.eventbridge.mapping import EventMapper
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS, IngestionDetail
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.reading.recognition import read_starts
from tests.triggers.strategies import payload

CONFIG = TriggerConfig()
DATA = {"added_symbols": ["NVDA"], "domain": "equities"}


def event(**changes: Any) -> dict[str, Any]:
    return {**payload("cloudevent"), **changes}


@pytest.mark.parametrize(
    ("event_type", "source", "known"),
    [
        ("symbol.universe.updated", "/services/universe", True),
        ("symbol.universe.universe.updated", "x", True),
        ("SymbolUniverseUpdated", "x", True),
        ("universe.updated", "symbol.universe", True),
        ("com.acme.UniverseUpdated", "/symbol/universe", True),
        ("com.acme.universe_updated", "Symbol:Universe", True),
        ("Universe Updated", "symbol.universe", True),
        # What only ends like one that is known is somebody else's.
        ("universe.updated", "x", False),
        ("com.acme.UniverseUpdated", "x", False),
        ("com.acme.symbol.universe.updated", "x", False),
        ("symbol.updated", "x", False),
        ("symbol.universe.x.updated", "x", False),
        ("symbol.universe.x.universe.updated", "x", False),
        ("updated", "symbol.universe", False),
        ("com.acme.universe.updated.v2", "x", False),
        ("universe", "symbol.universe", False),
        ("multiverse.updated", "symbol.universe", False),
    ],
)
def test_a_type_fits_by_all_its_words_or_by_the_last_ones_and_the_source(
    event_type: str, source: str, known: bool
) -> None:
    reading = read_starts(event(type=event_type, source=source), config=CONFIG)
    assert [draft.fields["symbols"] for draft in reading.drafts] == ([["NVDA", "AMD"]] if known else [])
    assert [problem.code for problem in reading.problems] == ([] if known else ["UNKNOWN_EVENT"])


def test_of_several_sources_the_event_says_which() -> None:
    events = EventReaders(DEFAULT_EVENTS)
    row = events.find("symbol.universe", "Universe Updated")
    assert row is not None
    events.register("fund.universe", "Universe Updated", row.model, lambda detail: {"table_name": "funds"})

    def table(**changes: Any) -> list[Any]:
        reading = read_starts(event(**changes), config=CONFIG, events=events)
        return [draft.fields.get("table_name") for draft in reading.drafts] or [reading.problems[0].code]

    assert table(type="fund.universe.updated") == ["funds"]
    assert table(type="symbol.universe.updated") == [None]
    assert table(type="universe.updated", source="/fund/universe") == ["funds"]
    assert table(type="universe.updated", source="x") == ["UNKNOWN_EVENT"]
    assert table(type="Universe Updated", source="fund.universe") == ["funds"]
    # A row with fewer words takes nothing from one with more.
    events.register("symbol.universe", "Updated", row.model, lambda detail: {"table_name": "all"})
    assert table(type="symbol.universe.updated") == [None]
    assert table(type="index.updated", source="symbol.universe") == ["all"]


@pytest.mark.parametrize(
    ("detail_type", "event_type"),
    [
        ("EOD Ready", "com.acme.EODReady"),
        ("EOD Ready", "eod_ready"),
        ("EOD2 Ready", "EOD2Ready"),
        ("Daily OHLC", "daily.OHLC"),
        ("価格更新", "com.acme.価格更新"),
    ],
)
def test_words_end_where_they_are_seen_to(detail_type: str, event_type: str) -> None:
    events = EventReaders()
    events.register("acme.kr", detail_type, IngestionDetail, lambda detail: {})
    of = {"type": event_type, "source": "acme.kr", "data": {}}
    assert read_starts(event(**of), config=CONFIG, events=events).drafts
    assert read_starts(event(**of | {"type": "x.ready"}), config=CONFIG, events=events).problems


def test_a_misspelt_key_of_the_data_is_refused() -> None:
    asked = {"domain": "market", "table_name": "prices", "dryrun": True}
    reading = read_starts(event(type="com.acme.any", source="acme", data=asked), config=CONFIG)
    assert [(problem.code, problem.field) for problem in reading.problems] == [("UNKNOWN_SHAPE", "data.dryrun")]


def test_a_detail_type_needs_no_words() -> None:
    events = EventReaders()
    events.register("acme", "!?", IngestionDetail, lambda detail: {})
    assert read_starts({"source": "acme", "detail-type": "!?"}, config=CONFIG, events=events).drafts
    assert read_starts(event(type="...", source="acme"), config=CONFIG, events=events).problems
    renamed = event(type="extract.pipeline.processing.complete", data={"trigger_reingestion": True})
    assert read_starts(renamed, config=CONFIG).drafts


@pytest.mark.parametrize("mapping", ["wrapped", "plain"])
def test_what_this_library_puts_on_eventbridge_is_the_same_start(mapping: Any) -> None:
    sent = build_event("symbol.universe.updated", "/universe/us", DATA, id="a b@c", correlationid="flow")
    config = EventBridgeConfig(event_bus_name="bus", mapping=mapping)
    entry = EventMapper(config).entry(encode(sent), 0).document
    delivered = {
        "version": "0", "id": "delivery", "source": entry["Source"], "detail-type": entry["DetailType"],
        "time": "2026-09-09T16:30:00Z", "resources": [], "detail": json.loads(entry["Detail"]),
    }  # fmt: skip
    (bridged,) = read_starts(delivered, config=CONFIG).drafts
    (direct,) = read_starts(sent, config=CONFIG).drafts
    assert bridged.correlation_id == direct.correlation_id == encode(sent).identity == "a%20b%40c@/universe/us"
    assert bridged.fields == direct.fields
    assert bridged.fields["domain"] == "equities"
    assert bridged.flow_id == direct.flow_id == "flow"
    assert bridged.cause_id == "a b@c"


def test_the_envelope_says_what_a_configured_mapping_made_of_it() -> None:
    sent = build_event("com.acme.symbols.changed", "symbol.universe", DATA)
    config = EventBridgeConfig(
        event_bus_name="bus", mapping="plain", detail_types={"com.acme.symbols.changed": "Universe Updated"}
    )
    entry = EventMapper(config).entry(encode(sent), 0).document
    detail = json.loads(entry["Detail"])
    delivered = {"source": entry["Source"], "detail-type": entry["DetailType"], "detail": detail}
    (draft,) = read_starts(delivered, config=CONFIG).drafts
    assert (draft.fields["symbols"], draft.cause_id) == (["NVDA"], encode(sent).id)


def test_two_events_of_one_flow_are_two_starts() -> None:
    first, second = (read_starts(event(id=name), config=CONFIG).drafts[0] for name in ("1", "2"))
    assert first.flow_id == second.flow_id
    assert first.correlation_id != second.correlation_id


def test_the_datas_own_correlation_id_comes_first() -> None:
    (draft,) = read_starts(event(data={**DATA, "correlation_id": "mine"}), config=CONFIG).drafts
    assert draft.correlation_id == "mine"


def test_data_may_be_a_request_itself() -> None:
    request = payload("scheduled_transformed")
    del request["correlation_id"]
    (draft,) = read_starts(event(type="com.acme.ingest", data=request), config=CONFIG).drafts
    # Whoever sent it, it came as an event, and shares their quota.
    assert draft.trigger_type == "event"
    assert draft.fields["symbols"] == ["AAPL", "MSFT", "GOOGL"]
    assert draft.correlation_id == "5b0b0e2e-7a5c-4a55-9f41-0d2a3c1e6f10@symbol.universe"
    (unknown,) = read_starts(event(type="order.created", data={"symbols": ["AAPL"]}), config=CONFIG).problems
    assert (unknown.code, unknown.field) == ("UNKNOWN_EVENT", "type")


@pytest.mark.parametrize("data", [None, {}, "{}", b"{}"])
def test_an_event_of_the_sdk_may_have_no_data_or_its_text(data: Any) -> None:
    sent = build_event("market.close", "market.events", data, id="1", datacontenttype="application/json")
    (draft,) = read_starts(sent, config=CONFIG).drafts
    assert (draft.trigger_type, draft.correlation_id) == ("event", "1@market.events")
    assert read_starts(encode(sent), config=CONFIG).drafts[0].correlation_id == "1@market.events"


@pytest.mark.parametrize("data", ["AAPL", ["AAPL"], 5, "[]", "{"])
def test_other_data_is_a_problem(data: Any) -> None:
    reading = read_starts(event(data=data), config=CONFIG)
    assert reading.problems[0].code in ("WRONG_TYPE", "NOT_AN_OBJECT", "NOT_JSON")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": None}, "id"),
        ({"source": 5}, "source"),
        ({"time": "yesterday"}, "time"),
        ({"type": []}, "type"),
        ({"data": None, "data_base64": "?"}, "data"),
    ],
)
def test_what_is_no_cloudevent_is_a_problem(change: dict[str, Any], field: str) -> None:
    (problem,) = read_starts(event(**change), config=CONFIG).problems
    assert (problem.code, problem.field) == ("WRONG_TYPE", field)


def test_a_detail_with_a_key_of_that_name_need_not_be_one() -> None:
    plain = payload("market_close")
    (draft,) = read_starts({**plain, "detail": {"cloudEvents": "no"}}, config=CONFIG).drafts
    assert (draft.unknown, draft.event) == ({"cloudEvents": "no"}, None)


def test_a_flow_id_can_be_written_to_a_log() -> None:
    (draft,) = read_starts(event(correlationid="a\nb"), config=CONFIG).drafts
    assert draft.flow_id == "a%0Ab"
    (long,) = read_starts(event(correlationid="f" * 1000, id="i" * 1000), config=CONFIG).drafts
    assert {str(long.flow_id)[:7], str(long.cause_id)[:7], str(long.correlation_id)[:7]} == {"sha256:"}
    assert len(str(long.flow_id)) < 100
