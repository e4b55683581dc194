"""CloudWatch alarms on one metric, or on an expression over several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, Literal

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import (
    Arn,
    Grant,
    Json,
    Name,
    Reference,
    Resource,
    ResourceSpec,
    Scope,
    Spec,
    arn_service,
)

MAX_ACTIONS: Final = 5
"""Actions of an alarm for one state (CloudWatch API reference, PutMetricAlarm)."""

MAX_METRICS: Final = 10
"""Metrics of an alarm's expression (CloudWatch quotas)."""

MAX_WINDOW: Final = 604_800
MAX_SHORT_WINDOW: Final = 86_400
"""Seconds of period times evaluation periods: a day for periods below an hour, else seven (PutMetricAlarm)."""

Comparison = Literal[
    "GreaterThanThreshold",
    "GreaterThanOrEqualToThreshold",
    "LessThanThreshold",
    "LessThanOrEqualToThreshold",
]

_HOUR: Final = 3_600
_RESULT: Final = "result"
_STATISTICS: Final = ("Average", "Maximum", "Minimum", "SampleCount", "Sum")
_EXTENDED: Final = re.compile(
    r"(?:p|tm|tc|ts|wm)(?:100|\d{1,2}(?:\.\d{1,10})?)|IQM|(?:PR|TC|TM|TS|WM)\([\d.]*%?:[\d.]*%?\)"
)
_ID: Final = re.compile(r"[a-z][A-Za-z0-9_]{0,254}")
_TEXT: Final = re.compile(r"'[^']*'|\"[^\"]*\"")
_IDS: Final = re.compile(r"(?<![\w.])[a-z]\w*")
_OF_ALL: Final = "METRICS("
"""Stands in an expression for all its metrics, or for those with a text in their ids."""
_NOT_IN_NAME: Final = re.compile(r"[\x00-\x1f\x7f\"\\]")
_ACTION_SERVICES: Final = frozenset(
    ("aiops", "automate", "autoscaling", "lambda", "sns", "ssm", "ssm-incidents", "swf")
)
_GRANTS: Final = {
    "topic": ("cloudwatch.amazonaws.com", "sns:Publish"),
    "function": ("lambda.alarms.cloudwatch.amazonaws.com", "lambda:InvokeFunction"),
}
"""Kind of an action's spec to the service that acts and what it does (CloudWatch user guide, alarm actions)."""


class MetricSpec(Spec):
    """One metric as an alarm watches it, or a dashboard shows it.

    `id` names it in expressions. `period`, in seconds, is that of the alarm or widget unless given.
    """

    namespace: str = Field(min_length=1, max_length=255, pattern=r"^[^:]")
    metric_name: str = Field(min_length=1, max_length=255)
    dimensions: Mapping[str, Name] = Field(default_factory=dict, max_length=30)
    statistic: str = "Sum"
    """Sum, Average, Minimum, Maximum, SampleCount, or an extended one such as p99 or TM(10%:90%)."""
    period: int | None = None
    id: str | None = None
    label: str | None = None
    visible: bool = True
    """Whether a dashboard draws it, or only uses it in expressions."""

    @field_validator("statistic")
    @classmethod
    def _check_statistic(cls, statistic: str) -> str:
        return check_statistic(statistic)

    @field_validator("period")
    @classmethod
    def _check_period(cls, period: int | None) -> int | None:
        return None if period is None else check_period(period)

    @field_validator("id")
    @classmethod
    def _check_id(cls, text: str | None) -> str | None:
        return None if text is None else check_metric_id(text)


class AlarmSpec(ResourceSpec):
    """An alarm on one metric, or on an `expression` over `metrics`, which each have an id then.

    Its topics and functions of the same stack allow it by themselves; where a topic has a key, the key's policy
    must let `cloudwatch.amazonaws.com` use it. Limits: CloudWatch API reference, PutMetricAlarm.
    """

    kind: ClassVar[str] = "alarm"
    returns: ClassVar[Mapping[str, str]] = {"arn": "Arn", "name": "Ref"}

    description: str | None = Field(default=None, max_length=1024)

    namespace: str | None = Field(default=None, min_length=1, max_length=255, pattern=r"^[^:]")
    metric_name: str | None = Field(default=None, min_length=1, max_length=255)
    dimensions: Mapping[str, Name] = Field(default_factory=dict, max_length=30)
    statistic: str = "Sum"

    metrics: tuple[MetricSpec, ...] = Field(default=(), max_length=MAX_METRICS)
    expression: str | None = Field(default=None, min_length=1, max_length=2048)
    """Metric math over the ids of `metrics`, such as `100 * failed / all`; or, without `metrics`, a query of
    CloudWatch Metrics Insights over any number of metrics, which begins with `SELECT`."""
    label: str | None = None
    """What the expression is, in words."""

    period: int = 300
    """Seconds of one data point: 10, 20 or 30 for high-resolution metrics, or a multiple of 60."""
    evaluation_periods: int = Field(default=1, ge=1)
    datapoints_to_alarm: int | None = Field(default=None, ge=1)
    """How many of the evaluation periods must be beyond the threshold; all unless given."""
    comparison: Comparison = "GreaterThanThreshold"
    threshold: float
    treat_missing_data: Literal["breaching", "notBreaching", "ignore", "missing"] = "notBreaching"
    """Most metrics of AWS are absent when nothing happens. By default CloudWatch ignores missing data of
    `AWS/DynamoDB`."""
    actions: tuple[Arn, ...] = Field(default=(), max_length=MAX_ACTIONS)
    ok_actions: tuple[Arn, ...] = Field(default=(), max_length=MAX_ACTIONS)

    def resources(self, scope: Scope) -> dict[str, Resource]:
        properties: dict[str, Json] = {
            "AlarmName": self.name,
            "AlarmDescription": self.description,
            **(self._math(scope) if self.expression is not None else self._metric(scope)),
            "EvaluationPeriods": self.evaluation_periods,
            "DatapointsToAlarm": self.datapoints_to_alarm,
            "ComparisonOperator": self.comparison,
            "Threshold": self.threshold,
            "TreatMissingData": self.treat_missing_data,
            "AlarmActions": [scope.resolve(action) for action in self.actions] or None,
            "OKActions": [scope.resolve(action) for action in self.ok_actions] or None,
        }
        return {self.logical_id: Resource(type="AWS::CloudWatch::Alarm", properties=properties)}

    def grants(self, scope: Scope) -> Iterator[Grant]:
        # From the name: the alarm itself depends on what it notifies.
        name = self.name.replace("${", "${!")
        source = {
            "Fn::Sub": f"arn:${{AWS::Partition}}:cloudwatch:${{AWS::Region}}:${{AWS::AccountId}}:alarm:{name}"
        }
        for action in dict.fromkeys(
            each.ref for each in (*self.actions, *self.ok_actions) if isinstance(each, Reference)
        ):
            principal, allowed = _GRANTS[action.partition(":")[0]]
            yield Grant(to=Reference(ref=action), principal=principal, actions=(allowed,), source=source)

    @property
    def _is_query(self) -> bool:
        return self.expression is not None and self.expression.lstrip().upper().startswith("SELECT ")

    def _metric(self, scope: Scope) -> dict[str, Json]:
        is_simple = self.statistic in _STATISTICS
        return {
            "Namespace": self.namespace,
            "MetricName": self.metric_name,
            "Dimensions": _dimensions(self.dimensions, scope),
            "Statistic": self.statistic if is_simple else None,
            "ExtendedStatistic": None if is_simple else self.statistic,
            "Period": self.period,
        }

    def _math(self, scope: Scope) -> dict[str, Json]:
        queries = [_query(metric, self.period, scope) for metric in self.metrics]
        result = {
            "Id": _RESULT,
            "Expression": self.expression,
            "Label": self.label,
            "Period": self.period if self._is_query else None,
            "ReturnData": True,
        }
        return {"Metrics": [*queries, _without_none(result)]}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not 1 <= len(name) <= 255 or _NOT_IN_NAME.search(name):
            raise ValueError(
                "an alarm's name is 1 to 255 characters, no control characters, '\"' and '\\' among them"
            )
        return name

    @field_validator("statistic")
    @classmethod
    def _check_statistic(cls, statistic: str) -> str:
        return check_statistic(statistic)

    @field_validator("period")
    @classmethod
    def _check_period(cls, period: int) -> int:
        return check_period(period)

    @field_validator("actions", "ok_actions")
    @classmethod
    def _check_actions(cls, actions: tuple[str | Reference, ...]) -> tuple[str | Reference, ...]:
        for action in actions:
            if isinstance(action, Reference) and (action.kind not in _GRANTS or action.attribute != "arn"):
                raise ValueError(
                    f"{action.ref!r}: an alarm notifies a topic or a function of the stack, by its arn"
                )
            if isinstance(action, str) and arn_service(action) not in _ACTION_SERVICES:
                raise ValueError(f"{action!r} is nothing that an alarm can do; give a topic's ARN")
        if len(set(map(str, actions))) < len(actions):
            raise ValueError("an action stands twice; name each once")
        return actions

    def _problems_together(self) -> Iterator[str]:
        yield from self._watch_problems()
        yield from self._window_problems()

    def _watch_problems(self) -> Iterator[str]:
        single = [name for name in ("namespace", "metric_name", "dimensions") if getattr(self, name)]
        if self.expression is None and not self.metrics:
            if self.namespace is None or self.metric_name is None:
                yield "nothing to watch: give namespace and metric_name, or metrics and expression"
            return
        if single:
            yield f"{' and '.join(single)} belong to an alarm on one metric; put them into `metrics`"
        if self._is_query:
            if self.metrics:
                yield "metrics: a query finds its metrics by itself; leave them out"
            return
        if self.expression is None or not self.metrics:
            yield "metrics and expression go together; give both"
            return
        ids = [metric.id for metric in self.metrics]
        if None in ids or len(set(ids)) < len(ids) or _RESULT in ids:
            yield f"metrics: each needs an `id` of its own, and not {_RESULT!r}, which is the expression's"
        used = ids_in(self.expression)
        if unknown := sorted(used.difference(map(str, ids))):
            yield f"expression = {self.expression!r} uses {unknown[0]!r}, which is no id of `metrics`"
        is_of_all = _OF_ALL in _TEXT.sub("", self.expression)
        if not is_of_all and (unused := sorted(set(map(str, ids)) - used)):
            yield f"expression = {self.expression!r} does not use {unused[0]!r}; use it or take the metric out"

    def _window_problems(self) -> Iterator[str]:
        period = max([self.period, *(metric.period or 0 for metric in self.metrics)])
        longest = MAX_SHORT_WINDOW if period < _HOUR else MAX_WINDOW
        if period * self.evaluation_periods > longest:
            yield (
                f"period = {period}, evaluation_periods = {self.evaluation_periods}: together at most {longest} "
                "seconds (a day for periods below an hour, else seven); lower one"
            )
        if self.datapoints_to_alarm is not None and self.datapoints_to_alarm > self.evaluation_periods:
            yield (
                f"datapoints_to_alarm = {self.datapoints_to_alarm}: at most evaluation_periods, "
                f"{self.evaluation_periods}"
            )


def check_period(period: int) -> int:
    """A period of alarms, in seconds. Raises `ValueError`."""
    if period not in (10, 20, 30) and (period < 60 or period % 60):
        raise ValueError("a period is 10, 20, 30, or a multiple of 60 seconds")
    if period > MAX_SHORT_WINDOW:
        raise ValueError(f"a period is at most {MAX_SHORT_WINDOW} seconds, a day")
    return period


def check_statistic(statistic: str) -> str:
    """A statistic or extended statistic of CloudWatch. Raises `ValueError`."""
    if statistic not in _STATISTICS and _EXTENDED.fullmatch(statistic) is None:
        raise ValueError(
            f"no such statistic; use one of {', '.join(_STATISTICS)}, or one such as p99 or TM(10%:90%)"
        )
    return statistic


def check_metric_id(text: str) -> str:
    """A metric's name in expressions. Raises `ValueError`."""
    if _ID.fullmatch(text) is None:
        raise ValueError("an id begins with a lower-case letter, and goes on with letters, digits and '_'")
    return text


def ids_in(expression: str) -> set[str]:
    """The ids that an expression of metric math uses; functions are in capitals, and texts in quotes."""
    return set(_IDS.findall(_TEXT.sub("", expression)))


def _query(metric: MetricSpec, period: int, scope: Scope) -> Json:
    watched = {
        "Namespace": metric.namespace,
        "MetricName": metric.metric_name,
        "Dimensions": _dimensions(metric.dimensions, scope),
    }
    statistic = {"Metric": _without_none(watched), "Period": metric.period or period, "Stat": metric.statistic}
    query = {"Id": metric.id, "Label": metric.label, "MetricStat": statistic, "ReturnData": False}
    return _without_none(query)


def _dimensions(dimensions: Mapping[str, str | Reference], scope: Scope) -> list[Json] | None:
    return [{"Name": name, "Value": scope.resolve(value)} for name, value in dimensions.items()] or None


def _without_none(values: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value is not None}
