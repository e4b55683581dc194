"""The circuit breaker: closed, open, half-open. Pure: no I/O, no tasks, the clock passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from pydantic import Field

from oms_events._config import ConfigModel


class BreakerState(StrEnum):
    """Closed lets all through, open nothing, half-open a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerConfig(ConfigModel):
    """When a breaker opens and how it closes again.

    It opens after `failure_threshold` failed calls in a row, or when at least `minimum_events` events ended
    in the last `window` seconds and `failure_rate` of them or more failed (None: never by rate), or at once
    when the platform denies us. After `recovery_time` seconds it lets `probes` events through at a time, and
    closes when that many were delivered.
    """

    failure_threshold: int = Field(default=5, ge=1)
    failure_rate: float | None = Field(default=0.5, gt=0, le=1)
    window: float = Field(default=30.0, gt=0)
    minimum_events: int = Field(default=50, ge=1)
    recovery_time: float = Field(default=15.0, gt=0)
    probes: int = Field(default=1, ge=1)


class CircuitBreaker:
    """One platform's breaker. Every `admit` is answered by one `record` or `release` with the same count."""

    def __init__(
        self,
        config: BreakerConfig,
        *,
        monotonic: Callable[[], float],
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
    ) -> None:
        self._config = config
        self._monotonic = monotonic
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._consecutive = 0
        self._opened_at = 0.0
        self._probing = 0
        self._probes_delivered = 0
        self._epoch = 0
        self._calls: deque[tuple[float, int, int]] = deque()
        self._window_delivered = 0
        self._window_failed = 0

    @property
    def state(self) -> BreakerState:
        """The state; an open breaker whose recovery time has passed is half-open."""
        if self._state is BreakerState.OPEN and self.retry_in() == 0.0:
            self._change(BreakerState.HALF_OPEN)
        return self._state

    def retry_in(self) -> float:
        """Seconds until an open breaker lets probes through; 0 when it is not open."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self._config.recovery_time - self._monotonic())

    def admit(self, count: int) -> tuple[int, int]:
        """How many of `count` events may go now, and the epoch to give back with their outcome."""
        if self._state is BreakerState.CLOSED:
            return count, self._epoch
        if self.state is BreakerState.OPEN:
            return 0, self._epoch
        admitted = min(count, self._config.probes - self._probing)
        self._probing += admitted
        return admitted, self._epoch

    def release(self, count: int, epoch: int) -> None:
        """Gives admitted events back that say nothing of the platform: rejected, throttled, cancelled."""
        if epoch == self._epoch and self._state is BreakerState.HALF_OPEN:
            self._probing -= count

    def record(self, count: int, epoch: int, *, delivered: int = 0, failed: int = 0, denied: bool = False) -> None:
        """Takes the outcome of one call with `count` admitted events; those that count neither way are neutral.

        Outcomes of an earlier epoch (the breaker has changed since) are old news and change nothing.
        """
        if epoch != self._epoch:
            return
        if self._state is BreakerState.HALF_OPEN:
            self._probing -= count
            if denied or failed:
                self._open()
            elif delivered:
                self._probes_delivered += delivered
                if self._probes_delivered >= self._config.probes:
                    self._change(BreakerState.CLOSED)
        elif self._state is BreakerState.CLOSED:
            if delivered:
                self._consecutive = 0
            elif failed:
                self._consecutive += 1
            self._slide(delivered, failed)
            if denied or self._consecutive >= self._config.failure_threshold or (failed and self._rate_exceeded()):
                self._open()

    def _slide(self, delivered: int, failed: int) -> None:
        if self._config.failure_rate is None or not (delivered or failed):
            return
        now = self._monotonic()
        # One entry per tenth of the window keeps the queue short under any load.
        if self._calls and now - self._calls[-1][0] < self._config.window / 10:
            started, more_delivered, more_failed = self._calls.pop()
            self._calls.append((started, more_delivered + delivered, more_failed + failed))
        else:
            self._calls.append((now, delivered, failed))
        self._window_delivered += delivered
        self._window_failed += failed
        while self._calls and now - self._calls[0][0] > self._config.window:
            _, old_delivered, old_failed = self._calls.popleft()
            self._window_delivered -= old_delivered
            self._window_failed -= old_failed

    def _rate_exceeded(self) -> bool:
        total = self._window_delivered + self._window_failed
        rate = self._config.failure_rate
        return rate is not None and total >= self._config.minimum_events and self._window_failed >= rate * total

    def _open(self) -> None:
        self._opened_at = self._monotonic()
        self._change(BreakerState.OPEN)

    def _change(self, new: BreakerState) -> None:
        old, self._state = self._state, new
        self._epoch += 1
        self._consecutive = self._probing = self._probes_delivered = 0
        self._calls.clear()
        self._window_delivered = self._window_failed = 0
        if self._on_change is not None:
            self._on_change(old, new)
