from __future__ import annotations

from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.buckets import BucketSpec
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.endpoints import EndpointSpec
from oms_events.provisioning.specs.keys import KeySpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.synthesis import synthesize
from tests.provisioning.linting import findings

VPC = {
    "service": "events",
    "vpc_id": "vpc-0123456789abcdef0",
    "subnet_ids": ("subnet-0123456789abcdef0", "subnet-0123456789abcdef1"),
    "security_group_ids": ("sg-0123456789abcdef0",),
    "actions": ("events:PutEvents", "events:DescribeEventBus"),
}

bus = EventBusSpec(name="orders")
key = KeySpec(name="orders")
whole = BucketSpec(
    name="orders-${AWS::AccountId}-${AWS::Region}",
    key="whole",
    eventbridge=True,
    expiration_days=90,
    noncurrent_expiration_days=30,
    kms_key=key.arn,
)
plain = BucketSpec(key="plain", versioning=False)


def endpoint(**values: Any) -> EndpointSpec:
    return EndpointSpec(**({"name": "events", "targets": (bus.arn,)} | VPC | values))


def resources() -> dict[str, Any]:
    stack = StackSpec(name="orders", buckets=(whole, plain), buses=(bus,), keys=(key,), endpoints=(endpoint(),))
    template = synthesize(stack)
    assert findings(template) == []
    return dict(template.resources)


def test_aws_takes_buckets_and_endpoints_and_both_are_closed() -> None:
    made = resources()
    for name in ("BucketWhole", "BucketPlain"):
        assert set(made[name]["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
        assert (made[name]["DeletionPolicy"], made[name]["UpdateReplacePolicy"]) == (
            "RetainExceptOnCreate",
            "Retain",
        )
        [tls] = made[f"{name}Policy"]["Properties"]["PolicyDocument"]["Statement"]
        assert (tls["Effect"], tls["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
        assert tls["Resource"] == [{"Fn::GetAtt": [name, "Arn"]}, {"Fn::Sub": f"${{{name}.Arn}}/*"}]
    [by_key] = made["BucketWhole"]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert by_key["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == {"Fn::GetAtt": ["KeyOrders", "Arn"]}
    [own] = made["BucketPlain"]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert own == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert "BucketName" not in made["BucketPlain"]["Properties"]

    [allowed] = made["EndpointEvents"]["Properties"]["PolicyDocument"]["Statement"]
    assert allowed["Action"] == ["events:PutEvents", "events:DescribeEventBus"]
    assert allowed["Resource"] == [{"Fn::GetAtt": ["BusOrders", "Arn"]}]
    assert allowed["Condition"] == {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}


@pytest.mark.parametrize(("spec", "is_told"), [(whole, True), (plain, False)])
def test_eventbridge_hears_of_objects_only_when_asked(spec: BucketSpec, is_told: bool) -> None:
    made = synthesize(StackSpec(name="orders", buckets=(spec,), keys=(key,))).resources
    assert ("NotificationConfiguration" in made[spec.logical_id]["Properties"]) is is_told


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "Orders"}, "3 to 63"),
        ({"name": "ab"}, "3 to 63"),
        ({"name": "-orders"}, "both ends"),
        ({"name": "orders_in"}, "3 to 63"),
        ({"name": "xn--orders"}, "3 to 63"),
        ({"name": "o" * 52 + "${AWS::AccountId}"}, "3 to 63"),
        ({"name": "orders-${AWS::StackName}"}, "3 to 63"),
        ({"expiration_days": 0}, "expiration_days = 0"),
        ({"versioning": False, "noncurrent_expiration_days": 1}, "needs versioning"),
    ],
)
def test_a_bucket_that_s3_refuses_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        BucketSpec(**({"key": "k"} | values))


def test_a_bucket_without_a_name_needs_a_key() -> None:
    with pytest.raises(SpecError, match="key = ''"):
        BucketSpec()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"service": "com.amazonaws.us-east-1.events"}, "last part"),
        ({"vpc_id": "vpc"}, "vpc-0123456789abcdef0"),
        ({"subnet_ids": ()}, "subnet_ids"),
        ({"subnet_ids": ("sg-0123456789abcdef0",)}, "subnet-0123456789abcdef0"),
        ({"security_group_ids": ("default",)}, "sg-0123456789abcdef0"),
        ({"actions": ()}, "name one at least"),
        ({"actions": ("events:*",)}, "has a wildcard; name each action"),
        ({"actions": ("event:Foo",)}, "write events:Foo"),
        ({"targets": ("*",)}, "is no ARN"),
        ({"targets": ("arn:aws:events:us-east-1:*:event-bus/orders",)}, "is for all accounts"),
        ({"targets": ("arn:aws:events:us-east-1:123456789012:event-bus/*",)}, "names no resource"),
        ({"targets": ("arn:aws:events:us-east-1:123456789012:*",)}, "names no resource"),
    ],
)
def test_an_endpoint_that_is_wrong_or_open_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        endpoint(**values)


def test_a_bucket_without_a_key_is_named_by_what_is_its_own() -> None:
    assert BucketSpec(name="in-${AWS::AccountId}-orders-${AWS::Region}").key == "in-orders"
