from __future__ import annotations

import pytest

from oms_events.devstack import Denied, Fault, Forward, Hang, PartialFailure, Reset, ServerError, Throttle
from oms_events.devstack.faults import FaultPlan
from oms_events.errors import ConfigurationError


def draws(plan: FaultPlan, operation: str, count: int) -> list[Fault | None]:
    return [plan.next(operation) for _ in range(count)]


def test_script_goes_before_always_and_always_before_the_mix() -> None:
    plan = FaultPlan()
    plan.seeded(1, {Reset(): 1.0}, None)
    assert plan.next("PutEvents") == Reset()
    plan.always(Throttle(), None)
    plan.script([Denied(), Forward()], None)
    assert draws(plan, "PutEvents", 3) == [Denied(), Forward(), Throttle()]
    plan.clear()
    assert plan.next("PutEvents") is None


def test_script_keeps_a_fault_for_the_operation_it_names() -> None:
    plan = FaultPlan()
    plan.script([Throttle()], "PutEvents")
    plan.script([Reset()], None)
    assert draws(plan, "DescribeEventBus", 2) == [Reset(), None]
    assert plan.pending == 1
    assert draws(plan, "PutEvents", 2) == [Throttle(), None]


def test_always_of_an_operation_goes_before_always_of_any() -> None:
    plan = FaultPlan()
    plan.always(Hang(), None)
    plan.always(Forward(), "DescribeEventBus")
    assert plan.next("DescribeEventBus") == Forward()
    assert plan.next("PutEvents") == Hang()


def test_partial_failure_waits_for_put_events() -> None:
    plan = FaultPlan()
    plan.script([PartialFailure(count=1)], None)
    plan.always(PartialFailure(count=2), None)
    assert plan.next("DescribeEventBus") is None
    assert draws(plan, "PutEvents", 2) == [PartialFailure(count=1), PartialFailure(count=2)]
    plan.script([PartialFailure(count=3)], "SendMessageBatch")
    assert draws(plan, "SendMessageBatch", 2) == [PartialFailure(count=3), None]
    with pytest.raises(ConfigurationError, match="DescribeEventBus"):
        plan.script([PartialFailure(count=1)], "DescribeEventBus")


def test_same_seed_same_faults_near_their_probabilities() -> None:
    mix: dict[Fault, float] = {Throttle(): 0.2, ServerError(): 0.1}
    runs = []
    for seed in (7, 7, 8):
        plan = FaultPlan()
        plan.seeded(seed, mix, None)
        runs.append(draws(plan, "PutEvents", 2000))
    assert runs[0] == runs[1] != runs[2]
    assert 300 < runs[0].count(Throttle()) < 500
    assert 130 < runs[0].count(ServerError()) < 270
    assert runs[0].count(None) > 1200


def test_mix_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="at most 1"):
        FaultPlan().seeded(1, {Throttle(): 0.7, Reset(): 0.4}, None)


@pytest.mark.parametrize("wrong", [{}, {"indices": (1,), "count": 2}, {"indices": (-1,)}, {"count": -1}])
def test_partial_failure_is_told_which_entries(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="indices"):
        PartialFailure(**wrong)  # type: ignore[arg-type]


def test_partial_failure_ignores_entries_that_are_not_there() -> None:
    assert PartialFailure((1, 5)).failing(3) == {1}
    assert PartialFailure(count=4).failing(2) == {0, 1}
