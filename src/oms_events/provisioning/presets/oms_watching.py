"""How the OMS bus is watched: alarms on its rules, whom they tell, and a dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from oms_events.provisioning.alarms import MAX_METRICS, AlarmSpec, MetricSpec
from oms_events.provisioning.base import Arn
from oms_events.provisioning.dashboards import DashboardSpec, ExpressionSpec, MetricWidget, TextWidget

_NAMESPACE: Final = "AWS/Events"
_FAILED, _ALL, _MATCHED = "FailedInvocations", "Invocations", "MatchedEvents"
_SHORT: Final = 300
_QUARTER: Final = 900
"""Seconds: too few invocations show over 15 minutes."""

_OWN: Final = (
    ("Events by outcome", "published_total", ("outcome", "platform"), "Sum"),
    ("Failed attempts by class", "failures_total", ("failure", "platform"), "Sum"),
    ("Breakers (1: in this state)", "breaker_state", ("platform", "state"), "Maximum"),
    ("Outbox: records that wait", "outbox_pending", (), "Maximum"),
    ("Outbox: age of the oldest, in seconds", "outbox_oldest_age_seconds", (), "Maximum"),
    ("Outbox: dead letters", "outbox_dead_letters", ("platform",), "Maximum"),
)
"""Title, metric without its prefix, its labels, and statistic (docs/reference/metrics.md). No histograms: the
CloudWatch agent drops them (CloudWatch user guide, "Prometheus metric type conversion")."""


def alarms(
    *,
    name: str,
    bus: str,
    families: Mapping[str, Sequence[str]],
    min_invocations: int,
    max_error_percent: float,
    actions: Sequence[Arn],
) -> Iterator[AlarmSpec]:
    """The alarms of a bus with rules in families: two over the whole bus, and the error rate by family.

    An expression takes ten metrics, so that a family of more than five rules has several alarms.
    """
    told = tuple(actions)
    yield AlarmSpec(
        name=f"{name}-failed-invocations",
        description=f"EventBridge gave up on targets of rules of {bus}: see the dead-letter queue",
        expression=_query(_FAILED, bus),
        period=_SHORT,
        threshold=0,
        actions=told,
    )
    if min_invocations:
        yield AlarmSpec(
            name=f"{name}-few-invocations",
            description=f"Fewer than {min_invocations} invocations by rules of {bus} in 15 minutes: is anything "
            "published, do the rules have targets?",
            expression=_query(_ALL, bus),
            period=_QUARTER,
            comparison="LessThanThreshold",
            threshold=min_invocations,
            # EventBridge sends no zeros.
            treat_missing_data="breaching",
            actions=told,
        )
    for family, rules in _groups(families):
        yield AlarmSpec(
            name=f"{name}-error-rate-{family}",
            description=f"More than {max_error_percent:g} % of the invocations by {family} rules of {bus} failed",
            metrics=tuple(_metrics(bus, rules)),
            expression=_rate(len(rules)),
            label="failed invocations in percent",
            period=_SHORT,
            threshold=max_error_percent,
            actions=told,
        )


def dashboard(*, name: str, bus: str, region_namespace: str, prefix: str) -> DashboardSpec:
    """Invocations, failures and matched events by rule, and the library's own metrics of `region_namespace`."""
    by_rule = [
        MetricWidget(
            title=title,
            width=8,
            expressions=(ExpressionSpec(expression=_search(metric, bus), label="${PROP('Dim.RuleName')}"),),
        )
        for title, metric in (("Invocations", _ALL), ("Failed invocations", _FAILED), ("Matched events", _MATCHED))
    ]
    own = [
        MetricWidget(
            title=title,
            width=8,
            expressions=(
                ExpressionSpec(expression=_own_search(region_namespace, labels, f"{prefix}_{metric}", statistic)),
            ),
        )
        for title, metric, labels, statistic in _OWN
    ]
    text = TextWidget(markdown=f"## {bus}\nThe library's metrics are those of the namespace `{region_namespace}`.")
    return DashboardSpec(name=name, widgets=(text, *by_rule, *own))


def _query(metric: str, bus: str) -> str:
    """The sum over all rules of a bus, however many they are."""
    return f"SELECT SUM({metric}) FROM SCHEMA(\"{_NAMESPACE}\", EventBusName, RuleName) WHERE EventBusName = '{bus}'"


def _groups(families: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    most = MAX_METRICS // 2
    for family, rules in families.items():
        for start in range(0, len(rules), most):
            yield family if start == 0 else f"{family}-{start // most + 1}", rules[start : start + most]


def _metrics(bus: str, rules: Sequence[str]) -> Iterator[MetricSpec]:
    for kind, metric in (("failed", _FAILED), ("all", _ALL)):
        for number, rule in enumerate(rules):
            dimensions = {"EventBusName": bus, "RuleName": rule}
            yield MetricSpec(id=f"{kind}{number}", namespace=_NAMESPACE, metric_name=metric, dimensions=dimensions)


def _rate(count: int) -> str:
    # Neither metric is sent when it is zero. Without invocations there is no rate, and no data.
    failed, every = (
        " + ".join(f"FILL({kind}{number}, 0)" for number in range(count)) for kind in ("failed", "all")
    )
    return f"100 * ({failed}) / ({every})"


def _search(metric: str, bus: str) -> str:
    return (
        f"SEARCH('{{{_NAMESPACE},EventBusName,RuleName}} MetricName=\"{metric}\" EventBusName=\"{bus}\"', "
        f"'Sum', {_SHORT})"
    )


def _own_search(namespace: str, labels: Sequence[str], metric: str, statistic: str) -> str:
    schema = ",".join((f'"{namespace}"', *labels))
    return f"SEARCH('{{{schema}}} MetricName=\"{metric}\"', '{statistic}', {_SHORT})"
