"""A hook that counts in Prometheus (extra `prometheus`)."""

from __future__ import annotations

from oms_events.errors import MissingExtraError
from oms_events.instrumentation.hooks import (
    BreakerChanged,
    CallEnded,
    CheckEnded,
    Decided,
    Detail,
    FailedOver,
    Retried,
    Settled,
)

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    from oms_events.instrumentation.prometheus_eventstore import EventStoreMetrics
    from oms_events.instrumentation.prometheus_outbox import OutboxMetrics
    from oms_events.instrumentation.prometheus_triggers import TriggerMetrics
except ImportError as error:
    raise MissingExtraError("prometheus", needed_for="PrometheusHook") from error

_STATES = ("closed", "open", "half_open")
_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PrometheusHook:
    """Metrics in the registry that is given; docs/reference/metrics.md lists them.

    One hook object per registry and prefix: give the same one to all routers and to the outbox processor of a
    process.
    """

    def __init__(self, registry: CollectorRegistry, *, prefix: str = "oms_events") -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", text, labels, registry=registry)

        self._shown: set[str] = set()
        self._events = counter("published", "Events by final outcome.", "platform", "outcome")
        self._failures = counter("failures", "Failed attempts of events by class.", "platform", "failure")
        self._throttled = counter("throttled_calls", "Calls that the platform throttled.", "platform")
        self._retries = counter("retries", "Events sent again in place.", "platform")
        self._failovers = counter("failovers", "Events that FAILOVER moved on.", "rule", "source", "target")
        self._matches = counter("rule_matches", "Events that a rule took.", "rule", "strategy")
        self._checks = counter("checks", "Active health checks.", "platform", "ok")
        self._breaker = Gauge(
            f"{prefix}_breaker_state", "1 for the state the breaker is in.", ("platform", "state"),
            registry=registry,
        )  # fmt: skip
        self._latency = Histogram(
            f"{prefix}_publish_seconds", "From the call to the result, retries included.", ("platform",),
            buckets=_LATENCY, registry=registry,
        )  # fmt: skip
        self._fill = Histogram(
            f"{prefix}_batch_fill_ratio", "Events in a call by what a full call carries.", ("platform",),
            buckets=[step / 10 for step in range(1, 11)], registry=registry,
        )  # fmt: skip
        self._others = tuple(
            make(registry, prefix=prefix) for make in (OutboxMetrics, EventStoreMetrics, TriggerMetrics)
        )

    def __call__(self, detail: Detail) -> None:
        match detail:
            case Settled():
                self._settled(detail)
            case CallEnded(platform=platform):
                self._fill.labels(platform).observe(min(1.0, detail.events / detail.capacity))
                for failure, count in detail.failures.items():
                    self._failures.labels(platform, failure).inc(count)
                if detail.throttled:
                    self._throttled.labels(platform).inc()
            case Retried():
                self._retries.labels(detail.platform).inc(detail.events)
            case FailedOver():
                labels = (detail.rule or "", detail.from_platform, detail.to_platform)
                self._failovers.labels(*labels).inc(detail.events)
            case Decided():
                for (rule, strategy), count in detail.counts.items():
                    self._matches.labels(rule or "", strategy).inc(count)
            case BreakerChanged():
                self._show_breaker(detail.platform, detail.new)
            case CheckEnded():
                # Every platform is checked when its router opens: from then on its series exist.
                if detail.platform not in self._shown:
                    self._show_breaker(detail.platform, _STATES[0])
                self._checks.labels(detail.platform, str(detail.error is None).lower()).inc()
            case _:
                for metrics in self._others:
                    metrics(detail)

    def _show_breaker(self, platform: str, now: str) -> None:
        self._shown.add(platform)
        for state in _STATES:
            self._breaker.labels(platform, state).set(state == now)

    def _settled(self, detail: Settled) -> None:
        latency = self._latency.labels(detail.platform)
        outcomes: dict[str, int] = {}
        for result in detail.results:
            outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
            if result.attempts:
                latency.observe(result.latency)
        for outcome, count in outcomes.items():
            self._events.labels(detail.platform, outcome).inc(count)
