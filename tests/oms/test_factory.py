from __future__ import annotations

from typing import Any

import pytest

from oms_events import EventBridgeConfig, NatsConfig, RoutingRule, create_oms_multi_platform_router
from oms_events.errors import ConfigurationError, RuleError
from oms_events.testing import MemoryPublisher


def names(router: Any) -> list[str]:
    return list(router.get_platform_status()["platforms"])


def test_nats_comes_first_and_is_the_primary_unless_another_is_named() -> None:
    both = (MemoryPublisher(), MemoryPublisher())
    router = create_oms_multi_platform_router(*both, publishers={"mine": MemoryPublisher()})
    assert names(router) == ["nats", "eventbridge", "mine"]
    assert router.get_platform_status()["health_summary"]["primary_platform"] == "nats"
    router = create_oms_multi_platform_router(*both, primary="eventbridge")
    assert router.get_platform_status()["health_summary"]["primary_platform"] == "eventbridge"


def test_without_nats_eventbridge_is_the_primary() -> None:
    router = create_oms_multi_platform_router(eventbridge_config=EventBridgeConfig(aws_region="us-east-1"))
    assert router.get_platform_status()["health_summary"]["primary_platform"] == "eventbridge"


def test_rules_of_the_user_s_own_stand_before_the_default_rules_or_alone() -> None:
    own = RoutingRule(event_type_pattern="mine", platforms=["nats"])
    router = create_oms_multi_platform_router(NatsConfig(), rules=[own])
    assert [rule.name for rule in router.routing_rules] == [
        "mine", "oms-schema", "oms-branches", "oms-actions", "oms-system", "oms-default",
    ]  # fmt: skip
    alone = create_oms_multi_platform_router(NatsConfig(), None, False, rules=[own])
    assert alone.routing_rules == (own,)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "no platforms"),
        ({"nats_publisher": "nats://user:secret@localhost"}, r"a str is no nats-py client.*NatsConfig\(servers"),
        ({"eventbridge_config": {"event_bus_name": "x"}}, "a dict is no EventBridgeConfig"),
        ({"nats_publisher": MemoryPublisher(), "publishers": {"nats": MemoryPublisher()}}, "given twice"),
        ({"publishers": {"mine": MemoryPublisher}}, "is no Publisher"),
        ({"nats_publisher": MemoryPublisher(), "config": {"timeout": 3}}, "is no RouterConfig"),
    ],
)
def test_what_cannot_work_is_refused_at_once(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        create_oms_multi_platform_router(**arguments)
    assert "secret" not in str(caught.value)


def test_what_is_no_rule_is_refused_at_once() -> None:
    with pytest.raises(RuleError, match="is no RoutingRule"):
        create_oms_multi_platform_router(MemoryPublisher(), rules=[{"platforms": ["nats"]}])  # type: ignore[list-item]
