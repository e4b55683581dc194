from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.presets.oms import OmsPreset
from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.buses import ArchiveSpec, EventBusSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template, assembled_outputs
from tests.provisioning.linting import findings

FUNCTION = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:handle"

ENDLESS: dict[str, Any] = {}
ENDLESS["x"] = ENDLESS

bus = EventBusSpec(name="orders")
queue = QueueSpec(name="orders-in")
dead_letters = QueueSpec(name="orders-dlq")


def rule(name: str = "placed", **target: Any) -> RuleSpec:
    values = {"id": "in", "arn": queue.arn, "dead_letter": dead_letters.arn} | target
    return RuleSpec(
        name=name, bus=bus.reference("name"), pattern={"source": ["shop"]}, targets=(TargetSpec(**values),)
    )


def stack(**values: Any) -> StackSpec:
    return StackSpec(
        **({"name": "orders", "buses": (bus,), "queues": (queue, dead_letters), "rules": (rule(),)} | values)
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "1st"}, "a stack's name is a letter"),
        ({"queues": (queue,)}, "ref = 'queue:orders-dlq' is not in this stack (its queue keys are orders-in)"),
        ({"buses": ()}, "ref = 'bus:orders' is not in this stack (it has no bus)"),
        ({"queues": (queue, queue, dead_letters)}, "key 'orders-in' stands at 2 specs of the kind queue"),
        (
            {"queues": (queue, QueueSpec(name="orders-in", key="b"), dead_letters)},
            "name 'orders-in' stands at 2 specs of the kind queue",
        ),
        (
            {"queues": (queue, dead_letters, QueueSpec(name="orders_in"))},
            "keys 'orders-in' and 'orders_in' differ in signs only",
        ),
        (
            {"outputs": {"url": Reference(ref="queue:orders-in", attribute="url2")}},
            "has no attribute 'url2'; it has arn, name, url",
        ),
        ({"outputs": {"url": Reference(ref="queue:x", attribute="url")}}, "output 'url': ref = 'queue:x'"),
        ({"outputs": {"a_b": "x", "a": {"b": "y"}}}, "2 of them give the template's output AB"),
        ({"outputs": {f"o{n}": "x" for n in range(201)}}, "201, and a template takes 200"),
        ({"outputs": {"a": {"b": {"c": 1}}}}, "a.b.c: 1 is no text"),
        ({"outputs": {"a": 1}}, "a: 1 is no text"),
        ({"outputs": {"a": {"b": ""}}}, "a.b: is empty"),
        ({"outputs": {"_": "x"}}, "output '_': a name has a letter or digit"),
        ({"outputs": {"größe": "x"}}, "output 'größe': a name has"),
        ({"outputs": {"a" * 256: "x"}}, "at most 255 characters"),
        ({"outputs": {1: "x"}}, "1 is a name that is no text"),
        ({"outputs": ENDLESS}, "more than 100 levels"),
        ({"tags": {"aws:x": "y"}}, "'aws:' belongs to AWS"),
        ({"tags": {"": "y"}}, "1 to 128"),
        ({"tags": {"k" * 129: "y"}}, "1 to 128"),
        ({"tags": {"k": "v" * 257}}, "at most 256"),
        ({"description": "ö" * 513}, "more than 1024 bytes"),
        ({"queues": ({1: 2},)}, "1 is a name that is no text"),
        (
            {"rules": (rule(), RuleSpec(name="placed", key="b", bus="orders", pattern={"source": ["shop"]}))},
            "stands at 2 specs of the kind rule",
        ),
        ({"lambdas": ()}, "unknown field 'lambdas'"),
    ],
)
def test_a_stack_refuses_what_does_not_go_together(values: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        stack(**values)
    assert said in str(raised.value)


def test_a_stack_without_resources_is_refused() -> None:
    with pytest.raises(SpecError, match="CloudFormation takes no empty stack"):
        StackSpec(name="orders", outputs={"a": "b"})


def test_a_rule_waits_for_a_bus_of_the_stack_that_it_names_by_text() -> None:
    by_name = rule().model_copy(update={"bus": "orders"})
    assert synthesize(stack(rules=(by_name,))).body == synthesize(stack()).body


def test_a_target_with_a_role_needs_no_policy() -> None:
    role = "arn:aws:iam::123456789012:role/events"
    made = synthesize(stack(rules=(rule(role=role, dead_letter=None), rule("invoke", arn=FUNCTION, role=role))))
    policy = made.resources["QueueOrdersInPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert [statement["Effect"] for statement in policy] == ["Deny"]
    assert "AWS::Lambda::Permission" not in {entry["Type"] for entry in made.resources.values()}


def test_a_rule_hands_events_to_another_bus_with_a_role() -> None:
    other = EventBusSpec(name="returns")
    role = "arn:aws:iam::123456789012:role/events"
    template = synthesize(stack(buses=(bus, other), rules=(rule(arn=other.arn, role=role),)))
    [target] = template.resources["RulePlaced"]["Properties"]["Targets"]
    assert (target["Arn"], target["RoleArn"]) == ({"Fn::GetAtt": ["BusReturns", "Arn"]}, role)
    assert findings(template) == []


def test_a_copy_of_a_spec_is_checked_as_a_new_one() -> None:
    assert queue.model_copy(update={"name": "returns-in"}).key == "returns-in"
    with pytest.raises(SpecError, match="letters"):
        queue.model_copy(update={"name": "not a name"})


def test_a_template_with_numbers_that_json_has_not_is_not_written() -> None:
    template = Template("orders", {"Resources": {"a": float("nan")}})
    for write in (lambda: template.body, template.to_json):
        with pytest.raises(ValueError, match="JSON"):
            write()


def test_two_buses_may_each_have_a_rule_of_one_name() -> None:
    other = EventBusSpec(name="returns")
    second = RuleSpec(name="placed", key="returned", bus=other.reference("name"), pattern={"source": ["shop"]})
    assert len(stack(buses=(bus, other), rules=(rule(), second)).rules) == 2


def test_synthesis_gives_the_same_bytes_for_the_same_input() -> None:
    assert synthesize(stack()).to_json() == synthesize(stack()).to_json()
    assert synthesize(stack()).digest != synthesize(stack(description="Orders")).digest


def test_a_queue_lets_its_rules_alone_send_and_nobody_without_tls() -> None:
    policy = synthesize(stack()).resources["QueueOrdersInPolicy"]["Properties"]["PolicyDocument"]
    allow, deny = policy["Statement"]
    assert allow["Principal"] == {"Service": "events.amazonaws.com"}
    assert allow["Action"] == ["sqs:SendMessage"]
    assert allow["Condition"] == {"ArnEquals": {"aws:SourceArn": [{"Fn::GetAtt": ["RulePlaced", "Arn"]}]}}
    assert deny["Effect"] == "Deny"
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_queue_without_rules_still_wants_tls() -> None:
    made = synthesize(StackSpec(name="orders", queues=(queue,))).resources
    assert [
        entry["Effect"] for entry in made["QueueOrdersInPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    ] == ["Deny"]


def test_a_function_outside_the_stack_may_be_invoked_by_the_rule_alone() -> None:
    made = synthesize(stack(rules=(rule(arn=FUNCTION),))).resources["RulePlacedInvokesHandle"]
    assert made["Type"] == "AWS::Lambda::Permission"
    assert made["Properties"] == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Fn::Sub": FUNCTION},
        "Principal": "events.amazonaws.com",
        "SourceArn": {"Fn::GetAtt": ["RulePlaced", "Arn"]},
    }


def test_outputs_come_back_under_their_own_names_and_in_their_maps() -> None:
    outputs = {
        "bus_name": bus.reference("name"),
        "rule_names": {"placed": rule().reference("name"), "cancelled-now": "x"},
        "archive_arn": None,
        "tables": {"orders": {"name": "y", "arn": None}},
    }
    template = synthesize(stack(outputs=outputs))
    assert list(template.document["Outputs"]) == [
        "BusName",
        "RuleNamesPlaced",
        "RuleNamesCancelledNow",
        "TablesOrdersName",
    ]
    plain = {
        "BusName": "orders",
        "RuleNamesPlaced": "placed",
        "RuleNamesCancelledNow": "x",
        "TablesOrdersName": "y",
    }
    assert assembled_outputs(template.outputs_layout, plain) == {
        "bus_name": "orders",
        "rule_names": {"placed": "placed", "cancelled-now": "x"},
        "archive_arn": None,
        "tables": {"orders": {"name": "y", "arn": None}},
    }


def test_replaced_archives_and_queues_are_kept() -> None:
    archive = ArchiveSpec(name="orders", bus=bus.arn)
    made = synthesize(stack(archives=(archive,))).resources
    for name in ("ArchiveOrders", "QueueOrdersIn"):
        assert (made[name]["DeletionPolicy"], made[name]["UpdateReplacePolicy"]) == ("Delete", "Retain")


def test_a_bus_lets_named_accounts_put_events_of_named_sources() -> None:
    shared = EventBusSpec(name="orders", allowed_accounts=("123456789012",), allowed_sources=("shop",))
    made = synthesize(StackSpec(name="orders", buses=(shared,))).resources["BusOrdersAllow123456789012"]
    assert made["Properties"]["Statement"] == {
        "Sid": "put-events-123456789012",
        "Effect": "Allow",
        "Principal": {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::123456789012:root"}},
        "Action": "events:PutEvents",
        "Resource": {"Fn::GetAtt": ["BusOrders", "Arn"]},
        "Condition": {"StringEquals": {"events:source": ["shop"]}},
    }


def test_only_pseudo_parameters_are_substituted() -> None:
    template = synthesize(stack(outputs={"text": "${AWS::Region} and ${other}", "plain": "${other}"}))
    outputs = template.document["Outputs"]
    assert outputs["Text"]["Value"] == {"Fn::Sub": "${AWS::Region} and ${!other}"}
    assert outputs["Plain"]["Value"] == "${other}"


def test_patterns_may_name_the_account_and_the_region() -> None:
    pattern = {"detail": {"bucket": {"name": ["in-${AWS::AccountId}", {"prefix": "${x}"}]}}}
    made = synthesize(stack(rules=(RuleSpec(name="s3", pattern=pattern),))).resources["RuleS3"]["Properties"]
    assert made["EventPattern"] == {
        "detail": {"bucket": {"name": [{"Fn::Sub": "in-${AWS::AccountId}"}, {"prefix": "${x}"}]}}
    }


def test_a_preset_must_be_made_a_stack_first() -> None:
    with pytest.raises(TypeError, match=r"takes a StackSpec, not OmsPreset: call .stack\(\) of the preset"):
        synthesize(OmsPreset())  # type: ignore[arg-type]
