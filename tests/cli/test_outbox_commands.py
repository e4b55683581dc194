"""`outbox ...`: the commands over a real table and a real stream."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import termios
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from oms_events.cli.outbox.describing import plan_in_words
from oms_events.cli.outbox.options import to_time
from oms_events.outbox.admin import OutboxAdmin
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.outbox import DynamoDBOutbox, Outbox
from oms_events.outbox.records import RecordState
from oms_events.publishing import Plan
from tests.cli.conftest import Cli, NatsCli, clean
from tests.outbox.dead import BOTH, DELIVERED, add, bury, hold
from tests.outbox.support import ENDPOINT_VARIABLE, settings_of

NATS_ONLY = Plan("orders", "all", ("nats",), first_that_works=False)


@dataclass
class OutboxCli:
    """`oms-events outbox ...` with a table and a stream of the test's own."""

    cli: NatsCli
    file: Path
    config: OutboxConfig

    def __call__(self, *arguments: object, **env: str) -> Result:
        return self.cli("outbox", *arguments, "--config", self.file, **env)

    def json(self, *arguments: object, code: int = 0) -> list[Any]:
        """The values that a command prints with --json, after it ended with that code."""
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def do(self, *steps: Callable[[Outbox], Awaitable[Any]]) -> list[Any]:
        """Does steps with the outbox, one after the other."""

        async def all_steps() -> list[Any]:
            async with DynamoDBOutbox(self.config) as outbox:
                return [await step(outbox) for step in steps]

        return asyncio.run(all_steps())

    def stored(self) -> list[str]:
        return [event.get_id() for event in self.cli.stored()]


def settings_text(cli: NatsCli, config: dict[str, Any]) -> str:
    fields = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
    rule = "[[rules]]\nname = 'orders'\nevent_type_pattern = 'shop[.].*'\nplatforms = ['nats']\n"
    processor = (
        "[processor]\npoll_ceiling = 0.2\nheartbeat = 0.2\nlease = 2.0\nlease_margin = 0.2\n"
        "publish_timeout = 1.0\n"
    )
    nats = Path(cli.env["SETTINGS"]).read_text()
    return f"add_default_rules = false\n{nats}[outbox]\n{fields}{processor}{rule}"


async def stuck(outbox: Outbox) -> None:
    """Adds an event that was tried, and that nats refuses."""
    record = await add(outbox)
    state = RecordState(plan=BOTH, states={}, attempts=4, last_error="nats: denied: no permission for shop")
    assert await outbox.store.update(record.partition, record.sk, state)


@pytest.fixture
def bare(nats_cli: NatsCli, request: pytest.FixtureRequest, tmp_path: Path) -> OutboxCli:
    """The command for a table that does not exist yet."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE) or request.getfixturevalue("oms_aws_emulator").endpoint_url
    config = {**settings_of(endpoint), "table_name": f"cli-{uuid.uuid4().hex}"}
    file = tmp_path / "outbox.toml"
    file.write_text(settings_text(nats_cli, config))
    return OutboxCli(nats_cli, file, OutboxConfig(**config))


@pytest.fixture
def outbox(bare: OutboxCli) -> OutboxCli:
    assert bare("table", "create", "--buckets", "4").exit_code == 0
    return bare


# ---------------------------------------------------------------------- table


def test_a_table_is_created_once_and_kept(bare: OutboxCli) -> None:
    (made,) = bare.json("table", "create", "--buckets", 3)
    assert made == {
        "table": bare.config.table_name,
        "epochs": [{"number": 1, "buckets": 3, "is_open": True}],
    }
    bare.do(add)
    assert bare.json("table", "create") == [made]
    other = bare("table", "create", "--buckets", 5)
    assert other.exit_code == 2
    assert "3 buckets, not 5" in other.stderr
    assert "`oms-events outbox buckets 5`" in other.stderr
    assert len(bare.json("list", "--pending")) == 1


def test_a_table_that_is_missing_says_how_to_make_it(bare: OutboxCli) -> None:
    result = bare("status")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "oms-events outbox table create" in result.stderr


def test_without_an_outbox_in_the_settings_it_says_what_to_set(cli: Cli) -> None:
    result = cli("outbox", "status")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "OMS_OUTBOX_TABLE" in result.stderr


def test_the_bucket_count_changes_in_a_new_layout(outbox: OutboxCli) -> None:
    outbox.do(add)
    (found,) = outbox.json("buckets", 8)
    assert found["epochs"] == [
        {"number": 1, "buckets": 4, "is_open": False},
        {"number": 2, "buckets": 8, "is_open": True},
    ]
    assert outbox.json("buckets") == [found]
    shown = outbox("status", "--no-wait").stdout
    assert "1 (4 buckets, closed), 2 (8 buckets, open)" in shown
    assert outbox("buckets", 0).exit_code == 2


def test_changing_the_bucket_count_warns_of_what_the_new_layout_waits_for(outbox: OutboxCli) -> None:
    assert outbox("buckets", 6).stderr == ""
    outbox.do(lambda o: add(o, 1), lambda o: hold(o, 2))
    assert outbox("buckets", 6).stderr == ""
    told = outbox("buckets", 8)
    assert told.exit_code == 0
    assert (
        "the table has 2 pending records, those held by dead letters included: later keyed events" in told.stderr
    )


def test_an_old_layout_that_still_has_records_is_not_retired_and_that_is_an_error(outbox: OutboxCli) -> None:
    outbox.do(add)
    assert outbox("buckets", 8).exit_code == 0
    kept = outbox("buckets", "--retire")
    assert kept.exit_code == 1
    assert "layout 1 has 1 pending record, not retired" in kept.stderr
    (found,) = outbox.json("buckets", "--retire", code=1)
    assert [epoch["number"] for epoch in found["epochs"]] == [1, 2]


# ---------------------------------------------------------------------- status


def test_status_of_an_empty_outbox(outbox: OutboxCli) -> None:
    (found,) = outbox.json("status")
    assert (found["table"], found["measured"], found["pending"]) == (outbox.config.table_name, True, 0)
    assert (found["oldest_age"], found["processors"], found["dead_letters"]) == (None, [], [])
    assert len(found["buckets"]) == 4
    shown = outbox("status")
    assert shown.exit_code == 0
    assert re.search(r"^pending +0$", shown.stdout, re.M)
    assert re.search(r"^processors +none$", shown.stdout, re.M)


def test_status_shows_backlog_and_dead_letters_up_to_a_limit(outbox: OutboxCli) -> None:
    outbox.do(*[lambda o, n=n: add(o, n) for n in range(3)], lambda o: bury(o, 7), lambda o: bury(o, 8))
    (found,) = outbox.json("status", "--limit", 2)
    assert (found["pending"], found["bounded"]) == (2, True)
    (dead,) = found["dead_letters"]
    assert (dead["platform"], dead["count"], dead["bounded"]) == ("nats", 2, False)
    assert dead["reasons"] == [{"code": "too_large", "count": 2, "example": "it is too large"}]
    shown = outbox("status", "--limit", 2).stdout
    assert re.search(r"^pending +2\+$", shown, re.M)
    assert re.search(r"^1/\d +2\+ +[\d.]+ s +-$", shown, re.M)
    assert re.search(r"^nats +2 +too_large +2 +it is too large$", shown, re.M)


def test_status_says_why_records_wait(outbox: OutboxCli) -> None:
    outbox.do(stuck)
    (found,) = outbox.json("status", "--no-wait")
    assert found["reasons"] == [{"code": "nats: denied", "count": 1, "example": "no permission for shop"}]
    shown = outbox("status", "--no-wait").stdout
    assert re.search(r"^nats: denied +1 +no permission for shop$", shown, re.M)


def test_status_says_when_the_settings_have_another_bucket_count(outbox: OutboxCli, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(outbox.file.read_text().replace("[outbox]\n", "[outbox]\nbuckets = 16\n"))
    told = OutboxCli(outbox.cli, file, outbox.config)("status", "--no-wait")
    assert told.exit_code == 0
    assert "the settings have buckets = 16, but the table has 4" in told.stderr
    assert outbox("status", "--no-wait").stderr == ""


def test_status_says_what_it_cannot_measure_and_shows_no_zero(outbox: OutboxCli, tmp_path: Path) -> None:
    file = tmp_path / "nowhere.toml"
    file.write_text(re.sub(r"endpoint_url = .*", 'endpoint_url = "http://127.0.0.1:1"', outbox.file.read_text()))
    nowhere = OutboxCli(outbox.cli, file, outbox.config)
    result = nowhere("status")
    assert result.exit_code == 1
    assert re.search(r"^pending +not measurable$", result.stdout, re.M)
    assert re.search(r"^dead letters +not measurable$", result.stdout, re.M)
    assert not re.search(r"\b0$", result.stdout, re.M)
    assert "table not measurable: " in result.stderr
    (found,) = nowhere.json("status", code=1)
    assert found["measured"] is False
    assert (found["pending"], found["processors"], found["dead_letters"]) == (None, None, None)


# ---------------------------------------------------------------------- list, show


def test_list_shows_dead_letters_in_pages(outbox: OutboxCli) -> None:
    ids = [letter.id for letter in outbox.do(*[lambda o, n=n: bury(o, n) for n in range(5)])]
    found = outbox.json("list", "--limit", 2)
    assert [one["id"] for one in found] == ids[:2]
    assert found[0]["event"] == {"source": "/shop", "id": "e-0", "type": "shop.order.placed"}
    assert (found[0]["platform"], found[0]["code"], found[0]["key"]) == ("nats", "too_large", "A")
    shown = outbox("list", "--limit", 2)
    assert f"--after '{ids[1]}'" in shown.stderr
    assert [one["id"] for one in outbox.json("list", "--after", ids[1])] == ids[2:]
    assert outbox("list", "--after", ids[-1]).stderr == ""
    assert re.search(
        rf"^{re.escape(ids[0])} +shop\.order\.placed +e-0 +A +too_large +1 +2026-", shown.stdout, re.M
    )


def test_list_filters(outbox: OutboxCli) -> None:
    outbox.do(
        lambda o: bury(o, 1),
        lambda o: bury(o, 2, key="B"),
        lambda o: bury(o, 3, platform="eventbridge", failed=int(datetime.now(UTC).timestamp() * 1000)),
    )

    def listed(*flags: str) -> list[str]:
        return [one["event"]["id"] for one in outbox.json("list", *flags)]

    assert listed() == ["e-3", "e-1", "e-2"]
    assert listed("--platform", "nats") == ["e-1", "e-2"]
    assert listed("--key", "B") == ["e-2"]
    assert listed("--event-id", "e-1@/shop") == ["e-1"]
    assert listed("--type", r"shop\..*") == ["e-3", "e-1", "e-2"]
    assert listed("--type", r"shop\.order") == []
    assert listed("--since", "1 hour ago") == ["e-3"]
    assert listed("--until", "2026-01-02") == ["e-1", "e-2"]
    bad = outbox("list", "--type", "(")
    assert bad.exit_code == 2
    assert "not a regular expression" in bad.stderr
    bad = outbox("list", "--since", "yesterday")
    assert bad.exit_code == 2
    assert "'yesterday' is no time; write 2026-01-31" in bad.stderr


def test_list_shows_what_is_pending(outbox: OutboxCli) -> None:
    async def planned(o: Outbox) -> None:
        record = await add(o, 1)
        state = RecordState(plan=BOTH, states={"nats": DELIVERED}, attempts=2)
        assert await o.store.update(record.partition, record.sk, state)

    outbox.do(planned, lambda o: add(o, 2, key=None))
    first, second = sorted(outbox.json("list", "--pending"), key=lambda one: one["event"]["id"])
    assert (first["plan"]["platforms"], first["states"]) == (["nats", "eventbridge"], {"nats": "delivered"})
    assert (second["plan"], second["key"]) == (None, None)
    (only,) = outbox.json("list", "--pending", "--platform", "eventbridge")
    assert only["id"] == first["id"]
    shown = outbox("list", "--pending").stdout
    assert re.search(r" A +nats, eventbridge +nats delivered +2 +20", shown)
    assert outbox("list", "--pending", "--after", "nonsense").exit_code == 1


def test_what_cannot_be_meant_is_warned_of(outbox: OutboxCli) -> None:
    letter, _ = outbox.do(bury, lambda o: add(o, 2))
    no_platform = outbox("list", "--platform", "natz")
    assert no_platform.exit_code == 0
    assert "there is no dead letter of platform 'natz'" in no_platform.stderr
    assert "no dead letter of platform 'natz'" in outbox("purge", "--platform", "natz").stderr
    assert "waits for platform 'natz'" in outbox("list", "--pending", "--platform", "natz").stderr
    assert outbox("list", "--platform", "nats", "--key", "other").stderr == ""
    empty = outbox("list", "--since", "2026-02-01", "--until", "2026-01-01")
    assert "is not before --until" in empty.stderr
    assert outbox("list", "--since", "2026-01-01", "--until", "2026-02-01").stderr == ""
    assert "--after 'nats' is no id of a dead letter" in outbox("list", "--after", "nats").stderr
    assert outbox("list", "--after", letter.id).stderr == ""


def test_show_tells_all_of_one(outbox: OutboxCli) -> None:
    letter, record = outbox.do(
        lambda o: bury(o, 1, history=({"platform": "nats", "code": "older"},)), lambda o: add(o, 2)
    )
    (found,) = outbox.json("show", letter.id)
    assert found["event"]["data"] == {"number": 1}
    assert found["plan"]["platforms"] == ["nats", "eventbridge"]
    assert (found["reason"], found["history"]) == ("it is too large", [{"platform": "nats", "code": "older"}])
    (by_event,) = outbox.json("show", "e-1")
    assert by_event == found
    (pending,) = outbox.json("show", "e-2")
    assert (pending["kind"], pending["id"].rpartition("#")[2]) == ("pending", record.sk)
    shown = outbox("show", letter.id).stdout
    assert re.search(r"^reason +it is too large$", shown, re.M)
    assert re.search(r"^plan +nats, eventbridge \(rule orders, strategy all\)$", shown, re.M)
    assert "before   platform nats, code older" in shown
    assert json.loads(shown[shown.index("{") :])["id"] == "e-1"
    missing = outbox("show", "e-9")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no dead letter and no pending record 'e-9'" in missing.stderr


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(None, "primary", ("nats",), first_that_works=True), "nats (no rule, strategy primary)"),
        (
            Plan("orders", "failover", ("nats", "eventbridge"), first_that_works=True),
            "the first that works of nats, eventbridge (rule orders, strategy failover)",
        ),
    ],
)
def test_a_plan_is_told_in_words(plan: Plan, words: str) -> None:
    assert plan_in_words(plan) == words


def test_list_and_show_tell_the_last_error_of_what_is_pending(outbox: OutboxCli) -> None:
    outbox.do(stuck)
    (found,) = outbox.json("show", "e-1")
    assert found["last_error"] == "nats: denied: no permission for shop"
    assert re.search(r"^last error +nats: denied: no permission for shop$", outbox("show", "e-1").stdout, re.M)
    assert outbox("list", "--pending").stdout.rstrip().endswith("nats: denied: no permission for shop")


def test_control_characters_of_an_event_do_not_reach_the_terminal(outbox: OutboxCli) -> None:
    outbox.do(lambda o: bury(o, 1, key="\x1b[31mred", reason="a\nb\x9b31m"))
    for command in ("list", "show e-1", "status --no-wait", "requeue --all --dry-run"):
        output = outbox(*command.split()).output
        assert "\x1b" not in output
        assert "\x9b" not in output


# ---------------------------------------------------------------------- requeue, purge, replan


def test_requeue_says_first_and_does_then(outbox: OutboxCli) -> None:
    outbox.do(lambda o: bury(o, 1), lambda o: bury(o, 2), lambda o: bury(o, 3, platform="eventbridge"))
    dry = outbox("requeue", "--platform", "nats", "--dry-run")
    assert dry.exit_code == 0
    assert re.search(r"^nats +too_large +it is too large +2$", dry.stdout, re.M)
    assert "2 dead letters would be requeued" in dry.stdout
    assert "1 dead letter would be purged" in outbox("purge", "e-1", "--dry-run").stdout
    assert len(outbox.json("list")) == 3
    (done,) = outbox.json("requeue", "--platform", "nats")
    assert done == {
        "selected": 2,
        "groups": [{"platform": "nats", "code": "too_large", "text": "it is too large", "count": 2}],
        "missing": [],
        "dry_run": False,
        "done": 2,
        "gone": 0,
        "failed": {},
        "stopped": None,
        "unsure": 0,
    }
    assert [one["platform"] for one in outbox.json("list")] == ["eventbridge"]
    drained = outbox("drain", "--timeout", 30)
    assert drained.exit_code == 0, drained.output
    assert "2 records settled, 0 dead letters made; nothing remains" in drained.stdout
    assert sorted(outbox.stored()) == ["e-1", "e-2"]


def test_requeue_of_an_id_that_is_not_there_fails_and_the_others_are_done(outbox: OutboxCli) -> None:
    (letter,) = outbox.do(bury)
    result = outbox("requeue", letter.id, "e-9")
    assert result.exit_code == 1
    assert "e-9: no such one among the dead letters" in result.stderr
    assert "1 of 1 dead letter requeued" in result.stdout
    assert outbox.json("list") == []


@pytest.mark.parametrize("command", ["requeue", "purge", "bury --reason no", "replan"])
def test_a_change_needs_a_selection(cli: Cli, command: str) -> None:
    nothing = cli("outbox", *command.split())
    assert nothing.exit_code == 2
    assert "nothing is selected" in nothing.stderr
    both = cli("outbox", *command.split(), "--all", "--key", "A")
    assert both.exit_code == 2
    assert "--all excludes" in both.stderr


def test_purge_removes_dead_letters(outbox: OutboxCli) -> None:
    outbox.do(bury, lambda o: hold(o, 2))
    result = outbox("purge", "--all")
    assert (result.exit_code, "2 of 2 dead letters purged" in result.stdout) == (0, True)
    assert outbox.json("list") == []
    (record,) = outbox.json("list", "--pending")
    assert record["states"]["nats"] == "dead"


def test_bury_gives_up_what_is_pending(outbox: OutboxCli) -> None:
    outbox.do(stuck, lambda o: add(o, 2))
    first, second = outbox.json("list", "--pending")
    told = outbox("purge", first["id"])
    assert told.exit_code == 1
    assert "give it up with `oms-events outbox bury` first" in told.stderr
    assert "bury` first" in outbox("purge", "e-1").stderr
    assert outbox("bury", "e-1").exit_code == 2
    dry = outbox("bury", "e-1", "--reason", "gone for good", "--dry-run")
    assert re.search(r"^nats, eventbridge +orders +nats: denied: no permission for shop +1$", dry.stdout, re.M)
    assert "1 record would be buried" in dry.stdout
    assert len(outbox.json("list", "--pending")) == 2
    (done,) = outbox.json("bury", "e-1", "--reason", "gone for good")
    assert (done["selected"], done["done"], done["failed"]) == (1, 1, {})
    assert outbox.json("list", "--pending") == [second]
    (letter,) = outbox.json("list")
    assert (letter["code"], letter["reason"]) == ("given_up", "gone for good")
    assert letter["platforms"] == ["nats", "eventbridge"]
    assert "1 of 1 record buried" in outbox("bury", second["id"], "--reason", "no").stdout
    assert outbox("purge", "--all").exit_code == 0
    assert (outbox.json("list"), outbox.json("list", "--pending")) == ([], [])


def test_replan_lets_the_rules_of_today_decide(outbox: OutboxCli) -> None:
    """A platform of its plan is not configured any more: without a new plan the event stays."""

    async def planned(o: Outbox) -> None:
        record = await add(o)
        plan = Plan("old", "all", ("eventbridge", "nats"), first_that_works=False)
        state = RecordState(plan=plan, attempts=1)
        assert await o.store.update(record.partition, record.sk, state)

    outbox.do(planned)
    (dry,) = outbox.json("replan", "--all", "--dry-run")
    assert dry["groups"] == [{"platform": "eventbridge, nats", "code": "old", "text": "all", "count": 1}]
    assert outbox.json("list", "--pending")[0]["plan"] is not None
    (left,) = outbox.json("drain", "--timeout", 1, code=1)
    assert (left["drained"], left["pending"]) == (False, 1)
    assert "; 1 of 1 records remain, see" in outbox("drain", "--timeout", 1).stdout
    assert "1 of 1 record replanned" in outbox("replan", "--platform", "eventbridge").stdout
    assert outbox("drain", "--timeout", 30).exit_code == 0
    assert set(outbox.stored()) == {"e-1"}


def answer_on_terminal(outbox: OutboxCli, answer: bytes, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that has a terminal to ask on."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\xa0\x00\x00\x00\x00\x00")
    os.write(ours, answer)
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = outbox.cli.start("outbox", *arguments, "--config", outbox.file, **streams)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65_536):
            shown += data
    except OSError:
        # Linux ends a terminal that all have left with an error.
        pass
    os.close(ours)
    return process.wait(timeout=10), shown.decode()


def test_on_a_terminal_it_asks_before_it_changes_anything(outbox: OutboxCli) -> None:
    outbox.do(*[lambda o, n=n: bury(o, n) for n in range(3)])
    code, shown = answer_on_terminal(outbox, b"n\n", "purge", "--all")
    assert (code, "purge 3 dead letters?" in shown) == (1, True)
    assert len(outbox.json("list")) == 3
    code, shown = answer_on_terminal(outbox, b"y\n", "purge", "e-1")
    assert (code, "1 of 1 dead letter purged" in shown) == (0, True)
    code, shown = answer_on_terminal(outbox, b"", "requeue", "--all", "--yes")
    assert (code, "letters?" in shown, "2 of 2 dead letters requeued" in shown) == (0, False, True)
    assert re.search(r"requeue.*\d+/2", shown)
    assert outbox.json("list") == []


# ---------------------------------------------------------------------- drain, run


def test_drain_without_a_platform_says_what_to_configure(outbox: OutboxCli, tmp_path: Path) -> None:
    text = outbox.file.read_text()
    file = tmp_path / "bare.toml"
    file.write_text(text[text.index("[outbox]") : text.index("[[rules]]")])
    result = OutboxCli(outbox.cli, file, outbox.config)("drain")
    assert result.exit_code == 2
    assert "no platform is configured" in result.stderr


class Worker:
    """`oms-events outbox run` in a process of its own."""

    def __init__(self, outbox: OutboxCli, *arguments: str) -> None:
        command = ("outbox", "run", *arguments, "--config", outbox.file)
        self.process: subprocess.Popen[bytes] = outbox.cli.start(*command)

    def read_until(self, pattern: str) -> re.Match[str]:
        """The first line on stderr that matches; the test's own deadline is pytest's."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(pattern, line.decode()):
                return found
        raise AssertionError(f"it ended without {pattern!r}: {self.process.wait()}")

    def end(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=20)
        return self.process.returncode, output.decode(), errors.decode()


@pytest.fixture
def start_worker(outbox: OutboxCli) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(*arguments: str) -> Worker:
        started.append(Worker(outbox, *arguments))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.communicate()


async def until_empty(outbox: Outbox) -> None:
    """Waits until nothing is pending."""
    layout = await outbox.store.read_layout()
    assert layout is not None
    async with asyncio.timeout(30):
        while (await OutboxAdmin(outbox).status()).pending:  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.05)


def test_a_worker_relays_until_it_is_told_to_stop(outbox: OutboxCli, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("--metrics-port", "0")
    address = worker.read_until(r"metrics are at (http://127\.0\.0\.1:\d+/metrics)")[1]
    worker.read_until(rf"relaying {outbox.config.table_name} ")
    outbox.do(*[lambda o, n=n: add(o, n, key=f"key {n % 5}") for n in range(20)], until_empty)
    (status,) = outbox.json("status")
    (member,) = status["processors"]
    assert (member["alive"], member["buckets"]) == (True, 4)
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert b"oms_events_published_total" in answer.read()
    code, output, errors = worker.end(signal.SIGTERM)
    assert (code, output) == (0, "20 records settled, 0 dead letters made\n")
    assert errors.splitlines()[-1] == "stopped"
    assert sorted(outbox.stored()) == sorted(f"e-{n}" for n in range(20))
    (status,) = outbox.json("status", "--no-wait")
    assert (status["processors"], {bucket["owner"] for bucket in status["buckets"]}) == ([], {None})


def test_a_worker_ends_by_ctrl_c_and_tells_what_it_did_as_json(
    outbox: OutboxCli, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("--json")
    worker.read_until("relaying ")
    code, output, _ = worker.end(signal.SIGINT)
    assert (code, json.loads(output)) == (0, {"settled": 0, "dead_letters": 0})


def test_a_worker_says_why_a_platform_takes_nothing(
    outbox: OutboxCli, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    text = outbox.file.read_text()
    stream = re.search(r"subject = '([\w-]+)\.\{type\}'", text)
    assert stream is not None
    outbox.file.write_text(text.replace(f"subject = '{stream[1]}.", "subject = 'nowhere-at-all."))
    outbox.do(add)
    worker = start_worker()
    told = worker.read_until(r"nats did not take an event \((.*)\): (.*)")
    assert "denied" in told[1]
    assert "nowhere-at-all.shop.order.placed" in told[2]
    code, _, errors = worker.end(signal.SIGTERM)
    assert code == 0
    assert "did not take an event" not in errors


def test_a_worker_whose_platform_cannot_be_reached_says_so(
    outbox: OutboxCli, start_worker: Callable[..., Worker]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    outbox.file.write_text(
        re.sub(r"servers = .*", f'servers = ["nats://127.0.0.1:{port}"]', outbox.file.read_text())
    )
    outbox.do(add)
    worker = start_worker()
    told = worker.read_until(r"nats .*")
    assert str(port) in told[0]
    assert worker.end(signal.SIGTERM)[0] == 0


def test_a_worker_whose_metrics_port_is_taken_says_so(outbox: OutboxCli, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = outbox("run", "--metrics-port", port)
    assert result.exit_code == 2
    assert f"metrics cannot be served on 127.0.0.1:{port}" in result.stderr


# ---------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("1 hour ago", timedelta(hours=1)),
        ("90 minutes", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1.5 h ago", timedelta(hours=1.5)),
        ("3 Weeks ago", timedelta(weeks=3)),
        ("10s", timedelta(seconds=10)),
    ],
)
def test_a_time_may_say_how_long_ago(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    assert timedelta(0) <= to_time(text) - (before - ago) < timedelta(seconds=10)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T12:00", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00+01:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, iso: str) -> None:
    assert to_time(text).isoformat() == iso


@pytest.mark.parametrize("text", ["", "soon", "5", "1 year ago", "9999999999 weeks ago", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        to_time(text)


def test_settings_of_the_test_run_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_OUTBOX_TABLE", "somebody-elses")
    assert "OMS_OUTBOX_TABLE" not in clean({})
