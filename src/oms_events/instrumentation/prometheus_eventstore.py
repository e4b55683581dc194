"""The event store's part of the Prometheus hook; made by `PrometheusHook`, not by users."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from oms_events.instrumentation.hooks import (
    AppendConflict,
    Appended,
    Detail,
    EventParked,
    Projected,
    Replayed,
    SnapshotFailed,
)
from oms_events.instrumentation.prometheus_outbox import RELAY_SECONDS

_APPEND_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class EventStoreMetrics:
    """Counts the details of aggregates, projections and replays in the registry of its hook."""

    def __init__(self, registry: CollectorRegistry, *, prefix: str) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", text, labels, registry=registry)

        self._appended = counter("eventstore_appended", "Events that repositories appended.")
        self._seconds = Histogram(
            f"{prefix}_eventstore_append_seconds", "From loading the aggregate to the commit, retries included.",
            buckets=_APPEND_SECONDS, registry=registry,
        )  # fmt: skip
        self._conflicts = counter("eventstore_append_conflicts", "Appends that others came before, decided anew.")
        self._snapshots = counter("eventstore_snapshot_failures", "Snapshots that could not be read or written.")
        self._projected = counter("projection_events", "Events that a projection took.", "projection")
        self._lag = Histogram(
            f"{prefix}_projection_lag_seconds", "From the event's time to its row, by two hosts' clocks.",
            ("projection",), buckets=RELAY_SECONDS, registry=registry,
        )  # fmt: skip
        self._parked = counter("projection_parked", "Events that a projection set aside.", "projection")
        self._replayed = counter("replay_events", "Recorded events that replays published.")
        self._failed = counter("replay_failures", "Recorded events that replays did not get delivered.")

    def __call__(self, detail: Detail) -> None:
        match detail:
            case Appended(events=events, seconds=seconds):
                self._appended.inc(events)
                self._seconds.observe(seconds)
            case AppendConflict():
                self._conflicts.inc()
            case SnapshotFailed():
                self._snapshots.inc()
            case Projected(projection=projection, events=events, lag=lag):
                self._projected.labels(projection).inc(events)
                histogram = self._lag.labels(projection)
                for one in lag:
                    histogram.observe(one)
            case EventParked(projection=projection):
                self._parked.labels(projection).inc()
            case Replayed(events=events, failed=failed):
                self._replayed.inc(events)
                self._failed.inc(failed)
