"""Conditions: every operator, the simple forms, arrays, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from oms_events.events import build_event, encode
from oms_events.routing.conditions import compile_condition, compile_document_pattern
from tests.routing.conditions_cases import CASES


def _event(data: Any = None, **attributes: Any):
    attributes.setdefault("branch", "main")
    return encode(build_event("com.foundry.oms.schema.created", "/oms/main", data, **attributes))


@pytest.mark.parametrize(("alternatives", "value", "expected"), CASES)
def test_operator(alternatives, value, expected):
    assert compile_condition({"data": {"x": alternatives}}).matches(_event({"x": value})) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"branch": "main"}, True),
        ({"branch": "production"}, False),
        ({"data.status": "approved"}, True),
        ({"data.status": "approved", "data.review.by": "ann"}, True),
        ({"data.status": "approved", "data.review.by": "bob"}, False),
        ({"data.review": {"by": "ann"}}, True),
        ({"data.review.count": 2, "data.urgent": True, "data.closed": None}, True),
        ({"data.urgent": 1}, False),
        ({"data.review.count": "2"}, False),
        ({"type": [{"prefix": "com.foundry."}], "source": "/oms/main"}, True),
        ({"time": [{"prefix": "2024-05-01T12"}]}, True),
        ({"time": "2024-05-01T12:30:00Z"}, True),
        ({"retries": 3}, True),
        ({"retries": [{"numeric": [">", 2]}]}, True),
        ({"tenant": [{"exists": False}]}, True),
        ({"tenant": [{"anything-but": "acme"}]}, False),
        ({"branch": ["a", "main"], "data": {"tags": ["blue"]}}, True),
    ],
)
def test_attributes_data_and_simple_forms(condition, expected):
    event = _event(
        {
            "status": "approved",
            "review": {"by": "ann", "count": 2},
            "urgent": True,
            "closed": None,
            "tags": ["red", "blue"],
        },
        time=datetime(2024, 5, 1, 12, 30, tzinfo=UTC),
        retries=3,
    )
    assert compile_condition(condition).matches(event) is expected


ITEMS = {"items": [{"kind": "a", "n": 1}, {"kind": "b", "n": 2}], "deep": [[1], [[2, {"z": 9}]]], "none": []}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"items": {"kind": ["a"], "n": [1]}}, True),
        ({"items": {"kind": ["a"], "n": [2]}}, False),  # one element has to fulfil both
        ({"items": {"kind": ["a", "b"], "n": [2]}}, True),
        ({"deep": [2]}, True),
        ({"deep": [3]}, False),
        ({"deep": {"z": [9]}}, True),
        ({"items": [{"exists": True}]}, False),  # objects are no leaves
        ({"deep": [{"exists": True}]}, True),
        ({"none": [{"exists": False}]}, True),
        ({"items": {"gone": [{"exists": False}]}}, True),
        ({"items": {"kind": [{"exists": False}]}}, False),
        ({"items": {"kind": ["a"], "gone": [{"exists": False}]}}, True),
        ({"items": {"n": [{"anything-but": 1}]}}, True),
    ],
)
def test_arrays_match_when_one_element_does(condition, expected):
    assert compile_condition({"data": condition}).matches(_event(ITEMS)) is expected


@pytest.mark.parametrize(
    ("condition", "matching"),
    [
        ({"$or": [{"branch": "main"}, {"data.x": 1}]}, ["main1", "main2", "dev1"]),
        ({"data": {"$or": [{"x": [1]}, {"x": [2], "y": [5]}]}}, ["main1", "dev1"]),
        ({"branch": "main", "$or": [{"data.x": 1}, {"data.x": 3}]}, ["main1"]),
        ({"$or": [{"data.x": 3}, {"branch": "dev", "$or": [{"data.x": 1}, {"data.x": 4}]}]}, ["dev1"]),
        (
            {"$or": [{"branch": "main"}, {"branch": "dev"}], "data": {"$or": [{"x": [2]}, {"z": [1]}]}},
            ["main2", "dev2"],
        ),
    ],
)
def test_or_at_any_level(condition, matching):
    compiled = compile_condition(condition)
    events = {f"{branch}{x}": _event({"x": x}, branch=branch) for branch in ("main", "dev") for x in (1, 2)}
    assert [name for name, event in events.items() if compiled.matches(event)] == matching


def test_or_alternatives_share_an_array_element_with_their_siblings():
    compiled = compile_condition({"data": {"items": {"kind": ["a"], "$or": [{"n": [2]}, {"n": [3]}]}}})
    assert not compiled.matches(_event(ITEMS))
    assert compiled.matches(_event({"items": [{"kind": "a", "n": 3}]}))


def test_or_beside_a_path_into_the_same_array_needs_one_element():
    pattern = {"data": {"items": {"kind": ["a"]}, "$or": [{"items": {"n": [2]}}, {"items": {"n": [7]}}]}}
    assert not compile_condition(pattern).matches(_event(ITEMS))


@pytest.mark.parametrize(
    ("data", "content_type", "condition", "expected"),
    [
        (b"\x00", "application/octet-stream", {"data": [{"exists": True}]}, False),
        (b"\x00", "application/octet-stream", {"data.x": [{"exists": False}]}, True),
        ("hello", "text/plain", {"data": ["hello"]}, True),
        ("", "text/plain", {"data": [""]}, True),
        ('{"x": 1}', "application/json", {"data": {"x": [1]}}, False),
        ('{"x": 1}', "application/json", {"data": ['{"x": 1}']}, True),
        (None, None, {"data": [{"exists": False}]}, True),
        (None, "application/json", {"data": [None]}, True),
        ([1, 2], None, {"data": [2]}, True),
    ],
)
def test_data_that_is_no_object(data, content_type, condition, expected):
    event = _event(data, **({"datacontenttype": content_type} if content_type else {}))
    assert compile_condition(condition).matches(event) is expected


@dataclasses.dataclass
class _Order:
    placed: datetime
    total: float


def test_data_of_python_types_is_matched_as_its_json():
    event = _event({"order": _Order(datetime(2024, 1, 2, tzinfo=UTC), 5.5)})
    assert compile_condition({"data.order": {"placed": "2024-01-02T00:00:00Z", "total": 5.5}}).matches(event)


def test_deeply_nested_arrays_do_not_exhaust_the_stack():
    nested: Any = [7]
    for _ in range(200):
        nested = [nested]
    assert compile_condition({"data.x": [7]}).matches(_event({"x": nested}))


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ({"branch": "production"}, "branch: 'main' is not 'production'"),
        ({"tenant": "acme"}, "tenant: missing, which is not 'acme'"),
        ({"data.n": [1, {"numeric": [">", 5]}]}, "data.n: 2 is not 1 or {'numeric': ['>', 5]}"),
        ({"data.o": "x"}, "data.o: an object is not 'x'"),
        ({"data.o.deep": None}, "data.o.deep: missing, which is not null"),
        ({"data.list": "z"}, "data.list: ['a', true] is not 'z'"),
        ({"data.items": {"k": [2]}}, "data.items: no element matches"),
        (
            {"$or": [{"branch": "a"}, {"data.n": 3}]},
            "no way through $or: branch: 'main' is not 'a'; data.n: 2 is not 3",
        ),
    ],
)
def test_why_not_names_field_value_and_wish(condition, reason):
    event = _event({"n": 2, "o": {"x": 1}, "list": ["a", True], "items": [{"k": 1}]})
    assert compile_condition(condition).why_not(event) == reason


def test_why_not_shortens_long_values():
    reason = compile_condition({"data.x": "y"}).why_not(_event({"x": "a" * 10_000}))
    assert reason is not None
    assert len(reason) < 150


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ({}, "conditions: an empty object"),
        ({"branch": []}, "branch: an empty list"),
        ({"data": {}}, "data: an empty object"),
        ({"Branch": "x"}, "Branch: 'Branch' is no attribute"),
        ({"detail": {"x": [1]}}, "write 'data.detail.x'"),
        ({"data..x": 1}, "data..x: a path has a name between its dots"),
        ({"": 1}, "'' is no field name"),
        ({1: "x"}, "1 is no field name"),
        ({"branch": {"x"}}, "branch: {'x'} is no list"),
        ({"branch": [["a"]]}, "['a'] is no value to match"),
        ({"branch": [float("nan")]}, "nan is no value to match"),
        ({"branch": {"prefix": "x"}}, "branch.prefix: operators stand in a list, write [{'prefix': 'x'}]"),
        ({"data": {"x": {"numeric": [">", 5]}}}, "data.x.numeric: operators stand in a list"),
        ({"branch": [{"prefx": "x"}]}, "unknown operator 'prefx'; did you mean 'prefix'?"),
        ({"branch": [{"bogus": "x"}]}, "unknown operator 'bogus'; known: prefix"),
        ({"branch": [{"prefix": "x", "suffix": "y"}]}, "2 operators; write one in each object"),
        ({"branch": [{}]}, "0 operators"),
        ({"branch": [{"prefix": ""}]}, "'prefix' of an empty text"),
        ({"branch": [{"suffix": 3}]}, "'suffix' takes text, not 3"),
        ({"branch": [{"prefix": {"ignore-case": "x"}}]}, "'prefix' takes text or {'equals-ignore-case': text}"),
        ({"branch": [{"exists": "yes"}]}, "'exists' takes true or false, not 'yes'"),
        ({"branch": [{"wildcard": "a**b"}]}, "wildcard 'a**b' has consecutive stars"),
        ({"branch": [{"wildcard": "a\\b"}]}, "double the backslash"),
        ({"branch": [{"wildcard": "a\\"}]}, "double the backslash"),
        ({"data.n": [{"numeric": 5}]}, "numeric 5 is no comparison"),
        ({"data.n": [{"numeric": [">"]}]}, "numeric ['>'] is no comparison"),
        ({"data.n": [{"numeric": [">", 1, "<"]}]}, "is no comparison"),
        ({"data.n": [{"numeric": ["=>", 1]}]}, "'=>' is no comparison"),
        ({"data.n": [{"numeric": [["<"], 1]}]}, "['<'] is no comparison"),
        ({"data.n": [{"numeric": [">", "1"]}]}, "'1' is no number"),
        ({"data.n": [{"numeric": [">", True]}]}, "True is no number"),
        ({"data.n": [{"numeric": [">", 5.1e9]}]}, "no number from -5.0e9 to 5.0e9"),
        ({"data.n": [{"numeric": ["<", 5, ">", 1]}]}, "is no range"),
        ({"data.n": [{"numeric": [">", 5, "<", 5]}]}, "is an empty range"),
        ({"data.ip": [{"cidr": "10.0.0.1"}]}, "cidr '10.0.0.1' is no range of addresses"),
        ({"data.ip": [{"cidr": "10.0.0.0/32"}]}, "0 to 31 (IPv4)"),
        ({"data.ip": [{"cidr": "10.0.0.0/255.0.0.0"}]}, "is no range of addresses"),
        ({"data.ip": [{"cidr": "fe80::1%eth0/64"}]}, "cidr"),
        ({"data.x": [{"anything-but": [1, "a"]}]}, "a list of one kind"),
        ({"data.x": [{"anything-but": []}]}, "'anything-but' takes text or numbers"),
        ({"data.x": [{"anything-but": None}]}, "'anything-but' takes text or numbers"),
        ({"data.x": [{"anything-but": {"cidr": "10.0.0.0/8"}}]}, "'anything-but' takes one of prefix"),
        ({"data.x": [{"anything-but": {"prefix": ["a", 1]}}]}, "takes text or a list of texts"),
        ({"data.x": [{"anything-but": {"suffix": [""]}}]}, "'suffix' of an empty text"),
        ({"$or": [{"branch": "x"}]}, "at least two objects"),
        ({"$or": {"branch": "x"}}, "at least two objects"),
        ({"$or": [{"branch": "x"}, "y"]}, "'y' is no object of fields"),
        ({"$or": [{"branch": "x"}, {"data.prefix": "y"}]}, "EventBridge reserves operator names"),
        ({"data.$or": [{"x": [1]}, {"x": [2]}]}, "$or stands alone"),
        ({"data.a": 1, "data": {"a": [2]}}, "data.a: stands twice"),
        ({"branch": "x", "$or": [{"branch": "a"}, {"tenant": "b"}]}, "branch: stands twice"),
        ({"data.a": 1, "$or": [{"data.a.b": 1}, {"data.c": 1}]}, "stands twice"),
        ({"data": {f"k{n}": [1] for n in range(3)} | {"$or": [{"x": [n]} for n in range(1001)]}}, "1000"),
    ],
)
def test_typos_are_refused_with_path_and_remedy(condition, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        compile_condition(condition)


def test_a_field_named_like_an_operator_is_reached_by_its_dotted_path():
    assert compile_condition({"data.s3.prefix": ["logs/"]}).matches(_event({"s3": {"prefix": "logs/"}}))


def test_normal_form_is_eventbridge_json_and_independent_of_the_input():
    given = {"branch": "main", "data.a.b": [1, {"prefix": "x"}], "data": {"c": None}}
    compiled = compile_condition(given)
    normal = compiled.to_pattern()
    assert normal == {"branch": ["main"], "data": {"a": {"b": [1, {"prefix": "x"}]}, "c": [None]}}
    normal["data"]["c"].append("spoilt")
    assert compiled.to_pattern()["data"]["c"] == [None]


def test_document_patterns_have_no_simple_forms():
    assert compile_document_pattern({"detail": {"state": ["on"]}}).matches({"detail": {"state": "on"}})
    with pytest.raises(ValueError, match="detail: 'x' is no list"):
        compile_document_pattern({"detail": "x"})


@pytest.mark.parametrize(
    "operator",
    [{"wildcard": "*".join("a" * 40) + "*b"}, {"anything-but": {"wildcard": "*".join("a" * 40) + "*b"}}],
)
def test_wildcards_take_time_linear_in_the_text(operator):
    # A backtracking matcher would need longer than the age of the universe for this one.
    assert compile_condition({"data.x": [operator]}).matches(_event({"x": "a" * 5_000})) is (
        "anything-but" in operator
    )


def nested(name: str, levels: int) -> Any:
    """`$or` has a list of choices; anything else is a field in a field."""
    value: Any = {"data": ["x"]}
    for _ in range(levels):
        value = {name: [value, {"source": ["y"]}] if name == "$or" else value}
    return value


@pytest.mark.parametrize("compiled", [compile_condition, compile_document_pattern])
@pytest.mark.parametrize(
    "pattern",
    [
        {"data": nested("a", 3000)},
        {"data": nested("$or", 3000)},
        {"data": {"x": [nested("a", 3000)]}},
    ],
    ids=["fields", "choices", "values"],
)
def test_what_is_nested_without_end_is_refused_and_not_run_into(compiled, pattern) -> None:
    with pytest.raises(ValueError, match="more than 100 levels"):
        compiled(pattern)


def test_a_path_of_a_hundred_names_is_taken_and_no_longer_one() -> None:
    compile_condition({"data" + ".a" * 99: "x"})
    with pytest.raises(ValueError, match="more than 100 names"):
        compile_condition({"data" + ".a" * 100: "x"})
