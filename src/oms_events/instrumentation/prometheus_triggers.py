"""The triggers' part of the Prometheus hook; made by `PrometheusHook`, not by users."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from oms_events.instrumentation.hooks import (
    ApiRequested,
    ChunksSent,
    Detail,
    QuotaUsedUp,
    TriggerBreakerChanged,
    Triggered,
)
from oms_events.instrumentation.labels import ADMITTED, UNKNOWN, BoundedLabels

_STATES: Final = ("closed", "open", "half_open")
# From a refusal on the spot to the longest that a function of Lambda runs.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_SERIES: Final = 100
"""Domains, tables, codes and names that get series of their own, of each; the later ones share `other`."""


class TriggerMetrics:
    """Counts the details of triggers in the registry of its hook."""

    def __init__(self, registry: CollectorRegistry, *, prefix: str) -> None:
        prefix = f"{prefix}_trigger"

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", text, labels, registry=registry)

        self._domain = BoundedLabels(_SERIES, always=UNKNOWN)
        self._table = BoundedLabels(_SERIES)
        self._code = BoundedLabels(_SERIES)
        self._quota = BoundedLabels(_SERIES)
        self._api = BoundedLabels(_SERIES)
        self._executions = counter("executions", "Starts by how they ended.", "trigger_type", "domain", "status")
        self._seconds = Histogram(
            f"{prefix}_seconds", "From reading a start to its answer.", ("trigger_type", "status"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._rejections = counter("rejections", "What was wrong with starts.", "code")
        self._breaker = Gauge(
            f"{prefix}_breaker_state", "1 for the state that this process saw the breaker change to last.",
            ("domain", "table_name", "state"), registry=registry,
        )  # fmt: skip
        self._changes = counter(
            "breaker_changes", "Changes of breakers that this process made.", "domain", "table_name", "state"
        )
        self._used_up = counter("quota_used_up", "How often a quota had no room.", "quota")
        self._retry_after = Gauge(
            f"{prefix}_retry_after_seconds", "How long the quota had no room, the last time.", ("quota",),
            registry=registry,
        )  # fmt: skip
        self._requests = counter("api_requests", "Requests that the outbound limiter let through.", "api")
        self._waited = counter("api_waited_seconds", "What they waited for their quota, in all.", "api")
        self._chunks = counter("chunks_sent", "Chunks that the queue took.")
        self._failed = counter("chunks_failed", "Chunks that the queue refused for good.")

    def __call__(self, detail: Detail) -> None:
        match detail:
            case Triggered(trigger_type=trigger_type, status=status):
                (domain,) = self._domain(detail.domain, is_trusted=status in ADMITTED)
                self._executions.labels(trigger_type, domain, status).inc()
                self._seconds.labels(trigger_type, status).observe(detail.seconds)
                for code in detail.codes:
                    self._rejections.labels(*self._code(code)).inc()
            case TriggerBreakerChanged(new=new):
                place = self._table(detail.domain, detail.table_name)
                self._changes.labels(*place, new).inc()
                for state in _STATES:
                    self._breaker.labels(*place, state).set(state == new)
            case QuotaUsedUp(retry_after=retry_after):
                quota = self._quota(detail.name)
                self._used_up.labels(*quota).inc()
                self._retry_after.labels(*quota).set(retry_after)
            case ApiRequested(requests=requests, waited=waited):
                api = self._api(detail.api)
                self._requests.labels(*api).inc(requests)
                self._waited.labels(*api).inc(waited)
            case ChunksSent(chunks=chunks, failed=failed):
                self._chunks.inc(chunks)
                self._failed.inc(failed)
