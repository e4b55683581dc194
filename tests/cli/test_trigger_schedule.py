"""`trigger schedule`: the schedules of rules on the emulator."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import Result

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events.devstack import AwsEmulator
from tests.cli.conftest import Cli

EVENING = "cron(0 22 * * ? *)"


@dataclass
class Schedule:
    """The commands, for a rule of the test's own."""

    cli: Cli
    rule: str

    def __call__(self, command: str, *arguments: str) -> Result:
        return self.cli("trigger", "schedule", command, self.rule, *arguments)

    def ask_aws(self, operation: str, **parameters: Any) -> Any:
        env = self.cli.env
        config = AwsConfig(
            aws_region=env["AWS_REGION"],
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        )

        async def call() -> Any:
            async with open_control(config, "events") as control:
                return await control.call(operation, Name=self.rule, **parameters)

        return asyncio.run(call())


@pytest.fixture
def schedule(oms_aws_emulator: AwsEmulator) -> Schedule:
    made = Schedule(Cli(oms_aws_emulator.environment()), f"{uuid.uuid4().hex[:8]}-evening")
    made.ask_aws("PutRule", ScheduleExpression=EVENING, Description="each evening")
    return made


def test_a_rule_is_shown_paused_resumed_and_set(schedule: Schedule) -> None:
    name = schedule.rule
    shown = schedule("show")
    assert (shown.exit_code, shown.stderr) == (0, "")
    fields = dict(line.split("  ", 1) for line in shown.stdout.splitlines())
    assert {key: value.strip() for key, value in fields.items() if key != "next run"} == {
        "rule": name, "bus": "default", "state": "ENABLED", "schedule": EVENING, "means": "At 22:00 UTC every day",
        "description": "each evening", "managed by": "-",
    }  # fmt: skip
    assert fields["next run"].endswith(" 22:00")

    would = schedule("pause", "--dry-run")
    assert would.stdout == f"rule {name}: would be paused (was ENABLED)\n"
    assert schedule.ask_aws("DescribeRule")["State"] == "ENABLED"
    paused = schedule("pause")
    assert (paused.exit_code, paused.stdout) == (0, f"rule {name}: paused (was ENABLED)\n")
    assert paused.stderr == (
        f"resume it with `oms-events trigger schedule resume {name}`\n"
        "a deployment that changes the rule sets this back: change the stack too\n"
    )
    assert schedule.ask_aws("DescribeRule")["State"] == "DISABLED"
    again = schedule("pause")
    assert (again.exit_code, again.stdout, again.stderr) == (0, f"rule {name}: nothing to change\n", "")
    assert "next run     -" in schedule("show").stdout

    changed = schedule("set", "cron(30  7 ? * MON-FRI *)")
    assert changed.stdout == (
        "At 07:30 UTC, Monday to Friday\n"
        f"rule {name}: set to cron(30 7 ? * MON-FRI *) (was {EVENING})\n"
    )  # fmt: skip
    assert changed.stderr.startswith("the rule is paused, and stays so\n")
    found = schedule.ask_aws("DescribeRule")
    assert (found["ScheduleExpression"], found["State"]) == ("cron(30 7 ? * MON-FRI *)", "DISABLED")

    resumed = json.loads(schedule("resume", "--json").stdout)
    assert (resumed["changed"], resumed["dry_run"]) == (True, False)
    assert (resumed["before"]["paused"], resumed["after"]["paused"]) == (True, False)
    assert schedule.ask_aws("DescribeRule")["State"] == "ENABLED"
    assert json.loads(schedule("set", "rate(1 day)", "--dry-run", "--json").stdout)["changed"] is False
    described = json.loads(schedule("show", "--json").stdout)
    assert (described["expression"], described["words"]) == (
        "cron(30 7 ? * MON-FRI *)", "At 07:30 UTC, Monday to Friday",
    )  # fmt: skip


def test_what_cannot_be_done_is_told_in_one_line(schedule: Schedule) -> None:
    wrong = schedule("set", "cron(0 24 * * ? *)")
    assert (wrong.exit_code, "Hours = '24': give 0-23" in wrong.stderr) == (2, True)
    misspelt = schedule.cli("trigger", "schedule", "pause", f"{schedule.rule}s")
    assert (misspelt.exit_code, misspelt.stdout) == (1, "")
    assert misspelt.stderr == (
        f"Error: there is no rule '{schedule.rule}s' on the bus 'default' in us-east-1; "
        f"did you mean '{schedule.rule}'?\n"
    )
    impossible = schedule.cli("trigger", "schedule", "show", "no rule", "--bus", "a b")
    assert (impossible.exit_code, "a rule's name is 1 to 64 letters" in impossible.stderr) == (2, True)
    schedule.ask_aws("PutRule", ScheduleExpression="", EventPattern='{"source": ["shop"]}')
    for_events = schedule("pause")
    assert for_events.exit_code == 1
    assert "is for events, by an event pattern: change the stack that it is of" in for_events.stderr
    assert "no schedule: it is for events" in schedule("show").stdout
