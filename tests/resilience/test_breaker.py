from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oms_events.errors import ConfigurationError
from oms_events.resilience.breaker import BreakerConfig, BreakerState, CircuitBreaker


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(time: Time, **values: object) -> CircuitBreaker:
    return CircuitBreaker(BreakerConfig(**values), monotonic=time)  # type: ignore[arg-type]


def call(
    breaker: CircuitBreaker, *, count: int = 1, delivered: int = 0, failed: int = 0, denied: bool = False
) -> int:
    admitted, epoch = breaker.admit(count)
    if admitted:
        breaker.record(admitted, epoch, delivered=delivered, failed=failed, denied=denied)
    return admitted


def test_consecutive_failures_open_it_and_a_success_between_them_does_not() -> None:
    breaker = make(Time(), failure_threshold=3)
    for _ in range(2):
        call(breaker, failed=1)
    call(breaker, delivered=1)
    for _ in range(2):
        call(breaker, failed=1)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, failed=1)
    assert breaker.state is BreakerState.OPEN
    assert call(breaker) == 0


def test_one_call_of_many_failed_events_is_one_failure_in_a_row() -> None:
    breaker = make(Time(), failure_threshold=2, failure_rate=None)
    call(breaker, count=10, failed=10)
    assert breaker.state is BreakerState.CLOSED


def test_the_rate_opens_it_only_from_the_minimum_on_and_within_the_window() -> None:
    time = Time()
    breaker = make(time, failure_threshold=1000, failure_rate=0.5, minimum_events=10, window=30)
    call(breaker, count=9, delivered=1, failed=8)
    assert breaker.state is BreakerState.CLOSED
    time.now = 31.0
    call(breaker, count=9, delivered=9)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, count=9, failed=9)
    assert breaker.state is BreakerState.OPEN


def test_denied_opens_it_at_once() -> None:
    breaker = make(Time())
    call(breaker, denied=True)
    assert breaker.state is BreakerState.OPEN


def test_neutral_outcomes_neither_open_nor_reset() -> None:
    breaker = make(Time(), failure_threshold=2)
    call(breaker, failed=1)
    call(breaker)
    call(breaker, failed=1)
    assert breaker.state is BreakerState.OPEN


def test_half_open_lets_the_probes_through_and_closes_when_they_were_delivered() -> None:
    time = Time()
    breaker = make(time, failure_threshold=1, recovery_time=10, probes=2)
    call(breaker, failed=1)
    assert breaker.retry_in() == 10
    time.now = 10.0
    assert breaker.state is BreakerState.HALF_OPEN
    admitted, epoch = breaker.admit(5)
    assert admitted == 2
    assert breaker.admit(1)[0] == 0
    breaker.record(1, epoch, delivered=1)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.record(1, epoch, delivered=1)
    assert breaker.state is BreakerState.CLOSED


def test_a_failed_probe_opens_it_again_and_a_neutral_one_gives_its_place_back() -> None:
    time = Time()
    breaker = make(time, failure_threshold=1, recovery_time=10)
    call(breaker, failed=1)
    time.now = 10.0
    assert call(breaker) == 1
    assert breaker.state is BreakerState.HALF_OPEN
    admitted, epoch = breaker.admit(1)
    breaker.release(admitted, epoch)
    assert call(breaker, failed=1) == 1
    assert breaker.state is BreakerState.OPEN
    assert breaker.retry_in() == 10


def test_late_news_of_an_earlier_epoch_change_nothing() -> None:
    time = Time()
    breaker = make(time, failure_threshold=1, recovery_time=10)
    late = breaker.admit(1)
    call(breaker, failed=1)
    time.now = 10.0
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.record(*late, failed=1)
    assert breaker.state is BreakerState.HALF_OPEN


@pytest.mark.parametrize("field", ["failure_threshold", "window", "recovery_time", "probes", "failure_rate"])
def test_a_setting_that_cannot_work_is_named(field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        BreakerConfig(**{field: 0})  # type: ignore[arg-type]


class Breaker(RuleBasedStateMachine):
    """Whatever happens: probes are bounded, open means none, and only a delivered probe closes it."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.breaker = CircuitBreaker(
            BreakerConfig(failure_threshold=3, recovery_time=5, probes=2, minimum_events=8, window=10),
            monotonic=self.time,
            on_change=lambda old, new: self.changes.append((old, new)),
        )
        self.under_way: list[tuple[int, int]] = []

    @rule(count=st.integers(1, 20))
    def admit(self, count: int) -> None:
        state = self.breaker.state
        admitted, epoch = self.breaker.admit(count)
        limit = {BreakerState.CLOSED: count, BreakerState.OPEN: 0, BreakerState.HALF_OPEN: min(count, 2)}
        assert 0 <= admitted <= limit[state]
        assert state is not BreakerState.CLOSED or admitted == count
        if admitted:
            self.under_way.append((admitted, epoch))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=st.sampled_from(["delivered", "failed", "denied", "neutral", "release"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        count, epoch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before, was = self.breaker.state, len(self.changes)
        match outcome:
            case "delivered":
                self.breaker.record(count, epoch, delivered=count)
            case "failed":
                self.breaker.record(count, epoch, failed=count)
            case "denied":
                self.breaker.record(count, epoch, denied=True)
            case "neutral":
                self.breaker.record(count, epoch)
            case _:
                self.breaker.release(count, epoch)
        for old, new in self.changes[was:]:
            if new is BreakerState.CLOSED:
                assert old is BreakerState.HALF_OPEN
                assert outcome == "delivered"
            if new is BreakerState.OPEN:
                assert outcome in ("failed", "denied")
        assert outcome in ("delivered", "failed", "denied") or self.breaker.state is before

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.time.now += seconds

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        assert 0 <= self.breaker._probing <= 2

    @invariant()
    def open_ends_after_the_recovery_time(self) -> None:
        assert 0 <= self.breaker.retry_in() <= 5


TestBreakerMachine = Breaker.TestCase
