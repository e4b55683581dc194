"""Every payload of `tests/triggers/payloads`, read: what each asks for, and under which correlation id."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events.provisioning.presets.ingestion_triggers_rules import schedule_input, scheduled_request
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.json_text import read_object
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.s3 import S3Object
from oms_events.triggers.start import Draft
from tests.triggers.strategies import ALL_PAYLOADS, payload

CONFIG = TriggerConfig()
RULE = "dev-customer-ingestion-schedule"
NEW_SYMBOLS = {"symbols": ["NVDA", "AMD"], "trigger_time": "2026-09-09T16:30:00Z"}
OBJECT = {"symbols": ["AAPL"]}
BUCKET = "market-data-raw"
FULL = {
    "data_source": "yahoo_finance", "data_type": "prices", "domain": "market", "table_name": "prices",
    "period": "1mo", "interval": "1d", "file_format": "json",
}  # fmt: skip
IDENTITY = "5b0b0e2e-7a5c-4a55-9f41-0d2a3c1e6f10@symbol.universe"
KEY = "market-data-raw/market/prices/ds=2026-09-09/symbol=AAPL/end%20of%20day.json#0055AED6DCD90281E5"

READ: dict[str, tuple[str, str, str | None, dict[str, Any]]] = {
    "scheduled_default": (
        "scheduled", "schedule", f"{RULE}:2026-09-09T22:00:00Z", {"trigger_time": "2026-09-09T22:00:00Z"},
    ),
    "scheduled_scheduler": (
        "scheduled", "schedule", "equities/nightly:2026-09-09T22:00:00Z", {"trigger_time": "2026-09-09T22:00:00Z"},
    ),
    "scheduled_transformed": (
        "scheduled", "schedule", f"{RULE}:2026-09-09T22:00:00Z",
        {**FULL, "symbols": ["AAPL", "MSFT", "GOOGL"], "trigger_time": "2026-09-09T22:00:00Z", "urgent": False},
    ),
    "processing_complete": (
        "event", "event", "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        {"domain": "market", "table_name": "prices", "symbols": ["AAPL", "MSFT"],
         "trigger_time": "2026-09-10T01:12:40Z"},
    ),
    "universe_updated": ("event", "event", "7bf73129-1428-4cd3-a780-95db273d1602", NEW_SYMBOLS),
    "market_close": (
        "event", "event", "89d1a02d-5ec7-412e-82f5-13505f849b41", {"trigger_time": "2026-09-09T20:00:05Z"},
    ),
    "adhoc_ingestion": (
        "event", "event", "a1b2c3d4-5678-4abc-9def-0123456789ab",
        {"symbols": ["AAPL"], "period": "5d", "interval": "1h", "urgent": True,
         "trigger_time": "2026-09-09T14:45:00Z"},
    ),
    "extraction_complete": (
        "event", "event", "0f9b3f0e-6a58-4d0e-9a57-3c6a1a8f7c11",
        {"symbols": ["BRK.B"], "trigger_time": "2026-09-10T01:12:40Z"},
    ),
    "s3_bucket_as_text": (
        "s3", "s3", f"{BUCKET}/domain=crypto/table=ticks/year=2026/month=9/day=9/BTC.json#0055AED6DCD90281E7",
        {"domain": "crypto", "table_name": "ticks", "trigger_time": "2026-09-09T18:00:00Z"},
    ),
    "sns_records": (
        "s3", "s3", f"{BUCKET}/symbol=AAPL/a.json#0055AED6DCD90281E8",
        {**OBJECT, "trigger_time": "2026-09-09T18:00:00.123Z"},
    ),
    "s3_object_created": ("s3", "s3", KEY, {**OBJECT, "trigger_time": "2026-09-09T18:00:00Z"}),
    "manual_short": ("manual", "manual", None, {"symbols": ["AAPL"], "period": "1d", "urgent": True}),
    "manual_full": (
        "manual", "manual", "ticket-4711",
        {**FULL, "period": "5d", "interval": "1h", "symbols": ["AAPL", "MSFT"], "urgent": True,
         "trigger_time": "2026-09-09T14:45:00+02:00"},
    ),
    "cloudevent": ("cloudevent", "event", IDENTITY, NEW_SYMBOLS),
    "eventbridge_wrapped": ("cloudevent", "event", IDENTITY, NEW_SYMBOLS),
    "eventbridge_plain": ("cloudevent", "event", IDENTITY, NEW_SYMBOLS),
}  # fmt: skip


def only(name: str) -> Draft:
    reading = read_starts(payload(name), config=CONFIG)
    assert reading.problems == []
    (draft,) = reading.drafts
    return draft


@pytest.mark.parametrize("name", READ)
def test_a_payload_is_recognized(name: str) -> None:
    kind, trigger_type, correlation_id, fields = READ[name]
    reading = read_starts(payload(name), config=CONFIG)
    draft = only(name)
    assert (reading.kind, reading.trigger_type, draft.trigger_type) == (kind, trigger_type, trigger_type)
    assert draft.correlation_id == correlation_id
    assert draft.fields == fields
    assert draft.unknown == ({"requested_by": "on-call"} if name == "manual_full" else {})


def test_all_payloads_are_looked_at() -> None:
    assert set(ALL_PAYLOADS) == {*READ, "s3_notification", "sqs_delayed", "sqs_plain"}


def test_a_notification_has_one_start_per_object() -> None:
    reading = read_starts(payload("s3_notification"), config=CONFIG)
    first, second = reading.drafts
    assert (reading.kind, reading.ignored) == ("s3", 0)
    assert first.correlation_id == KEY == only("s3_object_created").correlation_id
    assert second.detail == S3Object(
        bucket="market-data-raw",
        # What is `%252E` in the notification is `%2E` in the key, and a dot in the partition.
        key="market/prices/ds=2026-09-09/symbol=BRK%2EB/closing+1.json",
        size=10240,
        etag="fedcba9876543210fedcba9876543210",
        version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
        sequencer="0055AED6DCD90281E6",
        event_time="2026-09-09T18:00:00.123Z",
        partitions={"ds": "2026-09-09", "symbol": "BRK.B"},
    )
    assert (second.ds, second.fields["symbols"]) == ("2026-09-09", ["BRK.B"])
    assert second.raw == {"Records": [payload("s3_notification")["Records"][1]]}


def test_a_batch_has_a_reading_per_message() -> None:
    batch = read_starts(payload("sqs_delayed"), config=CONFIG)
    record = payload("sqs_delayed")["Records"][0]
    assert (batch.kind, batch.drafts, list(batch.messages)) == ("queue", (), [record["messageId"]])
    (draft,) = batch.messages[record["messageId"]].drafts
    first = only("universe_updated")
    assert (draft.fields, draft.correlation_id, draft.detail) == (first.fields, first.correlation_id, first.detail)
    assert draft.queued is not None
    assert (draft.queued.receipt_handle, draft.queued.receive_count) == (record["receiptHandle"], 1)
    assert draft.queued.group == "market:prices"


def test_a_batch_of_plain_messages_has_any_input() -> None:
    call, close = read_starts(payload("sqs_plain"), config=CONFIG).messages.values()
    (manual,), (event,) = call.drafts, close.drafts
    assert (manual.trigger_type, manual.correlation_id) == ("manual", "059f36b4-87a3-44ab-83d2-661975830a7d")
    assert (event.trigger_type, event.correlation_id) == ("event", "close-1")
    assert (call.is_wrapped, close.queued) == (True, event.queued)


def test_both_forms_of_a_scheduled_run_are_one_start() -> None:
    transformer = schedule_input(scheduled_request(RULE, symbols=("AAPL",)))
    envelope = payload("scheduled_default")
    # As EventBridge does it: a variable alone gets quotes, one in a text none.
    text = transformer.template.replace(":<time>,", f':"{envelope["time"]}",').replace("<time>", envelope["time"])
    transformed = read_object(text, limit=CONFIG.max_input_bytes)
    (run,) = read_starts(transformed, config=CONFIG).drafts
    assert run.correlation_id == only("scheduled_default").correlation_id
    assert run.fields["trigger_time"] == only("scheduled_default").fields["trigger_time"]
    assert run.fields["symbols"] == ["AAPL"]


def test_details_are_typed() -> None:
    assert only("processing_complete").ds == only("extraction_complete").ds == "2026-09-09"
    assert only("s3_bucket_as_text").ds == "2026-09-09"
    assert only("processing_complete").detail.reason == "two gaps were found"
    assert only("universe_updated").detail.removed_symbols == ("TWTR",)
    assert only("universe_updated").detail.effective_date.isoformat() == "2026-09-10"
    assert only("market_close").detail.market == "NYSE"
    assert only("adhoc_ingestion").detail.requested_by == "on-call"


def test_what_a_manual_call_says_about_its_run() -> None:
    draft = only("manual_full")
    assert (draft.dry_run, draft.force_symbols) == (False, True)
    assert draft.override_config == {"chunk_size": 10, "sqs_send_batch_size": 5, "worker_timeout": 600}
    assert (only("manual_short").dry_run, only("manual_short").force_symbols) == (False, False)


@pytest.mark.parametrize("name", ["cloudevent", "eventbridge_wrapped", "eventbridge_plain"])
def test_a_cloudevent_keeps_its_identity_and_its_flow(name: str) -> None:
    draft = only(name)
    assert (draft.flow_id, draft.cause_id) == ("flow-2026-09-09-1", payload("cloudevent")["id"])
    assert draft.event is not None
    assert draft.event.type == "symbol.universe.updated"
    assert draft.detail.added_symbols == ("NVDA", "AMD")
