from __future__ import annotations

import json
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.logs import RETENTION_DAYS, LogGroupSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.specs.texts import json_text
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

group = LogGroupSpec(name="/aws/events/orders")


def rule(name: str) -> RuleSpec:
    targets = (TargetSpec(id="logs", arn=group.arn),)
    return RuleSpec(name=name, pattern={"source": ["shop"]}, targets=targets)


def test_aws_takes_log_groups_that_rules_write_to() -> None:
    stack = StackSpec(name="logs", log_groups=(group, LogGroupSpec(name="plain")), rules=(rule("a"), rule("b")))
    template = synthesize(stack)
    assert findings(template) == []
    assert [entry["Type"] for entry in template.resources.values()].count("AWS::Logs::ResourcePolicy") == 1


def test_only_the_rules_may_write_events_and_only_to_this_group() -> None:
    template = synthesize(StackSpec(name="logs", log_groups=(group,), rules=(rule("a"), rule("b"))))
    text = template.resources["LogGroupAwsEventsOrdersPolicy"]["Properties"]["PolicyDocument"]["Fn::Sub"]
    [streams, events] = json.loads(text)["Statement"]
    for statement in (streams, events):
        assert statement["Principal"] == {"Service": ["events.amazonaws.com", "delivery.logs.amazonaws.com"]}
        assert statement["Resource"].endswith(":log-group:/aws/events/orders:*")
    assert (streams["Action"], events["Action"]) == ("logs:CreateLogStream", "logs:PutLogEvents")
    assert events["Condition"] == {"ArnEquals": {"aws:SourceArn": ["${RuleA.Arn}", "${RuleB.Arn}"]}}


def test_the_key_is_the_name_without_its_slashes_unless_given() -> None:
    assert group.key == "aws-events-orders"
    assert LogGroupSpec(name="/a/b", key="mine").key == "mine"


@pytest.mark.parametrize("days", RETENTION_DAYS)
def test_every_retention_of_cloudwatch_logs_passes(days: int) -> None:
    assert LogGroupSpec(name="g", retention_days=days).retention_days == days


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"retention_days": 31}, "one of 1, 3, 5"),
        ({"retention_days": 0}, "one of 1, 3, 5"),
        ({"name": "a b"}, "1 to 512"),
        ({"name": "/", "key": "k"}, "1 to 512"),
        ({"name": "a" * 513, "key": "k"}, "1 to 512"),
        ({"kms_key": "orders"}, "is no ARN"),
    ],
)
def test_a_log_group_that_cloudwatch_logs_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        LogGroupSpec(**({"name": "g"} | values))


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"a": "${b}"}, '{"a":"${b}"}'),
        ({"a": {"Ref": "B"}, "c": "${d}"}, {"Fn::Sub": '{"a":"${B}","c":"${!d}"}'}),
        ([{"Fn::GetAtt": ["B", "Arn"]}], {"Fn::Sub": '["${B.Arn}"]'}),
        ({"a": [{"Fn::Sub": "${AWS::Region}/${!x}"}]}, {"Fn::Sub": '{"a":["${AWS::Region}/${!x}"]}'}),
        ({"a": 'say "hi"\n', "b": [1, None, True]}, '{"a":"say \\"hi\\"\\n","b":[1,null,true]}'),
    ],
)
def test_a_document_becomes_text_in_which_only_functions_are_replaced(document: Any, text: Any) -> None:
    assert json_text(document) == text


def test_names_of_aws_are_refused() -> None:
    with pytest.raises(SpecError, match="begin with '/'"):
        LogGroupSpec(name="aws/events/orders")
