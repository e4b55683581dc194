"""CloudWatch dashboards: widgets on a grid of 24 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from oms_events.provisioning.specs.alarms import MetricSpec, check_metric_id, check_period, ids_in
from oms_events.provisioning.specs.base import (
    Arn,
    Json,
    Name,
    Reference,
    Resource,
    ResourceSpec,
    Scope,
    Spec,
    substituted,
)
from oms_events.provisioning.specs.dashboard_body import (
    COLUMNS,
    MAX_ALARMS,
    MAX_ALL_METRICS,
    MAX_HEIGHT,
    MAX_METRICS,
    MAX_WIDGETS,
    check_dashboard,
    read_body,
)
from oms_events.provisioning.specs.texts import json_text

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_REGION: Final = {"Ref": "AWS::Region"}


class WidgetSpec(Spec):
    """What all widgets have: a size in cells of the grid, and a place, or the next free one in the order given."""

    type: str
    x: int | None = Field(default=None, ge=0, lt=COLUMNS)
    y: int | None = Field(default=None, ge=0)
    width: int = Field(default=6, ge=1, le=COLUMNS)
    height: int = Field(default=6, ge=1, le=MAX_HEIGHT)

    def properties(self, scope: Scope) -> dict[str, Json]:
        """What the widget shows, as CloudWatch wants it."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.x is None) is not (self.y is None):
            raise ValueError("x and y go together; give both, or none for the next free place")
        if self.x is not None and self.x + self.width > COLUMNS:
            raise ValueError(
                f"x = {self.x}, width = {self.width}: the grid has {COLUMNS} columns; make it narrower"
            )
        return self


class ExpressionSpec(Spec):
    """A line that is computed from a widget's other lines by their ids (metric math), or a search."""

    expression: str = Field(min_length=1, max_length=2048)
    id: str | None = None
    label: str | None = None
    visible: bool = True

    @field_validator("id")
    @classmethod
    def _check_id(cls, text: str | None) -> str | None:
        return None if text is None else check_metric_id(text)


class MetricWidget(WidgetSpec):
    """Metrics, and expressions over them, as lines, numbers or a gauge."""

    type: Literal["metric"] = "metric"
    title: str | None = None
    metrics: tuple[MetricSpec, ...] = ()
    expressions: tuple[ExpressionSpec, ...] = ()
    period: int = 300
    """Seconds of one data point, for the metrics that name none."""
    view: Literal["timeSeries", "singleValue", "gauge", "bar", "pie", "table"] = "timeSeries"
    stacked: bool = False
    left_label: str | None = None
    left_min: float | None = None
    left_max: float | None = None
    """The ends of the axis; a gauge needs both."""

    def properties(self, scope: Scope) -> dict[str, Json]:
        axis = _given(label=self.left_label, min=self.left_min, max=self.left_max)
        return _given(
            title=_text(self.title),
            metrics=[*(_metric(each, scope) for each in self.metrics), *map(_expression, self.expressions)],
            region=_REGION,
            period=self.period,
            view=self.view,
            stacked=self.stacked or None,
            yAxis={"left": axis} if axis else None,
        )

    @field_validator("period")
    @classmethod
    def _check_period(cls, period: int) -> int:
        return check_period(period)

    def _problems_together(self) -> Iterator[str]:
        count = len(self.metrics) + len(self.expressions)
        if not 1 <= count <= MAX_METRICS:
            yield f"{count} metrics and expressions: a widget shows 1 to {MAX_METRICS}"
        lines: tuple[MetricSpec | ExpressionSpec, ...] = (*self.metrics, *self.expressions)
        ids = [line.id for line in lines if line.id is not None]
        if len(set(ids)) < len(ids):
            yield "an id stands twice; give each metric and expression its own"
        for line in self.expressions:
            if unknown := sorted(ids_in(line.expression).difference(ids)):
                yield f"expression = {line.expression!r} uses {unknown[0]!r}, which is no id of this widget"
        if self.view == "gauge" and (self.left_min is None or self.left_max is None):
            yield "left_min and left_max are missing: a gauge needs both ends of its axis"


class TextWidget(WidgetSpec):
    """Text in Markdown."""

    type: Literal["text"] = "text"
    width: int = Field(default=COLUMNS, ge=1, le=COLUMNS)
    height: int = Field(default=2, ge=1, le=MAX_HEIGHT)
    markdown: str = Field(min_length=1)

    def properties(self, scope: Scope) -> dict[str, Json]:
        return {"markdown": substituted(self.markdown)}


class LogWidget(WidgetSpec):
    """The answer of a CloudWatch Logs Insights query over log groups."""

    type: Literal["log"] = "log"
    width: int = Field(default=COLUMNS, ge=1, le=COLUMNS)
    title: str | None = None
    log_groups: tuple[Name, ...] = Field(min_length=1, max_length=50)
    """Names, or `log_group.reference("name")` of LogGroupSpecs."""
    query: str = Field(min_length=1, max_length=10_000)
    """The query without its sources."""
    view: Literal["timeSeries", "bar", "pie", "table"] = "table"

    def properties(self, scope: Scope) -> dict[str, Json]:
        names = [scope.find(group).name if isinstance(group, Reference) else group for group in self.log_groups]
        query = " | ".join((*(f"SOURCE '{name}'" for name in names), self.query))
        return _given(title=_text(self.title), query=substituted(query), region=_REGION, view=self.view)

    @field_validator("log_groups")
    @classmethod
    def _check_groups(cls, groups: tuple[str | Reference, ...]) -> tuple[str | Reference, ...]:
        for group in groups:
            if isinstance(group, Reference) and (group.kind, group.attribute) != ("log_group", "name"):
                raise ValueError(f"{group.ref!r}: give a log group's `name`")
            if isinstance(group, str) and "'" in group:
                raise ValueError(f"{group!r} is no log group's name")
        return groups


class AlarmWidget(WidgetSpec):
    """The states of alarms."""

    type: Literal["alarm"] = "alarm"
    width: int = Field(default=COLUMNS, ge=1, le=COLUMNS)
    height: int = Field(default=3, ge=1, le=MAX_HEIGHT)
    title: str | None = None
    alarms: tuple[Arn, ...] = Field(min_length=1, max_length=MAX_ALARMS)

    def properties(self, scope: Scope) -> dict[str, Json]:
        return _given(title=_text(self.title), alarms=[scope.resolve(alarm) for alarm in self.alarms])

    @field_validator("alarms")
    @classmethod
    def _check_alarms(cls, alarms: tuple[str | Reference, ...]) -> tuple[str | Reference, ...]:
        for alarm in alarms:
            if isinstance(alarm, Reference):
                if (alarm.kind, alarm.attribute) != ("alarm", "arn"):
                    raise ValueError(f"{alarm.ref!r} is no alarm; give an alarm's `arn`")
            elif ":alarm:" not in alarm:
                raise ValueError(
                    f"{alarm!r} is no alarm's ARN; write arn:...:cloudwatch:<region>:<account>:alarm:<name>"
                )
        return alarms


AnyWidget = Annotated[MetricWidget | TextWidget | LogWidget | AlarmWidget, Field(discriminator="type")]


class DashboardSpec(ResourceSpec):
    """A CloudWatch dashboard; dashboards are of the account, not of a Region, and so are their names.

    Widgets without a place fill rows from the left in their order; give all of them a place, or none. Texts may
    hold `${AWS::Region}` and its like. Limits: CloudWatch, "Dashboard Body Structure and Syntax".
    """

    kind: ClassVar[str] = "dashboard"
    returns: ClassVar[Mapping[str, str]] = {"name": "Ref"}

    widgets: tuple[AnyWidget, ...] = Field(max_length=MAX_WIDGETS)
    start: str | None = None
    """The begin of what it shows when it opens, such as `-PT3H`."""
    period_override: Literal["auto", "inherit"] | None = None
    """`inherit`: each widget keeps its period whatever time range is shown."""

    def resources(self, scope: Scope) -> dict[str, Resource]:
        places = _places(self.widgets)
        widgets = [
            {
                "type": widget.type,
                "x": x,
                "y": y,
                "width": widget.width,
                "height": widget.height,
                "properties": widget.properties(scope),
            }
            for widget, (x, y) in zip(self.widgets, places, strict=True)
        ]
        body = json_text(_given(start=self.start, periodOverride=self.period_override, widgets=widgets))
        check_dashboard(read_body(body))
        properties = {"DashboardName": self.name, "DashboardBody": body}
        return {self.logical_id: Resource(type="AWS::CloudWatch::Dashboard", properties=properties)}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError("a dashboard's name is 1 to 255 letters, digits, '-' and '_'")
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        # What needs no scope is said now; the places and lines were checked by the widgets.
        check_dashboard(_given(start=self.start, widgets=[]))
        placed = [widget.x is not None for widget in self.widgets]
        if any(placed) and not all(placed):
            raise ValueError("widgets: some have a place and some have none; give x and y to all, or to none")
        widgets = (widget for widget in self.widgets if isinstance(widget, MetricWidget))
        lines = sum(len(widget.metrics) + len(widget.expressions) for widget in widgets)
        if lines > MAX_ALL_METRICS:
            raise ValueError(f"widgets: {lines} metrics, and a dashboard takes {MAX_ALL_METRICS}; make two")
        return self


def _places(widgets: Sequence[WidgetSpec]) -> Iterator[tuple[int, int]]:
    """The column and row of each widget: from left to right, and below the highest of a row that is full."""
    column = top = bottom = 0
    for widget in widgets:
        if widget.x is not None and widget.y is not None:
            yield widget.x, widget.y
            continue
        if column + widget.width > COLUMNS:
            column, top = 0, bottom
        yield column, top
        column += widget.width
        bottom = max(bottom, top + widget.height)


def _metric(metric: MetricSpec, scope: Scope) -> list[Json]:
    dimensions = [part for name, value in metric.dimensions.items() for part in (name, scope.resolve(value))]
    options = _given(
        id=metric.id,
        label=_text(metric.label),
        stat=metric.statistic,
        period=metric.period,
        visible=None if metric.visible else False,
    )
    return [metric.namespace, metric.metric_name, *dimensions, options]


def _expression(line: ExpressionSpec) -> list[Json]:
    visible = None if line.visible else False
    return [_given(expression=line.expression, id=line.id, label=_text(line.label), visible=visible)]


def _text(text: str | None) -> Json:
    return None if text is None else substituted(text)


def _given(**values: Json) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value is not None}
