from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from oms_events.instrumentation import (
    BacklogMeasured,
    DeadLettered,
    Detail,
    DuplicateAcks,
    GapsProbed,
    LateRecords,
    LeaseChanged,
    LoggingHook,
    OutboxAlert,
    Relayed,
    RelayRetried,
)
from oms_events.instrumentation.logs import _ACTIONS
from oms_events.instrumentation.prometheus import PrometheusHook

MEASURED = BacklogMeasured(
    pending=1000,
    bounded=True,
    oldest_age=75.5,
    in_flight=12,
    dead_letters={"nats": 3, "unroutable": 1},
    buckets=4,
    available=True,
)
BLIND = BacklogMeasured(0, False, None, 0, None, 4, False)


class Outbox:
    """A hook, and what it counted."""

    def __init__(self, *details: Detail) -> None:
        self.registry = CollectorRegistry()
        self._hook = PrometheusHook(self.registry)
        self.hear(*details)

    def hear(self, *details: Detail) -> None:
        for detail in details:
            self._hook(detail)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"oms_events_outbox_{name}", labels)

    def values(self, names: Iterable[str]) -> list[float | None]:
        return [self.value(name) for name in names]


GAUGES = ("pending", "pending_bounded", "oldest_age_seconds", "in_flight")


def test_a_measured_backlog_is_shown() -> None:
    outbox = Outbox(MEASURED)
    assert outbox.values(GAUGES) == [1000, 1, 75.5, 12]
    assert outbox.value("available") == 1
    assert outbox.value("dead_letters", platform="nats") == 3
    assert outbox.value("dead_letters", platform="unroutable") == 1


def test_an_empty_outbox_is_shown_as_zero() -> None:
    outbox = Outbox(MEASURED, BacklogMeasured(0, False, None, 0, {}, 4, True))
    assert outbox.values(GAUGES) == [0, 0, 0, 0]
    assert outbox.value("available") == 1


def test_a_backlog_that_cannot_be_measured_keeps_its_last_value_and_says_so() -> None:
    outbox = Outbox(MEASURED, BLIND)
    assert outbox.values(GAUGES) == [1000, 1, 75.5, 12]
    assert outbox.value("dead_letters", platform="nats") == 3
    assert outbox.value("available") == 0


def test_a_backlog_that_was_never_measured_has_no_value_at_all() -> None:
    assert Outbox().values([*GAUGES, "available", "leases_held"]) == [None] * 6
    outbox = Outbox(BLIND)
    assert outbox.values(GAUGES) == [None] * 4
    assert outbox.value("available") == 0


def test_a_platform_without_dead_letters_any_more_shows_none() -> None:
    outbox = Outbox(MEASURED, dataclasses.replace(MEASURED, dead_letters={"nats": 2}))
    assert outbox.value("dead_letters", platform="nats") == 2
    assert outbox.value("dead_letters", platform="unroutable") == 0


def test_dead_letters_are_shown_by_the_processor_that_counts_them_only() -> None:
    outbox = Outbox(MEASURED, dataclasses.replace(MEASURED, dead_letters=None))
    assert outbox.value("dead_letters", platform="nats") is None
    assert outbox.value("pending") == 1000


def test_prometheus_counts_what_the_relay_does() -> None:
    outbox = Outbox(
        Relayed(3, [0.0004, 0.2, 7200.0]),
        RelayRetried("nats", 5, {"transient": 4, "unknown": 1}),
        DeadLettered("nats", "shop.order.placed", "1", "max_payload", "too large"),
        GapsProbed(7, 2),
        LateRecords(2),
        DuplicateAcks("nats", 4),
        OutboxAlert("unknown_format", "update the library"),
    )
    assert outbox.value("relayed_total") == 3
    assert outbox.value("relay_seconds_count") == 3
    assert outbox.value("relay_seconds_bucket", le="0.001") == 1
    assert outbox.value("relay_seconds_bucket", le="3600.0") == 2
    assert outbox.value("relay_seconds_bucket", le="14400.0") == 3
    assert outbox.value("retries_total", platform="nats", failure="transient") == 4
    assert outbox.value("retries_total", platform="nats", failure="unknown") == 1
    assert outbox.value("dead_lettered_total", platform="nats", code="max_payload") == 1
    assert outbox.value("gaps_probed_total") == 7
    assert outbox.value("gaps_found_total") == 2
    assert outbox.value("late_records_total") == 2
    assert outbox.value("duplicate_acks_total", platform="nats") == 4
    assert outbox.value("alerts_total", kind="unknown_format") == 1


def test_leases_are_counted_by_change_and_the_last_number_held_is_shown() -> None:
    outbox = Outbox(
        LeaseChanged(1, 0, "taken", 1), LeaseChanged(1, 1, "taken", 2), LeaseChanged(1, 0, "expired", 1)
    )
    assert outbox.value("lease_changes_total", change="taken") == 2
    assert outbox.value("lease_changes_total", change="expired") == 1
    assert outbox.value("leases_held") == 1


@pytest.mark.parametrize(
    ("detail", "action", "is_warning"),
    [
        (Relayed(2, [0.5, 0.25]), "relayed", False),
        (RelayRetried("nats", 1, {"transient": 1}), "relay_retried", False),
        (DeadLettered("nats", "a.b", "1", "max_payload", "too large"), "dead_lettered", True),
        (LeaseChanged(1, 0, "taken", 1), "lease_changed", False),
        (LeaseChanged(1, 0, "released", 0), "lease_changed", False),
        (LeaseChanged(1, 0, "lost", 0), "lease_changed", True),
        (LeaseChanged(1, 0, "expired", 0), "lease_changed", True),
        (GapsProbed(3, 0), "gaps_probed", False),
        (LateRecords(1), "late_records", False),
        (DuplicateAcks("nats", 1), "duplicate_acks", True),
        (MEASURED, "backlog_measured", False),
        (BLIND, "backlog_measured", True),
        (OutboxAlert("unknown_format", "update the library"), "outbox_alert", True),
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


def test_the_log_of_a_relayed_batch_names_its_slowest_event_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="oms_events"):
        LoggingHook()(Relayed(2, [0.5, 0.25]))
    assert caplog.records[0].getMessage() == "relayed events=2 slowest=0.5"


def test_every_detail_has_its_action() -> None:
    assert set(_ACTIONS) == set(get_args(Detail))
    assert len(set(_ACTIONS.values())) == len(_ACTIONS)
