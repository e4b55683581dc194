"""`publish`: events from flags, files and pipes to a real stream."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from oms_events.cli.report import Report
from tests.cli.conftest import Cli, NatsCli, event_json
from tests.devstack.support import needs_proc

LINES = f"{event_json(1)}\nnonsense\n\n{event_json(2)}\n{event_json(3, source='')}\n{event_json(4)}\n"


def numbers(cli: NatsCli) -> list[int]:
    return [event.get_data()["number"] for event in cli.stored()]


def test_an_event_from_flags_arrives_as_it_was_said(nats_cli: NatsCli) -> None:
    result = nats_cli(
        "publish", "--config", nats_cli.env["SETTINGS"], "--type", "com.foundry.oms.action.started",
        "--source", "/oms/main", "--subject", "job/1", "--id", "e-1", "--data", '{"x": [1, "ü"]}',
        "--attr", "branch=main", "--attr", "time=2026-01-02T03:04:05Z",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    (event,) = nats_cli.stored()
    assert {name: event.get_attributes()[name] for name in ("id", "source", "subject", "branch")} == {
        "id": "e-1", "source": "/oms/main", "subject": "job/1", "branch": "main",
    }  # fmt: skip
    assert event.get_data() == {"x": [1, "ü"]}
    time = event.get_time()
    assert time is not None
    assert time.isoformat() == "2026-01-02T03:04:05+00:00"
    assert f"{nats_cli.stream} 1" in result.stdout
    assert "1 of 1 events delivered" in result.stdout


def test_text_data_needs_its_content_type(nats_cli: NatsCli) -> None:
    flags = ("publish", "--config", nats_cli.env["SETTINGS"], "--type", "com.foundry.oms.action.x", "--data", "hi")
    refused = nats_cli(*flags)
    assert refused.exit_code == 2
    assert "--content-type text/plain" in refused.stderr
    assert nats_cli(*flags, "--content-type", "text/plain").exit_code == 0
    assert [event.get_data() for event in nats_cli.stored()] == ["hi"]


def test_bad_lines_are_reported_and_the_others_published(nats_cli: NatsCli, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(LINES)
    result = nats_cli("publish", "--config", nats_cli.env["SETTINGS"], file)
    assert result.exit_code == 3
    assert numbers(nats_cli) == [1, 2, 4]
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["line 2", "line 5"]
    assert "3 of 3 events delivered" in result.stdout
    assert "2 items of the input are no events" in result.stdout


def test_json_output_has_one_line_per_item_in_order(nats_cli: NatsCli, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(LINES)
    result = nats_cli("publish", "--config", nats_cli.env["SETTINGS"], file, "--json")
    assert (result.exit_code, result.stderr) == (3, "")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(item["line"], item["delivered"]) for item in found] == [
        (1, True), (2, False), (4, True), (5, False), (6, True),
    ]  # fmt: skip
    assert "not JSON" in found[1]["error"]
    nats = found[2]["platforms"]["nats"]
    assert (found[2]["id"], found[2]["rule"], nats["outcome"]) == ("2", "oms-actions", "delivered")
    assert nats["receipt"] == {"id": None, "stream": nats_cli.stream, "sequence": 2, "duplicate": False}


def test_arrays_are_published(nats_cli: NatsCli, tmp_path: Path) -> None:
    file = tmp_path / "events.json"
    file.write_text(json.dumps([json.loads(event_json(number)) for number in range(3)], indent=2))
    assert nats_cli("publish", "--config", nats_cli.env["SETTINGS"], file).exit_code == 0
    assert numbers(nats_cli) == [0, 1, 2]


def test_long_input_from_a_pipe_is_published_whole(nats_cli: NatsCli) -> None:
    lines = "".join(f"{event_json(number, data={'number': number, 'x': 'x' * 900})}\n" for number in range(3000))
    process = nats_cli.start("publish", "--config", nats_cli.env["SETTINGS"], "-")
    output, errors = process.communicate(lines.encode(), timeout=30)
    assert process.returncode == 0, errors
    assert b"3000 of 3000 events delivered" in output
    assert numbers(nats_cli) == list(range(3000))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_that_stays_open_is_served_at_once_and_can_be_interrupted(
    nats_cli: NatsCli, number: signal.Signals
) -> None:
    process = nats_cli.start("publish", "--config", nats_cli.env["SETTINGS"], "-", "--json")
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        for event in (1, 2):
            process.stdin.write(f"{event_json(event)}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == str(event)
        process.send_signal(number)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()
    assert numbers(nats_cli) == [1, 2]


def test_what_is_not_delivered_is_told_and_ends_with_1(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{event_json(number)}\n" for number in range(25)) + "nonsense")
    arguments = ("publish", file, "--timeout", "5")
    result = cli(*arguments, OMS_NATS_URL="nats://127.0.0.1:1")
    assert result.exit_code == 1
    told = result.stderr.splitlines()
    assert sum("was not delivered: nats" in line for line in told) == 20
    assert "... 5 more were not delivered; --json tells of each" in told
    assert "0 of 25 events delivered" in result.stdout
    as_json = cli(*arguments, "--json", OMS_NATS_URL="nats://127.0.0.1:1")
    assert as_json.exit_code == 1
    found = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert len(found) == 26
    assert all(item["platforms"]["nats"]["error"] for item in found[:25])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --type, or a FILE"),
        (("-", "--type", "a.b"), "exclude each other"),
        (("no-such-file",), "does not exist"),
        (("--type", "a.b", "--attr", "x"), "write NAME=VALUE"),
        (("--type", "a.b", "--attr", "Bad-Name=1"), "Bad-Name"),
        (("--type", "a.b", "--attr", "time=soon"), "RFC 3339"),
        (("--type", "a.b", "--data", "{"), "is not JSON"),
        (("--type", "a.b", "--timeout", "0"), "x>0"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    result = cli("publish", *arguments, OMS_NATS_URL="nats://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_control_characters_of_an_event_do_not_reach_the_terminal(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(event_json("a\x1b[31m\nfake line") + "\n")
    result = cli("publish", file, "--timeout", "5", OMS_NATS_URL="nats://127.0.0.1:1")
    assert "\x1b" not in result.stderr + result.stdout
    assert len(result.stderr.splitlines()) == 1


def test_a_closed_output_ends_it_quietly(nats_cli: NatsCli) -> None:
    process = nats_cli.start("publish", "--config", nats_cli.env["SETTINGS"], "-", "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(f"{event_json(1)}\n".encode(), timeout=20)
    assert process.returncode == 1
    assert b"Traceback" not in errors


def test_an_interruption_says_what_was_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=False)
    report.begin(3)
    report.summarize()
    output = capsys.readouterr()
    assert output.err.startswith("3 events were under way when this stopped: each may or may not")
    assert output.out.startswith("0 of 3 events delivered")


@needs_proc
def test_input_that_cannot_be_read_is_one_line(cli: Cli) -> None:
    result = cli("publish", "/proc/self/mem", OMS_NATS_URL="nats://127.0.0.1:1")
    assert result.exit_code == 1
    assert "Input/output error" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_terminal_gets_a_progress_bar_and_messages_on_lines_of_their_own(
    nats_cli: NatsCli, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{event_json(number)}\n" for number in range(2000)) + "nonsense\n")
    code, shown = nats_cli.on_terminal("publish", "--config", nats_cli.env["SETTINGS"], file)
    assert code == 3
    assert "publishing" in shown
    assert re.search(r"[\d.]+/[\d.]+ kB", shown)
    # What stands before it on its line was erased.
    before, _, _ = shown.partition("line 2001: not JSON")
    assert re.search(r"(\n|\x1b\[2K)(\x1b\[[\d;?]*[a-zA-Z])*$", before), before[-80:]
    assert "2000 of 2000 events delivered" in shown
