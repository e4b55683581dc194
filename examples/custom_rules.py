"""Routing rules of your own: strategies, conditions, changes while running, files, explanations and checks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from cloudevents.core.v1.event import CloudEvent

from oms_events import (
    EnhancedEventService,
    EventRouter,
    MemoryPublisher,
    Platform,
    RoutingRule,
    RoutingStrategy,
    RuleError,
    build_event,
    create_oms_multi_platform_router,
    load_rules,
)
from oms_events.routing.checks import check_rules

HERE = Path(__file__).parent

# [start:rule]
production_schema = RoutingRule(
    name="production-schema",
    event_type_pattern=r".*\.schema\..*",
    platforms={Platform.EVENTBRIDGE},
    strategy=RoutingStrategy.CONDITIONAL,
    conditions={"branch": "production"},
)
# [end:rule]

# [start:conditions]
urgent = RoutingRule(
    name="urgent-orders",
    event_type_pattern=r"shop\.order\..*",
    platforms=["nats", "eventbridge"],
    strategy=RoutingStrategy.FAILOVER,
    priority=600,
    conditions={
        "tenant": [{"anything-but": ["test", "demo"]}],
        "data.total": [{"numeric": [">=", 1000]}],
        "$or": [{"data.express": [True]}, {"data.country": [{"prefix": "D"}, "AT"]}],
    },
)
# [end:conditions]


# [start:bad]
def a_rule_that_cannot_work() -> None:
    try:
        RoutingRule(event_type_pattern=r"(?=order).*", platforms=set(), strategy="conditional")
    except RuleError as error:
        for problem in error.problems:
            print(problem)


# [end:bad]


def order(total: int, country: str) -> CloudEvent:
    data = {"total": total, "express": False, "country": country}
    return build_event("shop.order.placed", "/shop/web", data, tenant="acme")


def schema_change(branch: str) -> CloudEvent:
    return EnhancedEventService.create_schema_change_event(
        operation="create", resource_type="object_type", resource_id="User", branch=branch
    )


# [start:change]
async def change_while_running(router: EventRouter) -> None:
    router.add_routing_rule(production_schema)
    results = await router.publish_event(schema_change("production"))
    print(results.rule, list(results))

    everywhere = production_schema.model_copy(update={"platforms": ["nats", "eventbridge"]})
    router.add_routing_rule(everywhere, replace=True)
    results = await router.publish_event(schema_change("production"))
    print(results.rule, list(results))

    router.remove_routing_rule("production-schema")
    results = await router.publish_event(schema_change("production"))
    print(results.rule, list(results))


# [end:change]


# [start:file]
def load_from_a_file(router: EventRouter) -> None:
    for rule in load_rules(HERE / "rules.toml"):
        router.add_routing_rule(rule, replace=True)


# [end:file]


# [start:explain]
def explain(router: EventRouter) -> None:
    explanation = router.explain(order(1500, "DE"), assume_down={"nats"})
    print(explanation.rule, explanation.goes_to)
    for platform, why in explanation.platforms.items():
        print(f"  {platform}: {why}")
    for verdict in explanation.verdicts:
        print(f"  {verdict.rule.name}: {verdict.reason}")


# [end:explain]


# [start:check]
def check(router: EventRouter) -> None:
    for finding in check_rules(router.routing_rules, configured={"nats"}):
        print(f"{finding.severity}: {finding.rule}: {finding.message}")


# [end:check]


# [start:export]
def export() -> None:
    print(json.dumps(production_schema.to_event_pattern(), indent=2))


# [end:export]


async def main() -> None:
    platforms = {"nats": MemoryPublisher(), "eventbridge": MemoryPublisher()}
    a_rule_that_cannot_work()
    async with create_oms_multi_platform_router(publishers=platforms, rules=[urgent]) as router:
        await change_while_running(router)
        load_from_a_file(router)
        explain(router)
        check(router)
    export()


if __name__ == "__main__":
    asyncio.run(main())
