"""`trigger next`: a schedule in words, and its next runs in a zone."""

from __future__ import annotations

import json
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.conftest import Cli

EVENING = "cron(0 22 * * ? *)"


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_schedule_is_said_in_words_and_its_next_runs_in_two_zones(cli: Cli) -> None:
    result = cli(
        "trigger", "next", EVENING, "--tz", "Asia/Seoul", "--count", "2", "--after", "2026-10-01T22:00:00Z"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines(result.stdout) == [
        "At 22:00 UTC every day",
        "Asia/Seoul UTC",
        "Sat 2026-10-03 07:00 +09:00 Fri 2026-10-02 22:00",
        "Sun 2026-10-04 07:00 +09:00 Sat 2026-10-03 22:00",
    ]


# 22:00 UTC stays where it is, and clocks go back or forward around it.
@pytest.mark.parametrize(
    ("zone", "after", "local"),
    [
        ("Europe/Berlin", "2026-10-23", ["2026-10-24T00:00:00+02:00", "2026-10-25T00:00:00+02:00"]),
        ("Europe/Berlin", "2026-10-24T23:00:00Z", ["2026-10-25T23:00:00+01:00", "2026-10-26T23:00:00+01:00"]),
        ("America/New_York", "2026-03-07", ["2026-03-07T17:00:00-05:00", "2026-03-08T18:00:00-04:00"]),
        ("Asia/Kolkata", "2026-03-07", ["2026-03-08T03:30:00+05:30", "2026-03-09T03:30:00+05:30"]),
    ],
)
def test_summer_time_moves_local_times_and_not_the_runs(cli: Cli, zone: str, after: str, local: list[str]) -> None:
    result = cli("trigger", "next", EVENING, "--tz", zone, "--after", after, "--count", "2", "--json")
    shown = json.loads(result.stdout)
    assert (shown["expression"], shown["words"], shown["zone"]) == (EVENING, "At 22:00 UTC every day", zone)
    assert [run["local"] for run in shown["runs"]] == local
    assert {run["utc"][10:] for run in shown["runs"]} == {"T22:00:00Z"}


def test_five_runs_from_now_on_in_utc_unless_said_otherwise(cli: Cli) -> None:
    runs = json.loads(cli("trigger", "next", "cron(* * * * ? *)", "--json").stdout)["runs"]
    first = datetime.fromisoformat(runs[0]["utc"].replace("Z", "+00:00"))
    assert (len(runs), runs[0]["local"]) == (5, runs[0]["utc"])
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=2)
    assert lines(cli("trigger", "next", EVENING).stdout)[1] == "UTC"


def test_a_rate_counts_from_the_time_given_and_says_so(cli: Cli) -> None:
    result = cli("trigger", "next", "rate(90 minutes)", "--after", "2026-10-01T12:00:30Z", "--count", "2")
    assert result.exit_code == 0
    assert lines(result.stdout) == [
        "Every 90 minutes, from when the rule was made",
        "UTC",
        "Thu 2026-10-01 13:30:30",
        "Thu 2026-10-01 15:00:30",
    ]
    assert "a rate counts from when its rule was made" in result.stderr


def test_what_never_runs_again_ends_with_1(cli: Cli) -> None:
    ended = cli("trigger", "next", "cron(0 22 * * ? 2020)", "--after", "2026-10-01")
    assert (ended.exit_code, lines(ended.stdout)) == (1, ["At 22:00 UTC every day, in 2020"])
    assert ended.stderr == "it does not run after 2026-10-01T00:00:00Z\n"
    last = cli("trigger", "next", "cron(0 22 31 12 ? 2026)", "--after", "2026-10-01", "--tz", "Asia/Seoul")
    assert (last.exit_code, last.stderr) == (0, "it does not run after that\n")
    assert lines(last.stdout)[2:] == ["Fri 2027-01-01 07:00 +09:00 Thu 2026-12-31 22:00"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cron(0 25 * * ? *)"], "Hours = '25': give 0-23"),
        (["0 22 * * ? *"], "is no schedule; write cron(0 22 * * ? *) or rate(5 minutes)"),
        ([EVENING, "--tz", "Asia/Seul"], "'Asia/Seul' is no time zone; did you mean 'Asia/Seoul'?"),
        ([EVENING, "--tz", "KST9"], "is no time zone; give a name such as Asia/Seoul"),
        ([EVENING, "--tz", "../../etc/passwd"], "is no time zone"),
        ([EVENING, "--tz", "America"], "'America' is no time zone"),
        ([EVENING, "--tz", ""], "'' is no time zone"),
        ([EVENING, "--after", "tomorrow"], "'tomorrow' is no time; write 2026-01-31T12:00:00Z"),
        ([EVENING, "--after", "2026-10-01T12:00"], "has no zone; add Z for UTC"),
        ([EVENING, "--count", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(cli: Cli, arguments: list[str], said: str) -> None:
    result = cli("trigger", "next", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.fixture
def no_time_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on Windows, and in small container images."""
    monkeypatch.setitem(sys.modules, "tzdata", None)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=before)


@pytest.mark.usefixtures("no_time_zones")
def test_a_machine_without_time_zones_is_told_what_to_install(cli: Cli) -> None:
    result = cli("trigger", "next", EVENING, "--tz", "Asia/Seoul")
    assert result.exit_code == 2
    assert "this machine has no time zone database; pip install tzdata, or leave --tz out" in result.stderr
    assert cli("trigger", "next", EVENING).exit_code == 0
    assert cli("trigger", "next", EVENING, "--tz", "utc").exit_code == 0
