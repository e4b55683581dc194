"""Rules from one TOML or YAML file."""

from __future__ import annotations

import pytest

from oms_events.errors import RuleError
from oms_events.routing.rulefile import load_rules, parse_rules
from oms_events.routing.rules import RoutingRule

TOML = r"""
[[rules]]
name = "approved"
event_type_pattern = '.*\.proposal\..*'
platforms = ["eventbridge", "nats"]
strategy = "conditional"
conditions = { branch = "production", "data.status" = ["approved", { prefix = "auto-" }] }

[[rules]]
event_type_pattern = ".*"
platforms = ["nats"]
priority = 0
"""
YAML = r"""
rules:
  - name: approved
    event_type_pattern: '.*\.proposal\..*'
    platforms: [eventbridge, nats]
    strategy: conditional
    conditions:
      branch: production
      data.status: [approved, {prefix: auto-}]
  - event_type_pattern: ".*"
    platforms: [nats]
    priority: 0
"""
RULES = [
    RoutingRule(
        name="approved",
        event_type_pattern=r".*\.proposal\..*",
        platforms=["eventbridge", "nats"],
        strategy="conditional",
        conditions={"branch": "production", "data.status": ["approved", {"prefix": "auto-"}]},
    ),
    RoutingRule(event_type_pattern=".*", platforms=["nats"], priority=0),
]


@pytest.mark.parametrize(("name", "text"), [("r.toml", TOML), ("r.yaml", YAML), ("r.YML", YAML)])
def test_files_give_the_rules_that_code_gives(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert load_rules(path) == RULES
    assert load_rules(str(path)) == RULES


def test_all_bad_rules_are_reported_together_with_their_place():
    text = """
    rules = [
      {event_type_pattern = "(", platforms = ["nats"], name = "first"},
      {event_type_pattern = "a", platforms = ["nats"], prio = 1},
      {event_type_pattern = "b", platforms = ["nats"]},
      {event_type_pattern = "b", platforms = ["nats"]},
      "not a rule",
    ]
    """
    with pytest.raises(RuleError) as error:
        parse_rules(text, "toml", subject="r.toml")
    problems = error.value.problems
    assert error.value.subject == "r.toml"
    assert problems[0].startswith("rule 1 (first): event_type_pattern = '('")
    assert problems[1].startswith("rule 2 (a): unknown field 'prio'; known fields: conditions")
    assert problems[2] == "rule 4 (b): has the name of rule 3; give it its own name"
    assert problems[3].startswith("rule 5: 'not a rule' is no rule")
    assert len(problems) == 4


@pytest.mark.parametrize(
    ("text", "form", "says"),
    [
        ("", "toml", "holds nothing; write one list named 'rules'"),
        ("", "yaml", "holds NoneType"),
        ("rule = []", "toml", "holds 'rule'; write one list named 'rules'"),
        ("rules: {a: 1}", "yaml", "rules is dict; write a list"),
        ("rules = [", "toml", "is no TOML: "),
        ("rules: [", "yaml", "is no YAML: "),
        ("rules:\n  - name: a\n    name: b", "yaml", "a key stands twice; keep one"),
        ("rules:\n  - !!python/object:os.system {}", "yaml", "is no YAML: "),
        ("rules:\n  - {1: a}", "yaml", "rule 1: {1: 'a'} is no rule"),
    ],
)
def test_files_that_are_no_rule_files_say_so(text, form, says):
    with pytest.raises(RuleError, match=says):
        parse_rules(text, form)


def test_yaml_may_share_fields_between_rules():
    text = """
    rules:
      - &base {event_type_pattern: a, platforms: [nats], name: one}
      - {<<: *base, name: two}
    """
    assert [rule.name for rule in parse_rules(text, "yaml")] == ["one", "two"]


def test_unreadable_files_are_rule_errors(tmp_path):
    with pytest.raises(RuleError, match="cannot be read"):
        load_rules(tmp_path / "missing.toml")
    with pytest.raises(RuleError, match=r"unknown kind of file; name it one of \.toml"):
        load_rules(tmp_path / "rules.json")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(RuleError, match="cannot be read"):
        load_rules(binary)
    with pytest.raises(RuleError, match="cannot be read"):
        load_rules("a\0b.toml")


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_lists_in_each_other_without_end_are_rule_errors(form):
    signs = {"toml": "=", "yaml": ": "}
    with pytest.raises(RuleError, match="make them flatter"):
        parse_rules(f"rules{signs[form]}{'[' * 3000}{']' * 3000}", form)
