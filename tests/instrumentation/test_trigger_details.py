from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from oms_events.instrumentation import (
    ApiRequested,
    ChunksSent,
    Detail,
    LoggingHook,
    QuotaUsedUp,
    TriggerBreakerChanged,
    Triggered,
    correlated,
)
from oms_events.instrumentation.prometheus import PrometheusHook

REJECTED = Triggered("manual", "unknown", "rejected", ["INVALID_DOMAIN", "INVALID_SYMBOLS"], 0.002, "run-7")
DONE = Triggered("event", "market", "success", [], 1.5, "evt-1")
OPENED = TriggerBreakerChanged("market", "prices", "closed", "open", "5 failures within 3600 s")


class Triggers:
    """A hook, and what it counted."""

    def __init__(self, *details: Detail) -> None:
        self._registry = CollectorRegistry()
        hook = PrometheusHook(self._registry)
        for detail in details:
            hook(detail)

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"oms_events_trigger_{name}", labels)

    def series(self, name: str, label: str) -> set[str]:
        samples = [sample for family in self._registry.collect() for sample in family.samples]
        return {sample.labels[label] for sample in samples if sample.name == f"oms_events_trigger_{name}"}


def test_prometheus_counts_starts_by_type_domain_and_status_and_problems_by_code() -> None:
    triggers = Triggers(REJECTED, REJECTED, DONE)
    assert triggers.value("executions_total", trigger_type="manual", domain="unknown", status="rejected") == 2
    assert triggers.value("executions_total", trigger_type="event", domain="market", status="success") == 1
    assert triggers.value("rejections_total", code="INVALID_DOMAIN") == 2
    assert triggers.value("rejections_total", code="INVALID_SYMBOLS") == 2
    assert triggers.value("seconds_count", trigger_type="manual", status="rejected") == 2
    assert triggers.value("seconds_bucket", trigger_type="event", status="success", le="1.0") == 0
    assert triggers.value("seconds_bucket", trigger_type="event", status="success", le="2.5") == 1


def test_the_breaker_of_a_table_shows_the_one_state_that_it_is_in() -> None:
    half_open = TriggerBreakerChanged("market", "prices", "open", "half_open", "a trial")
    triggers = Triggers(OPENED, half_open, TriggerBreakerChanged("market", "splits", "closed", "open", "x"))
    prices = {"domain": "market", "table_name": "prices"}
    states = {
        state: triggers.value("breaker_state", **prices, state=state) for state in ("closed", "open", "half_open")
    }
    assert states == {"closed": 0, "open": 0, "half_open": 1}
    assert triggers.value("breaker_state", domain="market", table_name="splits", state="open") == 1
    assert triggers.value("breaker_changes_total", **prices, state="open") == 1
    assert triggers.value("breaker_changes_total", **prices, state="half_open") == 1


def test_limiters_and_chunks_are_counted() -> None:
    triggers = Triggers(
        QuotaUsedUp("manual", 1200.0),
        QuotaUsedUp("manual", 30.0),
        ApiRequested("yahoo", 5, 0.0),
        ApiRequested("yahoo", 5, 12.5),
        ChunksSent(20, 0),
        ChunksSent(3, 2),
    )
    assert triggers.value("quota_used_up_total", quota="manual") == 2
    assert triggers.value("retry_after_seconds", quota="manual") == 30.0
    assert triggers.value("api_requests_total", api="yahoo") == 10
    assert triggers.value("api_waited_seconds_total", api="yahoo") == 12.5
    assert triggers.value("chunks_sent_total") == 23
    assert triggers.value("chunks_failed_total") == 2


def test_domains_without_end_make_no_series_without_end() -> None:
    starts = [Triggered("manual", f"domain{number}", "success", [], 0.1) for number in range(300)]
    triggers = Triggers(*starts, Triggered("manual", "domain0", "success", [], 0.1))
    assert len(triggers.series("executions_total", "domain")) == 101
    assert triggers.value("executions_total", trigger_type="manual", domain="other", status="success") == 200
    assert triggers.value("executions_total", trigger_type="manual", domain="domain0", status="success") == 2


def test_domains_that_anybody_makes_up_take_no_place() -> None:
    made_up = [Triggered("manual", f"domain{number}", "limited", [], 0.1) for number in range(300)]
    real = [Triggered("event", "market", status, [], 0.1) for status in ("success", "limited", "refused")]
    triggers = Triggers(*made_up, Triggered("manual", "unknown", "rejected", [], 0.1), *real)
    assert triggers.series("executions_total", "domain") == {"other", "unknown", "market"}
    assert triggers.value("executions_total", trigger_type="event", domain="market", status="limited") == 1


@pytest.mark.parametrize(
    ("detail", "action", "is_warning"),
    [
        (DONE, "triggered", False),
        (Triggered("event", "market", "delayed", ["RATE_LIMITED"], 0.1), "triggered", False),
        (REJECTED, "triggered", True),
        (Triggered("event", "market", "failed", ["FAILED"], 0.1), "triggered", True),
        (QuotaUsedUp("manual", 30.0), "quota_used_up", True),
        (OPENED, "trigger_breaker_changed", True),
        (ApiRequested("yahoo", 5, 1.0), "api_requested", False),
        (ChunksSent(3, 0), "chunks_sent", False),
        (ChunksSent(3, 2), "chunks_sent", True),
    ],
)
def test_logs_warn_of_what_an_operator_should_see(
    detail: Detail, action: str, is_warning: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="oms_events"):
        LoggingHook()(detail)
    (record,) = caplog.records
    assert record.__dict__["action"] == action
    assert record.levelno == (logging.WARNING if is_warning else logging.DEBUG)


def test_what_is_logged_within_a_start_has_its_correlation_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="oms_events"):
        LoggingHook()(REJECTED)
        with correlated("run-8"):
            LoggingHook()(ChunksSent(3, 0))
        LoggingHook()(ChunksSent(3, 0))
    assert [getattr(record, "correlation_id", None) for record in caplog.records] == ["run-7", "run-8", None]
