"""`route explain`, `rules check`, `status`, and what all commands share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oms_events.devstack import NatsServer
from tests.cli.conftest import Cli, event_json

NOWHERE = {"OMS_NATS_URL": "nats://127.0.0.1:1"}
BOTH = {**NOWHERE, "OMS_EVENTBRIDGE_BUS_NAME": "b", "AWS_REGION": "us-east-1"}
BRANCH = "com.foundry.oms.branch.created"


def write(folder: Path, text: str, name: str = "rules.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# ---------------------------------------------------------------------- route explain


def test_explain_says_who_takes_an_event_and_why_others_do_not(cli: Cli) -> None:
    result = cli("route", "explain", "--type", BRANCH, "--json", **BOTH)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["rule"], found["goes_to"]) == ("oms-branches", ["nats"])
    assert found["platforms"]["eventbridge"].startswith("backup")
    reasons = {rule["name"]: rule["reason"] for rule in found["rules"]}
    assert reasons["oms-schema"] == "pattern does not match"
    assert "'oms-branches'" in reasons["oms-default"]


def test_explain_assumes_platforms_to_be_down(cli: Cli) -> None:
    result = cli("route", "explain", "--type", BRANCH, "--down", "nats", "--json", **BOTH)
    found = json.loads(result.stdout)
    assert found["goes_to"] == ["eventbridge"]
    assert found["platforms"]["nats"] == "assumed to be down"


def test_explain_knows_attributes_and_data(cli: Cli, tmp_path: Path) -> None:
    config = write(
        tmp_path,
        """
        [[rules]]
        name = "production"
        event_type_pattern = ".*"
        platforms = ["nats"]
        strategy = "conditional"
        conditions = { branch = "production", "data.size" = [{ numeric = [">", 3] }] }
        """,
    )

    def rule(*flags: str) -> str:
        arguments = ("route", "explain", "--config", config, "--platform", "nats", "--type", BRANCH, "--json")
        found = json.loads(cli(*arguments, *flags).stdout)
        assert isinstance(found["rule"], str)
        return found["rule"]

    assert rule("--attr", "branch=production", "--data", '{"size": 4}') == "production"
    assert rule("--attr", "branch=production", "--data", '{"size": 3}') == "oms-branches"
    assert rule("--attr", "branch=main", "--data", '{"size": 4}') == "oms-branches"


def test_explain_reads_files(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, f"{event_json(1, type=BRANCH)}\nnonsense\n{event_json(2)}\n", "events")
    result = cli("route", "explain", file, "--json", **BOTH)
    assert result.exit_code == 3
    assert [json.loads(line)["rule"] for line in result.stdout.splitlines()] == ["oms-branches", "oms-actions"]
    assert result.stderr.startswith("line 2: not JSON")


def test_explanations_for_humans_are_aligned(cli: Cli) -> None:
    result = cli("route", "explain", "--type", BRANCH, **BOTH)
    lines = result.stdout.splitlines()
    assert "rule        oms-branches" in lines
    header = next(line for line in lines if line.startswith("rule    ") and "priority" in line)
    taken = next(line for line in lines if line.startswith("oms-branches  "))
    assert taken[header.index("takes it") :].startswith("yes")


def test_explain_refuses_a_platform_that_nobody_knows(cli: Cli) -> None:
    result = cli("route", "explain", "--type", BRANCH, "--down", "natss", **BOTH)
    assert result.exit_code == 2
    assert "nobody knows natss; there are eventbridge, nats" in result.stderr


# ---------------------------------------------------------------------- rules check


@pytest.mark.parametrize(
    ("rules", "kind", "severity", "code"),
    [
        ("[{event_type_pattern = '.*', platforms = ['nats'], name = 'all'}]", "shadowed", "warning", 0),
        ("[{event_type_pattern = 'a', platforms = ['webhook']}]", "no_platform", "error", 1),
        ("[{event_type_pattern = 'a', platforms = ['nats', 'natss']}]", "unknown_platform", "error", 1),
        ("[{event_type_pattern = 'a', platforms = ['nats'], name = 'oms-default'}]", "name_taken", "error", 1),
        ("[{event_type_pattern = '(', platforms = []}]", "invalid", "error", 1),
        ("[{event_type_pattern = '\\\\d+', platforms = ['nats']}]", "not_exportable", "info", 0),
    ],
)
def test_check_finds(cli: Cli, tmp_path: Path, rules: str, kind: str, severity: str, code: int) -> None:
    file = write(tmp_path, f"rules = {rules}")
    arguments = ("rules", "check", file, "--platform", "nats", "--platform", "eventbridge")
    as_json = cli(*arguments, "--json")
    assert as_json.exit_code == code
    found = json.loads(as_json.stdout)["findings"]
    assert (kind, severity) in {(finding["kind"], finding["severity"]) for finding in found}
    table = cli(*arguments)
    assert table.exit_code == code
    assert any(kind in line and severity in line for line in table.stdout.splitlines())


def test_default_rules_pass_where_both_platforms_are(cli: Cli) -> None:
    result = cli("rules", "check", "--json", **BOTH)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"rules": 5, "findings": []}


def test_check_takes_the_platforms_and_rules_of_the_settings(cli: Cli, tmp_path: Path) -> None:
    assert cli("rules", "check", **NOWHERE).exit_code == 1
    config = write(
        tmp_path,
        "add_default_rules = false\n[nats]\n[[rules]]\nevent_type_pattern = 'a'\nplatforms = ['nats']\n",
    )
    result = cli("rules", "check", "--config", config, "--json")
    assert (result.exit_code, json.loads(result.stdout)["rules"]) == (0, 1)


def test_check_can_leave_the_default_rules_out(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, "rules = [{event_type_pattern = '.*', platforms = ['nats']}]")
    result = cli("rules", "check", file, "--no-default-rules", "--platform", "nats", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"rules": 1, "findings": []})


# ---------------------------------------------------------------------- status


def test_status_of_a_healthy_primary_is_0(cli: Cli, oms_nats_server: NatsServer) -> None:
    result = cli("status", OMS_NATS_URL=oms_nats_server.url)
    assert result.exit_code == 0
    assert "1 of 1 platforms healthy; the primary, nats, is healthy" in result.stdout
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("nats")] == [
        ["nats", "yes", "healthy"]
    ]


def test_status_of_a_primary_that_is_down_is_1(cli: Cli) -> None:
    result = cli("status", "--json", **NOWHERE)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["health_summary"]["primary_platform_healthy"] is False
    assert "127.0.0.1:1" in found["platforms"]["nats"]["check_error"]
    assert result.stderr == ""


def test_a_terminal_gets_tables_with_lines(oms_nats_server: NatsServer) -> None:
    code, shown = Cli({"OMS_NATS_URL": oms_nats_server.url}).on_terminal("status")
    assert code == 0
    row = next(line for line in shown.splitlines() if "nats" in line)
    assert row.startswith("│ nats")


# ---------------------------------------------------------------------- all commands


@pytest.mark.parametrize("command", [("status",), ("publish", "--type", "a.b"), ("rules", "check")])
def test_without_a_platform_the_error_says_what_to_set(cli: Cli, command: tuple[str, ...]) -> None:
    result = cli(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "OMS_NATS_URL" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_errors_are_one_line_without_secret_and_debug_shows_the_traceback(cli: Cli) -> None:
    env = {"OMS_NATS_URL": "http://user:hunter2@host"}
    plain, debug = cli("status", **env), cli("status", "--debug", **env)
    assert plain.exit_code == debug.exit_code == 2
    assert plain.stderr.startswith("Error: environment: OMS_NATS_URL")
    assert len(plain.stderr.splitlines()) == 1
    assert "Traceback" in debug.stderr
    assert "hunter2" not in plain.stderr + debug.stderr


def test_help_documents_exit_codes(cli: Cli) -> None:
    assert "130 interrupted" in " ".join(cli("--help").stdout.split())


@pytest.mark.parametrize(
    ("module", "extra", "command"),
    [
        ("click", "cli", "status"),
        ("nats", "nats", "status"),
        ("aioboto3", "aws", "dev up"),
        ("aioboto3", "all", "demo"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(cli: Cli, module: str, extra: str, command: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from oms_events.cli.main import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, *command.split()],
        env={"PATH": "/usr/bin", **NOWHERE},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"oms-events[{extra}]" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
