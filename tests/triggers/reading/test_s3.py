from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings

from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.results import Reading
from tests.triggers.strategies import keys, payload

CONFIG = TriggerConfig()


def record(key: str, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = payload("s3_notification")["Records"][0]
    made["s3"]["object"] = {"key": key, "size": 1, "sequencer": "0A"}
    return {**made, **changes}


def notified(*records: dict[str, Any], config: TriggerConfig = CONFIG) -> Reading:
    return read_starts({"Records": list(records)}, config=config)


def created(key: str, **detail: Any) -> Reading:
    event = payload("s3_object_created")
    event["detail"] = {**event["detail"], "object": {"key": key, "sequencer": "0A"}, **detail}
    return read_starts(event, config=CONFIG)


@settings(max_examples=50)
@given(keys)
def test_a_key_is_the_same_from_a_notification_and_from_eventbridge(key: str) -> None:
    (notification,), (event,) = notified(record(quote_plus(key))).drafts, created(key).drafts
    assert notification.detail.key == event.detail.key == key
    assert notification.correlation_id == event.correlation_id
    assert (notification.ds, notification.detail.partitions) == (event.ds, event.detail.partitions)


def test_only_notifications_have_encoded_keys() -> None:
    assert notified(record("a%2Fb+c%2B%25")).drafts[0].detail.key == "a/b c+%"
    assert created("a%2Fb+c%2B").drafts[0].detail.key == "a%2Fb+c%2B"


PLACES: dict[str, dict[str, Any]] = {
    # Nobody knows what plain folders are.
    "market/prices/a.json": {},
    "market/prices/ds=2026-09-09/symbol=AAPL/a.json": {"symbols": ["AAPL"], "ds": "2026-09-09"},
    "domain=crypto/table=ticks/dt=20260909/a.json": {
        "domain": "crypto", "table_name": "ticks", "ds": "2026-09-09",
    },
    "market/prices/domain=crypto/a.json": {"domain": "crypto"},
    "table_name=ticks/table=other/date=2026-09-09/ds=2026-09-08/a": {"table_name": "ticks", "ds": "2026-09-08"},
    "year=2026/month=9/day=09/hour=3/a.json": {"ds": "2026-09-09"},
    "year=2026/month=9/a.json": {},
    "year=2026/month=13/day=1/a.json": {},
    "symbol=%5EGSPC/symbol=AAPL/a.json": {"symbols": ["^GSPC"]},
    "symbol=__HIVE_DEFAULT_PARTITION__/ds=2026-13-01/date=soon/a.json": {},
    "ds=2026-09-09/market/prices/a.json": {"ds": "2026-09-09"},
    "market/prices": {},
    "symbol=AAPL": {},
    "=x/symbol=/a.json": {},
}  # fmt: skip


@pytest.mark.parametrize("key", PLACES)
def test_what_a_key_says(key: str) -> None:
    (draft,) = created(key).drafts
    fields = {name: value for name, value in draft.fields.items() if name != "trigger_time"}
    assert fields | ({} if draft.ds is None else {"ds": draft.ds}) == PLACES[key]


def test_filters_and_other_events_start_nothing() -> None:
    config = TriggerConfig(object_prefix="market/prices/", object_suffix=".json")
    reading = notified(
        record("market/prices/a.json"),
        record("market/prices/a.csv"),
        record("market/other/a.json"),
        record("market%2Fprices%2Fb.json"),
        record("market/prices/c.json", eventName="ObjectRemoved:Delete"),
        record("market/prices/d.json", eventName="ObjectCreated:Copy"),
        config=config,
    )
    assert [draft.detail.key.rpartition("/")[2] for draft in reading.drafts] == ["a.json", "b.json", "d.json"]
    assert (reading.ignored, len(reading.reasons), reading.problems) == (3, 2, ())


@pytest.mark.parametrize(
    "document",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-09-09T18:00:00Z", "Bucket": "b"},
        {**payload("s3_object_created"), "detail-type": "Object Deleted"},
        {"Records": []},
    ],
)
def test_what_is_no_object_starts_nothing(document: dict[str, Any]) -> None:
    reading = read_starts(document, config=CONFIG)
    assert (reading.kind, list(reading.drafts), list(reading.problems)) == ("s3", [], [])


@pytest.mark.parametrize("bucket", ["raw", {"name": "raw", "arn": "arn:aws:s3:::raw"}])
def test_a_bucket_is_text_or_an_object(bucket: Any) -> None:
    of_record = record("a.json")
    of_record["s3"]["bucket"] = bucket
    for reading in (notified(of_record), created("a.json", bucket=bucket)):
        assert [draft.detail.bucket for draft in reading.drafts] == ["raw"]


@pytest.mark.parametrize("bucket", [1, None, [], {}, {"name": 1}])
def test_another_bucket_is_a_problem(bucket: Any) -> None:
    of_record = record("a.json")
    of_record["s3"]["bucket"] = bucket
    for reading, field in (
        (notified(of_record), "Records.0.s3.bucket"),
        (created("a.json", bucket=bucket), "detail.bucket"),
    ):
        assert [(problem.code, problem.field) for problem in reading.problems] == [("WRONG_TYPE", field)]


def test_all_that_is_wrong_with_records_is_named() -> None:
    broken = record("a", s3={"bucket": "raw", "object": {"size": "1"}}, eventName=5)
    reading = notified(record("%FF"), broken)
    assert [(problem.code, problem.field) for part in reading.parts for problem in part.problems] == [
        ("WRONG_TYPE", "Records.0.s3.object.key"),
        ("WRONG_TYPE", "Records.1.eventName"),
        ("WRONG_TYPE", "Records.1.s3.object.key"),
        ("WRONG_TYPE", "Records.1.s3.object.size"),
    ]


def test_a_broken_record_leaves_the_others_alone() -> None:
    broken, gone = record("b%2Fc"), record("d", eventName="ObjectRemoved:Delete")
    broken["s3"]["object"]["size"] = "2"
    reading = notified(record("a"), broken, gone)
    good, bad, ignored = reading.parts
    assert (reading.drafts, reading.problems) == ((), ())
    assert [draft.correlation_id for draft in good.drafts] == ["market-data-raw/a#0A"]
    assert (len(bad.problems), bad.correlation_id) == (1, "market-data-raw/b/c#0A")
    assert ignored.ignored == 1
    (alone,) = notified(broken).problems
    assert alone.field == "Records.0.s3.object.size"


def test_folders_are_ignored_and_there_are_only_so_many_records() -> None:
    folder = record("market/prices/")
    folder["s3"]["object"]["size"] = 0
    assert notified(folder).reasons == ("a folder, and no object",)
    assert created("market/").ignored == 1
    assert len(created("market/", object={"key": "a/", "size": 5}).drafts) == 1
    assert [problem.code for problem in notified(*[record("a")] * 1_001).problems] == ["TOO_LARGE"]


def test_an_id_tells_what_was_written_when() -> None:
    def of(key: str, **found: Any) -> str | None:
        one = record(key, eventTime=found.pop("time", None))
        one["s3"]["object"] = {"key": key, **found}
        return notified(one).drafts[0].correlation_id

    assert of("a", sequencer="0A", time="2026-09-09T18:00:00Z") == "market-data-raw/a#0A"
    assert of("a", time="2026-09-09T18:00:00Z") == "market-data-raw/a#2026-09-09T18:00:00Z"
    assert of("a", versionId="v1", eTag="e") == "market-data-raw/a#v1"
    assert of("a") is None
    # What is encoded stays unambiguous: these are two keys.
    assert of("a%0Ab", sequencer="0A") == "market-data-raw/a%0Ab#0A"
    assert of("a%250Ab", sequencer="0A") == "market-data-raw/a%250Ab#0A"
    long = of("k" * 1000, sequencer="0A")
    assert long is not None
    assert long.startswith("sha256:")
    assert long == of("k" * 1000, sequencer="0A") != of("k" * 1000, sequencer="0B")
