from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.alarms import AlarmSpec, MetricSpec
from oms_events.provisioning.specs.dashboard_body import check_dashboard, read_body
from oms_events.provisioning.specs.dashboards import (
    AlarmWidget,
    DashboardSpec,
    ExpressionSpec,
    LogWidget,
    MetricWidget,
    TextWidget,
)
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

ALARM_ARN = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:depth"
OTHER_ALARM = "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:other"

queue = QueueSpec(name="orders")
group = LogGroupSpec(name="/aws/events/orders")
depth = MetricSpec(
    namespace="AWS/SQS",
    metric_name="ApproximateNumberOfMessagesVisible",
    dimensions={"QueueName": queue.reference("name")},
    statistic="Maximum",
    id="depth",
    label='now ${LAST}, "highest" ${MAX}',
)
alarm = AlarmSpec(name="depth", namespace="AWS/SQS", metric_name="Depth", threshold=1)


def synthesized(*widgets: Any, **values: Any) -> Mapping[str, Any]:
    spec = DashboardSpec(**({"name": "orders", "widgets": widgets} | values))
    template = synthesize(
        StackSpec(name="orders", dashboards=(spec,), queues=(queue,), log_groups=(group,), alarms=(alarm,))
    )
    return template.resources["DashboardOrders"]["Properties"]


def body(*widgets: Any, **values: Any) -> Mapping[str, Any]:
    return read_body(synthesized(*widgets, **values)["DashboardBody"])


def test_aws_takes_a_dashboard_with_all_widgets() -> None:
    widgets = (
        TextWidget(markdown='# Orders in ${AWS::Region}\n${braces} and "quotes"'),
        MetricWidget(
            title="Depth",
            metrics=(depth, MetricSpec(namespace="Orders", metric_name="Age", visible=False, id="age", period=60)),
            expressions=(ExpressionSpec(expression="depth * age", id="cost", label="cost", visible=True),),
            stacked=True,
            left_label="messages",
            left_min=0,
        ),
        MetricWidget(metrics=(depth,), view="gauge", left_min=0, left_max=100),
        LogWidget(
            title="Newest", log_groups=(group.reference("name"), "/other"), query="fields @message | limit 20"
        ),
        AlarmWidget(title="Alarms", alarms=(alarm.arn, OTHER_ALARM)),
    )
    spec = DashboardSpec(name="orders", widgets=widgets, start="-PT3H", period_override="inherit")
    stack = StackSpec(name="orders", dashboards=(spec,), queues=(queue,), log_groups=(group,), alarms=(alarm,))
    assert findings(synthesize(stack)) == []


def test_widgets_without_a_place_fill_rows_from_the_left() -> None:
    sizes = [(12, 6), (6, 8), (6, 3), (18, 2), (12, 1)]
    widgets = (TextWidget(markdown="x", width=width, height=height) for width, height in sizes)
    places = [(widget["x"], widget["y"]) for widget in body(*widgets)["widgets"]]
    assert places == [(0, 0), (12, 0), (18, 0), (0, 8), (0, 10)]


def test_a_given_place_stays() -> None:
    [widget] = body(TextWidget(markdown="x", x=20, y=7, width=4, height=2))["widgets"]
    assert (widget["x"], widget["y"], widget["width"], widget["height"]) == (20, 7, 4, 2)


def test_text_of_users_survives_the_substitution_of_pseudo_parameters() -> None:
    text = synthesized(TextWidget(markdown='${HOME} in ${AWS::Region}, "${!not}"'))["DashboardBody"]["Fn::Sub"]
    assert json.loads(_substitute(text))["widgets"][0]["properties"]["markdown"] == '${HOME} in eu, "${!not}"'


def test_a_dashboard_without_variables_is_plain_text() -> None:
    assert json.loads(synthesized(TextWidget(markdown="${HOME}"))["DashboardBody"])


def test_metrics_stand_as_cloudwatch_wants_them_with_the_names_of_the_stack() -> None:
    widget = MetricWidget(metrics=(depth,), expressions=(ExpressionSpec(expression="depth / 2", label="half"),))
    [shown] = json.loads(_substitute(synthesized(widget)["DashboardBody"]["Fn::Sub"]))["widgets"]
    assert shown["properties"] == {
        "metrics": [
            [
                *("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "<QueueOrders.QueueName>"),
                {"id": "depth", "label": 'now ${LAST}, "highest" ${MAX}', "stat": "Maximum"},
            ],
            [{"expression": "depth / 2", "label": "half"}],
        ],
        "region": "eu",
        "period": 300,
        "view": "timeSeries",
    }


def test_a_log_widget_queries_its_groups() -> None:
    widget = LogWidget(log_groups=(group.reference("name"), "/other"), query="limit 20")
    assert (
        body(widget)["widgets"][0]["properties"]["query"]
        == "SOURCE '/aws/events/orders' | SOURCE '/other' | limit 20"
    )


def test_widgets_can_be_written_as_in_a_file() -> None:
    spec = DashboardSpec(
        name="orders",
        widgets=[  # type: ignore[arg-type]
            {"type": "text", "markdown": "x"},
            {"type": "metric", "metrics": [{"namespace": "A", "metric_name": "B"}], "width": 12},
        ],
    )
    assert [type(widget) for widget in spec.widgets] == [TextWidget, MetricWidget]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TextWidget(markdown=""), "markdown"),
        (lambda: TextWidget(markdown="x", width=25), "width = 25"),
        (lambda: TextWidget(markdown="x", height=1001), "height = 1001"),
        (lambda: TextWidget(markdown="x", x=1), "x and y go together"),
        (lambda: TextWidget(markdown="x", x=13, y=0, width=12), "24 columns"),
        (lambda: MetricWidget(), "1 to 500"),
        (lambda: MetricWidget(metrics=(depth,) * 501), "1 to 500"),
        (lambda: MetricWidget(metrics=(depth, depth)), "twice"),
        (lambda: MetricWidget(metrics=(depth,), period=45), "multiple of 60"),
        (lambda: MetricWidget(metrics=(depth,), view="gauge", left_min=0), "both ends"),
        (lambda: MetricWidget(metrics=(depth,), expressions=({"expression": "dept"},)), "'dept', which is no id"),
        (lambda: LogWidget(log_groups=(), query="limit 1"), "log_groups"),
        (lambda: LogWidget(log_groups=(queue.reference("name"),), query="limit 1"), "log group's `name`"),
        (lambda: LogWidget(log_groups=("a' | x",), query="limit 1"), "no log group's name"),
        (lambda: AlarmWidget(alarms=()), "alarms"),
        (lambda: AlarmWidget(alarms=(ALARM_ARN,) * 101), "alarms"),
        (lambda: AlarmWidget(alarms=(queue.arn,)), "is no alarm"),
        (lambda: AlarmWidget(alarms=("arn:aws:sns:us-east-1:123456789012:t",)), "no alarm's ARN"),
        (lambda: DashboardSpec(name="a b", key="k", widgets=()), "1 to 255"),
        (lambda: DashboardSpec(name="a", widgets=(), start="3h"), "'-PT3H'"),
        (lambda: DashboardSpec(name="a", widgets=(TextWidget(markdown="x"),) * 501), "at most 500"),
        (
            lambda: DashboardSpec(
                name="a", widgets=(TextWidget(markdown="x"), TextWidget(markdown="x", x=0, y=0))
            ),
            "to all, or to none",
        ),
        (
            lambda: DashboardSpec(
                name="a",
                widgets=(MetricWidget(metrics=(MetricSpec(namespace="A", metric_name="B"),) * 500),) * 6,
            ),
            "3000 metrics",
        ),
        (lambda: DashboardSpec(name="a", widgets=({"type": "pie"},)), "type"),
    ],
)
def test_a_dashboard_that_cloudwatch_refuses_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


GOOD: dict[str, Any] = {
    "start": "-P1DT6H",
    "periodOverride": "auto",
    "widgets": [
        {"type": "text", "properties": {"markdown": "x"}},
        {
            "type": "metric",
            "x": 12,
            "y": 3,
            "width": 12,
            "height": 6,
            "properties": {
                "metrics": [
                    ["AWS/Events", "Invocations", "RuleName", "placed", {"id": "m1", "period": 10}],
                    [".", "FailedInvocations", ".", "."],
                    [{"expression": "m1 * 2"}],
                ],
                "region": "us-gov-west-1",
                "view": "bar",
            },
        },
        {"type": "metric", "properties": {"annotations": {"alarms": [ALARM_ARN]}, "region": "${AWS::Region}"}},
        {"type": "log", "properties": {"query": "SOURCE 'a' | limit 1", "region": "us-east-1", "view": "pie"}},
        {"type": "alarm", "properties": {"alarms": [ALARM_ARN, "${Alarm.Arn}"], "sortBy": "timestamp"}},
        {"type": "custom", "properties": {"endpoint": "arn:aws:lambda:us-east-1:123456789012:function:f"}},
    ],
}


def test_a_body_of_other_tools_passes() -> None:
    check_dashboard(GOOD)
    check_dashboard({"widgets": []})


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        *steps, last = path.split(".")
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if value is None:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("start", "yesterday", "start = 'yesterday'"),
        ("start", "-P", "start = '-P'"),
        ("periodOverride", "never", "periodOverride"),
        ("widgets", None, "widgets is missing"),
        ("widgets", [{}] * 501, "501 widgets"),
        ("widgets.0", "x", "widgets.0: 'x' is no object"),
        ("widgets.0.type", "words", "type = 'words'"),
        ("widgets.0.properties", None, "widgets.0: properties is missing"),
        ("widgets.0.properties", {"text": "x"}, "markdown is missing"),
        ("widgets.1.x", 24, "x = 24: a whole number from 0 to 23"),
        ("widgets.1.y", -1, "y = -1: a whole number from 0"),
        ("widgets.1.width", 0, "width = 0"),
        ("widgets.1.width", 13, "beyond the 24 columns"),
        ("widgets.1.height", 6.5, "height = 6.5"),
        ("widgets.1.properties.region", None, "region = None"),
        ("widgets.1.properties.region", "Frankfurt", "region = 'Frankfurt'"),
        ("widgets.1.properties.metrics", [], "1 to 500"),
        ("widgets.1.properties.metrics", [["A", "B"]] * 501, "1 to 500"),
        ("widgets.1.properties.metrics", None, "metrics is missing"),
        ("widgets.1.properties.metrics.1", ["AWS/Events"], "metrics.1: namespace, name, and then pairs"),
        ("widgets.1.properties.metrics.1", ["A", "B", "C"], "pairs of a dimension's name"),
        ("widgets.1.properties.metrics.1", ["A", "B", {"id": "m1"}], "an id stands twice"),
        ("widgets.1.properties.metrics.1", ["A", "B", {"period": 45}], "period = 45"),
        ("widgets.1.properties.metrics.1", ["A", 5], "are texts"),
        ("widgets.1.properties.metrics.1", "A", "is no array"),
        ("widgets.1.properties.metrics.2", ["A", {"expression": "m1"}], "stands alone"),
        ("widgets.1.properties.period", 7, "period = 7"),
        ("widgets.1.properties.view", "donut", "view = 'donut'"),
        ("widgets.1.properties.view", "gauge", "needs min and max"),
        ("widgets.3.properties.view", "gauge", "view = 'gauge'"),
        ("widgets.3.properties.query", "limit 1", "does not begin with SOURCE"),
        ("widgets.3.properties.region", None, "region = None"),
        ("widgets.4.properties.alarms", [], "1 to 100 ARNs"),
        ("widgets.4.properties.alarms", [ALARM_ARN] * 101, "1 to 100 ARNs"),
        ("widgets.4.properties.alarms.0", "depth", "no alarm's ARN"),
        ("widgets.4.properties.sortBy", "name", "sortBy = 'name'"),
    ],
)
def test_each_fault_of_a_body_is_found_with_its_place(path: str, value: Any, said: str) -> None:
    document = copy.deepcopy(GOOD)
    _set(path, value)(document)
    with pytest.raises(SpecError) as caught:
        check_dashboard(document)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems


def test_all_faults_of_a_body_are_said_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        check_dashboard({"start": "now", "widgets": [{"type": "a", "properties": {}}, {"type": "text"}]})
    assert len(caught.value.problems) == 3


def test_metrics_of_all_widgets_count_together() -> None:
    widget = {"type": "metric", "properties": {"region": "us-east-1", "metrics": [["A", "B"]] * 500}}
    check_dashboard({"widgets": [widget] * 5})
    with pytest.raises(SpecError, match="3000 metrics"):
        check_dashboard({"widgets": [widget] * 6})


@pytest.mark.parametrize("text", ["{", "[]", {"Fn::Join": ["", []]}, None])
def test_a_body_that_is_no_json_object_is_refused(text: Any) -> None:
    with pytest.raises(SpecError, match="dashboard body"):
        read_body(text)


def _substitute(text: str) -> str:
    """What CloudFormation makes of the text of an Fn::Sub."""
    for variable, value in (("AWS::Region", "eu"), ("QueueOrders.QueueName", "<QueueOrders.QueueName>")):
        text = text.replace(f"${{{variable}}}", value)
    return text.replace("${!", "${", text.count("${!"))
