"""Checks of a whole set of rules."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.events import build_event, encode
from oms_events.routing.checks import Finding, FindingKind, Severity, check_rules
from oms_events.routing.rules import RoutingRule, RuleSet
from tests.routing.regex_cases import CONDITIONS, EVENTS, EXPORTABLE, PATTERNS


def _rule(pattern, name, **fields):
    return RoutingRule(**{"event_type_pattern": pattern, "platforms": ["nats"], "name": name} | fields)


def _shadowed(*rules):
    findings = check_rules(rules, configured=["nats"])
    return [finding.rule for finding in findings if finding.kind is FindingKind.SHADOWED]


@pytest.mark.parametrize(
    ("earlier", "later", "shadowed"),
    [
        ("a", "a", True),
        ("[ab]", "[ab]", True),
        (".*", "[ab]", False),  # true, but undecided: the later pattern is not exportable
        (".*", r"com\.a", True),
        (r"com\..*", r"com\.a\..*", True),
        (r"com\.a\..*", r"com\..*", False),
        (r".*\.created", r"com\..*\.created", True),
        (r".*\.schema\..*", r"com\.schema\..*", True),
        (r".*\.schema\..*", r"com\.(schema|property)\..*", False),
        (r"com\.(schema|property)\..*", r"com\.schema\.a", True),
        (r"com\.(schema|property)\..*", r"com\.(property|schema)\.a", True),
        (r"a.*a", "a", False),
        (r"a.*b.*c", r"a.*c", False),
    ],
)
def test_shadowing(earlier, later, shadowed):
    assert _shadowed(_rule(earlier, "earlier"), _rule(later, "later")) == (["later"] if shadowed else [])


def test_only_rules_that_go_before_shadow():
    assert _shadowed(_rule("a", "a", priority=1), _rule(".*", "all", priority=0)) == []
    assert _shadowed(_rule("a", "a", priority=0), _rule(".*", "all", priority=1)) == ["a"]
    assert _shadowed(_rule("a", "a"), _rule(".*", "all")) == []


def test_conditions_save_a_rule_from_shadowing_unless_they_are_the_same():
    main, dev = {"branch": "main"}, {"branch": ["dev"]}
    assert _shadowed(_rule(".*", "one", conditions=main), _rule("a", "two")) == []
    assert _shadowed(_rule(".*", "one", conditions=main), _rule("a", "two", conditions=dev)) == []
    assert _shadowed(_rule(".*", "one", conditions=main), _rule("a", "two", conditions={"branch": ["main"]})) == [
        "two"
    ]
    assert _shadowed(_rule(".*", "one"), _rule("a", "two", conditions=dev)) == ["two"]


def test_findings_say_rule_kind_severity_and_remedy():
    findings = check_rules(
        [_rule("a.b", "wild"), _rule("x", "far", platforms=["webhook", "kafka"]), _rule("x", "twice", priority=1)],
        configured={"nats", "eventbridge"},
    )
    assert [(finding.rule, finding.kind, finding.severity) for finding in findings] == [
        ("wild", FindingKind.NOT_EXPORTABLE, Severity.INFO),
        ("far", FindingKind.NO_PLATFORM, Severity.ERROR),
        ("twice", FindingKind.SHADOWED, Severity.WARNING),
    ]
    assert "'.' at position 1" in findings[0].message
    assert "none of its platforms (webhook, kafka) is configured" in findings[1].message
    assert "rule 'far' (priority 500) goes before" in findings[2].message


def test_good_rules_have_no_findings():
    rules = [_rule(r".*\.schema\..*", "schema", platforms=["nats", "kafka"]), _rule(".*", "rest", priority=0)]
    assert check_rules(rules, configured=["nats"]) == []
    assert Finding("a", FindingKind.SHADOWED, "m", Severity.INFO) in {
        Finding("a", FindingKind.SHADOWED, "m", Severity.INFO)
    }


@given(
    fields=st.lists(st.tuples(st.one_of(EXPORTABLE, PATTERNS), CONDITIONS), max_size=6),
    events=st.lists(EVENTS, max_size=5),
)
def test_a_shadowed_rule_never_decides(fields, events):
    rules = [_rule(pattern, str(at), conditions=conditions) for at, (pattern, conditions) in enumerate(fields)]
    shadowed = _shadowed(*rules)
    for attributes in events:
        taker = RuleSet(rules).decide(encode(build_event(**{"source": "s", **attributes})))
        assert taker is None or taker.name not in shadowed


def test_thousands_of_rules_are_checked_in_seconds():
    rules = [_rule(rf"com\.acme\.t{number}\..*", str(number)) for number in range(2_000)]
    assert timeit.timeit(lambda: check_rules(rules, configured=["nats"]), number=1) < 5
