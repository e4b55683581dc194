from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.resilience.rate import RateLimit


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=30),
)
def test_no_time_has_more_than_the_burst_and_the_rate(
    rate: float, burst: int, takes: list[tuple[float, int]]
) -> None:
    now = 0.0
    limit = RateLimit(rate, burst=burst, monotonic=lambda: now)
    begun: list[tuple[float, int]] = []
    for pause, count in takes:
        now += pause
        count = min(count, burst)
        begun.append((now + limit.take(count), count))
    for start, (since, _) in enumerate(begun):
        done = 0
        for until, count in begun[start:]:
            done += count
            assert done <= burst + rate * (until - since) + 1e-6


def test_it_is_as_fast_as_it_may_be() -> None:
    now = 0.0
    limit = RateLimit(10, burst=5, monotonic=lambda: now)
    assert [limit.take(5), limit.take(5), limit.take()] == pytest.approx([0.0, 0.5, 0.6])
    now = 100.0
    assert limit.take(5) == 0
    assert limit.take() == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_rate_that_cannot_work_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate = "):
        RateLimit(rate, monotonic=lambda: 0.0)


def test_more_than_the_burst_is_refused() -> None:
    with pytest.raises(ValueError, match="burst = 0"):
        RateLimit(1, burst=0, monotonic=lambda: 0.0)
    with pytest.raises(ValueError, match="take 1 to 2 at once"):
        RateLimit(1, burst=2, monotonic=lambda: 0.0).take(3)
