"""How the OMS bus is watched: alarms on its rules, whom they tell, and a dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from oms_events.provisioning.specs.alarms import AlarmSpec, MetricSpec
from oms_events.provisioning.specs.base import Arn
from oms_events.provisioning.specs.dashboards import (
    AlarmWidget,
    DashboardSpec,
    ExpressionSpec,
    MetricWidget,
    TextWidget,
)
from oms_events.provisioning.specs.keys import KeySpec, KeyUseSpec
from oms_events.provisioning.specs.topics import SubscriptionSpec, TopicSpec

_NAMESPACE: Final = "AWS/Events"
_RULE: Final = ("EventBusName", "RuleName")
_BY_RULE: Final = f'SCHEMA("{_NAMESPACE}", {", ".join(_RULE)})'
_FAILED, _ALL, _MATCHED = "FailedInvocations", "Invocations", "MatchedEvents"
_TRIED, _DONE = "InvocationAttempts", "SuccessfulInvocationAttempts"
"""The first are of rules, these two of a bus as well (EventBridge user guide, "Monitoring Amazon EventBridge").

An invocation that EventBridge still repeats has failed for the rate, and not for FailedInvocations.
"""

_SHORT: Final = 300
_QUARTER: Final = 900
"""Seconds: too few invocations show over 15 minutes."""

_OWN: Final = (
    ("Events by outcome", "published_total", ("outcome", "platform"), "Sum"),
    ("Failed attempts by class", "failures_total", ("failure", "platform"), "Sum"),
    ("Breakers (1: in this state)", "breaker_state", ("platform", "state"), "Maximum"),
    ("Outbox: records that wait", "outbox_pending", ("instance",), "Maximum"),
    ("Outbox: age of the oldest, in seconds", "outbox_oldest_age_seconds", ("instance",), "Maximum"),
    ("Outbox: dead letters", "outbox_dead_letters", ("platform",), "Maximum"),
)
"""Title, metric without its prefix, its labels, and statistic (docs/reference/metrics.md). No histograms: the
CloudWatch agent drops them (CloudWatch user guide, "Prometheus metric type conversion")."""


@dataclass(frozen=True, slots=True)
class AlarmTopic:
    """A topic for alarms, and the key that it is encrypted with."""

    topic: TopicSpec
    key: KeySpec


def make_alarm_topic(name: str, emails: Sequence[str]) -> AlarmTopic:
    """A topic that mails to these addresses. CloudWatch cannot publish with SNS's own key, so it has one."""
    key = KeySpec(
        name=f"{name}-alarms",
        description=f"The alarm topic of {name}",
        users=(KeyUseSpec(service="cloudwatch.amazonaws.com"),),
    )
    subscriptions = tuple(SubscriptionSpec(protocol="email", endpoint=email) for email in emails)
    return AlarmTopic(TopicSpec(name=f"{name}-alarms", kms_key=key.arn, subscriptions=subscriptions), key)


def make_alarms(
    *, name: str, bus: str, min_invocations: int, max_error_percent: float, topic: Arn | None
) -> Iterator[AlarmSpec]:
    """The alarms of a bus, over all its rules together."""
    actions = () if topic is None else (topic,)
    yield AlarmSpec(
        name=f"{name}-failed-invocations",
        description=f"EventBridge gave up on targets of rules of {bus}: see the dead-letter queue",
        # By rule only, and metric math takes ten metrics.
        expression=f"SELECT SUM({_FAILED}) FROM {_BY_RULE} WHERE EventBusName = '{bus}'",  # noqa: S608
        label="failed invocations",
        period=_SHORT,
        threshold=0,
        actions=actions,
    )
    if min_invocations:
        yield AlarmSpec(
            name=f"{name}-few-invocations",
            description=f"Fewer than {min_invocations} invocations by rules of {bus} in 15 minutes: is anything "
            "published, and do the rules have targets?",
            namespace=_NAMESPACE,
            metric_name=_TRIED,
            dimensions={"EventBusName": bus},
            period=_QUARTER,
            comparison="LessThanThreshold",
            threshold=min_invocations,
            # What did not happen sends no zeros.
            treat_missing_data="breaching",
            actions=actions,
        )
    yield AlarmSpec(
        name=f"{name}-error-rate",
        description=f"More than {max_error_percent:g} % of the tries to invoke targets of rules of {bus} failed",
        metrics=(_bus_metric("tried", _TRIED, bus), _bus_metric("done", _DONE, bus)),
        expression="100 * (tried - FILL(done, 0)) / tried",
        label="failed invocations in percent",
        period=_SHORT,
        threshold=max_error_percent,
        actions=actions,
    )


def make_dashboard(
    *, name: str, bus: str, alarms: Sequence[AlarmSpec], namespace: str, prefix: str
) -> DashboardSpec:
    """The alarms, what the rules do, and the library's own metrics, from the agent's `namespace`."""
    widgets: list[AlarmWidget | MetricWidget | TextWidget] = [TextWidget(markdown=f"# {bus}", height=1)]
    if alarms:
        widgets.append(AlarmWidget(title="Alarms", alarms=tuple(alarm.arn for alarm in alarms)))
    for title, metric in (("Invocations", _ALL), ("Failed invocations", _FAILED), ("Matched events", _MATCHED)):
        widgets.append(_widget(title, _search((_NAMESPACE, *_RULE), metric, "Sum", f'EventBusName="{bus}"')))
    widgets.append(TextWidget(markdown=f"## The library, as the CloudWatch agent saw it ({namespace})", height=1))
    for title, metric, labels, statistic in _OWN:
        widgets.append(_widget(title, _search((namespace, *labels), f"{prefix}_{metric}", statistic)))
    return DashboardSpec(name=name, widgets=tuple(widgets))


def _bus_metric(id: str, metric: str, bus: str) -> MetricSpec:  # noqa: A002 - its name
    return MetricSpec(id=id, namespace=_NAMESPACE, metric_name=metric, dimensions={"EventBusName": bus})


def _widget(title: str, search: str) -> MetricWidget:
    return MetricWidget(title=title, width=8, expressions=(ExpressionSpec(expression=search),))


def _search(schema: Sequence[str], metric: str, statistic: str, where: str = "") -> str:
    quoted = ",".join(f'"{part}"' for part in schema)
    terms = " ".join(filter(None, (f"{{{quoted}}}", f'MetricName="{metric}"', where)))
    return f"SEARCH('{terms}', '{statistic}', {_SHORT})"
