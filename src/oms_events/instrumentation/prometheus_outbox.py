"""The outbox's part of the Prometheus hook; made by `PrometheusHook`, not by users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from oms_events.instrumentation.hooks import (
    BacklogMeasured,
    DeadLettered,
    Detail,
    DuplicateAcks,
    GapsProbed,
    LateRecords,
    LeaseChanged,
    OutboxAlert,
    Relayed,
    RelayRetried,
)

_GAUGES: Final = {
    "pending": "Records that wait, in this processor's buckets; counted up to a limit.",
    "pending_bounded": "1 when there are more than were counted.",
    "oldest_age_seconds": "Age of the oldest record that waits; 0 when none does.",
    "available": "1 when the last measurement worked; at 0 the other gauges keep their last value.",
    "in_flight": "Records that are being published.",
    "leases_held": "Buckets that this processor relays.",
}
# From the local wake-up to an outage of a day.
RELAY_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0, 14400.0, 86400.0,
)  # fmt: skip


class OutboxMetrics:
    """Counts the details of the outbox in the registry of its hook."""

    def __init__(self, registry: CollectorRegistry, *, prefix: str) -> None:
        prefix = f"{prefix}_outbox"

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", text, labels, registry=registry)

        self._registry = registry
        self._prefix = prefix
        self._gauges: dict[str, Gauge] = {}
        self._platforms: set[str] = set()
        self._dead_letters = Gauge(
            f"{prefix}_dead_letters", "Dead letters in the table.", ("platform",), registry=registry
        )
        self._relayed = counter("relayed", "Records that were settled for good.")
        self._seconds = Histogram(
            f"{prefix}_relay_seconds", "From the commit to the last delivery, by two hosts' clocks.",
            buckets=RELAY_SECONDS, registry=registry,
        )  # fmt: skip
        self._retries = counter("retries", "Events to be tried again.", "platform", "failure")
        self._buried = counter("dead_lettered", "Events that became dead letters.", "platform", "code")
        self._leases = counter("lease_changes", "Leases taken, released, lost or expired.", "change")
        self._probed = counter("gaps_probed", "Missing sequence numbers that were looked for.")
        self._found = counter("gaps_found", "Records that were found in a gap.")
        self._late = counter("late_records", "Records that committed behind others already read.")
        self._duplicates = counter("duplicate_acks", "First attempts that the platform had already.", "platform")
        self._alerts = counter("alerts", "What an operator should look at.", "kind")

    def __call__(self, detail: Detail) -> None:
        match detail:
            case Relayed(events=events, seconds=seconds):
                self._relayed.inc(events)
                for one in seconds:
                    self._seconds.observe(one)
            case RelayRetried(platform=platform, failures=failures):
                for failure, count in failures.items():
                    self._retries.labels(platform, failure).inc(count)
            case DeadLettered(platform=platform, code=code):
                self._buried.labels(platform, code).inc()
            case LeaseChanged(change=change, held=held):
                self._leases.labels(change).inc()
                self._set("leases_held", held)
            case GapsProbed(numbers=numbers, found=found):
                self._probed.inc(numbers)
                self._found.inc(found)
            case LateRecords(count=count):
                self._late.inc(count)
            case DuplicateAcks(platform=platform, count=count):
                self._duplicates.labels(platform).inc(count)
            case BacklogMeasured():
                self._measured(detail)
            case OutboxAlert(kind=kind):
                self._alerts.labels(kind).inc()

    def _measured(self, detail: BacklogMeasured) -> None:
        self._set("available", detail.available)
        if not detail.available:
            return
        self._set("pending", detail.pending)
        self._set("pending_bounded", detail.bounded)
        self._set("oldest_age_seconds", detail.oldest_age or 0.0)
        self._set("in_flight", detail.in_flight)
        self._show_dead_letters(detail.dead_letters)

    def _show_dead_letters(self, counts: Mapping[str, int] | None) -> None:
        if counts is None:
            # Another processor counts them now: what this one saw last would stand here for ever.
            self._dead_letters.clear()
            self._platforms.clear()
            return
        # A platform whose last dead letter was requeued or purged is not counted any more: it has none.
        self._platforms.update(counts)
        for platform in self._platforms:
            self._dead_letters.labels(platform).set(counts.get(platform, 0))

    def _set(self, name: str, value: float) -> None:
        gauge = self._gauges.get(name)
        if gauge is None:
            # Made with its first value, and not before: what nobody has measured must not read as zero.
            gauge = Gauge(f"{self._prefix}_{name}", _GAUGES[name], registry=self._registry)
            self._gauges[name] = gauge
        gauge.set(value)
