"""What is known of a platform's health: counts, last error and success, latency. Pure, and never a secret."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oms_events.publishing import Outcome, PublishResult

_SAMPLES = 1024


@dataclass(slots=True)
class Health:
    """One platform's record. Latencies are those of the last 1,024 publish calls, in seconds."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    retries: int = 0
    last_success: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    last_check: datetime | None = None
    check_error: str | None = None
    _latencies: list[float] = field(default_factory=list)
    _next: int = 0

    def settled(self, results: list[PublishResult], now: datetime) -> None:
        """Takes the results of one publish call."""
        error: Exception | None = None
        success: PublishResult | None = None
        for result in results:
            self.outcomes[result.outcome] += 1
            if result.outcome is Outcome.DELIVERED:
                success = result
            elif result.outcome is not Outcome.SKIPPED:
                error = result.error
        if error is not None:
            self.failed(error, now)
        if success is not None:
            self.last_success = now
            self._sample(success.latency)

    def failed(self, error: Exception, now: datetime) -> None:
        self.last_error = str(error)
        self.last_error_at = now

    def checked(self, error: Exception | None, now: datetime) -> None:
        """Takes the outcome of one active check."""
        self.last_check = now
        self.check_error = None if error is None else str(error)
        if error is not None:
            self.failed(error, now)

    def describe(self) -> dict[str, Any]:
        """As plain values, times in RFC 3339 and latencies in milliseconds."""
        return {
            "outcomes": {outcome.value: self.outcomes[outcome] for outcome in Outcome},
            "retries": self.retries,
            "last_success": _text(self.last_success),
            "last_error": self.last_error,
            "last_error_at": _text(self.last_error_at),
            "last_check": _text(self.last_check),
            "check_error": self.check_error,
            "latency_ms": self._percentiles(),
        }

    def _sample(self, seconds: float) -> None:
        if len(self._latencies) < _SAMPLES:
            self._latencies.append(seconds)
        else:
            self._latencies[self._next] = seconds
            self._next = (self._next + 1) % _SAMPLES

    def _percentiles(self) -> dict[str, float | None]:
        ordered = sorted(self._latencies)
        return {
            f"p{percent}": round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000, 3)
            if ordered
            else None
            for percent in (50, 95, 99)
        }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
