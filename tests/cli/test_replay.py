"""`replay ...`: the commands over a real table, a real stream, and the emulator's archives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.replay.archive import ArchiveReplays
from tests.cli.conftest import Cli, NatsCli
from tests.eventstore.accounts import registry
from tests.eventstore.replaying import fill, first_deliveries, positions
from tests.outbox.support import ENDPOINT_VARIABLE, Settings, settings_of


@dataclass
class ReplayCli:
    """`oms-events replay store` with a table and a stream of the test's own."""

    cli: NatsCli
    file: Path
    config: EventStoreConfig

    def __call__(self, *arguments: object, **env: str) -> Result:
        return self.cli("replay", "store", *arguments, "--config", self.file, **env)

    def json(self, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def fill(self, counts: dict[str, int]) -> None:
        async def go() -> None:
            store = DynamoDBEventStore(self.config, registry=registry)
            await store.table.create()
            async with store:
                await fill(store, counts)

        asyncio.run(go())


@pytest.fixture
def aws(request: pytest.FixtureRequest) -> Settings:
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    return settings_of(endpoint or request.getfixturevalue("oms_aws_emulator").endpoint_url)


@pytest.fixture
def replay(nats_cli: NatsCli, aws: Settings, tmp_path: Path) -> ReplayCli:
    config = {**aws, "table_name": f"replay-{uuid.uuid4().hex[:12]}"}
    fields = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
    rules = (
        "[[rules]]\nname = 'moves'\nevent_type_pattern = 'Transaction.*'\nplatforms = ['nats']\n"
        "[[rules]]\nname = 'accounts'\nevent_type_pattern = 'Account.*'\nplatforms = ['nats']\n"
    )
    file = tmp_path / "replay.toml"
    nats = Path(nats_cli.env["SETTINGS"]).read_text()
    file.write_text(f"add_default_rules = false\n{nats}[event_store]\n{fields}{rules}")
    return ReplayCli(nats_cli, file, EventStoreConfig(**config))


def test_a_table_is_replayed_to_a_stream_in_order(replay: ReplayCli, tmp_path: Path) -> None:
    replay.fill({"A": 12, "B": 3})
    (counted,) = replay.json("--dry-run")
    assert (counted["matched"], counted["dry_run"], "delivered" in counted) == (15, True, False)
    assert counted["by_rule"] == {"accounts": 4, "moves": 11}
    assert replay.cli.stored() == []

    (report,) = replay.json("--name", "march", "--checkpoint", tmp_path / "state.json")
    assert (report["delivered"], report["complete"], report["duplicates"]) == (15, True, 0)
    stored = replay.cli.stored()
    assert first_deliveries(stored) == {"A": [*range(1, 13)], "B": [1, 2, 3]}
    assert len(stored) == 15
    assert {event.get_extension("replayname") for event in stored} == {"march"}

    # JetStream drops copies inside its window: that is said, not hidden.
    again = replay("--name", "april")
    assert again.exit_code == 0
    assert "15 events were dropped as duplicates" in again.stderr
    assert len(replay.cli.stored()) == 15

    complete = replay("--name", "march", "--checkpoint", tmp_path / "state.json")
    assert complete.exit_code == 0
    assert "was complete before" in complete.stderr
    other = replay("--type", "AccountCreated", "--checkpoint", tmp_path / "state.json")
    assert (other.exit_code, "the checkpoint is of another replay" in other.stderr) == (1, True)


def test_a_part_is_replayed(replay: ReplayCli) -> None:
    replay.fill({"A": 4, "B": 4})
    (report,) = replay.json("--type", "AccountCreated", "--type", "AccountClosed", "--aggregate", "B")
    assert report["by_type"] == {"AccountCreated": 1, "AccountClosed": 1}
    assert positions(replay.cli.stored()) == ["B@1", "B@4"]
    (report,) = replay.json("--rule", "moves", "--rate", "1000", "--unordered")
    assert (report["read"], report["delivered"]) == (8, 4)
    (report,) = replay.json("--platform", "nats", "--from", "1 hour ago", "--to", "now", "--dry-run")
    assert report["by_platform"] == {"nats": 8}
    (report,) = replay.json("--from", "2 hours ago", "--to", "1 hour ago")
    assert report["matched"] == 0
    shown = replay("--aggregate", "A")
    assert shown.exit_code == 0
    assert "delivered   4" in shown.stdout
    assert "TransactionProcessed  2" in shown.stdout


@pytest.mark.parametrize("mode", ["--dry-run", "--unordered"])
def test_a_selection_of_nothing_is_told(replay: ReplayCli, mode: str) -> None:
    replay.fill({"A": 4})
    unknown = replay("--aggregate", "A", "--aggregate", "nope", mode)
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "has no event of aggregate 'nope': nothing was published" in unknown.stderr
    for selection in (["--type", "Nope"], ["--to", "1 hour ago"]):
        result = replay(*selection, mode)
        assert (result.exit_code, "nothing matched" in result.stderr) == (0, True)
    assert replay.cli.stored() == []
    assert "nothing matched" not in replay("--aggregate", "A", mode).stderr


def test_a_checkpoint_that_was_never_written_promises_nothing(replay: ReplayCli, tmp_path: Path) -> None:
    replay.fill({"A": 2})
    result = replay("--checkpoint", tmp_path / "no" / "folder.json")
    assert (result.exit_code, "cannot be written" in result.stderr) == (1, True)
    assert "goes on from" not in result.stderr
    assert replay.cli.stored() == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "someday"], "start = 'someday'"),
        (["--from", "now", "--to", "1 hour ago"], "is not before the end"),
        (["--platform", "eventbridge"], "platform = 'eventbridge' is not among nats"),
        (["--rule", "move"], "rule = 'move' is not among the router's: moves, accounts"),
        (["--name", "two words"], "name = 'two words'"),
        (["--rate", "0"], "--rate"),
        (["--table", "no-such-table"], "no-such-table"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_published(
    replay: ReplayCli, arguments: list[str], problem: str
) -> None:
    result = replay(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in result.stderr


def test_without_an_event_store_in_the_settings_it_says_what_to_set(cli: Cli) -> None:
    result = cli("replay", "store", OMS_NATS_URL="nats://127.0.0.1:4222")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "OMS_EVENT_STORE_TABLE" in result.stderr


def test_an_event_that_no_stream_takes_stops_it_and_is_told(replay: ReplayCli) -> None:
    replay.fill({"A": 2})
    replay.file.write_text(
        replay.file.read_text()
        .replace("{type}'", "x.{type}'")
        .replace(f"subject = '{replay.cli.stream}", "subject = 'elsewhere")
    )
    failure, report = replay.json(code=1)
    assert (failure["kind"], failure["position"]) == ("failed", "A@1")
    assert "nats" in failure["reasons"]
    assert (report["complete"], report["failed"], report["delivered"]) == (False, 1, 0)


def test_interrupted_it_keeps_its_checkpoint_and_goes_on(replay: ReplayCli, tmp_path: Path) -> None:
    replay.fill(dict.fromkeys("ABC", 20))
    arguments = ("--rate", "40", "--checkpoint", tmp_path / "state.json", "--name", "slow")
    process = replay.cli.start("replay", "store", *arguments, "--config", replay.file)
    deadline = time.monotonic() + 20
    while len(replay.cli.stored()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130, errors
    assert f"the same command goes on from {tmp_path / 'state.json'}".encode() in errors
    assert 3 <= len(replay.cli.stored()) < 60
    report = replay.json(*arguments[2:])[-1]
    assert (report["complete"], report["resumed"]) == (True, True)
    assert first_deliveries(replay.cli.stored()) == {name: [*range(1, 21)] for name in "ABC"}


def test_on_a_terminal_the_report_stands_at_the_end(replay: ReplayCli) -> None:
    replay.fill({"A": 2})
    for options, told in (
        (["--yes"], "2 of about 2 read, 2 delivered"),
        (["--dry-run", "--aggregate", "A"], " 2 read, 2 matched"),
    ):
        code, shown = replay.cli.on_terminal("replay", "store", *options, "--config", replay.file)
        assert code == 0, shown
        assert told in shown
        assert "AccountCreated" in shown[shown.index(told) :]


# ---------------------------------------------------------------------- archives


@pytest.fixture
def archived(aws: Settings) -> Iterator[tuple[Cli, str]]:
    """The command, and an archive with two events."""
    name = f"cli-{uuid.uuid4().hex[:8]}"

    async def make() -> None:
        async with open_control(AwsConfig(**aws), "events") as events:
            arn = (await events.call("CreateEventBus", Name=name))["EventBusArn"]
            await events.call("CreateArchive", ArchiveName=name, EventSourceArn=arn)
            entry = {"Source": "shop", "DetailType": "order", "Detail": "{}", "EventBusName": name}
            await events.call("PutEvents", Entries=[entry, entry])

    async def remove() -> None:
        async with open_control(AwsConfig(**aws), "events") as events:
            await events.call("DeleteArchive", ArchiveName=name)
            await events.call("DeleteEventBus", Name=name)

    asyncio.run(make())
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    yield Cli({**keys, "AWS_REGION": aws["aws_region"], "AWS_ENDPOINT_URL": aws["endpoint_url"]}), name
    asyncio.run(remove())


def test_an_archive_is_replayed_followed_shown_and_listed(
    archived: tuple[Cli, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli, name = archived
    follow = ArchiveReplays.follow
    monkeypatch.setattr(
        ArchiveReplays, "follow", lambda self, name, **given: follow(self, name, **given, interval=0.01)
    )
    result = cli("replay", "archive", name, "--from", "1 hour ago", "--name", f"{name}-1", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["state"], found["progress"], found["name"]) == ("COMPLETED", 1.0, f"{name}-1")
    assert result.stderr.index(f"starting replay {name}-1") < result.stderr.index(f"started replay {name}-1")
    assert "up to 10 minutes" in result.stderr

    result = cli("replay", "archive", name, "--from", "1 hour ago", "--no-follow")
    assert (result.exit_code, "state" in result.stdout) == (0, True)
    shown = cli("replay", "show", f"{name}-1", "--follow")
    assert (shown.exit_code, "COMPLETED" in shown.stdout) == (0, True)
    listed = cli("replay", "list", "--archive", name, "--json")
    assert len(listed.stdout.splitlines()) == 2
    assert f"{name}-1" in cli("replay", "list").stdout
    ended = cli("replay", "cancel", f"{name}-1")
    assert (ended.exit_code, "has ended already: COMPLETED" in ended.stderr) == (1, True)


def test_what_is_wrong_with_an_archive_s_replay_is_told(archived: tuple[Cli, str]) -> None:
    cli, name = archived
    missing = cli("replay", "archive", f"{name}x", "--from", "1 hour ago")
    assert missing.stderr.startswith("starting replay replay-")
    assert (missing.exit_code, f"did you mean '{name}'?" in missing.stderr) == (1, True)
    empty = cli("replay", "archive", name, "--from", "now", "--to", "1 hour ago")
    assert (empty.exit_code, "is not before the end" in empty.stderr) == (2, True)
    assert cli("replay", "show", "no-such").exit_code == 1
    assert cli("replay", "archive", name).exit_code == 2
