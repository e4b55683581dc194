"""How long to wait: before the next try of an event, and before the next call to a platform that throttles."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, model_validator

from oms_events._config import ConfigModel


class RetryConfig(ConfigModel):
    """Retries in place, inside the caller's deadline: `max_attempts` in all, delays in seconds.

    The delay before attempt n+1 is drawn evenly from [d/2, d], d = `initial` x 2^(n-1), at most `maximum`.
    """

    max_attempts: int = Field(default=3, ge=1)
    initial: float = Field(default=0.05, gt=0)
    maximum: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> RetryConfig:
        if self.maximum < self.initial:
            raise ValueError(f"maximum = {self.maximum} is below initial = {self.initial}; raise it")
        return self

    def delay(self, attempt: int, draw: Callable[[], float]) -> float:
        """Seconds to wait after attempt number `attempt` (from 1); `draw` gives a number in [0, 1)."""
        ceiling: float = min(self.maximum, self.initial * 2.0 ** min(attempt - 1, 60))
        return ceiling * (0.5 + 0.5 * draw())


class Pace:
    """Slows calls to a platform down while it throttles: doubling pauses with jitter, halved by each success.

    Throttling is a request for less speed, so it slows down and opens no breaker. Pure.
    """

    def __init__(
        self,
        *,
        initial: float = 0.05,
        maximum: float = 5.0,
        monotonic: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._initial = initial
        self._maximum = maximum
        self._monotonic = monotonic
        self._draw = draw
        self._pause = 0.0
        self._not_before = 0.0

    def wait(self) -> float:
        """Seconds to wait before the next call."""
        return max(0.0, self._not_before - self._monotonic()) if self._pause else 0.0

    def throttled(self, retry_after: float | None = None) -> None:
        """The platform asked for less speed; `retry_after` seconds, if it said how long."""
        self._pause = min(self._maximum, max(self._initial, self._pause * 2))
        pause = self._pause * (0.5 + 0.5 * self._draw())
        self._not_before = self._monotonic() + max(pause, retry_after or 0.0)

    def succeeded(self) -> None:
        """A call went through unthrottled."""
        self._pause = self._pause / 2 if self._pause > self._initial else 0.0
