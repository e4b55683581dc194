"""`trigger run`, `breaker`, `quotas` and `dlq`: the commands over real queues, tables and a real function."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.tables import create_request
from oms_events.cli.app import app
from oms_events.cli.trigger.commands import trigger as trigger_group
from oms_events.cli.trigger.functions import read_answer
from oms_events.cli.trigger.running import exit_code_of, show_answer
from oms_events.devstack import AwsEmulator, FaultProxy, run_in_thread
from oms_events.settings import Settings
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.schema import BREAKER, IDEMPOTENCY, RATE
from oms_events.triggers.sending.queues import OutgoingMessage
from oms_events.triggers.sending.sqs import SqsQueue
from oms_events.triggers.settings import TriggerSettings
from tests.cli.conftest import Cli
from tests.outbox.support import dynamo_client, settings_of

FUNCTION = """\
import json

def handler(event, context):
    if event.get("symbols") == ["FAIL"]:
        raise ValueError("no such upstream")
    return {"statusCode": 200, "body": json.dumps({"status": "success", "result": event})}
"""
EVENT = {
    "version": "0",
    "id": "e-1",
    "source": "symbol.universe",
    "detail-type": "Universe Updated",
    "account": "111122223333",
    "region": "us-east-1",
    "time": "2026-09-09T22:00:00Z",
    "resources": [],
    "detail": {"added_symbols": ["NVDA"]},
}


@dataclass
class TriggerCli:
    """`oms-events trigger ...` with queues and tables of this file's own."""

    cli: Cli
    file: Path

    @property
    def settings(self) -> TriggerSettings:
        found = Settings.from_file(self.file, env={}).triggers
        assert found is not None
        return found

    def __call__(self, *arguments: object) -> Result:
        patience = ("--wait", 0) if arguments[0] == "dlq" else ()
        return self.cli("trigger", *arguments, *patience, "--config", self.file)

    def json(self, *arguments: object, code: int = 0) -> list[Any]:
        """The values that a command prints with --json, after it ended with that code."""
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def chunks(self) -> list[Any]:
        """What is in the queue of chunks, which is empty then."""
        assert self.settings.queue_url is not None
        return [json.loads(text) for text in on_queue(self.settings, self.settings.queue_url, _taken)]


async def _taken(queue: SqsQueue) -> list[str]:
    bodies: list[str] = []
    while page := await queue.receive():
        for message in page:
            bodies.append(message.body)
            await queue.delete(message.receipt_handle)
    return bodies


def on_queue(settings: TriggerSettings, url: str, use: Callable[[SqsQueue], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with SqsQueue(settings.queue(url)) as queue:
            return await use(queue)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def aws_side(oms_aws_emulator: AwsEmulator) -> dict[str, Any]:
    """Queues, tables and AWS's fields, as a settings file has them."""
    name, aws = f"cli-{uuid.uuid4().hex[:12]}", settings_of(oms_aws_emulator.endpoint_url)
    shapes = {"idempotency_table": IDEMPOTENCY, "breaker_table": BREAKER, "rate_table": RATE}
    tables = {field: f"{name}-{field}" for field in shapes}
    queues = {"queue_url": f"{name}-chunks", "dead_letter_queue_url": f"{name}-dlq"}

    async def make() -> dict[str, str]:
        dynamo: DynamoClient
        async with dynamo_client(AwsConfig(**aws)) as dynamo:
            for field, shape in shapes.items():
                await dynamo.call("CreateTable", create_request(tables[field], shape), table=tables[field])
        async with open_control(AwsConfig(**aws), "sqs") as sqs:
            return {
                field: (await sqs.call("CreateQueue", QueueName=queue))["QueueUrl"]
                for field, queue in queues.items()
            }

    return {**aws, **tables, **asyncio.run(make()), "verify_tables": False}


@pytest.fixture
def trigger(cli: Cli, aws_side: Mapping[str, Any], tmp_path: Path) -> TriggerCli:
    file = tmp_path / "triggers.toml"
    fields = "".join(f"{name} = {json.dumps(value)}\n" for name, value in aws_side.items())
    # Manual calls of all tests share a quota.
    quotas = "manual = { limit = 500, window = 60 }\nevent = { limit = 3, window = 60 }\n"
    environment = '[triggers.config]\nenvironment = "dev"\n'
    file.write_text(f"[triggers]\n{fields}{environment}[triggers.config.quotas]\n{quotas}")
    return TriggerCli(cli, file)


@pytest.fixture(scope="module")
def function(aws_side: Mapping[str, Any]) -> Iterator[str]:
    """A function that answers with what it got, and fails for one symbol."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("orchestrator.py", FUNCTION)
    name = f"cli-{uuid.uuid4().hex[:12]}"
    asyncio.run(_control(aws_side, "CreateFunction", FunctionName=name, Runtime="python3.11",
                         Role="arn:aws:iam::000000000000:role/any", Handler="orchestrator.handler",
                         Code={"ZipFile": code.getvalue()}))  # fmt: skip
    yield name
    asyncio.run(_control(aws_side, "DeleteFunction", FunctionName=name))


async def _control(aws_side: Mapping[str, Any], operation: str, **parameters: Any) -> None:
    aws = {name: aws_side[name] for name in AwsConfig.model_fields if name in aws_side}
    async with open_control(AwsConfig(**aws), "lambda") as client:
        await client.call(operation, **parameters)


# ---------------------------------------------------------------------- run, in process


def test_a_manual_call_sends_chunks_once(trigger: TriggerCli) -> None:
    result = trigger("run", "--symbols", "AAPL,MSFT", "--symbols", "NVDA", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["statusCode"], answer["status"], answer["result"]["chunks"]) == (200, "success", 1)
    # Told before anything is done, so that the call can be repeated.
    id = answer["correlation_id"]  # noqa: A001
    assert result.stderr.splitlines()[0] == f"correlation id {id}"
    (chunk,) = trigger.chunks()
    assert (chunk["symbols"], chunk["correlation_id"]) == (["AAPL", "MSFT", "NVDA"], id)
    (again,) = trigger.json("run", "--symbols", "AAPL,MSFT,NVDA", "--correlation-id", id)
    assert (again["status"], again["result"]) == ("duplicate", answer["result"])
    assert trigger.chunks() == []


def test_a_dry_run_sends_nothing(trigger: TriggerCli) -> None:
    (answer,) = trigger.json("run", "--payload", '{"symbols": ["AAPL"]}', "--dry-run")
    assert answer["status"] == "dry_run"
    assert answer["result"]["plan"]["documents"][0]["symbols"] == ["AAPL"]
    # A call that was stored as text.
    text = json.dumps(json.dumps({"symbols": ["AAPL"]}))
    (answer,) = trigger.json("run", "--payload", text, "--dry-run", "--symbols", "IBM", "--correlation-id", "mine")
    assert (answer["status"], answer["correlation_id"]) == ("dry_run", "mine")
    assert answer["result"]["plan"]["documents"][0]["symbols"] == ["IBM"]
    assert trigger.chunks() == []


def test_an_event_starts_from_a_file_and_from_stdin(trigger: TriggerCli, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps({**EVENT, "id": uuid.uuid4().hex}))
    shown = trigger("run", "--payload", file)
    assert shown.exit_code == 0, shown.output
    assert "status          success" in shown.stdout
    assert [chunk["symbols"] for chunk in trigger.chunks()] == [["NVDA"]]
    arguments = ["trigger", "run", "--payload", "-", "--config", str(trigger.file), "--json"]
    again = CliRunner().invoke(app, arguments, input=file.read_bytes())
    assert (again.exit_code, json.loads(again.stdout)["status"]) == (0, "duplicate"), again.output


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("{", "NOT_JSON"),
        ("[1]", "NOT_AN_OBJECT"),
        ('{"symbol": ["A"]}', "UNKNOWN_SHAPE"),
        ('{"symbols": ["A"], "table_name": "a-b"}', "INVALID_TABLE_NAME"),
        ('{"symbols": ["A"], "correlation_id": 5}', "WRONG_TYPE"),
    ],
)
def test_what_is_invalid_is_bad_input(cli: Cli, payload: str, code: str) -> None:
    result = cli("trigger", "run", "--payload", payload, "--dry-run", "--json")
    assert result.exit_code == 3, result.output
    answer = json.loads(result.stdout)
    assert answer["statusCode"] == 400
    assert [problem["code"] for problem in answer["problems"]] == [code]


def test_without_a_queue_it_shows_what_would_be_sent(cli: Cli) -> None:
    result = cli("trigger", "run", "--symbols", "AAPL", "--json")
    assert result.exit_code == 0, result.output
    assert "no queue is configured (OMS_TRIGGERS_QUEUE_URL)" in result.stderr
    answer = json.loads(result.stdout)
    assert answer["status"] == "dry_run"
    assert answer["result"]["plan"]["documents"][0]["symbols"] == ["AAPL"]


def test_it_starts_on_a_pipeline_of_the_users_own(
    trigger: TriggerCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"pipelines_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(
        "from oms_events.triggers.pipeline import TriggerPipeline\n"
        "from oms_events.triggers.rules import RuleViolation\n"
        "async def handle(start):\n    print('at work')\n"
        "    assert start.request.symbols != ('BAD',)\n    return {'mine': list(start.request.symbols)}\n"
        "def refuse(request):\n"
        "    return RuleViolation('NOT_TODAY', 'come again') if 'NO' in request.symbols else None\n"
        "pipeline = TriggerPipeline(handle, rules=[refuse])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = ("--pipeline", f"{module}:pipeline")
    (answer,) = trigger.json("run", "--symbols", "AAPL", *own)
    assert answer["result"] == {"mine": ["AAPL"]}
    refused = trigger("run", "--symbols", "NO", *own)
    assert refused.exit_code == 1
    assert "  NOT_TODAY: come again" in refused.stdout
    for debug in (False, True):
        failed = trigger("run", "--symbols", "BAD", *own, *["--debug"] * debug)
        assert (failed.exit_code, "run with --debug to see the log" in failed.stderr) == (1, not debug)
        assert ("AssertionError" in failed.stderr) == debug
    wrong = trigger("run", "--symbols", "A", "--pipeline", f"{module}:handle")
    assert (wrong.exit_code, "name a TriggerPipeline" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give --payload or --symbols"),
        (["--payload", "none.json"], "no file that can be read"),
        (
            ["--payload", json.dumps(EVENT), "--dry-run", "--symbols", "A"],
            "--symbols, --dry-run are for a manual call only, and the payload is an event: leave them out",
        ),
        (["--symbols", ""], "--symbols '' names none"),
        (["--symbols", "A", "--symbols", " ,"], "--symbols ' ,' names none"),
        (["--symbols", "A", "--async"], "--async is for --function"),
        (["--symbols", "A", "--function", "f", "--pipeline", "json:loads"], "name a TriggerPipeline"),
    ],
)
def test_what_cannot_be_meant_is_refused(trigger: TriggerCli, arguments: list[str], text: str) -> None:
    result = trigger("run", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


# ---------------------------------------------------------------------- run, on a function


def test_a_function_is_started_and_its_answer_shown(trigger: TriggerCli, function: str) -> None:
    (answer,) = trigger.json("run", "--symbols", "AAPL", "--function", function)
    assert (answer["statusCode"], answer["status"], answer["result"]["symbols"]) == (200, "success", ["AAPL"])
    assert len(answer["result"]["correlation_id"]) == 36
    unknown = json.dumps({**EVENT, "source": "mine"})
    told = trigger("run", "--payload", unknown, "--function", function)
    assert (told.exit_code, "the function may know it" in told.stderr) == (0, True)
    failed = trigger("run", "--symbols", "FAIL", "--function", function)
    assert failed.exit_code == 1
    assert "no such upstream" in failed.stdout
    invalid = trigger("run", "--symbols", "?", "--function", function)
    assert (invalid.exit_code, "not sent: the payload is invalid" in invalid.stderr) == (3, True)
    (taken,) = trigger.json("run", "--symbols", "AAPL", "--function", function, "--async")
    assert taken["status"] == "accepted"
    missing = trigger("run", "--symbols", "AAPL", "--function", "no-such-function")
    assert (missing.exit_code, "no-such-function" in missing.stderr) == (1, True)


def test_a_manual_call_that_nobody_waits_for_goes_as_the_delay_queue_has_it(
    trigger: TriggerCli, function: str, aws_side: Mapping[str, Any]
) -> None:
    with run_in_thread(FaultProxy(aws_side["endpoint_url"])) as proxy:
        # Its own config, and so its key, may be another.
        urls = f"[triggers.endpoint_urls]\nlambda = {json.dumps(proxy.endpoint_url)}\n"
        trigger.file.write_text(trigger.file.read_text() + urls)
        (taken,) = trigger.json("run", "--symbols", "AAPL", "--function", function, "--async")
        assert trigger("run", "--payload", json.dumps(EVENT), "--function", function, "--async").exit_code == 0
        sent, event = (json.loads(call.body) for call in proxy.calls)
    assert (taken["status"], event) == ("accepted", EVENT)
    reading = read_starts(sent, config=trigger.settings.config)
    (draft,) = reading.drafts
    assert (reading.is_wrapped, draft.trigger_type, draft.fields["symbols"]) == (True, "manual", ["AAPL"])
    assert draft.correlation_id == sent["delayed_start"]["raw"]["correlation_id"]
    assert "key" not in sent["delayed_start"]


@pytest.mark.parametrize(
    ("answer", "shown", "code"),
    [
        (b'{"statusCode": null}', "statusCode  -", 1),
        (b'{"statusCode": "oops", "results": 3}', "results     3", 1),
        (b'"oops"', "answer  oops", 0),
        (b"no JSON \xff", "answer  no JSON", 0),
        (b'{"statusCode": 200, "body": "{\\"problems\\": [\\"x\\"]}"}', 'problems    ["x"]', 0),
        (b'{"statusCode": 200, "body": "[1]"}', "body        [1]", 0),
        (b'{"\\u001b[2Jkey": 1, "more": "\\ud800"}', "\\x1b[2Jkey  1", 0),
        (b"null", "answer  -", 0),
    ],
)
def test_an_answer_that_is_not_ours_is_shown(
    answer: bytes, shown: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_answer(answer)
    show_answer(found, as_json=False)
    assert shown in capsys.readouterr().out
    assert exit_code_of(found) == code
    show_answer(found, as_json=True)
    json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------------- what it is run as


def test_in_process_it_says_as_what_it_runs(cli: Cli) -> None:
    env = {
        "OMS_TRIGGERS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/111122223333/chunks",
        "OMS_TRIGGERS_BREAKER_TABLE": "breakers",
        "AWS_REGION": "us-east-1",
    }
    refused = cli("trigger", "run", "--symbols", "A", "--dry-run", **env)
    assert refused.exit_code == 2
    assert "set OMS_TRIGGERS_ENVIRONMENT to dev, staging or prod" in refused.stderr
    letters = ("--queue-url", env["OMS_TRIGGERS_QUEUE_URL"])
    assert cli("trigger", "dlq", "redrive", "--all", *letters, **env).exit_code == 2
    del env["OMS_TRIGGERS_BREAKER_TABLE"]
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "a", "OMS_TRIGGERS_ENVIRONMENT": "prod"}
    ran = cli("trigger", "run", "--symbols", "A", "--dry-run", **env, **keys)
    assert ran.exit_code == 0, ran.output
    assert "environment prod; by default data_source yahoo_finance" in ran.stderr
    for guard in ("idempotency", "breaker", "rate"):
        assert f"unguarded: no {guard}_table is configured" in ran.stderr
    nothing_said = cli("trigger", "run", "--symbols", "A").stderr
    assert "environment dev (nobody said one); by default" in nothing_said


def all_commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, *path, name)
        else:
            yield (*path, name)


ARGUMENTS = {
    ("run",): ["--symbols", "A"],
    ("breaker", "reset"): ["market", "prices"],
    ("quotas", "reset"): ["manual"],
    ("dlq", "show"): ["x"],
    ("dlq", "redrive"): ["--all"],
    ("dlq", "delete"): ["--all"],
    **{("schedule", name): ["r"] for name in ("show", "pause", "resume")},
    ("schedule", "set"): ["r", "rate(5 minutes)"],
}


@pytest.mark.parametrize("command", sorted(set(all_commands(trigger_group)) - {("next",)}), ids=" ".join)
def test_wrong_settings_end_each_command_with_one_line(cli: Cli, command: tuple[str, ...]) -> None:
    # Those of schedules take no settings.
    wrong = ["--endpoint-url", "nowhere"] if command[0] == "schedule" else []
    arguments = [*command, *ARGUMENTS.get(command, []), *wrong]
    result = cli("trigger", *arguments, OMS_TRIGGERS_ENVIRONMENT="production")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert ("endpoint_url" if wrong else "OMS_TRIGGERS_ENVIRONMENT") in line


# ---------------------------------------------------------------------- guards


def test_the_guards_tables_are_made_once(cli: Cli, aws_side: Mapping[str, Any], tmp_path: Path) -> None:
    fields = {name: aws_side[name] for name in AwsConfig.model_fields if name in aws_side}
    fields |= {
        f"{guard}_table": f"made-{guard}-{uuid.uuid4().hex[:12]}" for guard in ("idempotency", "breaker", "rate")
    }
    file = tmp_path / "tables.toml"
    file.write_text("[triggers]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items()))
    made = cli("trigger", "table", "create", "--config", file, "--json")
    assert made.exit_code == 0, made.output
    assert [json.loads(line) for line in made.stdout.splitlines()] == [
        {"guard": "starts", "table": fields["idempotency_table"], "created": True},
        {"guard": "breakers and leases", "table": fields["breaker_table"], "created": True},
        {"guard": "quotas", "table": fields["rate_table"], "created": True},
    ]
    again = cli("trigger", "table", "create", "--config", file)
    assert again.stdout.count("no\n") == 3, again.output
    trigger = TriggerCli(cli, file)
    assert trigger.json("breaker", "list") == []
    assert [one["retry_after"] for one in trigger.json("quotas")] == [0.0, 0.0]


def test_breakers_are_listed_and_reset(trigger: TriggerCli) -> None:
    async def fail() -> None:
        breakers = trigger.settings.create_breakers()
        assert breakers is not None
        async with breakers:
            for _ in range(5):
                permit = await breakers.admit("market", "splits")
                assert not isinstance(permit, float)
                await breakers.failed(permit)

    asyncio.run(fail())
    (view,) = trigger.json("breaker", "list")
    assert (view["domain"], view["table_name"], view["state"], view["failures"]) == ("market", "splits", "open", 5)
    assert view["opened_at"].endswith("Z")
    shown = trigger("breaker", "list").stdout
    assert "market  splits  open" in shown
    assert view["opened_at"] in shown
    (answer,) = trigger.json("run", "--payload", '{"symbols": ["A"], "table_name": "splits"}', code=1)
    assert (answer["statusCode"], answer["status"]) == (503, "stopped")
    assert trigger("breaker", "reset", "market", "splits").exit_code == 0
    assert trigger.json("breaker", "list") == []
    nothing = trigger("breaker", "reset", "market", "splits")
    assert (nothing.exit_code, "closed already" in nothing.stderr) == (1, True)
    assert trigger("breaker", "reset", "mar ket", "splits").exit_code == 2


def test_quotas_are_looked_at_and_not_used(trigger: TriggerCli) -> None:
    async def use_up() -> None:
        limiter = trigger.settings.create_rate_limiter()
        assert limiter is not None
        async with limiter:
            while not await limiter.take("event", trigger.settings.config.quotas["event"]):
                pass

    # Other tests may have used some.
    trigger("quotas", "reset", "event")
    for _ in range(2):
        event, manual = trigger.json("quotas")
        assert (event["name"], event["used"], event["limit"], manual["retry_after"]) == ("event", 0, 3, 0.0)
    asyncio.run(use_up())
    (row,) = [line for line in trigger("quotas").stdout.splitlines() if line.startswith("event")]
    assert re.fullmatch("event +3 +3 +60 s +in [0-9]+ s", row)
    assert trigger.json("quotas", "reset", "event") == [{"name": "event", "reset": True}]
    assert trigger.json("quotas", "list")[0]["used"] == 0
    nothing = trigger("quotas", "reset", "evnt")
    assert (nothing.exit_code, "those of starts are event, manual" in nothing.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["breaker", "list"], "OMS_TRIGGERS_BREAKER_TABLE"),
        (["quotas"], "OMS_TRIGGERS_RATE_TABLE"),
        (["table", "create"], "OMS_TRIGGERS_IDEMPOTENCY_TABLE"),
        (["dlq", "list"], "OMS_TRIGGERS_DEAD_LETTER_QUEUE_URL"),
    ],
)
def test_what_is_not_configured_is_named(cli: Cli, arguments: list[str], variable: str) -> None:
    result = cli("trigger", *arguments)
    assert (result.exit_code, variable in result.stderr) == (2, True)


# ---------------------------------------------------------------------- dead letters


@pytest.fixture
def letters(trigger: TriggerCli, aws_side: dict[str, Any]) -> Callable[..., list[str]]:
    """Puts inputs into the dead-letter queue, which is empty before, and gives their ids."""
    url = aws_side["dead_letter_queue_url"]
    on_queue(trigger.settings, url, _taken)

    def put(*inputs: Mapping[str, Any], reasons: Sequence[str] = ()) -> list[str]:
        async def send(queue: SqsQueue) -> list[str]:
            said = [_letter(*one) for one in zip(inputs, reasons or ["BREAKER_OPEN"] * len(inputs), strict=True)]
            return await queue.send([OutgoingMessage(text) for text in said])

        ids: list[str] = on_queue(trigger.settings, url, send)
        return ids

    return put


def _letter(raw: Mapping[str, Any], reason: str = "BREAKER_OPEN") -> str:
    said = {"reason": reason, "problems": [{"code": reason, "remedy": "repair it"}],
            "correlation_id": raw.get("correlation_id"), "trigger_type": "manual"}  # fmt: skip
    return json.dumps({"dead_letter": {"version": 1, **said, "time": "2026-09-09T22:00:00Z", "raw": raw}})


def _start(symbol: str = "AAPL") -> dict[str, Any]:
    return {"correlation_id": uuid.uuid4().hex, "symbols": [symbol]}


def test_dead_letters_are_listed_shown_and_redriven(
    trigger: TriggerCli, letters: Callable[..., list[str]]
) -> None:
    first, second, broken = letters(_start("AAPL"), _start("MSFT"), {**_start(), "domain": ""})
    listed = trigger.json("dlq", "list")
    assert {one["message_id"] for one in listed} == {first, second, broken}
    assert {one["reason"] for one in listed} == {"BREAKER_OPEN"}
    text = trigger("dlq", "show", second).stdout
    assert "BREAKER_OPEN: repair it" in text
    assert '"MSFT"' in text
    (one,) = trigger.json("dlq", "redrive", "--id", first)
    assert [letter["outcome"] for letter in one["letters"]] == ["taken"]
    assert [chunk["symbols"] for chunk in trigger.chunks()] == [["AAPL"]]
    rest = trigger("dlq", "redrive", "--all", "--yes")
    assert rest.exit_code == 1
    assert f"{broken}: kept: answered 400 rejected: INVALID_DOMAIN" in rest.stderr
    assert "1 redriven" in rest.stdout
    assert "1 kept" in rest.stdout
    assert [chunk["symbols"] for chunk in trigger.chunks()] == [["MSFT"]]

    missing = trigger("dlq", "delete", "--id", first)
    assert (missing.exit_code, f"{first}: missing: there is no such" in missing.stderr) == (1, True)
    deleted = trigger("dlq", "delete", "--all")
    assert (deleted.exit_code, "1 deleted" in deleted.stdout) == (0, True), deleted.output
    assert trigger("dlq", "show", broken).exit_code == 1


def test_what_rules_of_the_users_refused_is_left_by_the_pipeline_of_the_settings(
    trigger: TriggerCli, letters: Callable[..., list[str]]
) -> None:
    reasons = ("BREAKER_OPEN", "NOT_TODAY", "BUSINESS_RULE")
    letters(_start("AAPL"), _start("NO"), _start("NO"), reasons=reasons)
    planned = trigger("dlq", "redrive", "--all", "--dry-run")
    assert (planned.exit_code, "1 dead letter would be redriven" in planned.stdout) == (1, True)
    assert {tuple(line.split()) for line in planned.stdout.splitlines()} > {
        ("start", reason, "1") for reason in reasons
    }
    done = trigger("dlq", "redrive", "--all")
    assert (done.exit_code, "1 redriven" in done.stdout, "2 kept" in done.stdout) == (1, True, True)
    for told in (planned, done):
        (line,) = [line for line in told.stderr.splitlines() if "left" in line]
        assert line.startswith("2 dead letters left: refused by a rule or handler of yours")
        assert line.endswith("give --pipeline or --function")
        assert "kept:" not in told.stderr
    assert [chunk["symbols"] for chunk in trigger.chunks()] == [["AAPL"]]


@pytest.mark.parametrize("command", ["delete", "redrive"])
def test_all_are_those_that_were_asked_about(
    trigger: TriggerCli, letters: Callable[..., list[str]], aws_side: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch, command: str,
) -> None:  # fmt: skip
    letters(_start("AAPL"), _start("MSFT"))
    url, later = aws_side["dead_letter_queue_url"], []

    def answer(question: str, **_: Any) -> None:
        assert question == f"{command} 2 dead letters?"
        late = OutgoingMessage(_letter(_start("LATE")))
        later.extend(on_queue(trigger.settings, url, lambda queue: queue.send([late])))

    monkeypatch.setattr(click, "confirm", answer)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    (done,) = trigger.json("dlq", command, "--all")
    assert len(done["letters"]) == 2
    trigger.chunks()
    assert [one["message_id"] for one in trigger.json("dlq", "list")] == later


def test_of_a_fifo_queue_those_behind_are_told_of(trigger: TriggerCli, aws_side: Mapping[str, Any]) -> None:
    url = asyncio.run(_make_fifo(aws_side, f"cli-{uuid.uuid4().hex[:12]}.fifo"))
    many = [OutgoingMessage(_letter(_start()), "g", str(number)) for number in range(12)]
    on_queue(trigger.settings, url, lambda queue: queue.send(many))
    for count, is_more in ((10, True), (2, False)):
        result = trigger("dlq", "delete", "--all", "--queue-url", url)
        assert (f"{count} deleted" in result.stdout, "call it again" in result.stderr) == (True, is_more), (
            result.output
        )


async def _make_fifo(aws_side: Mapping[str, Any], name: str) -> str:
    aws = {field: aws_side[field] for field in AwsConfig.model_fields if field in aws_side}
    async with open_control(AwsConfig(**aws), "sqs") as sqs:
        made = await sqs.call("CreateQueue", QueueName=name, Attributes={"FifoQueue": "true"})
    return str(made["QueueUrl"])


async def _send_attributed(aws_side: Mapping[str, Any], **attributes: str) -> None:
    aws = {field: aws_side[field] for field in AwsConfig.model_fields if field in aws_side}
    said = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    async with open_control(AwsConfig(**aws), "sqs") as sqs:
        url = aws_side["dead_letter_queue_url"]
        await sqs.call("SendMessage", QueueUrl=url, MessageBody="{}", MessageAttributes=said)


def test_no_attribute_of_a_letter_stands_for_what_the_queue_says(
    trigger: TriggerCli, letters: Callable[..., list[str]], aws_side: Mapping[str, Any]
) -> None:
    assert letters is not None  # The queue is empty.
    asyncio.run(_send_attributed(aws_side, message_id="forged", reason="all fine"))
    ((found,),) = [trigger.json("dlq", "list")]
    shown = dict(
        line.split("  ", 1) for line in trigger("dlq", "show", found["message_id"]).stdout.splitlines()[:-1]
    )
    assert {name: text.strip() for name, text in shown.items()}.items() >= {
        "message id": found["message_id"],
        "reason": "UNKNOWN_LETTER",
        "detail message_id": "forged",
        "detail reason": "all fine",
    }.items()
    assert trigger("dlq", "delete", "--id", found["message_id"]).exit_code == 0


def test_letters_go_where_they_belong(
    trigger: TriggerCli, letters: Callable[..., list[str]], aws_side: Mapping[str, Any], function: str
) -> None:
    chunk = {"chunk_id": "c-1", "chunk_index": 0, "symbols": ["AAPL"]}
    # A rule's code: the function has the rules.
    (start,) = letters(_start(), reasons=["NOT_TODAY"])
    url = aws_side["dead_letter_queue_url"]
    on_queue(trigger.settings, url, lambda queue: queue.send([OutgoingMessage(json.dumps(chunk))]))
    (done,) = trigger.json("dlq", "redrive", "--all", "--to-queue", aws_side["queue_url"], code=1)
    outcomes = {letter["message_id"]: letter["outcome"] for letter in done["letters"]}
    assert outcomes.pop(start) == "kept"
    assert list(outcomes.values()) == ["taken"]
    assert trigger.chunks() == [chunk]
    (done,) = trigger.json("dlq", "redrive", "--id", start, "--function", function)
    assert [letter["outcome"] for letter in done["letters"]] == ["taken"]
    none = trigger("dlq", "list")
    assert (len(none.stdout.splitlines()), "there are no dead letters" in none.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["delete"], "give --id or --all"),
        (["delete", "--all", "--id", "x"], "--all excludes --id"),
        (["redrive", "--all", "--function", "f", "--to-queue", "https://a/b"], "exclude each other"),
        (["list", "--queue-url", "chunks"], "give the queue's URL"),
    ],
)
def test_dead_letters_that_cannot_be_meant_are_refused(
    trigger: TriggerCli, arguments: list[str], text: str
) -> None:
    result = trigger("dlq", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
