"""Rules as EventBridge rules: exactly the same events, or a refusal that names the part."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from oms_events.errors import RuleError
from oms_events.events import build_event, encode
from oms_events.routing.conditions import compile_document_pattern
from oms_events.routing.rules import RoutingRule
from tests.routing.regex_cases import CONDITIONS, EVENTS, EXPORTABLE


def _exported(pattern, **fields):
    rule = RoutingRule(event_type_pattern=pattern, platforms=["eventbridge"], **fields)
    exported = rule.to_event_pattern()
    assert list(exported) == ["detail"]
    assert list(exported["detail"]) == ["cloudEvents"]
    return exported["detail"]["cloudEvents"]


@pytest.mark.parametrize(
    ("pattern", "types"),
    [
        (r"com\.foundry\.oms\.schema\.created", ["com.foundry.oms.schema.created"]),
        ("^plain$", ["plain"]),
        (r"com\.foundry\..*", [{"prefix": "com.foundry."}]),
        (r".*\.created", [{"suffix": ".created"}]),
        (r".*\.schema\..*", [{"wildcard": "*.schema.*"}]),
        (r"com\..*\.created", [{"wildcard": "com.*.created"}]),
        (r"a\*.*\\.*b", [{"wildcard": "a\\**\\\\*b"}]),
        (r"\*", ["*"]),
        (".*", [{"exists": True}]),
        (".*?.*", [{"exists": True}]),
        ("a|.*", [{"exists": True}]),
        ("a|b", ["a", "b"]),
        (r".*\.(schema|property)\..*", [{"wildcard": "*.schema.*"}, {"wildcard": "*.property.*"}]),
        (r"(?:a|b(?P<tail>c|d))x?", ["ax", "a", "bcx", "bc", "bdx", "bd"]),
        ("(a|a)", ["a"]),
        ("a]}", ["a]}"]),
    ],
)
def test_event_type_patterns(pattern, types):
    assert _exported(pattern) == {"type": types}


def test_conditions_move_below_the_event():
    conditions = {"branch": "production", "data.status": ["approved", {"prefix": "x"}]}
    assert _exported("a", conditions=conditions) == {
        "type": ["a"],
        "branch": ["production"],
        "data": {"status": ["approved", {"prefix": "x"}]},
    }


def test_a_condition_on_the_type_stands_alone_when_the_pattern_matches_all():
    assert _exported(".*", conditions={"type": [{"prefix": "a"}]}) == {"type": [{"prefix": "a"}]}


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a.b", r"'\.' at position 1: EventBridge has no single wild character; write '\\\.'"),
        ("a.+", r"'\.' at position 1"),
        ("[ab]", r"'\[' at position 0"),
        ("ab*", r"'\*' at position 2: EventBridge has no repetition"),
        ("(ab)+", r"'\+' at position 4"),
        ("a{2}", r"'\{' at position 1"),
        (r"\d", r"'\\\\d' at position 0: only escaped punctuation"),
        (r"\Qa\E", r"'\\\\Q' at position 0"),
        ("(?i)a", r"'\(\?' at position 1: EventBridge has no flags"),
        ("a$|b", r"'\$' at position 1"),
        ("a|^b", r"'\^' at position 2"),
        ("(a|b|c)(a|b|c)(a|b|c)", "more than 20 alternatives"),
        ("a" * 2_100, "and EventBridge takes 2048"),
    ],
)
def test_what_eventbridge_cannot_say_is_named(pattern, says):
    with pytest.raises(RuleError, match=says) as error:
        _exported(pattern, name="mine")
    assert error.value.subject == "mine"


def test_a_pattern_beside_a_condition_on_the_type_is_refused():
    with pytest.raises(RuleError, match="a field takes one list"):
        _exported("a", conditions={"$or": [{"type": "a"}, {"branch": "b"}]})


@given(pattern=EXPORTABLE, conditions=CONDITIONS, attributes=EVENTS)
def test_an_event_matches_the_exported_pattern_exactly_when_it_matches_the_rule(pattern, conditions, attributes):
    rule = RoutingRule(event_type_pattern=pattern, platforms=["eventbridge"], conditions=conditions)
    event = encode(build_event(**{"source": "s", **attributes}))
    exported = json.loads(json.dumps(rule.to_event_pattern()))
    delivered = {"detail": {"cloudEvents": json.loads(event.json)}}
    assert compile_document_pattern(exported).matches(delivered) is rule.matches(event)
