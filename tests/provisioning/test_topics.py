from __future__ import annotations

from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.keys import KeySpec, KeyUseSpec
from oms_events.provisioning.specs.queues import QueueSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.specs.topics import SubscriptionSpec, TopicSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

queue = QueueSpec(name="orders")
dead_letters = QueueSpec(name="orders-dlq")
handler = FunctionSpec(
    name="handler",
    handler="index.handler",
    role="arn:aws:iam::123456789012:role/handler",
    code=CodeSpec(inline="def handler(event, context): pass"),
)
key = KeySpec(
    name="orders",
    description="Orders",
    users=(
        KeyUseSpec(service="events.amazonaws.com"),
        KeyUseSpec(service="cloudwatch.amazonaws.com"),
        KeyUseSpec(service="logs.${AWS::Region}.amazonaws.com"),
    ),
)
topic = TopicSpec(
    name="orders",
    display_name="Orders",
    kms_key=key.arn,
    subscriptions=(
        SubscriptionSpec(protocol="email", endpoint="team@example.com"),
        SubscriptionSpec(protocol="https", endpoint="https://example.com/hook", raw=True),
        SubscriptionSpec(
            protocol="sqs",
            endpoint=queue.arn,
            raw=True,
            filter_policy={"detail-type": ["Order Placed"]},
            filter_on="MessageBody",
            dead_letter=dead_letters.arn,
        ),
        SubscriptionSpec(protocol="lambda", endpoint=handler.arn),
    ),
)
rule = RuleSpec(name="placed", pattern={"source": ["shop"]}, targets=(TargetSpec(id="topic", arn=topic.arn),))
stack = StackSpec(
    name="orders",
    topics=(topic, TopicSpec(name="plain")),
    keys=(key,),
    queues=(queue, dead_letters),
    functions=(handler,),
    rules=(rule,),
)


def use(**values: Any) -> dict[str, Any]:
    return {"users": ({"service": "sns.amazonaws.com", **values},)}


def test_aws_takes_topics_and_keys_with_all_options() -> None:
    assert findings(synthesize(stack)) == []


def test_a_topic_takes_messages_over_tls_and_from_its_rules_alone() -> None:
    made = synthesize(stack).resources
    [allowed, tls] = made["TopicOrdersPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": [{"Fn::GetAtt": ["RulePlaced", "Arn"]}]}}
    assert allowed["Resource"] == tls["Resource"] == {"Ref": "TopicOrders"}
    assert (tls["Effect"], tls["Action"], tls["Principal"]) == ("Deny", "sns:Publish", "*")
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    [tls] = made["TopicPlainPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert tls["Effect"] == "Deny"


@pytest.mark.parametrize("policy", ["QueueOrdersPolicy", "QueueOrdersDlqPolicy"])
def test_queues_that_a_topic_fills_let_it_in_for_itself_alone(policy: str) -> None:
    [allowed, _] = synthesize(stack).resources[policy]["Properties"]["PolicyDocument"]["Statement"]
    assert allowed["Principal"] == {"Service": "sns.amazonaws.com"}
    assert allowed["Condition"] == {"ArnEquals": {"aws:SourceArn": [{"Ref": "TopicOrders"}]}}


def test_a_function_that_is_subscribed_lets_the_topic_invoke_it() -> None:
    permission = synthesize(stack).resources["FunctionHandlerAllowTopicOrders"]["Properties"]
    assert (permission["Principal"], permission["SourceArn"]) == ("sns.amazonaws.com", {"Ref": "TopicOrders"})


def test_the_order_of_subscriptions_does_not_change_their_ids() -> None:
    turned = topic.model_copy(update={"subscriptions": topic.subscriptions[::-1]})
    ids = {name for name in synthesize(stack).resources if name.startswith("TopicOrdersTo")}
    assert len(ids) == 4
    assert ids == {name for name in turned.resources(_scope()) if name.startswith("TopicOrdersTo")}


@pytest.mark.parametrize(
    "sns_key",
    ["alias/aws/sns", "arn:aws:kms:us-east-1:123456789012:alias/aws/sns"],
)
def test_the_key_of_sns_is_refused_because_alarms_and_rules_cannot_use_it(sns_key: str) -> None:
    with pytest.raises(SpecError, match="alarms and rules cannot publish"):
        TopicSpec(name="orders", kms_key=sns_key)


@pytest.mark.parametrize("name", ["", "a b", "a" * 257, "orders.fifo"])
def test_a_name_that_sns_refuses_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="1 to 256"):
        TopicSpec(name=name, key="k")


def test_an_endpoint_is_subscribed_once() -> None:
    with pytest.raises(SpecError, match="subscribe each once"):
        TopicSpec(name="orders", subscriptions=(SubscriptionSpec(protocol="email", endpoint="a@example.com"),) * 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"protocol": "http", "endpoint": "http://example.com"}, "protocol"),
        ({"protocol": "https", "endpoint": "http://example.com"}, "https://"),
        ({"protocol": "email", "endpoint": "team"}, "team@example.com"),
        ({"protocol": "sms", "endpoint": "555"}, r"\+15555550100"),
        ({"protocol": "sqs", "endpoint": "orders"}, "is no ARN"),
        ({"protocol": "sqs", "endpoint": handler.arn}, "cannot be reached by sqs"),
        ({"protocol": "sqs", "endpoint": queue.reference("url")}, "cannot be reached by sqs"),
        (
            {"protocol": "lambda", "endpoint": "arn:aws:sqs:us-east-1:123456789012:q"},
            "cannot be reached by lambda",
        ),
        ({"protocol": "sqs", "endpoint": queue.arn, "dead_letter": handler.arn}, "is no queue"),
        ({"protocol": "email", "endpoint": queue.arn}, "cannot be reached by email"),
        ({"protocol": "email", "endpoint": "a@example.com", "raw": True}, "raw is for"),
        ({"protocol": "firehose", "endpoint": "arn:aws:firehose:us-east-1:123456789012:deliverystream/a"}, "role"),
        ({"protocol": "sqs", "endpoint": queue.arn, "role": "arn:aws:iam::123456789012:role/r"}, "role is for"),
    ],
)
def test_a_subscription_that_sns_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        SubscriptionSpec(**values)


def test_a_key_is_administered_by_the_account_and_used_by_services_for_it_alone() -> None:
    made = synthesize(stack).resources
    properties = made["KeyOrders"]["Properties"]
    [administration, events, cloudwatch, logs] = properties["KeyPolicy"]["Statement"]
    assert administration["Principal"] == {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}
    assert "Condition" not in events
    # Archives are encrypted anew.
    assert events["Action"] == ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    assert cloudwatch["Action"] == ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*"]
    assert cloudwatch["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Fn::Sub": "${AWS::AccountId}"}}}
    assert logs["Principal"] == {"Service": {"Fn::Sub": "logs.${AWS::Region}.amazonaws.com"}}
    assert set(logs["Condition"]["ArnLike"]) == {"kms:EncryptionContext:aws:logs:arn"}
    assert all("kms:*" not in statement["Action"] for statement in (events, cloudwatch, logs))
    assert properties["EnableKeyRotation"] is True
    assert made["KeyOrdersAlias"]["Properties"] == {
        "AliasName": "alias/orders",
        "TargetKeyId": {"Ref": "KeyOrders"},
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "aws/orders", "key": "k"}, "belongs to AWS"),
        ({"name": "alias:orders", "key": "k"}, "alias"),
        ({"rotation_days": 89}, "rotation_days = 89"),
        ({"deletion_days": 6}, "deletion_days = 6"),
        ({"users": ({"service": "events"},)}, "is no service"),
        ({"users": ({"service": "logs.amazonaws.com"},)}, r"logs\.\$\{AWS::Region\}\.amazonaws\.com; write that"),
        (use(actions=("kms:*",)), "'kms:\\*' is not for services; take of kms:CreateGrant, kms:Decrypt"),
        (use(actions=("kms:D*",)), "'kms:D\\*' is not for services"),
        (use(actions=("kms:Decrypt", "kms:PutKeyPolicy")), "'kms:PutKeyPolicy' is not for services"),
        (use(actions=("kms:ScheduleKeyDeletion",)), "'kms:ScheduleKeyDeletion' is not for services"),
        (use(conditions={}), "would let the service use the key for any account; leave it out"),
        (use(conditions={"Strng": {"aws:SourceAccount": "1"}}), "'Strng' is no operator of IAM"),
        (use(conditions={"StringEquals": {}}), "StringEquals has no keys"),
    ],
)
def test_a_key_that_kms_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        KeySpec(**({"name": "orders"} | values))


@pytest.mark.parametrize(
    ("user", "condition"),
    [
        ({"service": "events.amazonaws.com", "conditions": {}}, None),
        ({"service": "events.amazonaws.com.cn"}, None),
        (
            {"service": "logs.cn-north-1.amazonaws.com.cn", "conditions": {"Bool": {"aws:ViaAWSService": True}}},
            {"Bool": {"aws:ViaAWSService": ["true"]}},
        ),
        (
            {"service": "sns.amazonaws.com", "conditions": {"ArnLike": {"aws:SourceArn": "${AWS::AccountId}"}}},
            {"ArnLike": {"aws:SourceArn": [{"Fn::Sub": "${AWS::AccountId}"}]}},
        ),
    ],
)
def test_a_key_has_the_conditions_that_are_given_or_those_of_the_service(
    user: dict[str, Any], condition: dict[str, Any] | None
) -> None:
    made = synthesize(StackSpec(name="keys", keys=(KeySpec(name="orders", users=(user,)),))).resources
    [_, used] = made["KeyOrders"]["Properties"]["KeyPolicy"]["Statement"]
    assert used.get("Condition") == condition


def _scope() -> Any:
    class References:
        def resolve(self, value: Any) -> Any:
            return value

    return References()


def test_addresses_that_differ_in_signs_only_are_two_subscriptions() -> None:
    addresses = ("a.b@example.com", "a@b.example.com")
    both = TopicSpec(
        name="people",
        subscriptions=tuple(SubscriptionSpec(protocol="email", endpoint=address) for address in addresses),
    )
    made = synthesize(StackSpec(name="people", topics=(both,))).resources.values()
    endpoints = [each["Properties"]["Endpoint"] for each in made if each["Type"] == "AWS::SNS::Subscription"]
    assert sorted(endpoints) == sorted(addresses)
