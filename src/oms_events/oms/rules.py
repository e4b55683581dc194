"""The default rules of the OMS: where each family of events goes."""

from __future__ import annotations

from oms_events.publishing import Platform
from oms_events.routing.rules import RoutingRule, RoutingStrategy


def default_rules() -> tuple[RoutingRule, ...]:
    """The rules of a router that was given none, highest priority first.

    | name | events | priority | strategy | platforms |
    |---|---|---|---|---|
    | `oms-schema` | schema, objecttype, property, linktype | 100 | ALL | NATS, EventBridge |
    | `oms-branches` | branch | 90 | FAILOVER | NATS, then EventBridge |
    | `oms-actions` | action | 80 | PRIMARY_ONLY | NATS |
    | `oms-system` | system | 70 | ALL | EventBridge |
    | `oms-default` | everything else, proposals too | 0 | PRIMARY_ONLY | NATS, EventBridge |
    """
    both = (Platform.NATS, Platform.EVENTBRIDGE)
    return (
        RoutingRule(
            event_type_pattern=r".*\.(schema|objecttype|property|linktype)\..*",
            platforms=both,
            strategy=RoutingStrategy.ALL,
            priority=100,
            name="oms-schema",
        ),
        RoutingRule(
            event_type_pattern=r".*\.branch\..*",
            platforms=both,
            strategy=RoutingStrategy.FAILOVER,
            priority=90,
            name="oms-branches",
        ),
        RoutingRule(
            event_type_pattern=r".*\.action\..*",
            platforms=(Platform.NATS,),
            strategy=RoutingStrategy.PRIMARY_ONLY,
            priority=80,
            name="oms-actions",
        ),
        RoutingRule(
            event_type_pattern=r".*\.system\..*",
            platforms=(Platform.EVENTBRIDGE,),
            strategy=RoutingStrategy.ALL,
            priority=70,
            name="oms-system",
        ),
        RoutingRule(
            event_type_pattern=r".*",
            platforms=both,
            strategy=RoutingStrategy.PRIMARY_ONLY,
            priority=0,
            name="oms-default",
        ),
    )
