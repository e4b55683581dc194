from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oms_events._aws.tables import IndexShape, TableShape, create_request
from oms_events.errors import SpecError
from oms_events.eventstore import schema as event_store
from oms_events.idempotency.schema import table_shape
from oms_events.outbox.schema import TABLE as OUTBOX
from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.keys import KeySpec
from oms_events.provisioning.specs.roles import RoleSpec, ServiceTrust, StatementSpec
from oms_events.provisioning.specs.stack import StackSpec
from oms_events.provisioning.specs.tables import IndexSpec, TableSpec
from oms_events.provisioning.synthesis import synthesize
from oms_events.provisioning.template import Template
from oms_events.triggers import schema as triggers
from tests.provisioning.linting import findings

KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/0b7a"
SHAPES = {
    "outbox": OUTBOX,
    "idempotency": table_shape("id", "expires"),
    "events": event_store.EVENT_STORE,
    "read-models": event_store.READ_MODEL,
    "snapshots": event_store.SNAPSHOTS,
    "checkpoints": event_store.CHECKPOINTS,
    "breaker": triggers.BREAKER,
    "rate": triggers.RATE,
    "starts": triggers.IDEMPOTENCY,
    "everything": TableShape(
        hash_key="pk",
        range_key="sk",
        types={"sk": "B", "amount": "N"},
        indexes=(
            IndexShape(
                name="by-amount", hash_key="kind", range_key="amount", projection="include", attributes=("a",)
            ),
            IndexShape(name="by-kind", hash_key="pk", range_key="kind", projection="keys_only", is_local=True),
        ),
        ttl_attribute="ttl",
        stream="new_and_old_images",
    ),
}


def table(**values: Any) -> TableSpec:
    return TableSpec(**({"name": "tickets", "hash_key": "pk", "range_key": "sk"} | values))


def index(name: str = "by-kind", **values: Any) -> IndexSpec:
    return IndexSpec(**({"name": name, "hash_key": "kind"} | values))


def indexes(count: int, **values: Any) -> tuple[IndexSpec, ...]:
    return tuple(index(f"index-{number}", **values) for number in range(count))


def template(*tables: TableSpec, **values: Any) -> Template:
    return synthesize(StackSpec(name="tables", tables=tables, **values))


def properties(spec: TableSpec) -> Mapping[str, Any]:
    found: Mapping[str, Any] = template(spec).resources[spec.logical_id]["Properties"]
    return found


@pytest.mark.parametrize(
    ("values", "field", "remedy"),
    [
        ({"name": "ab"}, "name = 'ab'", "3 to 255 letters"),
        ({"name": "tickets/new", "key": "x"}, "name = 'tickets/new'", "letters"),
        ({"hash_key": ""}, "hash_key", "at least 1"),
        ({"range_key": "pk"}, "range_key = 'pk'", "give another attribute"),
        ({"attribute_types": {"sk": "X"}}, "attribute_types.sk = 'X'", "'S', 'N' or 'B'"),
        ({"attribute_types": {"price": "N"}}, "attribute_types = price", "leave others out"),
        ({"ttl_attribute": "sk"}, "ttl_attribute = 'sk'", "give another attribute"),
        ({"stream": "all"}, "stream = 'all'", "'new_image'"),
        ({"kms_key": KEY_ARN, "encryption": False}, "kms_key", "encryption = true"),
        ({"kms_key": "alias/orders"}, "kms_key", "is no ARN"),
        ({"table_class": "cold"}, "table_class = 'cold'", "'standard_infrequent_access'"),
        ({"billing": "on-demand"}, "billing = 'on-demand'", "{read: 5, write: 5}"),
        ({"billing": {"read": 5}}, "billing: ProvisionedSpec", "field 'write' is missing"),
        ({"billing": {"read": 0, "write": 1}}, "read = 0", "greater than or equal to 1"),
        ({"billing": {"max_reads": 1}}, "billing: OnDemandSpec", "did you mean 'max_read'?"),
        (
            {"billing": {"read": 1, "write": 1, "autoscaling": {"min": 9, "max": 5}}},
            "min = 9 is above max = 5",
            "lower it",
        ),
        (
            {"billing": {"read": 1, "write": 1, "autoscaling": {"min": 1, "max": 5, "target_percent": 95}}},
            "target_percent = 95",
            "less than or equal to 90",
        ),
        ({"indexes": ({"name": "i", "hash_key": "a"},)}, "indexes.0: IndexSpec 'i': name = 'i'", "3 to 255"),
        ({"indexes": (index(), index())}, "indexes: 'by-kind' stands 2 times", "a name of its own"),
        ({"indexes": indexes(21)}, "21 are global, and a table takes 20", "remove some"),
        (
            {"indexes": indexes(6, hash_key="pk", range_key="kind", local=True)},
            "6 are local, and a table takes 5",
            "remove some",
        ),
        (
            {"indexes": indexes(6, projection="include", attributes=[f"a{n}" for n in range(17)])},
            "they name 102 attributes, and a table takes 100",
            "projection = 'all'",
        ),
        (
            {"indexes": (index(local=True, range_key="at"),)},
            "the local index 'by-kind' needs hash_key = 'pk'",
            "make it global",
        ),
        ({"indexes": (index(local=True, hash_key="pk"),)}, "the local index 'by-kind'", "a range_key"),
        (
            {"range_key": None, "indexes": (index(local=True, hash_key="pk", range_key="at"),)},
            "the local index 'by-kind'",
            "a range_key of the table",
        ),
        (
            {"indexes": (index(billing={"read": 1, "write": 1}),)},
            "'by-kind' is not billed as the table is",
            "make both on-demand, or provisioned",
        ),
    ],
)
def test_a_table_refuses_what_dynamodb_would_refuse(values: Mapping[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(SpecError) as raised:
        table(**values)
    assert field in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"range_key": "kind"}, "range_key = 'kind' is its hash key too"),
        ({"projection": "include"}, "attributes belong to projection = 'include', which needs one at least"),
        ({"attributes": ("a",)}, "attributes belong to projection = 'include'"),
        (
            {"local": True, "range_key": "at", "billing": {"max_read": 1}},
            "a local index uses the table's capacity",
        ),
        ({"projection": "include", "attributes": ("",)}, "attributes.0"),
        ({"projection": "include", "attributes": tuple("abcdefghijklmnopqrstu")}, "at most 20"),
    ],
)
def test_an_index_refuses_what_dynamodb_would_refuse(values: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        index(**values)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SpecError) as raised:
        table(name="x", stream="all", billing={"read": 0})
    assert len(raised.value.problems) == 4


def test_a_table_is_kept_safe_unless_somebody_says_otherwise() -> None:
    entry = template(table()).resources["TableTickets"]
    assert (entry["DeletionPolicy"], entry["UpdateReplacePolicy"]) == ("Delete", "Retain")
    assert entry["Properties"] == {
        "TableName": "tickets",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
        "TableClass": "STANDARD",
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "SSESpecification": {"SSEEnabled": True},
        "DeletionProtectionEnabled": False,
    }


def test_protection_can_be_chosen() -> None:
    key = KeySpec(name="orders")
    chosen = table(
        kms_key=key.arn,
        point_in_time_recovery=False,
        deletion_protection=True,
        table_class="standard_infrequent_access",
    )
    made = template(chosen, keys=(key,)).resources["TableTickets"]["Properties"]
    assert made["SSESpecification"]["SSEType"] == "KMS"
    assert made["SSESpecification"]["KMSMasterKeyId"] == {"Fn::GetAtt": [key.logical_id, "Arn"]}
    assert made["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": False}
    assert made["DeletionProtectionEnabled"] is True
    assert made["TableClass"] == "STANDARD_INFREQUENT_ACCESS"
    assert properties(table(encryption=False))["SSESpecification"] == {"SSEEnabled": False}


@pytest.mark.parametrize("name", SHAPES)
def test_a_table_is_what_the_code_that_uses_it_says(name: str) -> None:
    shape = SHAPES[name]
    spec = TableSpec.from_shape(name, shape)
    assert spec.shape == TableSpec.from_shape("another", spec.shape).shape
    made, asked = properties(spec), create_request(name, shape)
    if stream := asked.pop("StreamSpecification", None):
        assert made["StreamSpecification"] == {"StreamViewType": stream["StreamViewType"]}
    else:
        assert "StreamSpecification" not in made
    assert {member: made[member] for member in asked} == asked
    ttl = made.get("TimeToLiveSpecification")
    assert ttl == (shape.ttl_attribute and {"AttributeName": shape.ttl_attribute, "Enabled": True})


def test_keys_and_indexes_are_said_in_dynamodbs_words() -> None:
    made = create_request("everything", SHAPES["everything"])
    assert made["AttributeDefinitions"] == [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "B"},
        {"AttributeName": "kind", "AttributeType": "S"},
        {"AttributeName": "amount", "AttributeType": "N"},
    ]
    assert made["GlobalSecondaryIndexes"] == [
        {
            "IndexName": "by-amount",
            "KeySchema": [
                {"AttributeName": "kind", "KeyType": "HASH"},
                {"AttributeName": "amount", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a"]},
        }
    ]
    assert made["LocalSecondaryIndexes"] == [
        {
            "IndexName": "by-kind",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "kind", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ]
    assert made["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def test_options_go_before_what_the_shape_says() -> None:
    spec = TableSpec.from_shape("outbox", OUTBOX, stream="keys_only", deletion_protection=True, key="box")
    assert (spec.stream, spec.deletion_protection, spec.key) == ("keys_only", True, "box")


def test_capacity_is_on_demand_with_limits_or_provisioned_and_scaled() -> None:
    limited = properties(
        table(billing={"max_write": 50}, indexes=(index(billing={"max_read": 9}), index("other")))
    )
    assert limited["BillingMode"] == "PAY_PER_REQUEST"
    assert limited["OnDemandThroughput"] == {"MaxWriteRequestUnits": 50}
    first, second = limited["GlobalSecondaryIndexes"]
    assert first["OnDemandThroughput"] == {"MaxReadRequestUnits": 9}
    assert second["OnDemandThroughput"] == {"MaxWriteRequestUnits": 50}

    scaled = table(
        billing={"read": 5, "write": 6, "autoscaling": {"min": 2, "max": 40, "target_percent": 60}},
        indexes=(index(), index("fixed", billing={"read": 1, "write": 2})),
    )
    resources = template(scaled).resources
    made = resources["TableTickets"]["Properties"]
    assert made["BillingMode"] == "PROVISIONED"
    assert made["ProvisionedThroughput"] == {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}
    first, second = made["GlobalSecondaryIndexes"]
    assert first["ProvisionedThroughput"] == {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}
    assert second["ProvisionedThroughput"] == {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2}
    targets = {
        entry["Properties"]["ScalableDimension"]: (
            entry["Properties"]["ResourceId"]["Fn::Sub"],
            entry["Properties"]["MinCapacity"],
            entry["Properties"]["MaxCapacity"],
        )
        for entry in resources.values()
        if entry["Type"] == "AWS::ApplicationAutoScaling::ScalableTarget"
    }
    assert targets == {
        "dynamodb:table:ReadCapacityUnits": ("table/${TableTickets}", 2, 40),
        "dynamodb:table:WriteCapacityUnits": ("table/${TableTickets}", 2, 40),
        "dynamodb:index:ReadCapacityUnits": ("table/${TableTickets}/index/by-kind", 2, 40),
        "dynamodb:index:WriteCapacityUnits": ("table/${TableTickets}/index/by-kind", 2, 40),
    }
    policies = [
        (entry["Properties"]["ScalingTargetId"]["Ref"], settings["TargetValue"], metric["PredefinedMetricType"])
        for entry in resources.values()
        if entry["Type"] == "AWS::ApplicationAutoScaling::ScalingPolicy"
        and (settings := entry["Properties"]["TargetTrackingScalingPolicyConfiguration"])
        and (metric := settings["PredefinedMetricSpecification"])
    ]
    assert policies == [
        ("TableTicketsReadScaling", 60, "DynamoDBReadCapacityUtilization"),
        ("TableTicketsWriteScaling", 60, "DynamoDBWriteCapacityUtilization"),
        ("TableTicketsIndexByKindReadScaling", 60, "DynamoDBReadCapacityUtilization"),
        ("TableTicketsIndexByKindWriteScaling", 60, "DynamoDBWriteCapacityUtilization"),
    ]


def test_a_stream_can_be_referred_to_when_there_is_one() -> None:
    with pytest.raises(SpecError, match="table 'tickets' has no stream: set its `stream`"):
        table().reference("stream_arn")
    streamed = table(stream="new_image")
    assert streamed.value_of(streamed.reference("stream_arn").attribute) == {
        "Fn::GetAtt": ["TableTickets", "StreamArn"]
    }


def test_a_stack_refuses_a_reference_to_a_stream_that_is_not_there() -> None:
    reader = RoleSpec(
        name="reader",
        trust=(ServiceTrust(service="lambda.amazonaws.com"),),
        statements=(
            StatementSpec(
                actions=("dynamodb:GetRecords",),
                resources=(Reference(ref="table:tickets", attribute="stream_arn"),),
                why="reads new tickets",
            ),
        ),
    )
    with pytest.raises(SpecError, match="table 'tickets' has no stream"):
        template(table(), roles=(reader,))
    template(table(stream="new_image"), roles=(reader,))


def test_cfn_lint_finds_nothing() -> None:
    scaled = {"read": 5, "write": 5, "autoscaling": {"min": 5, "max": 50}}
    shaped = tuple(TableSpec.from_shape(name, shape) for name, shape in SHAPES.items())
    key = KeySpec(name="orders")
    others = (
        table(billing=scaled, indexes=(index(), index("fixed", billing={"read": 1, "write": 1}))),
        table(name="limited", billing={"max_read": 5, "max_write": 5}, indexes=(index(),), kms_key=key.arn),
        table(name="own-key", kms_key=KEY_ARN, encryption=True, table_class="standard_infrequent_access"),
    )
    assert findings(template(*shaped, *others, keys=(key,))) == []
