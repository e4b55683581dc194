from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from oms_events.instrumentation import (
    AppendConflict,
    Appended,
    Detail,
    EventParked,
    LoggingHook,
    Projected,
    Replayed,
    SnapshotFailed,
)
from oms_events.instrumentation.prometheus import PrometheusHook

PARKED = EventParked("Accounts@2", "account-1@7", "TransactionProcessed", "no amount")


def test_prometheus_counts_appends_projections_and_replays() -> None:
    registry = CollectorRegistry()
    hook = PrometheusHook(registry)
    for detail in (
        Appended(3, 0.02),
        Appended(1, 4.0),
        AppendConflict(1),
        AppendConflict(2),
        SnapshotFailed("account-1", "throttled"),
        Projected("Accounts@2", 2, [0.003, 120.0]),
        Projected("Totals@1", 1, [0.003]),
        PARKED,
        Replayed("again", 10, 0),
        Replayed("again", 5, 2),
    ):
        hook(detail)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"oms_events_{name}", labels)

    assert value("eventstore_appended_total") == 4
    assert value("eventstore_append_seconds_count") == 2
    assert value("eventstore_append_seconds_bucket", le="0.025") == 1
    assert value("eventstore_append_seconds_bucket", le="5.0") == 2
    assert value("eventstore_append_conflicts_total") == 2
    assert value("eventstore_snapshot_failures_total") == 1
    assert value("projection_events_total", projection="Accounts@2") == 2
    assert value("projection_events_total", projection="Totals@1") == 1
    assert value("projection_lag_seconds_bucket", projection="Accounts@2", le="0.005") == 1
    assert value("projection_lag_seconds_bucket", projection="Accounts@2", le="300.0") == 2
    assert value("projection_parked_total", projection="Accounts@2") == 1
    assert value("projection_parked_total", projection="Totals@1") is None
    assert value("replay_events_total") == 15
    assert value("replay_failures_total") == 2


@pytest.mark.parametrize(
    ("detail", "action", "is_warning"),
    [
        (Appended(2, 0.5), "appended", False),
        (AppendConflict(1), "append_conflict", False),
        (SnapshotFailed("account-1", "throttled"), "snapshot_failed", True),
        (Projected("Accounts@2", 1, [0.5]), "projected", False),
        (PARKED, "event_parked", True),
        (Replayed("again", 10, 0), "replayed", False),
        (Replayed("again", 10, 1), "replayed", True),
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


def test_the_log_of_projected_events_names_the_greatest_lag_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="oms_events"):
        LoggingHook()(Projected("Accounts@2", 3, [0.5, 2.0, 0.25]))
    assert caplog.records[0].getMessage() == "projected projection=Accounts@2 events=3 lag=2.0"
