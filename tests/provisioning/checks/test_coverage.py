"""Which event reaches somebody: by the rules that take it, and what those do with it."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events import EventBridgeConfig, build_event
from oms_events.events import encode
from oms_events.provisioning.checks.coverage import check_coverage
from oms_events.provisioning.checks.report import Level
from oms_events.provisioning.checks.samples import Sample, mapped

LOGS = [{"Arn": "arn:aws:logs:us-east-1:000000000000:log-group:/aws/events/a"}]
QUEUE = [{"Arn": "arn:aws:sqs:us-east-1:000000000000:q"}]
SENT, _ = mapped(
    [
        Sample(kind, encode(build_event(kind, "/shop", {}, subject=kind)))
        for kind in ("shop.a.made", "shop.b.made")
    ],
    EventBridgeConfig(event_bus_name="b"),
)

Row = tuple[set[int], Any]
"""What a rule takes, and its targets."""


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"a": ({0}, QUEUE), "b": ({1}, QUEUE)}, ["is taken by rule a", "is taken by rule b"]),
        ({"all": ({0, 1}, QUEUE)}, ["is taken by rule all", "is taken by rule all"]),
        ({"all": ({0, 1}, QUEUE), "a": ({0}, QUEUE)}, ["is taken by rules all, a", "alone, which takes whatever"]),
        ({"all": ({0, 1}, LOGS), "a": ({0}, QUEUE)}, ["is taken by rules all, a", "alone, which only logs it"]),
        ({"all": ({0, 1}, [*LOGS, *QUEUE])}, ["is taken by rule all", "is taken by rule all"]),
        ({"a": ({0}, []), "b": ({1}, QUEUE)}, ["only rule a takes it, without targets", "is taken by rule b"]),
        # Nobody knows their targets: another line says so.
        ({"a": ({0}, None), "b": ({1}, QUEUE)}, ["is taken by rule a", "is taken by rule b"]),
        ({"a": ({0}, QUEUE)}, ["is taken by rule a", "no ENABLED rule of the bus takes it"]),
    ],
)
def test_each_event_has_a_line_that_says_where_it_goes(rules: dict[str, Row], told: list[str]) -> None:
    found = list(
        check_coverage(
            [{"Name": name, "State": "ENABLED"} for name in rules],
            {name: taken for name, (taken, _) in rules.items()},
            {name: targets for name, (_, targets) in rules.items()},
            SENT,
        )
    )
    assert [one.subject for one in found] == ["shop.a.made", "shop.b.made"]
    for one, text in zip(found, told, strict=True):
        assert text in one.message
        assert (one.level is Level.WARNING) is ("alone" in text)
        assert (one.level is Level.PROBLEM) is ("takes it" in text)
        # What is wrong with this very event of its type is in its marks.
        assert one.level is Level.OK or f"subject {one.subject!r}" in one.message


def test_a_rule_that_is_off_takes_nothing() -> None:
    rules = [{"Name": "a", "State": "DISABLED"}, {"Name": "b", "State": "ENABLED"}]
    first, second = check_coverage(rules, {"a": {0}, "b": {1}}, {"a": QUEUE, "b": QUEUE}, SENT)
    assert (first.level, first.remedy) == (Level.PROBLEM, "enable rule a, which would take it")
    assert second.level is Level.OK
