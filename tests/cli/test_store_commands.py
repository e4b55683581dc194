"""`store ...` and `projections ...`: the commands over real tables."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from click.testing import Result
from pydantic import BaseModel

from oms_events._aws.table import DynamoTable
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.items import event_key
from oms_events.eventstore.personal.encryption import PersonalDataCipher
from oms_events.eventstore.personal.keys import MemorySubjectKeys
from oms_events.eventstore.personal.marks import Personal
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import READ_MODEL
from oms_events.settings import Settings
from tests.cli.conftest import Cli
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, deposit, registry
from tests.outbox.support import ENDPOINT_VARIABLE, settings_of

private = EventRegistry()


@private.event
class Named(BaseModel):
    name: Annotated[str, Personal(forgotten="somebody")]
    note: str = ""


@dataclass
class StoreCli:
    """`oms-events ...` with tables of the test's own."""

    cli: Cli
    file: Path

    @property
    def settings(self) -> Settings:
        return Settings.from_file(self.file, env={})

    @property
    def table(self) -> str:
        assert self.settings.event_store is not None
        return self.settings.event_store.table_name

    def __call__(self, *arguments: object, group: str = "store") -> Result:
        return self.cli(group, *arguments, "--config", self.file)

    def json(self, *arguments: object, code: int = 0, group: str = "store") -> list[Any]:
        """The values that a command prints with --json, after it ended with that code."""
        result = self(*arguments, "--json", group=group)
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def do(self, step: Callable[[DynamoDBEventStore], Awaitable[Any]], **options: Any) -> Any:
        """Does something with the store."""

        async def run() -> Any:
            async with self.settings.create_event_store(**{"registry": registry, **options}) as store:
                return await step(store)

        return asyncio.run(run())


@pytest.fixture
def bare(cli: Cli, request: pytest.FixtureRequest, tmp_path: Path) -> StoreCli:
    """The command for tables that do not exist yet."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE) or request.getfixturevalue("oms_aws_emulator").endpoint_url
    fields = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings_of(endpoint).items())
    name = f"cli-{uuid.uuid4().hex[:12]}"
    file = tmp_path / "store.toml"
    file.write_text(f"[event_store]\ntable_name = '{name}'\n{fields}")
    return StoreCli(cli, file)


@pytest.fixture
def all_tables(bare: StoreCli) -> StoreCli:
    """With the other tables of event sourcing in the settings; none of them exists yet."""
    text = bare.file.read_text()
    fields, name = text.partition("\n")[2].partition("\n")[2], bare.table
    bare.file.write_text(
        f"{text}[snapshots]\ntable_name = '{name}-snapshots'\n{fields}"
        f"[projections]\nread_model_table = '{name}-rows'\ncheckpoint_table = '{name}-checkpoints'\n{fields}"
        f"[personal_keys]\ntable_name = '{name}-keys'\n{fields}"
    )
    return bare


@pytest.fixture
def store(bare: StoreCli) -> StoreCli:
    assert bare("table", "create").exit_code == 0
    return bare


async def fill(store: DynamoDBEventStore) -> None:
    await store.append("account-1", [AccountCreated(customer_id="c"), deposit(25)], expected_sequence=0)
    await store.append("account-1", [deposit(7), AccountClosed()], expected_sequence=2, command_id="close")
    await store.append("account-2", [AccountCreated(customer_id="d")], expected_sequence=0)


async def change(store: DynamoDBEventStore, aggregate_id: str, sequence: int, **attributes: Any) -> None:
    item = await store.table.get(event_key(aggregate_id, sequence))
    name = store.table.name
    await store.table.call("PutItem", TableName=name, Item={**(item or {}), **attributes})


async def remove(store: DynamoDBEventStore, aggregate_id: str, sequence: int) -> None:
    await store.table.call("DeleteItem", TableName=store.table.name, Key=event_key(aggregate_id, sequence))


# ---------------------------------------------------------------------- tables


def test_tables_are_created_once_and_kept(all_tables: StoreCli) -> None:
    name = all_tables.table
    parts = {
        "event store": [name],
        "snapshots": [f"{name}-snapshots"],
        "projections": [f"{name}-rows", f"{name}-checkpoints"],
        "personal keys": [f"{name}-keys"],
    }
    made = [{"part": part, "tables": tables, "created": True} for part, tables in parts.items()]
    assert all_tables.json("table", "create") == made
    all_tables.do(fill)
    assert all_tables.json("table", "create") == [{**one, "created": False} for one in made]
    assert len(all_tables.json("show", "account-1")) == 4
    assert re.search(rf"^event store +{name} +no$", all_tables("table", "create").stdout, re.M)


def test_a_table_of_another_shape_is_refused(bare: StoreCli) -> None:
    config = bare.settings.event_store
    assert config is not None
    asyncio.run(DynamoTable(config, config.table_name, READ_MODEL).create())
    for command in (("table", "create"), ("show", "account-1")):
        result = bare(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "AggregateId" in result.stderr


@pytest.mark.parametrize("command", [("show", "a"), ("tail",), ("stats",), ("verify",)])
def test_a_table_that_is_missing_says_how_to_make_it(bare: StoreCli, command: tuple[str, ...]) -> None:
    result = bare(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "oms-events store table create" in result.stderr


@pytest.mark.parametrize(
    "command", [("show", "a"), ("tail",), ("stats",), ("verify",), ("table", "create")], ids=lambda one: one[0]
)
def test_without_an_event_store_in_the_settings_it_says_what_to_set(cli: Cli, command: tuple[str, ...]) -> None:
    result = cli("store", *command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "OMS_EVENT_STORE_TABLE" in result.stderr
    assert "[event_store]" in result.stderr


def test_the_environment_names_the_table(store: StoreCli) -> None:
    config = store.settings.event_store
    assert config is not None
    env = {
        "OMS_EVENT_STORE_TABLE": config.table_name,
        "AWS_ENDPOINT_URL_DYNAMODB": str(config.endpoint_url),
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    result = store.cli("store", "stats", "--json", **env)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["table"] == store.table


# ---------------------------------------------------------------------- show


def test_a_history_is_shown_in_order(store: StoreCli) -> None:
    store.do(fill)
    shown = store("show", "account-1").stdout
    assert re.findall(r"^(account-1@\d)  \S+  (\w+) version (\d)  \S+$", shown, re.M) == [
        ("account-1@1", "AccountCreated", "1"),
        ("account-1@2", "TransactionProcessed", "2"),
        ("account-1@3", "TransactionProcessed", "2"),
        ("account-1@4", "AccountClosed", "1"),
    ]
    assert '    {"amount":"25","kind":"deposit"}' in shown
    assert store("show", "account-1").stderr == ""


def test_a_part_of_a_history_is_shown_as_json(store: StoreCli) -> None:
    store.do(fill)
    second, third = store.json("show", "account-1", "--after", 1, "--up-to", 3)
    assert (second["aggregate_id"], second["sequence"], second["version"]) == ("account-1", 2, 2)
    assert second["problems"] == []
    event = second["event"]
    assert (event["type"], event["subject"], event["sequence"]) == (
        "TransactionProcessed",
        "account-1",
        "0000000000000002",
    )
    assert event["data"] == {"amount": "25", "kind": "deposit"}
    assert third["sequence"] == 3
    nothing = store("show", "account-1", "--after", 9)
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "ends with event 4" in nothing.stderr


def test_an_aggregate_that_is_not_there_is_said(store: StoreCli) -> None:
    store.do(fill)
    result = store("show", "account-9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"table {store.table} has no event of aggregate 'account-9'" in result.stderr
    for wrong in ("", "command#1#a#b"):
        assert store("show", wrong).exit_code == 2


def test_personal_data_is_not_shown_and_long_data_is_cut(store: StoreCli) -> None:
    cipher = PersonalDataCipher(MemorySubjectKeys())

    async def write(opened: DynamoDBEventStore) -> None:
        await opened.append(
            "person-1", [Named(name="Ann"), Named(name="Ann", note="x" * 500)], expected_sequence=0
        )

    store.do(write, registry=private, cipher=cipher)
    shown = store("show", "person-1").stdout
    assert '    {"name":"[encrypted]","note":""}' in shown
    assert re.search(
        r'^    \{"name":"\[encrypted\]","note":"x+\.\.\. \(\d+ characters; --full shows all\)$', shown, re.M
    )
    full = store("show", "person-1", "--full").stdout
    assert "x" * 500 in full
    assert '"subject": "person-1"' in full
    first, second = store.json("show", "person-1")
    assert first["event"]["data"] == {"name": "[encrypted]", "note": ""}
    assert len(second["event"]["data"]["note"]) == 500
    for text in (shown, full, json.dumps([first, second])):
        assert "Ann" not in text
        assert "$personal" not in text


def test_a_damaged_history_is_shown_with_what_is_wrong(store: StoreCli) -> None:
    store.do(fill)
    store.do(lambda opened: remove(opened, "account-1", 2))
    raw = '{"amount":"1","kind":"\x1b[2J"}'
    store.do(lambda opened: change(opened, "account-1", 3, Data={"S": raw}))
    store.do(lambda opened: change(opened, "account-1", 4, CloudEvent={"S": "{"}))
    result = store("show", "account-1")
    assert result.exit_code == 0
    assert "event 2 is missing" in result.stderr
    assert "    checksum: its checksum is another: the event was changed" in result.stdout
    assert "    unreadable: the item cannot be read" in result.stdout
    assert "\x1b" not in result.stdout
    one, three, four = store.json("show", "account-1")
    assert (one["problems"], [problem["kind"] for problem in three["problems"]]) == ([], ["checksum"])
    assert three["event"]["data"] == raw
    store.do(lambda opened: change(opened, "account-1", 3, Data={"S": '{"amount":\n1.10}'}))
    assert store.json("show", "account-1")[1]["event"]["data"] == {"amount": 1.1}
    assert (four["event"], four["item"]["CloudEvent"]) == (None, {"S": "{"})


# ---------------------------------------------------------------------- stats


def test_stats_are_what_dynamodb_says_or_counted(store: StoreCli) -> None:
    store.do(fill)
    [about] = store.json("stats")
    # The emulator's numbers are those of now.
    assert (about["exact"], about["table"], about["items"]) == (False, store.table, 6)
    assert "about 6 (events and remembered commands; --exact counts)" in store("stats").stdout
    [found] = store.json("stats", "--exact", "--top", 1, "--segments", 2)
    assert (found["exact"], found["events"], found["aggregates"], found["markers"]) == (True, 5, 2, 1)
    assert found["types"]["TransactionProcessed"]["events"] == 2
    assert [(one["aggregate_id"], one["events"]) for one in found["longest"]] == [("account-1", 4)]
    shown = store("stats", "--exact").stdout
    assert re.search(r"^events +5$", shown, re.M)
    assert re.search(r"^AccountCreated +2 +\d+$", shown, re.M)
    assert re.search(r"^account-1 +4 +\d+$", shown, re.M)


def test_stats_of_an_empty_store(store: StoreCli) -> None:
    shown = store("stats", "--exact").stdout
    assert re.search(r"^events +0$", shown, re.M)
    assert re.search(r"^oldest +-$", shown, re.M)


# ---------------------------------------------------------------------- verify


def test_a_whole_store_is_verified(store: StoreCli) -> None:
    store.do(fill)
    result = store("verify", "--segments", 2, "--index")
    assert result.exit_code == 0, result.output
    assert result.stdout == "5 events of 2 aggregates and 1 remembered command: no problem\n"
    assert result.stderr == "not looked at: whether your code can read the events: give their registry\n"
    [report] = store.json("verify", "--no-markers")
    assert (report["ok"], report["events"], report["problems"], report["counts"]) == (True, 5, [], {})
    assert len(report["unchecked"]) == 3


def test_problems_are_told_and_end_with_1(store: StoreCli) -> None:
    store.do(fill)
    store.do(lambda opened: remove(opened, "account-1", 2))
    store.do(lambda opened: change(opened, "account-2", 1, Data={"S": "{}"}))
    result = store("verify")
    assert result.exit_code == 1
    assert re.search(r"^gap +account-1@2 +event 2 is missing$", result.stdout, re.M)
    assert re.search(r"^checksum +account-2@1 +its checksum is another", result.stdout, re.M)
    assert result.stdout.endswith("remembered command: 2 problems (1 checksum, 1 gap)\n")
    [report] = store.json("verify", code=1)
    assert report["counts"] == {"checksum": 1, "gap": 1}
    assert {"kind": "gap", "position": "account-1@2", "text": "event 2 is missing"} in report["problems"]
    [alone] = store.json("verify", "--aggregate", "account-2", code=1)
    assert (alone["events"], alone["counts"]) == (1, {"checksum": 1})


def test_verifying_an_aggregate_that_is_not_there_ends_with_1(store: StoreCli) -> None:
    result = store("verify", "--aggregate", "account-9")
    assert result.exit_code == 1
    assert "has no event of aggregate 'account-9'" in result.stderr


def test_events_are_read_as_code_would(store: StoreCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.do(fill)
    module = f"events_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(
        "from pydantic import BaseModel\n"
        "from oms_events.eventstore.registry import EventRegistry\n"
        "class events:\n    known = EventRegistry()\n"
        "@events.known.event\nclass AccountCreated(BaseModel):\n    customer_id: str\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    [report] = store.json("verify", "--registry", f"{module}:events.known", code=1)
    assert report["counts"] == {"unsupported": 3}
    for wrong, text in [
        (module, "write module:name"),
        (f"{module}:missing", "no attribute 'missing'"),
        (f"{module}:AccountCreated", "name an EventRegistry"),
        ("no_such_module:registry", "No module named 'no_such_module'"),
    ]:
        result = store("verify", "--registry", wrong)
        assert result.exit_code == 2
        assert text in result.stderr


# ---------------------------------------------------------------------- tail


def test_new_events_are_followed(store: StoreCli) -> None:
    store.do(fill)
    arguments = ("--since", "1 hour ago", "--limit", 6, "--interval", 0.05)
    process = store.cli.start("store", "tail", *arguments, "--config", store.file)
    assert process.stderr is not None
    assert b"following the stream" in process.stderr.readline()
    store.do(lambda opened: opened.append("account-3", [AccountCreated(customer_id="e")], expected_sequence=0))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    shown = re.findall(r"^(account-\S+)  ", out.decode(), re.M)
    assert shown == [*(f"account-1@{number}" for number in range(1, 5)), "account-2@1", "account-3@1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--type", "TransactionProcessed", "--limit", 2], ["account-1@2", "account-1@3"]),
        (["--aggregate", "account-1", "--limit", 3], ["account-1@1", "account-1@2", "account-1@3"]),
        (["--aggregate", "account-1", "--type", "AccountClosed", "--limit", 1], ["account-1@4"]),
    ],
    ids=["type", "aggregate", "both"],
)
def test_a_part_of_the_events_is_followed(store: StoreCli, arguments: list[object], expected: list[str]) -> None:
    store.do(fill)
    found = store.json("tail", "--since", "1h", *arguments)
    assert [f"{one['aggregate_id']}@{one['sequence']}" for one in found] == expected


def test_a_tail_ends_with_ctrl_c(store: StoreCli) -> None:
    process = store.cli.start("store", "tail", "--config", store.file)
    assert process.stderr is not None
    assert process.stderr.readline() == f"following the stream of table {store.table}; Ctrl-C ends\n".encode()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_table_without_a_stream_can_be_followed_otherwise(store: StoreCli) -> None:
    off = {"StreamEnabled": False}
    store.do(lambda opened: opened.table.call("UpdateTable", TableName=opened.table.name, StreamSpecification=off))
    result = store("tail")
    assert result.exit_code == 2
    assert "it has no stream of new images" in result.stderr
    assert "with --type or --aggregate no stream is needed" in result.stderr


@pytest.mark.parametrize("time", ["yesterday-ish", "2026-01-01T12:00:00"])
def test_a_time_that_is_none_is_refused(store: StoreCli, time: str) -> None:
    result = store("tail", "--since", time)
    assert result.exit_code == 2
    assert "--since" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "account-1", "--after", 10**41),
        ("show", "account-1", "--up-to", 10**41),
        ("tail", "--aggregate", "account-1", "--since", "1h", "--limit", 1, "--interval", "nan"),
        ("tail", "--aggregate", "account-1", "--since", "1h", "--limit", 1, "--interval", "inf"),
    ],
)
def test_numbers_without_bounds_are_refused(store: StoreCli, arguments: tuple[object, ...]) -> None:
    store.do(fill)
    result = store(*arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in result.stderr


# ---------------------------------------------------------------------- projections


class Balance(BaseModel):
    total: float = 0


def balances(version: int) -> Projection[Balance]:
    projection = Projection("Balances", Balance, version=version, registry=registry)

    @projection.on(TransactionProcessed)
    def _(row: Balance | None, event: TransactionProcessed, recorded: Any) -> Balance:
        if event.amount == 7:
            raise ValueError("seven is too much")
        return Balance(total=float(event.amount))

    return projection


def project(store: StoreCli, version: int = 1) -> None:
    async def run(opened: DynamoDBEventStore) -> None:
        async with (
            store.settings.create_read_models() as read_models,
            Projector([balances(version)], opened, read_models) as projector,
        ):
            await projector.catch_up("account-1")

    store.do(run)


@pytest.fixture
def projecting(all_tables: StoreCli) -> StoreCli:
    assert all_tables("table", "create").exit_code == 0
    all_tables.do(fill)
    project(all_tables)
    return all_tables


def test_projections_show_their_active_versions_and_parked_events(projecting: StoreCli) -> None:
    [found] = projecting.json("status", group="projections")
    assert found == {"projection": "Balances", "version": 1, "parked": 1, "bounded": False}
    assert projecting.json("status", "Balances", group="projections") == [found]
    shown = projecting("status", "Balances", "Totals", group="projections")
    assert shown.exit_code == 1
    assert re.search(r"^Balances +1 +1$", shown.stdout, re.M)
    assert re.search(r"^Totals +- +0$", shown.stdout, re.M)


def test_parked_events_are_listed_with_their_reasons(projecting: StoreCli) -> None:
    [event] = projecting.json("parked", "Balances", group="projections")
    assert (event["position"], event["projection"], event["event_type"]) == (
        "account-1@3",
        "Balances@1",
        "TransactionProcessed",
    )
    assert (event["held"], event["attempts"]) == (True, 1)
    assert projecting.json("parked", "Balances@1", "--aggregate", "account-1", group="projections") == [event]
    assert projecting.json("parked", "Balances@2", group="projections") == []
    assert projecting.json("parked", "Balances", "--aggregate", "account-2", group="projections") == []
    shown = projecting("parked", "Balances", group="projections").stdout
    assert re.search(r"^account-1@3 +TransactionProcessed +yes +1 +\S+ \S+ +\S+", shown, re.M)
    unknown = projecting("parked", "Totals", group="projections")
    assert unknown.exit_code == 1
    assert "projection 'Totals' has no active version" in unknown.stderr


def test_parked_events_of_a_version_that_never_was_are_not_just_none(projecting: StoreCli) -> None:
    unknown = projecting("parked", "Totals@1", group="projections")
    assert unknown.exit_code == 1
    assert "projection 'Totals' has no active version" in unknown.stderr
    other = projecting("parked", "Balances@2", group="projections")
    assert other.exit_code == 0
    assert "the active version of projection 'Balances' is 1" in other.stderr
    assert "active version" not in projecting("parked", "Balances@1", group="projections").stderr


def test_projections_need_their_tables(cli: Cli) -> None:
    for command in (("status",), ("parked", "Balances")):
        result = cli("projections", *command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "OMS_READ_MODEL_TABLE and OMS_CHECKPOINT_TABLE" in result.stderr
