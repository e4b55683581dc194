"""`oms-events infra check`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oms_events.cli.app import app
from oms_events.devstack import AwsEmulator
from oms_events.events import encode
from tests.cli.conftest import clean
from tests.provisioning.checks.checked import EVENTS, SCHEMA, Worlds


@pytest.fixture
async def deployed(worlds: Worlds, emulator: AwsEmulator, tmp_path: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """A world's name, and options of the command whose settings describe it."""
    async with worlds() as world:
        server = world.configuration.nats
        assert server is not None
        place = "aws_region = 'us-east-1'\naws_access_key_id = 'test'\naws_secret_access_key = 'test'\n"
        file = tmp_path / "settings.toml"
        file.write_text(
            f"[eventbridge]\nevent_bus_name = '{world.name}'\n{place}"
            f"[nats]\nservers = ['{server.servers[0]}']\n"
            f"[jetstream]\nstream = '{world.name}'\nsubject = '{world.name}.{{type}}'\n"
            f"[outbox]\ntable_name = '{world.name}-outbox'\n{place}"
        )
        events = tmp_path / "events.json"
        events.write_bytes(b"\n".join(encode(event).json for event in EVENTS[1:]))
        options = ["--config", str(file), "--events", str(events), "--endpoint-url", emulator.endpoint_url]
        yield world.name, [*options, "--idempotency-table", f"{world.name}-idempotency"]


def run_command(*arguments: str, **own: str) -> Result:
    wanted = clean(own)
    env = {**dict.fromkeys(os.environ.keys() - wanted.keys()), **wanted}
    return CliRunner(env=env).invoke(app, ["infra", "check", *arguments])


def test_the_command_prints_a_line_for_each_finding(deployed: tuple[str, list[str]]) -> None:
    name, options = deployed
    result = run_command(*options)
    assert result.exit_code == 0, result.output
    lines = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert lines[0] == ["area", "subject", "state", "what", "what to do"]
    assert ["events", SCHEMA, "ok", "is taken by rules logged, schema"] in lines
    assert ["idempotency", f"{name}-idempotency", "ok", "has the right keys, is ACTIVE"] in lines
    told = [line for line in lines if line[2] != "ok"][1:]
    # The test's credentials are the root user's, and nothing that is sent is an order.
    assert [line[:3] for line in told if line[0] != "permissions"] == [["rules", "orders", "warning"]]
    assert "0 problem" in result.stderr


def test_the_command_ends_with_1_for_a_problem(deployed: tuple[str, list[str]]) -> None:
    _, options = deployed
    result = run_command(*options, "--json", "--outbox-stream")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is False
    assert [one["message"] for one in report["findings"] if one["level"] == "problem"] == [
        "has no stream, and the relay on Lambda reads it"
    ]
    assert set(report["findings"][0]) == {"area", "subject", "level", "message", "remedy"}


def test_the_command_may_be_strict_about_what_could_not_be_checked(deployed: tuple[str, list[str]]) -> None:
    _, options = deployed
    result = run_command(*options, "--json", "--strict")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is False
    # The test's credentials are the root user's, which nobody can simulate.
    wrong = {(one["area"], one["level"]) for one in report["findings"] if one["level"] not in {"ok", "warning"}}
    assert wrong == {("permissions", "not checked")}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("[eventbridge]\nevent_bus_name = 'shop'\n", "region"),
        ("[outbox]\ntable_name = 'shop'\n", "region"),
        ("[eventbridge]\nevent_bus_name = 'shop'\naws_region = 'us-east-1'\nprofile_name = 'nobody'\n", "nobody"),
    ],
)
def test_the_command_refuses_what_does_not_say_who_looks_and_where(
    tmp_path: Path, section: str, words: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(section)
    # Whoever runs the tests may have a region of their own.
    result = run_command("--config", str(file), AWS_CONFIG_FILE=os.devnull)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert words in result.stderr


def test_the_remedy_for_a_missing_bus_makes_that_bus(tmp_path: Path, emulator: AwsEmulator) -> None:
    file = tmp_path / "settings.toml"
    keys = "aws_access_key_id = 'test'\naws_secret_access_key = 'test'\n"
    file.write_text(f"[eventbridge]\nevent_bus_name = 'nope'\naws_region = 'us-east-1'\n{keys}")
    result = run_command("--config", str(file), "--endpoint-url", emulator.endpoint_url, "--json")
    assert result.exit_code == 1, result.output
    bus = next(one for one in json.loads(result.stdout)["findings"] if one["area"] == "bus")
    assert "`oms-events infra apply oms --set event_bus_name=nope`" in bus["remedy"]


def test_the_command_refuses_samples_that_are_no_events(deployed: tuple[str, list[str]], tmp_path: Path) -> None:
    _, options = deployed
    bad = tmp_path / "bad.json"
    bad.write_text('{"type": "a"}\n')
    result = run_command(*options, "--events", str(bad))
    assert result.exit_code == 2
    assert "line 1: " in result.stderr
