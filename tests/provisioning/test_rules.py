from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.buses import ArchiveSpec, EventBusSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.targets import InputTransformerSpec, RetryPolicySpec, TargetSpec

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:handle"
STATES = "arn:aws:states:us-east-1:123456789012:stateMachine:work"
ROLE = "arn:aws:iam::123456789012:role/events"
LOGS = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/x"
BUS = "arn:aws:events:us-east-1:123456789012:event-bus/orders"
PATTERN = {"source": ["shop"]}


def rule(**values: Any) -> RuleSpec:
    return RuleSpec(**({"name": "orders", "pattern": PATTERN} | values))


def target(**values: Any) -> TargetSpec:
    return TargetSpec(**({"id": "handle", "arn": FUNCTION} | values))


def targets(count: int) -> tuple[TargetSpec, ...]:
    return tuple(target(id=f"t{number}") for number in range(count))


@pytest.mark.parametrize(
    ("values", "field", "remedy"),
    [
        ({"name": "a" * 65}, "name", "shorten"),
        ({"name": "orders/new", "key": "x"}, "name", "letters, digits, '.', '-' and '_'; change it"),
        (
            {"targets": TargetSpec(id="t", arn=FUNCTION)},
            "targets: ",
            "give a list, such as targets=(TargetSpec(...),)",
        ),
        ({"description": "d" * 513}, "description", "512"),
        ({"pattern": None}, "pattern", "give pattern or schedule"),
        ({"schedule": "rate(1 hour)"}, "schedule", "one of them"),
        ({"pattern": None, "schedule": "rate(1 hours)"}, "schedule", "hour"),
        ({"pattern": None, "schedule": "cron(0 22 * * * *)"}, "schedule", "?"),
        ({"pattern": None, "schedule": "rate(1 hour)", "bus": "orders"}, "schedule", "leave `bus` out"),
        ({"targets": targets(6)}, "targets", "SNS topic"),
        ({"targets": (target(), target())}, "targets", "stands twice"),
        ({"pattern": {"source": "shop"}}, "source", "write ['shop']"),
        ({"pattern": {"source": [{"starts": "x"}]}}, "source", "starts"),
        ({"pattern": {"detail": {"x": ["y" * 2100]}}}, "pattern", "2048"),
        ({"pattern": {"data": {"x": ["y"]}}}, "data", "below 'detail'"),
        ({"pattern": {}}, "pattern", "name at least one field"),
        ({"bus": 7}, "bus", "neither text nor a reference"),
        ({"bus": "a b!"}, "bus", "write its name"),
        ({"bus": FUNCTION}, "bus", "write its name"),
        ({"bus": {"ref": "queue:q", "attribute": "name"}}, "bus", "is no name of a bus"),
        ({"bus": {"ref": "bus:orders"}}, "bus", "attribute: name"),
        ({"state": "ENABLED"}, "state", "known fields"),
    ],
)
def test_a_rule_refuses_what_aws_would_refuse(values: Mapping[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(SpecError) as raised:
        rule(**values)
    assert field in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize(
    ("values", "field", "remedy"),
    [
        ({"id": "a b"}, "id", "letters"),
        ({"arn": "handle"}, "arn", "{ref: 'kind:key'}"),
        ({"arn": STATES}, "role", "only with a role"),
        ({"arn": {"ref": "table:orders"}}, "arn", "is no target"),
        ({"arn": LOGS, "role": ROLE}, "role", "leave `role` out"),
        ({"arn": "arn:aws:sqs:orders"}, "arn", "is no ARN"),
        ({"arn": {"ref": "queue:orders", "attribute": "url"}}, "arn", "use the attribute 'arn'"),
        ({"arn": {1: 2}}, "arn", "is a name that is no text; put it in quotes"),
        ({"arn": {"ref": "bus:returns"}}, "role", "only with a role"),
        ({"arn": "arn:aws:ecs:us-east-1:123456789012:cluster/work", "role": ROLE}, "ecs", "let a function"),
        ({"arn": "arn:aws:batch:us-east-1:123456789012:job-queue/work", "role": ROLE}, "batch", "let a function"),
        ({"arn": "arn:aws:s3:::orders", "role": ROLE}, "s3", "let a function"),
        ({"role": FUNCTION}, "role", "is no role"),
        ({"dead_letter": FUNCTION}, "dead_letter", "is no queue"),
        ({"dead_letter": {"ref": "topic:orders"}}, "dead_letter", "'topic:orders' is no queue"),
        ({"input": "x" * 8191}, "input", "takes 8192"),
        ({"input_path": "$." + "x" * 255}, "input_path", "at most 256"),
        ({"input_transformer": {"paths": {"x": "$." + "x" * 255}, "template": "<x>"}}, "x", "at most 256"),
        ({"arn": "arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/x:*"}, "arn", "without ':*'"),
        ({"input": {}, "input_path": "$.detail"}, "input", "keep one"),
        ({"input_path": "detail"}, "input_path", "$.detail"),
        ({"message_group_id": ""}, "message_group_id", "at least 1"),
        ({"retry_policy": {"maximum_retry_attempts": 186}}, "maximum_retry_attempts", "185"),
        ({"retry_policy": {"maximum_event_age_in_seconds": 59}}, "maximum_event_age_in_seconds", "60"),
        ({"input_transformer": {"template": "<status>"}}, "template", "add its JSON path"),
        ({"input_transformer": {"paths": {"aws.x": "$.detail"}, "template": "x"}}, "paths", "variable"),
        ({"input_transformer": {"paths": {"x": "detail.x"}, "template": "<x>"}}, "paths", "JSON path"),
        ({"input_transformer": {"paths": {"x": "$.x"}, "template": "{x: <x>}"}}, "template", "no JSON"),
        ({"input_transformer": {"template": "x" * 8193}}, "template", "8192"),
    ],
)
def test_a_target_refuses_what_aws_would_refuse(values: Mapping[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(SpecError) as raised:
        target(**values)
    assert field in str(raised.value)
    assert remedy in str(raised.value)


def test_all_problems_of_a_rule_and_of_its_targets_come_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        rule(
            description="d" * 513,
            targets=({"id": "a b", "arn": "x"}, {"id": "ok", "arn": STATES}),
            pattern={"source": "shop"},
        )
    assert [problem.split(":")[0].split(" =")[0] for problem in raised.value.problems] == [
        "description",
        "pattern",
        "targets.0",
        "targets.0",
        "targets.1",
    ]


@pytest.mark.parametrize(
    "template",
    [
        '{"status": "<status>", "count": <count>}',
        '{"at": <aws.events.event.ingestion-time>}',
        '"The status is <status>"',
        "plain <status> text",
    ],
)
def test_a_transformer_takes_json_and_text(template: str) -> None:
    spec = InputTransformerSpec(
        paths={"status": "$.detail.status", "count": "$.detail['a-b'][0].n"}, template=template
    )
    assert spec.document()["InputTemplate"] == template


def test_the_default_retry_policy_is_the_services_own() -> None:
    assert RetryPolicySpec() == RetryPolicySpec(maximum_retry_attempts=185, maximum_event_age_in_seconds=86_400)


@pytest.mark.parametrize(
    ("spec", "values", "field", "remedy"),
    [
        (EventBusSpec, {"name": "default"}, "name", "every account has"),
        (EventBusSpec, {"name": "a/b", "key": "x"}, "name", "letters"),
        (EventBusSpec, {"name": "orders", "allowed_accounts": ("12",)}, "allowed_accounts", "12 digits"),
        (EventBusSpec, {"name": "orders", "allowed_accounts": ("123456789012",) * 2}, "allowed_accounts", "once"),
        (EventBusSpec, {"name": "orders", "allowed_sources": ("shop",)}, "allowed_sources", "allowed_accounts"),
        (ArchiveSpec, {"name": "a" * 49, "bus": BUS}, "name", "48"),
        (ArchiveSpec, {"name": "a", "bus": BUS, "retention_days": -1}, "retention_days", "0"),
        (ArchiveSpec, {"name": "a", "bus": "orders"}, "bus", "ARN"),
        (ArchiveSpec, {"name": "a", "bus": STATES}, "bus", "is no bus"),
        (EventBusSpec, {"name": "a", "kms_key": "arn:aws:sqs:us-east-1:123456789012:q"}, "kms_key", "is no key"),
        (EventBusSpec, {"name": "a", "dead_letter": {"ref": "bus:b"}}, "dead_letter", "is no queue"),
        (ArchiveSpec, {"name": "a", "bus": BUS, "pattern": {"source": "shop"}}, "pattern", "write ['shop']"),
        (QueueSpec, {"name": "a.b"}, "name", "letters"),
        (QueueSpec, {"name": "a", "fifo": True}, "name", ".fifo"),
        (QueueSpec, {"name": "a.fifo"}, "fifo", ".fifo"),
        (QueueSpec, {"name": "a" * 76 + ".fifo", "fifo": True}, "name", "80"),
        (
            QueueSpec,
            {"name": "a", "retention_seconds": 1_209_601},
            "retention_seconds = 1209601",
            "at most 14 days; write 60 to 1209600",
        ),
        (QueueSpec, {"name": "a", "retention_seconds": 59}, "retention_seconds = 59", "60 to"),
        (QueueSpec, {"name": "a", "content_based_deduplication": True}, "content_based_deduplication", "fifo"),
        (QueueSpec, {"name": "a", "delay_seconds": 901}, "delay_seconds", "900"),
        (QueueSpec, {"name": "a", "dead_letter": "a-dlq"}, "dead_letter", "ARN"),
        (QueueSpec, {"name": "a", "dead_letter": {"ref": "topic:b"}}, "dead_letter", "is no queue"),
        (QueueSpec, {"name": "a", "kms_key": BUS}, "kms_key", "is no key"),
    ],
)
def test_buses_archives_and_queues_refuse_what_aws_would_refuse(
    spec: type[Any], values: Mapping[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(SpecError) as raised:
        spec(**values)
    assert field in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize("bus", ["orders", "aws.partner/shop/1", BUS, BUS.replace("aws", "${AWS::Partition}", 1)])
def test_a_rule_takes_a_bus_by_name_and_by_arn(bus: str) -> None:
    assert rule(bus=bus).bus == bus


@pytest.mark.parametrize("value", [False, 0, "x" * 8190, {"a": [1, None, 2.5]}])
def test_a_target_gets_any_json_value(value: Any) -> None:
    assert target(input=value).input == value
