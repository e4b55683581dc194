from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.errors import UnroutableEventError
from oms_events.routing.rules import RoutingRule, RoutingStrategy
from oms_events.routing.strategies import Availability, budget, failover_order, make_plan

REGISTERED = ("nats", "eventbridge", "mine")


def rule(platforms: object, strategy: RoutingStrategy) -> RoutingRule:
    return RoutingRule(event_type_pattern=".*", platforms=platforms, strategy=strategy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "platforms", "primary", "expected"),
    [
        ("all", {"mine", "nats"}, "nats", ("nats", "mine")),
        ("all", ["mine", "nats"], "nats", ("mine", "nats")),
        ("all", {"webhook", "mine"}, "nats", ("mine", "webhook")),
        ("primary_only", {"eventbridge", "nats"}, "nats", ("nats",)),
        ("primary_only", ["mine", "eventbridge"], "nats", ("mine",)),
        ("primary_only", {"mine", "eventbridge"}, "nats", ("eventbridge",)),
        ("primary_only", ["webhook", "eventbridge"], "nats", ("eventbridge",)),
        ("primary_only", ["webhook"], "nats", ("webhook",)),
        ("failover", ["mine", "eventbridge", "nats"], "nats", ("nats", "mine", "eventbridge")),
        ("failover", {"mine", "eventbridge"}, "nats", ("eventbridge", "mine")),
    ],
)
def test_a_plan_has_the_rule_s_platforms_in_order(
    strategy: str, platforms: object, primary: str, expected: tuple[str, ...]
) -> None:
    plan = make_plan(rule(platforms, RoutingStrategy(strategy)), registered=REGISTERED, primary=primary)
    assert plan.platforms == expected
    assert plan.first_that_works == (strategy == "failover")


def test_without_a_rule_the_primary_gets_it_and_without_that_it_is_unroutable() -> None:
    assert make_plan(None, registered=REGISTERED, primary="mine").platforms == ("mine",)
    with pytest.raises(UnroutableEventError, match="no rule takes the event"):
        make_plan(None, registered=REGISTERED, primary=None)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(Availability)), st.sampled_from("abcdef"))
def test_failover_tries_usable_ones_in_order_then_probes_and_never_what_is_down(
    found: dict[str, Availability], sticky: str
) -> None:
    names = tuple(found)
    order, down = failover_order(names, found.__getitem__, sticky=sticky)
    usable = [name for name in names if found[name] is Availability.USABLE]
    probes = [name for name in names if found[name] is Availability.PROBE]
    assert sorted(order + down) == sorted(names)
    assert order[len(usable) :] == probes
    assert [name for name in order[: len(usable)] if name != sticky] == [name for name in usable if name != sticky]
    assert sticky not in usable or order[0] == sticky
    assert all(found[name] is Availability.DOWN for name in down)


@given(st.floats(0.001, 1000), st.integers(1, 6))
def test_every_platform_of_a_failover_keeps_a_share_of_the_deadline(total: float, platforms: int) -> None:
    remaining = total
    for left in range(platforms, 0, -1):
        share = budget(remaining, left)
        assert share >= total / 2**platforms
        remaining -= share
    assert remaining == pytest.approx(0)
