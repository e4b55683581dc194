"""Policies of whole stacks: that AWS takes them however many use a resource, and that nothing waits for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.alarms import AlarmSpec
from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.keys import KeySpec, KeyUseSpec
from oms_events.provisioning.specs.logs import LogGroupSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.roles import PrincipalTrust, RoleSpec, ServiceTrust, StatementSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.specs.topics import TopicSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

RULES = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:rule/"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:handle"
LAMBDA = ServiceTrust(service="lambda.amazonaws.com")

bus = EventBusSpec(name="orders")
queue = QueueSpec(name="orders-dlq")


def rules(count: int, on: Any = "default", to: Any = queue.arn, name: str = "rule") -> tuple[RuleSpec, ...]:
    return tuple(
        RuleSpec(
            name=f"{name}-{at}", bus=on, pattern={"source": ["shop"]}, targets=(TargetSpec(id="queue", arn=to),)
        )
        for at in range(count)
    )


def stack(**values: Any) -> StackSpec:
    return StackSpec(**({"name": "orders", "buses": (bus,), "queues": (queue,)} | values))


def condition(spec: StackSpec) -> Mapping[str, Any]:
    policy = synthesize(spec).resources["QueueOrdersDlqPolicy"]["Properties"]["PolicyDocument"]
    found: Mapping[str, Any] = policy["Statement"][0]["Condition"]
    return found


@pytest.mark.parametrize(
    ("on", "group"),
    [
        ("default", "*"),
        (bus.reference("name"), "orders/*"),
        ("orders", "orders/*"),
        ("arn:aws:events:us-east-1:123456789012:event-bus/orders", "orders/*"),
        ("aws.partner/example.com/orders", "aws.partner/example.com/orders/*"),
    ],
)
def test_a_queue_names_ten_rules_and_beyond_that_their_bus(on: Any, group: str) -> None:
    [named] = condition(stack(rules=rules(10, on)))["ArnEquals"].values()
    assert named == [{"Fn::GetAtt": [f"RuleRule{at}", "Arn"]} for at in range(10)]
    assert condition(stack(rules=rules(11, on))) == {
        "ArnLike": {"aws:SourceArn": [{"Fn::Sub": f"{RULES}{group}"}]}
    }


def test_rules_of_a_bus_that_has_few_are_named_beside_one_that_has_many() -> None:
    both = (*rules(11, bus.reference("name"), name="many"), *rules(1))
    assert condition(stack(rules=both)) == {
        "ArnLike": {"aws:SourceArn": [{"Fn::Sub": f"{RULES}orders/*"}, {"Fn::GetAtt": ["RuleRule0", "Arn"]}]}
    }


def test_a_rule_that_uses_a_queue_twice_counts_once() -> None:
    twice = [
        rule.model_copy(update={"targets": (rule.targets[0].model_copy(update={"dead_letter": queue.arn}),)})
        for rule in rules(10)
    ]
    assert list(condition(stack(rules=tuple(twice)))) == ["ArnEquals"]


def test_a_queue_takes_all_the_rules_that_a_bus_can_have() -> None:
    made = synthesize(stack(rules=rules(300, bus.reference("name"))))
    assert len(orjson.dumps(made.resources["QueueOrdersDlqPolicy"])) < 1000
    assert findings(synthesize(stack(rules=rules(11, bus.reference("name"))))) == []


def statements(count: int) -> tuple[StatementSpec, ...]:
    return tuple(
        StatementSpec(
            actions=("sqs:SendMessage",),
            resources=(f"arn:${{AWS::Partition}}:sqs:${{AWS::Region}}:${{AWS::AccountId}}:{'q' * 70}{at:04}",),
            why="sends",
        )
        for at in range(count)
    )


def role(**values: Any) -> RoleSpec:
    return RoleSpec(**({"name": "sender", "trust": (LAMBDA,)} | values))


def principals(count: int) -> tuple[PrincipalTrust, ...]:
    return (PrincipalTrust(principals=tuple(f"arn:aws:iam::123456789012:role/r{at:04}" for at in range(count))),)


def alarms(count: int) -> tuple[AlarmSpec, ...]:
    return tuple(
        AlarmSpec(name=f"{'a' * 110}-{at}", namespace="N", metric_name="m", threshold=1, actions=(topic.arn,))
        for at in range(count)
    )


def users(count: int) -> tuple[KeySpec]:
    return (
        KeySpec(name="orders", users=tuple(KeyUseSpec(service=f"s{at:04}.amazonaws.com") for at in range(count))),
    )


topic = TopicSpec(name="alarms")
group = LogGroupSpec(name="/orders/log", retention_days=7)
many_buses = tuple(EventBusSpec(name=f"{'b' * 100}-{at}") for at in range(60))


def on_many_buses(to: Any) -> tuple[RuleSpec, ...]:
    return tuple(
        rule for at, each in enumerate(many_buses) for rule in rules(1, each.reference("name"), to, name=f"r{at}")
    )


@pytest.mark.parametrize(
    ("few", "many", "said"),
    [
        (
            {"queues": (queue,), "buses": many_buses, "rules": on_many_buses(queue.arn)[:20]},
            {"queues": (queue,), "buses": many_buses, "rules": on_many_buses(queue.arn)},
            "QueueOrdersDlqPolicy: PolicyDocument has up to 1[0-9]{4} bytes, and AWS takes 8192; .* more queues",
        ),
        (
            {"topics": (topic,), "alarms": alarms(80)},
            {"topics": (topic,), "alarms": alarms(200)},
            "TopicAlarmsPolicy: PolicyDocument .* AWS takes 30720; .* more topics",
        ),
        (
            {"roles": (role(statements=statements(40)),)},
            {"roles": (role(statements=statements(60)),)},
            "RoleSender: Policies .* AWS takes 10240; split the role, or put statements into managed_policies",
        ),
        (
            {"roles": (role(trust=principals(30)),)},
            {"roles": (role(trust=principals(60)),)},
            "RoleSender: AssumeRolePolicyDocument .* AWS takes 2048; split the role",
        ),
        ({"keys": users(100)}, {"keys": users(200)}, "KeyOrders: KeyPolicy .* AWS takes 32768; split it"),
        (
            {"log_groups": (group,), "buses": many_buses, "rules": on_many_buses(group.arn)[:20]},
            {"log_groups": (group,), "buses": many_buses, "rules": on_many_buses(group.arn)},
            "PolicyDocument .* AWS takes 5120; .* more log groups",
        ),
    ],
    ids=["queue", "topic", "role", "trust", "key", "log-group"],
)
def test_a_policy_that_is_longer_than_aws_takes_it_is_refused(
    few: Mapping[str, Any], many: Mapping[str, Any], said: str
) -> None:
    assert synthesize(StackSpec(name="orders", **few)).resources
    with pytest.raises(SpecError, match=f"StackSpec 'orders': .*{said}"):
        synthesize(StackSpec(name="orders", **many))


def test_a_policy_is_as_long_as_the_arns_that_will_be_in_it() -> None:
    def sending_to(name: str) -> StackSpec:
        to = QueueSpec(name=name, key="to")
        sends = StatementSpec(actions=("sqs:SendMessage",), resources=(to.arn,), why="sends")
        return StackSpec(name="orders", queues=(to,), roles=(role(statements=(sends,) * 60),))

    assert synthesize(sending_to("q")).resources
    with pytest.raises(SpecError, match="Policies has up to"):
        synthesize(sending_to("q" * 80))


def function(**values: Any) -> FunctionSpec:
    return FunctionSpec(
        **(
            {
                "name": "handle",
                "handler": "index.handler",
                "role": Reference(ref="role:sender"),
                "code": CodeSpec(inline="def handler(event, context): pass"),
            }
            | values
        )
    )


def invoking(resource: Any) -> RoleSpec:
    return role(
        statements=(StatementSpec(actions=("lambda:InvokeFunction",), resources=(resource,), why="calls"),)
    )


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"queues": (QueueSpec(name="a", dead_letter=Reference(ref="queue:a")),)}, "queue:a needs queue:a"),
        (
            {
                "queues": (
                    QueueSpec(name="a", dead_letter=Reference(ref="queue:b")),
                    QueueSpec(name="b", dead_letter=Reference(ref="queue:a")),
                )
            },
            "queue:(a needs queue:b needs queue:a|b needs queue:a needs queue:b)",
        ),
        (
            {"roles": (invoking(function().arn),), "functions": (function(),)},
            "(role:sender needs function:handle needs role:sender|function:handle needs role:sender needs)",
        ),
        (
            {
                "roles": (invoking({"ref": "function:handle", "suffix": ":*"}),),
                "functions": (function(),),
            },
            "(role:sender needs function:handle|function:handle needs role:sender)",
        ),
    ],
)
def test_resources_that_wait_for_each_other_are_refused(values: Mapping[str, Any], path: str) -> None:
    with pytest.raises(SpecError, match=f"{path}.*: CloudFormation cannot begin; write the name or ARN"):
        synthesize(StackSpec(name="orders", **values))


def test_a_role_may_name_the_function_that_uses_it_by_text() -> None:
    assert synthesize(stack(roles=(invoking(FUNCTION),), functions=(function(),))).resources


@pytest.mark.parametrize("name", ["*", "handle*", "h?ndle"])
def test_a_function_outside_the_stack_is_one_function(name: str) -> None:
    with pytest.raises(SpecError, match=r"RuleSpec 'rule-0': .* stands for many"):
        synthesize(stack(rules=rules(1, to=FUNCTION.replace("handle", name))))


def test_an_arn_has_its_six_parts() -> None:
    with pytest.raises(SpecError, match="dead_letter = 'arn:aws:sqs:us-east-1:orders': is no ARN"):
        QueueSpec(name="orders", dead_letter="arn:aws:sqs:us-east-1:orders")
