from __future__ import annotations

from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.alarms import AlarmSpec, MetricSpec, ids_in
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.topics import TopicSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
topic = TopicSpec(name="alarms")
handler = FunctionSpec(
    name="handler",
    handler="index.handler",
    role="arn:aws:iam::123456789012:role/handler",
    code=CodeSpec(inline="def handler(event, context): pass"),
)


def alarm(**values: Any) -> AlarmSpec:
    common = {"name": "failed", "namespace": "AWS/Events", "metric_name": "FailedInvocations", "threshold": 0}
    return AlarmSpec(**(common | values))


def metric(name: str, **values: Any) -> MetricSpec:
    return MetricSpec(**({"id": name, "namespace": "AWS/Events", "metric_name": name.title()} | values))


def rate(**values: Any) -> AlarmSpec:
    common = {
        "name": "failure-rate",
        "metrics": (metric("failed"), metric("all", statistic="SampleCount", period=60)),
        "expression": "IF(all > 0, 100 * failed / all, 0)",
        "threshold": 10,
    }
    return AlarmSpec(**(common | values))


def test_aws_takes_alarms_with_all_options() -> None:
    whole = alarm(
        name="whole",
        description="The handler fails",
        namespace="AWS/Lambda",
        metric_name="Duration",
        dimensions={"FunctionName": handler.reference("name")},
        statistic="p99.9",
        period=60,
        evaluation_periods=5,
        datapoints_to_alarm=3,
        comparison="GreaterThanOrEqualToThreshold",
        threshold=1.5,
        treat_missing_data="breaching",
        actions=(topic.arn, handler.arn),
        ok_actions=(topic.arn,),
    )
    stack = StackSpec(name="alarms", alarms=(whole, alarm(), rate()), topics=(topic,), functions=(handler,))
    assert findings(synthesize(stack)) == []


def test_an_alarm_on_an_expression_watches_its_result_alone() -> None:
    made = synthesize(StackSpec(name="alarms", alarms=(rate(label="failures in percent"),))).resources
    queries = made["AlarmFailureRate"]["Properties"]["Metrics"]
    assert [(query["Id"], query["ReturnData"]) for query in queries] == [
        ("failed", False),
        ("all", False),
        ("result", True),
    ]
    assert [query["MetricStat"]["Period"] for query in queries[:2]] == [300, 60]
    assert queries[2]["Label"] == "failures in percent"
    assert not {"Period", "Statistic", "Namespace"} & set(made["AlarmFailureRate"]["Properties"])


@pytest.mark.parametrize(
    ("statistic", "property_name"), [("Average", "Statistic"), ("TM(10%:90%)", "ExtendedStatistic")]
)
def test_a_statistic_stands_where_cloudwatch_looks_for_it(statistic: str, property_name: str) -> None:
    made = synthesize(StackSpec(name="alarms", alarms=(alarm(statistic=statistic),))).resources
    assert made["AlarmFailed"]["Properties"][property_name] == statistic
    assert len({"Statistic", "ExtendedStatistic"} & set(made["AlarmFailed"]["Properties"])) == 1


def test_a_topic_lets_each_alarm_publish_for_itself_alone_and_without_a_cycle() -> None:
    alarms = (
        alarm(actions=(topic.arn,), ok_actions=(topic.arn,)),
        rate(name="${rate}", key="rate", actions=(topic.arn,)),
    )
    template = synthesize(StackSpec(name="alarms", alarms=alarms, topics=(topic,)))
    [allowed, _] = template.resources["TopicAlarmsPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert allowed["Action"] == ["sns:Publish"]
    prefix = "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm"
    assert allowed["Condition"] == {
        "ArnEquals": {"aws:SourceArn": [{"Fn::Sub": f"{prefix}:failed"}, {"Fn::Sub": f"{prefix}:${{!rate}}"}]}
    }


def test_a_function_lets_its_alarm_invoke_it() -> None:
    template = synthesize(StackSpec(name="alarms", alarms=(alarm(actions=(handler.arn,)),), functions=(handler,)))
    [permission] = [entry for entry in template.resources.values() if entry["Type"] == "AWS::Lambda::Permission"]
    assert permission["Properties"]["Principal"] == "lambda.alarms.cloudwatch.amazonaws.com"


@pytest.mark.parametrize("expression", ["SUM(METRICS())", "SUM(METRICS('fail'))"])
def test_an_expression_may_mean_all_metrics_at_once(expression: str) -> None:
    assert rate(expression=expression).expression == expression


@pytest.mark.parametrize("period", [10, 20, 30, 60, 3600, 86_400])
def test_periods_of_cloudwatch_pass(period: int) -> None:
    assert alarm(period=period).period == period


@pytest.mark.parametrize(("period", "evaluation_periods"), [(300, 288), (3600, 168), (86_400, 7)])
def test_the_longest_windows_pass_and_one_period_more_does_not(period: int, evaluation_periods: int) -> None:
    alarm(period=period, evaluation_periods=evaluation_periods)
    with pytest.raises(SpecError, match="together at most"):
        alarm(period=period, evaluation_periods=evaluation_periods + 1)


def test_the_window_of_an_expression_counts_its_longest_period() -> None:
    metrics = (metric("failed"), metric("all", period=86_400))
    rate(metrics=metrics, evaluation_periods=7)
    with pytest.raises(SpecError, match="together at most 604800"):
        rate(metrics=metrics, evaluation_periods=8)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": ""}, "1 to 255"),
        ({"name": "a\nb", "key": "a"}, "control characters"),
        ({"metric_name": None}, "nothing to watch"),
        ({"namespace": ":a"}, "namespace"),
        ({"statistic": "p101"}, "no such statistic"),
        ({"statistic": "Mean"}, "no such statistic"),
        ({"period": 45}, "multiple of 60"),
        ({"period": 90}, "multiple of 60"),
        ({"period": 86_460}, "a day"),
        ({"evaluation_periods": 0}, "evaluation_periods = 0"),
        ({"threshold": float("nan")}, "finite"),
        ({"threshold": float("inf")}, "finite"),
        ({"evaluation_periods": 2, "datapoints_to_alarm": 3}, "at most evaluation_periods, 2"),
        ({"dimensions": {str(at): "x" for at in range(31)}}, "at most 30"),
        ({"actions": (TOPIC,) * 2}, "twice"),
        ({"actions": tuple(f"{TOPIC}{at}" for at in range(6))}, "at most 5"),
        ({"actions": ("arn:aws:sqs:us-east-1:123456789012:q",)}, "nothing that an alarm can do"),
        ({"actions": (QueueSpec(name="q").arn,)}, "topic or a function"),
        ({"actions": (topic.reference("name"),)}, "use the attribute 'arn'"),
        ({"metrics": (metric("failed"),), "expression": "failed"}, "put them into `metrics`"),
    ],
)
def test_an_alarm_that_cloudwatch_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        alarm(**values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"expression": None}, "go together"),
        ({"metrics": ()}, "go together"),
        ({"expression": "failed / al"}, "'al', which is no id"),
        ({"expression": "failed"}, "does not use 'all'"),
        ({"metrics": (metric("failed"), metric("failed"))}, "id` of its own"),
        ({"metrics": (metric("failed"), metric("all", id=None))}, "id` of its own"),
        ({"metrics": (metric("failed"), metric("result")), "expression": "failed / result"}, "not 'result'"),
        ({"metrics": tuple(metric(f"m{at}") for at in range(11))}, "at most 10"),
    ],
)
def test_an_expression_over_what_is_not_there_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        rate(**values)


def test_an_id_begins_with_a_lower_case_letter() -> None:
    with pytest.raises(SpecError, match="lower-case"):
        metric("failed", id="Failed")


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("IF(m1 > 1e3, FILL(m2, REPEAT), 0)", {"m1", "m2"}),
        ("SEARCH('{AWS/Events, rule} name', \"sum\")", set()),
        ("SUM([a_1, b])/METRIC_COUNT(METRICS())", {"a_1", "b"}),
    ],
)
def test_ids_are_told_from_functions_numbers_and_texts(expression: str, ids: set[str]) -> None:
    assert ids_in(expression) == ids


def test_a_query_finds_its_metrics_by_itself() -> None:
    query = 'SELECT SUM(FailedInvocations) FROM SCHEMA("AWS/Events", EventBusName, RuleName)'
    topic = "arn:${AWS::Partition}:sns:${AWS::Region}:${AWS::AccountId}:alarms"
    spec = AlarmSpec(name="failed", expression=query, threshold=0, period=60, actions=(topic,))
    made = synthesize(StackSpec(name="s", alarms=(spec,))).resources["AlarmFailed"]["Properties"]
    assert made["Metrics"] == [{"Id": "result", "Expression": query, "Period": 60, "ReturnData": True}]
    with pytest.raises(SpecError, match="a query finds its metrics by itself"):
        AlarmSpec(
            name="failed",
            expression=query,
            threshold=0,
            metrics=({"id": "m", "namespace": "n", "metric_name": "x"},),
        )
