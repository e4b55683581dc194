"""What CloudWatch takes as a dashboard's body: checked here, for others look at it only when they deploy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from oms_events.errors import SpecError
from oms_events.provisioning.specs.base import Json

COLUMNS: Final = 24
MAX_HEIGHT: Final = 1000
MAX_WIDGETS: Final = 500
MAX_ALARMS: Final = 100
"""Of the grid, of a dashboard, and of an alarm widget (CloudWatch, "Dashboard Body Structure and Syntax")."""

MAX_METRICS: Final = 500
MAX_ALL_METRICS: Final = 2500
"""Of a widget, and of a dashboard, those that are not shown too (CloudWatch quotas)."""

_VARIABLE: Final = "${"
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d")
_ALARM: Final = re.compile(r"arn:aws[\w-]*:cloudwatch:[a-z0-9-]+:\d{12}:alarm:.+")
_RELATIVE: Final = re.compile(r"-P(?=.)(?:\d+[YMWD])*(?:T(?:\d+[HMS])+)?")
_ABSOLUTE: Final = re.compile(r"\d{4}-\d{2}-\d{2}T.+Z")
_HIGH_RESOLUTION: Final = (1, 5, 10, 20, 30)
_VIEWS: Final = {
    "metric": ("timeSeries", "singleValue", "gauge", "bar", "pie", "table"),
    "log": ("timeSeries", "bar", "pie", "table"),
}
_UNCHECKED: Final = ("custom", "explorer")


def read_body(body: Json) -> Mapping[str, Any]:
    """The body as it stands in a template, as text or in `Fn::Sub`, whose variables stay. Raises `SpecError`."""
    text = body.get("Fn::Sub") if isinstance(body, Mapping) else body
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except ValueError as error:
        raise SpecError("dashboard body", [f"is no JSON: {error}"]) from None
    if not isinstance(document, dict):
        raise SpecError("dashboard body", ["is no JSON object; write one with the array `widgets`"])
    return document


def check_dashboard(body: Mapping[str, Any]) -> None:
    """Checks a body by the rules of CloudWatch; variables of `Fn::Sub` may stand in its texts.

    Raises `SpecError` with all problems, each naming the widget, the property, its value and what is allowed.
    """
    if problems := list(_problems(body)):
        raise SpecError("dashboard body", problems)


def _problems(body: Mapping[str, Any]) -> Iterator[str]:
    start = body.get("start")
    if start is not None and not _is(start, _RELATIVE) and not _is(start, _ABSOLUTE):
        yield f"start = {start!r}: write a relative time such as '-PT3H', or one such as 2026-01-31T00:00:00Z"
    if body.get("periodOverride", "auto") not in ("auto", "inherit"):
        yield f"periodOverride = {body['periodOverride']!r}: 'auto' or 'inherit'"
    widgets = body.get("widgets")
    if not isinstance(widgets, list):
        yield "widgets is missing; write an array, which may be empty"
        return
    if len(widgets) > MAX_WIDGETS:
        yield f"{len(widgets)} widgets: at most {MAX_WIDGETS}"
    metrics = 0
    for at, widget in enumerate(widgets):
        if not isinstance(widget, Mapping):
            yield f"widgets.{at}: {widget!r} is no object"
            continue
        for problem in _widget_problems(widget):
            yield f"widgets.{at}: {problem}"
        metrics += len(_list(widget.get("properties"), "metrics"))
    if metrics > MAX_ALL_METRICS:
        yield f"{metrics} metrics: at most {MAX_ALL_METRICS} in all widgets together"


def _widget_problems(widget: Mapping[str, Any]) -> Iterator[str]:
    for name, low, high in (
        ("x", 0, COLUMNS - 1),
        ("y", 0, None),
        ("width", 1, COLUMNS),
        ("height", 1, MAX_HEIGHT),
    ):
        value = widget.get(name, low)
        if not isinstance(value, int) or value < low or (high is not None and value > high):
            yield f"{name} = {value!r}: a whole number from {low}" + (f" to {high}" if high is not None else "")
    if _integer(widget.get("x"), 0) + _integer(widget.get("width"), 6) > COLUMNS:
        yield f"x and width reach beyond the {COLUMNS} columns"
    properties = widget.get("properties")
    if not isinstance(properties, Mapping):
        yield "properties is missing"
        return
    kind = widget.get("type")
    if isinstance(kind, str) and kind in _CHECKS:
        yield from _CHECKS[kind](properties)
        if kind in _VIEWS and properties.get("view", "timeSeries") not in _VIEWS[kind]:
            yield f"view = {properties['view']!r}: one of {', '.join(_VIEWS[kind])}"
    elif kind not in _UNCHECKED:
        yield f"type = {kind!r}: one of {', '.join(sorted((*_CHECKS, *_UNCHECKED)))}"


def _metric_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    metrics = properties.get("metrics")
    annotations = properties.get("annotations")
    if metrics is None and not _list(annotations, "alarms"):
        yield "metrics is missing; name at least one, or an alarm in annotations.alarms"
    if metrics is not None and (not isinstance(metrics, list) or not 1 <= len(metrics) <= MAX_METRICS):
        yield f"metrics: an array of 1 to {MAX_METRICS}"
    for at, metric in enumerate(_list(properties, "metrics")):
        if problem := _line_problem(metric):
            yield f"metrics.{at}: {problem}"
    ids = [metric[-1]["id"] for metric in _list(properties, "metrics") if _options(metric).get("id") is not None]
    if len(set(ids)) < len(ids):
        yield "metrics: an id stands twice; give each its own"
    yield from _region_problems(properties)
    yield from _period_problems(properties)
    left = properties.get("yAxis", {}).get("left", {})
    if properties.get("view") == "gauge" and not {"min", "max"} <= left.keys():
        yield "yAxis.left needs min and max for a gauge"


def _line_problem(metric: object) -> str | None:
    if not isinstance(metric, list) or not metric:
        return f"{metric!r} is no array of namespace, name and dimensions"
    options = _options(metric)
    names = metric[:-1] if isinstance(metric[-1], Mapping) else metric
    if not all(isinstance(name, str) and name for name in names):
        return "namespace, name and dimensions are texts, with one object of options at the end"
    if "expression" in options:
        return "an expression stands alone, without namespace and name" if names else None
    if len(names) < 2 or len(names) % 2:
        return "namespace, name, and then pairs of a dimension's name and value"
    return next(_period_problems(options), None)


def _text_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(properties.get("markdown"), str):
        yield "markdown is missing"


def _log_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    query = properties.get("query")
    if not isinstance(query, str) or not query.lstrip().upper().startswith("SOURCE"):
        yield "query is missing, or does not begin with SOURCE '<log group>' |"
    yield from _region_problems(properties)


def _alarm_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    alarms = properties.get("alarms")
    if not isinstance(alarms, list) or not 1 <= len(alarms) <= MAX_ALARMS:
        yield f"alarms: an array of 1 to {MAX_ALARMS} ARNs"
    for arn in _list(properties, "alarms"):
        if not _is(arn, _ALARM):
            yield f"alarms: {arn!r} is no alarm's ARN"
    if properties.get("sortBy", "default") not in ("default", "stateUpdatedTimestamp", "timestamp"):
        yield f"sortBy = {properties['sortBy']!r}: 'default', 'stateUpdatedTimestamp' or 'timestamp'"


def _region_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    if not _is(properties.get("region"), _REGION):
        yield f"region = {properties.get('region')!r}: write ${{AWS::Region}} or one such as eu-central-1"


def _period_problems(properties: Mapping[str, Any]) -> Iterator[str]:
    period = properties.get("period", 60)
    if not isinstance(period, int) or (period not in _HIGH_RESOLUTION and (period < 60 or period % 60)):
        yield f"period = {period!r}: 1, 5, 10, 20, 30, or a multiple of 60 seconds"


_CHECKS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "alarm": _alarm_problems,
    "log": _log_problems,
    "metric": _metric_problems,
    "text": _text_problems,
}


def _is(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and (_VARIABLE in value or pattern.fullmatch(value) is not None)


def _integer(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _list(values: object, name: str) -> list[Any]:
    found = values.get(name) if isinstance(values, Mapping) else None
    return found if isinstance(found, list) else []


def _options(metric: object) -> Mapping[str, Any]:
    return metric[-1] if isinstance(metric, list) and metric and isinstance(metric[-1], Mapping) else {}
