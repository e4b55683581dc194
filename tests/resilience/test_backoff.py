from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.errors import ConfigurationError
from oms_events.resilience.backoff import Pace, RetryConfig


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_grow_and_stay_within_their_bounds(attempt: int, dice: float) -> None:
    config = RetryConfig(initial=0.1, maximum=3.0)
    delay = config.delay(attempt, lambda: dice)
    assert 0.05 <= delay <= 3.0
    assert delay >= config.delay(max(1, attempt - 1), lambda: dice)


def test_a_maximum_below_the_initial_delay_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"maximum = 0\.1 is below initial = 0\.5"):
        RetryConfig(initial=0.5, maximum=0.1)


def test_throttling_slows_down_by_doubling_and_success_speeds_up_again() -> None:
    now = 0.0
    pace = Pace(initial=0.1, maximum=1.0, monotonic=lambda: now, draw=lambda: 1.0)
    assert pace.wait() == 0
    waits = []
    for _ in range(6):
        pace.throttled()
        waits.append(pace.wait())
        now += pace.wait()
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    for _ in range(4):
        pace.succeeded()
    pace.throttled()
    assert pace.wait() == pytest.approx(0.125)


def test_the_platform_s_own_wish_is_kept() -> None:
    pace = Pace(monotonic=lambda: 0.0, draw=lambda: 0.0)
    pace.throttled(7.0)
    assert pace.wait() == 7.0
