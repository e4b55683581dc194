"""Lines in the embedded metric format, checked against the specification in the CloudWatch guide."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events.errors import ConfigurationError
from oms_events.instrumentation import (
    ApiRequested,
    ChunksSent,
    CloudWatchHook,
    Detail,
    QuotaUsedUp,
    Relayed,
    TriggerBreakerChanged,
    Triggered,
    correlated,
)
from oms_events.provisioning import read_source
from oms_events.provisioning.presets.ingestion_triggers import IngestionTriggersPreset
from oms_events.provisioning.specs.dashboard_body import read_body
from oms_events.provisioning.synthesis import synthesize

ALARM = Path(__file__).parents[2] / "examples" / "triggers" / "breaker_alarm.toml"
NOW = 1_790_000_000.1234
STARTED = Triggered("event", "market", "success", [], 1.25, "evt-1")
RATES = ("Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits", "Kilobits", "Megabits", "Gigabits")
UNITS = {"Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "None", *RATES, "Terabits"} | {
    f"{unit}/Second" for unit in (*RATES, "Terabits", "Count")
}
KILOBYTE = 1024


def lines(*details: Detail, **options: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    hook = CloudWatchHook(stream, now=lambda: NOW, **options)
    for detail in details:
        hook(detail)
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def check(document: Mapping[str, Any]) -> None:
    """The specification and its schema: CloudWatch drops the metrics of a document that breaks it."""
    assert set(document["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert type(document["_aws"]["Timestamp"]) is int
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
    assert 1 <= len(directive["Namespace"]) <= 255
    assert isinstance(directive["Dimensions"], list)
    assert len(directive["Dimensions"]) >= 1
    for dimensions in directive["Dimensions"]:
        assert isinstance(dimensions, list)
        assert len(dimensions) <= 30
        for name in dimensions:
            check_dimension(name, 255)
            assert not name.startswith(":")
            check_dimension(document[name], 1024)
    assert 1 <= len(directive["Metrics"]) <= 100
    for metric in directive["Metrics"]:
        assert set(metric) <= {"Name", "Unit", "StorageResolution"}
        assert 1 <= len(metric["Name"]) <= 255
        assert metric["Unit"] in UNITS
        value = document[metric["Name"]]
        assert type(value) in (int, float)
        assert isfinite(value)
        assert abs(value) <= 2.0**360
    # The least of the limits of a log event.
    assert len(json.dumps(document)) < 256 * KILOBYTE


def check_dimension(text: Any, longest: int) -> None:
    assert isinstance(text, str)
    assert 1 <= len(text) <= longest
    assert text.isascii()
    assert text.isprintable()
    assert text.strip()


def metrics(document: Mapping[str, Any]) -> dict[tuple[str, str, tuple[str, ...]], float]:
    """What CloudWatch makes of a line: name, unit and dimensions to the value."""
    return {
        (metric["Name"], metric["Unit"], tuple(f"{name}={document[name]}" for name in dimensions)): document[
            metric["Name"]
        ]
        for directive in document["_aws"]["CloudWatchMetrics"]
        for dimensions in directive["Dimensions"]
        for metric in directive["Metrics"]
    }


def test_a_start_is_one_line_with_its_execution_and_duration() -> None:
    (document,) = lines(STARTED)
    assert document == {
        "_aws": {
            "Timestamp": 1_790_000_000_123,
            "CloudWatchMetrics": [
                {
                    "Namespace": "Extract/Triggers",
                    "Dimensions": [["TriggerType", "Domain", "Status"]],
                    "Metrics": [
                        {"Name": "TriggerExecution", "Unit": "Count"},
                        {"Name": "TriggerDuration", "Unit": "Milliseconds"},
                    ],
                }
            ],
        },
        "TriggerType": "event",
        "Domain": "market",
        "Status": "success",
        "TriggerExecution": 1,
        "TriggerDuration": 1250,
        "correlation_id": "evt-1",
    }


def test_each_code_of_a_start_has_a_line_that_counts_it() -> None:
    codes = ["INVALID_DOMAIN", "INVALID_SYMBOLS", "INVALID_DOMAIN"]
    _, *rejections = lines(Triggered("manual", "unknown", "rejected", codes, 0.1, "run-7"))
    assert [metrics(line) for line in rejections] == [
        {("TriggerRejection", "Count", ("Code=INVALID_DOMAIN",)): 2},
        {("TriggerRejection", "Count", ("Code=INVALID_SYMBOLS",)): 1},
    ]
    assert {line["correlation_id"] for line in rejections} == {"run-7"}


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        (
            QuotaUsedUp("manual", 30.5),
            {("QuotaUsedUp", "Count", ("Quota=manual",)): 1, ("RetryAfter", "Seconds", ("Quota=manual",)): 30.5},
        ),
        (
            TriggerBreakerChanged("market", "prices", "closed", "open", "5 failures"),
            {("BreakerChange", "Count", ("Domain=market", "TableName=prices", "State=open")): 1},
        ),
        (
            ApiRequested("yahoo", 5, 1.5),
            {("ApiRequests", "Count", ("Api=yahoo",)): 5, ("ApiWaited", "Seconds", ("Api=yahoo",)): 1.5},
        ),
        (ChunksSent(3, 1), {("ChunksSent", "Count", ()): 3, ("ChunksFailed", "Count", ()): 1}),
    ],
)
def test_guards_and_chunks_are_one_line_each_with_the_id_of_their_start(
    detail: Detail, expected: dict[Any, float]
) -> None:
    with correlated("evt-1"):
        (document,) = lines(detail)
    check(document)
    assert metrics(document) == expected
    assert document["correlation_id"] == "evt-1"
    assert "correlation_id" not in lines(detail)[0]


def test_other_details_make_no_line() -> None:
    assert lines(Relayed(1, [0.1])) == []


def test_a_value_that_is_no_number_costs_only_itself() -> None:
    for value in (nan, inf, 1e300):
        (document,) = lines(QuotaUsedUp("manual", value))
        assert metrics(document) == {("QuotaUsedUp", "Count", ("Quota=manual",)): 1}


TEXTS = st.text(max_size=40) | st.sampled_from(["x" * 2000, "\ud800", " \n", '"}\n{"_aws":', "Ü"])
SECONDS = st.floats() | st.integers(0, 10)
DETAILS = (
    st.builds(Triggered, TEXTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=3), SECONDS, st.none() | TEXTS)
    | st.builds(QuotaUsedUp, TEXTS, SECONDS)
    | st.builds(TriggerBreakerChanged, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS)
    | st.builds(ApiRequested, TEXTS, st.integers(0, 10), SECONDS)
    | st.builds(ChunksSent, st.integers(0, 10), st.integers(0, 10))
)


@given(DETAILS)
@settings(max_examples=100)
def test_every_line_keeps_to_the_specification_whatever_it_tells_of(detail: Detail) -> None:
    found = lines(detail)
    codes = len(set(detail.codes)) if isinstance(detail, Triggered) else 0
    assert len(found) == 1 + codes
    for document in found:
        check(document)


def test_dimensions_have_no_values_without_end() -> None:
    found = lines(*(Triggered("manual", f"domain{number}", "success", [], 0.1) for number in range(300)))
    assert len({document["Domain"] for document in found}) == 101
    assert found[-1]["Domain"] == "other"
    made_up = [Triggered("manual", f"x{number}", "limited", ["RATE_LIMITED"], 0.1) for number in range(300)]
    unknown = Triggered("manual", "unknown", "rejected", [], 0.1)
    found = lines(*made_up, unknown, STARTED, Triggered("event", "market", "limited", [], 0.1))
    assert [document["Domain"] for document in found if "Domain" in document][-4:] == [
        "other", "unknown", "market", "market",
    ]  # fmt: skip
    assert lines(*(QuotaUsedUp(f"quota{number}", 1) for number in range(101)))[-1]["Quota"] == "other"


@pytest.mark.parametrize("namespace", ["", " ", "AWS/Triggers", ":a", "a&b", "ü", "x" * 256])
def test_a_namespace_that_cloudwatch_refuses_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="namespace = "):
        CloudWatchHook(namespace=namespace)


def test_another_namespace_is_told() -> None:
    (document,) = lines(STARTED, namespace="Shop/Triggers 1")
    assert document["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Shop/Triggers 1"


# ---------------------------------------------------------------------- the preset's dashboard


def searches() -> Iterator[str]:
    """What the dashboard of `ingestion-triggers` looks for."""
    made = synthesize(IngestionTriggersPreset().stack())
    (dashboard,) = (
        entry["Properties"] for entry in made.resources.values() if entry["Type"] == "AWS::CloudWatch::Dashboard"
    )
    yield from re.findall(r"SEARCH\('(.+?)', 'Sum'", json.dumps(read_body(dashboard["DashboardBody"])))


def finds(search: str, document: Mapping[str, Any]) -> set[str]:
    """The line's metrics that a search finds; the dimensions must be just those of a schema in braces."""
    search = search.replace('\\"', '"')
    schema = re.match(r"\{([^}]+)\}", search)
    terms = dict(re.findall(r'(?<!NOT )(\w+)="([^"]+)"', search))
    excluded = dict(re.findall(r"NOT (\w+)=(\w+)", search))
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    if schema is not None:
        namespace, *dimensions = schema[1].split(",")
        if namespace != directive["Namespace"] or [set(dimensions)] != [
            set(one) for one in directive["Dimensions"]
        ]:
            return set()
    if terms.get("Namespace", directive["Namespace"]) != directive["Namespace"]:
        return set()
    if any(document.get(name) == value for name, value in excluded.items()):
        return set()
    return {metric["Name"] for metric in directive["Metrics"]} & {terms["MetricName"]}


def test_the_dashboard_of_the_preset_finds_what_is_written() -> None:
    failed = Triggered("event", "market", "failed", ["FAILED"], 0.1)
    written = lines(STARTED, failed, ApiRequested("yahoo", 5, 0.0))
    found = {search: [finds(search, document) for document in written] for search in searches()}
    assert sorted(found.values(), key=str) == sorted(
        [
            [set(), {"TriggerExecution"}, set(), set()],
            [{"TriggerExecution"}, {"TriggerExecution"}, set(), set()],
            [set(), set(), set(), {"ApiRequests"}],
        ],
        key=str,
    )


def test_the_alarm_of_the_example_watches_what_is_written_of_a_breaker() -> None:
    (alarm,) = (entry["Properties"] for entry in synthesize(read_source(str(ALARM))).resources.values())
    dimensions = tuple(f"{one['Name']}={one['Value']}" for one in alarm["Dimensions"])
    (document,) = lines(TriggerBreakerChanged("market", "prices", "closed", "open", "5 failures"))
    assert metrics(document) == {(alarm["MetricName"], "Count", dimensions): 1}
    assert document["_aws"]["CloudWatchMetrics"][0]["Namespace"] == alarm["Namespace"]
    assert alarm["Statistic"] == "Sum"


# ---------------------------------------------------------------------- the stream

PROGRAM = """
import threading
from oms_events.instrumentation import CloudWatchHook, Triggered
hook = CloudWatchHook()
detail = Triggered("event", "market", "failed", ["FAILED", "BUSY"], 0.1, "x" * 500)
def work():
    for _ in range(50):
        hook(detail)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_lines_go_to_standard_output_whole_from_several_threads() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(documents) == 4 * 50 * 3
    assert sum("TriggerExecution" in document for document in documents) == 200


def test_the_stream_is_the_standard_output_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    CloudWatchHook()(STARTED)
    assert json.loads(capsys.readouterr().out)["TriggerExecution"] == 1
