"""The same patterns asked of the AWS emulator's TestEventPattern, an implementation by others.

Where it differs from the AWS documentation, the documentation wins; `_EMULATOR_DIFFERS` lists those.
"""

from __future__ import annotations

import json

import boto3
import pytest
from botocore.exceptions import ClientError

from oms_events.events import build_event, encode
from oms_events.routing.conditions import compile_condition, compile_document_pattern
from oms_events.routing.rules import RoutingRule
from tests.routing.conditions_cases import CASES

_ENVELOPE = {
    "id": "1",
    "detail-type": "Test",
    "source": "test",
    "account": "123456789012",
    "time": "2024-01-01T00:00:00Z",
    "region": "us-east-1",
    "resources": [],
}
_EMULATOR_DIFFERS = [
    # User guide, "Creating event patterns": numbers are compared by their text, 300 and 300.0 are not equal.
    ([300], 300.0, False),
]
_DOCUMENTS = [
    ({"a": {"b": [1]}, "c": ["x"]}, {"a": {"b": 1}, "c": "x", "d": 0}),
    ({"a": {"b": [1]}, "c": ["x"]}, {"a": {"b": 1}, "c": "y"}),
    ({"a": {"b": [{"exists": False}]}}, {"c": 1}),
    ({"a": {"b": [{"exists": False}]}}, {"a": 1}),
    ({"a": {"b": [{"anything-but": 1}]}}, {"a": {}}),
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}),
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}),
    ({"c": ["x"], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1, "c": "y"}),
    ({"c": {"$or": [{"a": [1]}, {"b": [2], "d": [3]}]}}, {"c": {"b": 2, "d": 3}}),
    ({"c": {"$or": [{"a": [1]}, {"b": [2], "d": [3]}]}}, {"c": {"b": 2, "d": 4}}),
    ({"items": {"k": ["a"], "n": [1]}}, {"items": [{"k": "a", "n": 1}, {"k": "b", "n": 2}]}),
    ({"items": {"k": ["a"], "n": [2]}}, {"items": [{"k": "a", "n": 1}, {"k": "b", "n": 2}]}),
    ({"items": {"k": ["z"]}}, {"items": [{"k": "a"}, {"k": "b"}]}),
]
_REFUSED = [
    {"x": "a"},
    {"x": []},
    {"x": [{"bogus": 1}]},
    {"x": [{"prefix": 1}]},
    {"x": [{"numeric": [">"]}]},
    {"x": [{"numeric": ["~", 1]}]},
]


@pytest.fixture(scope="module")
def ask(oms_aws_emulator):
    client = boto3.client(
        "events",
        endpoint_url=oms_aws_emulator.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )

    def matches(pattern, detail):
        event = json.dumps({**_ENVELOPE, "detail": detail})
        return client.test_event_pattern(EventPattern=json.dumps(pattern), Event=event)["Result"]

    yield matches
    client.close()


@pytest.mark.parametrize(("alternatives", "value", "expected"), CASES)
def test_operators_agree(ask, alternatives, value, expected):
    ours = (alternatives, value, expected)
    assert ask({"detail": {"x": alternatives}}, {"x": value}) is (expected ^ (ours in _EMULATOR_DIFFERS))


@pytest.mark.parametrize(("pattern", "data"), _DOCUMENTS)
def test_nesting_arrays_and_or_agree(ask, pattern, data):
    assert ask({"detail": pattern}, data) is compile_document_pattern({"detail": pattern}).matches(
        {"detail": data}
    )


@pytest.mark.parametrize("pattern", _REFUSED)
def test_what_the_emulator_refuses_we_refuse(ask, pattern):
    with pytest.raises(ClientError, match="InvalidEventPattern"):
        ask({"detail": pattern}, {"x": "a"})
    with pytest.raises(ValueError, match="x"):
        compile_document_pattern({"detail": pattern})


@pytest.mark.parametrize("type_", ["com.acme.schema.created", "com.acme.other.created", "a*b"])
@pytest.mark.parametrize("branch", ["main", "production"])
@pytest.mark.parametrize(
    "pattern", [".*", r"com\.acme\.schema\.created", r"com\..*", r".*\.created", r".*\.schema\..*", r"a\*.*|x"]
)
def test_exported_rules_take_the_same_events(ask, pattern, branch, type_):
    conditions = {"branch": "production", "data.review": [{"numeric": [">", 1]}], "tenant": [{"exists": False}]}
    rule = RoutingRule(event_type_pattern=pattern, platforms=["eventbridge"], conditions=conditions)
    event = encode(build_event(type_, "/oms/main", {"review": 2}, branch=branch))
    assert compile_condition(conditions).matches(event) is (branch == "production")
    assert ask(rule.to_event_pattern(), {"cloudEvents": json.loads(event.json)}) is rule.matches(event)
