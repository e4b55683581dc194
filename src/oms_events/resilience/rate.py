"""At most so many per second: a bucket of tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable


class RateLimit:
    """Spreads what is done to `rate` per second: in any t seconds at most `burst` + `rate` x t may begin.

    `burst` is at least what is taken at once, one unless given. Raises `ValueError` for numbers that cannot work.
    """

    def __init__(self, rate: float, *, burst: int = 1, monotonic: Callable[[], float]) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"rate = {rate!r}: give a number above 0 per second")
        if burst < 1:
            raise ValueError(f"burst = {burst!r}: give 1 or more")
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._filled = monotonic()

    def take(self, count: int = 1) -> float:
        """Takes `count`, and gives the seconds after which they may be done; who comes later waits longer.

        What is taken and not done after all is lost. Raises `ValueError` for more than `burst` at once.
        """
        if not 1 <= count <= self._burst:
            raise ValueError(f"count = {count!r}: take 1 to {self._burst} at once")
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)
