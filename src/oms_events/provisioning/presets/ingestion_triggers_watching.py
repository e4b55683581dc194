"""How the ingestion triggers are watched: alarms, and a dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from oms_events.instrumentation.cloudwatch import (
    API_REQUESTS,
    EXECUTION_DIMENSIONS,
    EXECUTIONS,
    NAMESPACE,
)
from oms_events.provisioning.presets.ingestion_triggers_parts import Queues
from oms_events.provisioning.specs.alarms import AlarmSpec, MetricSpec
from oms_events.provisioning.specs.base import Arn, Reference
from oms_events.provisioning.specs.dashboards import DashboardSpec, ExpressionSpec, MetricWidget, TextWidget
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import DEFAULT_BUS, RuleSpec

FAILED_INVOCATIONS: Final = 1
"""A rule's alarm goes off above this, in five minutes."""

_EVENTS: Final = "AWS/Events"
_LAMBDA: Final = "AWS/Lambda"
_SQS: Final = "AWS/SQS"
_WIDE: Final = 12


def make_alarms(rules: Sequence[RuleSpec], queues: Queues, topic: Arn | None) -> Iterator[AlarmSpec]:
    """One for each rule that cannot reach the function, and for each dead-letter queue with something in it."""
    actions = () if topic is None else (topic,)
    for rule in rules:
        yield AlarmSpec(
            name=f"{rule.name}-failed-invocations",
            description="EventBridge gives up starts that the function did not take",
            namespace=_EVENTS,
            metric_name="FailedInvocations",
            dimensions=_of_rule(rule),
            threshold=FAILED_INVOCATIONS,
            actions=actions,
            ok_actions=actions,
        )
    for queue in queues.of_dead_letters:
        yield AlarmSpec(
            name=f"{queue.name}-depth",
            description="Dead letters wait: look at them, and redrive or delete them",
            namespace=_SQS,
            metric_name="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": queue.reference("name")},
            statistic="Maximum",
            threshold=0,
            actions=actions,
            ok_actions=actions,
        )


def make_dashboard(
    name: str, *, schedule: RuleSpec, events: Sequence[RuleSpec], function: str, queues: Queues
) -> DashboardSpec:
    """Schedule runs, how often events come, failures and their kinds, use of the upstream API, and the queues."""
    rules = (schedule, *events)
    return DashboardSpec(
        name=name,
        widgets=(
            TextWidget(markdown=f"# {name}\nWhat starts ingestions, how they end, and what waits."),
            _widget("Schedule runs", _rule_metric("Invocations", schedule)),
            _widget("Events", *(_rule_metric("Invocations", rule) for rule in events)),
            _widget(
                "Failures",
                *(_rule_metric("FailedInvocations", rule) for rule in rules),
                *(
                    MetricSpec(namespace=_LAMBDA, metric_name=metric, dimensions={"FunctionName": function})
                    for metric in ("Errors", "Throttles")
                ),
            ),
            _widget("Kinds of failures", search=f"{_searched(EXECUTIONS)} NOT Status=success"),
            _widget("Starts", search=_searched(EXECUTIONS)),
            _widget("API usage", search=f'Namespace="{NAMESPACE}" MetricName="{API_REQUESTS}"', period=60),
            _widget(
                "Waiting",
                *(_queue_metric("ApproximateNumberOfMessagesVisible", queue) for queue in queues.all),
            ),
            _widget(
                "Oldest, in seconds",
                *(
                    _queue_metric("ApproximateAgeOfOldestMessage", queue)
                    for queue in (queues.delay, queues.chunks)
                ),
            ),
        ),
    )


def _widget(title: str, *metrics: MetricSpec, search: str | None = None, period: int = 300) -> MetricWidget:
    expressions = (
        () if search is None else (ExpressionSpec(expression=f"SEARCH('{search}', 'Sum', {period})", id="found"),)
    )
    return MetricWidget(title=title, width=_WIDE, period=period, metrics=metrics, expressions=expressions)


def _searched(metric: str) -> str:
    return f'{{{",".join((NAMESPACE, *EXECUTION_DIMENSIONS))}}} MetricName="{metric}"'


def _rule_metric(metric: str, rule: RuleSpec) -> MetricSpec:
    label = f"{rule.name} {metric}"
    return MetricSpec(namespace=_EVENTS, metric_name=metric, dimensions=_of_rule(rule), label=label)


def _queue_metric(metric: str, queue: QueueSpec) -> MetricSpec:
    dimensions = {"QueueName": queue.reference("name")}
    return MetricSpec(
        namespace=_SQS, metric_name=metric, dimensions=dimensions, statistic="Maximum", label=queue.name
    )


def _of_rule(rule: RuleSpec) -> Mapping[str, str | Reference]:
    """A rule's dimensions: one on the default bus goes without its bus."""
    name = {"RuleName": rule.reference("name")}
    return name if rule.bus == DEFAULT_BUS else {"EventBusName": rule.bus, **name}
