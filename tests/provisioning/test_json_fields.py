from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from oms_events.errors import SpecError
from oms_events.provisioning.specs.base import Spec
from oms_events.provisioning.specs.buses import ArchiveSpec
from oms_events.provisioning.specs.mappings import StreamSourceSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.specs.targets import TargetSpec
from oms_events.provisioning.specs.topics import SubscriptionSpec

QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
BUS = "arn:aws:events:us-east-1:123456789012:event-bus/orders"

FIELDS: dict[str, Callable[[Any], Spec]] = {
    "input": lambda value: TargetSpec(id="t", arn=QUEUE, input=value),
    "filter_policy": lambda value: SubscriptionSpec(
        protocol="email", endpoint="a@example.com", filter_policy=value
    ),
    "pattern": lambda value: RuleSpec(name="r", pattern=value),
    "archived": lambda value: ArchiveSpec(name="a", bus=BUS, pattern=value),
    "filters": lambda value: StreamSourceSpec(source=QUEUE, filters=(value,)),
}

ENDLESS: dict[str, Any] = {}
ENDLESS["x"] = ENDLESS


def deep(levels: int) -> Any:
    value: Any = ["x"]
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime.date(2026, 1, 31), "as text, in quotes"),
        (b"x", "as text, in quotes"),
        ({"a"}, "as text, in quotes"),
        (2**64, "as text, in quotes"),
        (float("nan"), "as text, in quotes"),
        (float("inf"), "as text, in quotes"),
        ("\ud800", "half a character"),
        ({1: "x"}, "1 is a name that is no text"),
        (deep(3000), "more than 100 levels"),
        (ENDLESS, "more than 100 levels"),
    ],
    ids=["date", "bytes", "set", "integer", "nan", "infinite", "surrogate", "name", "deep", "endless"],
)
def test_what_json_does_not_have_is_refused(make: Callable[[Any], Spec], value: Any, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        make({"detail": {"a": [value]}})
    assert said in str(raised.value)


@pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
def test_a_spec_does_not_change_with_what_it_was_made_of(make: Callable[[Any], Spec]) -> None:
    value = {"detail": {"a": ["x"]}}
    spec = make(value)
    before = repr(spec)
    value["detail"]["a"].append("y")
    assert repr(spec) == before


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (TableSpec, {"hash_key": "id", "billing": {1: 2}}),
        (RoleSpec, {"trust": ({"service": "lambda.amazonaws.com", 1: 2},)}),
        (RoleSpec, {"trust": ({"principals": ({1: 2},)},)}),
        (RoleSpec, {"statements": ({"actions": ("sqs:SendMessage",), "resources": ({1: 2},), "why": "x"},)}),
        (RoleSpec, {"statements": ({"conditions": {"StringEquals": {"aws:SourceArn": {1: 2}}}},)}),
    ],
)
def test_a_part_with_a_name_that_is_no_text_is_refused(make: type[Any], values: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="1 is a name that is no text"):
        make(**({"name": "orders", "trust": ({"service": "lambda.amazonaws.com"},)} | values))
