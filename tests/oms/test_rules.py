from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.events import build_event, encode
from oms_events.oms.catalogue import EventFamily, EventType
from oms_events.oms.rules import default_rules
from oms_events.routing.rules import RoutingRule, RoutingStrategy, RuleSet

EXPECTED = {
    EventFamily.SCHEMA: "oms-schema",
    EventFamily.OBJECT_TYPE: "oms-schema",
    EventFamily.PROPERTY: "oms-schema",
    EventFamily.LINK_TYPE: "oms-schema",
    EventFamily.BRANCH: "oms-branches",
    EventFamily.PROPOSAL: "oms-default",
    EventFamily.ACTION: "oms-actions",
    EventFamily.SYSTEM: "oms-system",
}


def test_default_rules_are_the_documented_ones() -> None:
    assert [(rule.name, rule.priority, rule.strategy, rule.platforms) for rule in default_rules()] == [
        ("oms-schema", 100, RoutingStrategy.ALL, ("nats", "eventbridge")),
        ("oms-branches", 90, RoutingStrategy.FAILOVER, ("nats", "eventbridge")),
        ("oms-actions", 80, RoutingStrategy.PRIMARY_ONLY, ("nats",)),
        ("oms-system", 70, RoutingStrategy.ALL, ("eventbridge",)),
        ("oms-default", 0, RoutingStrategy.PRIMARY_ONLY, ("nats", "eventbridge")),
    ]
    assert all(rule.ordered for rule in default_rules())


@pytest.mark.parametrize("event_type", EventType)
def test_every_type_of_the_catalogue_is_taken_by_its_rule(event_type: EventType) -> None:
    rule = RuleSet(default_rules()).decide(encode(build_event(event_type, "/oms/main")))
    assert rule is not None
    assert rule.name == EXPECTED[event_type.family]


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), min_size=1, max_size=6).map(".".join))
def test_any_other_type_is_taken_by_the_default_rule(event_type: str) -> None:
    segments = event_type.split(".")[1:-1]
    rule = RuleSet(default_rules()).decide(encode(build_event(event_type, "/other")))
    assert rule is not None
    if not set(segments) & {"schema", "objecttype", "property", "linktype", "branch", "action", "system"}:
        assert rule.name == "oms-default"


def test_a_users_rule_goes_before_the_defaults() -> None:
    mine = RoutingRule(event_type_pattern=r".*\.schema\..*", platforms=("webhook",))
    rule = RuleSet([*default_rules(), mine]).decide(encode(build_event(EventType.SCHEMA_CREATED, "/oms/main")))
    assert rule == mine
