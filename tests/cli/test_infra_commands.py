"""`infra ...`: the commands over stacks on the emulator, and over scripted answers where it gives none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import uuid
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
import pytest
import yaml
from click.testing import Result

from oms_events.cli.infra.showing import flat
from oms_events.devstack import AwsEmulator
from oms_events.provisioning.sources import read_source
from oms_events.provisioning.synthesis import synthesize
from tests.cli.asking import asked
from tests.cli.conftest import COMMAND, Cli, clean
from tests.provisioning.cloudformation import (
    CHANGE_SET_ID,
    MISSING,
    STACK,
    STACK_ID,
    CloudFormation,
    Refusal,
    change_set,
    event,
    events,
    serving,
    stack,
)

FILE = """\
name = "{name}"

[[queues]]
name = "{name}"
delay_seconds = 3

[[tables]]
name = "{name}"
hash_key = "pk"

[outputs]
archive_arn = "none"
queue_arns.orders = {{ ref = "queue:{name}" }}
"""


@dataclass
class Infra:
    """`oms-events infra ...` with a stack of the test's own, described in `file`."""

    cli: Cli
    file: Path
    name: str

    def __call__(self, command: str, *arguments: object) -> Result:
        return self.cli("infra", command, *arguments)

    def json(self, command: str, *arguments: object, code: int = 0) -> Any:
        result = self(command, *arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def set_delay(self, seconds: int) -> None:
        self.file.write_text(self.file.read_text().replace("delay_seconds = 3", f"delay_seconds = {seconds}"))

    def drop_table(self) -> None:
        text = self.file.read_text()
        self.file.write_text(text[: text.index("[[tables]]")] + text[text.index("[outputs]") :])

    def add_archive(self) -> None:
        archive = f'[[buses]]\nname = "{self.name}"\n[[archives]]\nname = "{self.name}"\n'
        bus = f'bus = {{ ref = "bus:{self.name}" }}\n\n[outputs]'
        self.file.write_text(self.file.read_text().replace("[outputs]", archive + bus))

    def has_archive(self) -> bool:
        return self.name in [
            archive["ArchiveName"] for archive in self.ask_aws("events", "list_archives")["Archives"]
        ]

    def send(self) -> None:
        url = self.ask_aws("sqs", "get_queue_url", QueueName=self.name)["QueueUrl"]
        self.ask_aws("sqs", "send_message", QueueUrl=url, MessageBody="late")

    def ask_aws(self, service: str, operation: str, **parameters: Any) -> Any:
        async def call() -> Any:
            env = self.cli.env
            session = aioboto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
            place = {"region_name": env["AWS_REGION"], "endpoint_url": env["AWS_ENDPOINT_URL"]}
            async with session.client(service, **place) as client:
                return await getattr(client, operation)(**parameters)

        return asyncio.run(call())


@pytest.fixture
def infra(oms_aws_emulator: AwsEmulator, tmp_path: Path) -> Iterator[Infra]:
    name = f"infra-{uuid.uuid4().hex[:12]}"
    file = tmp_path / "stack.toml"
    file.write_text(FILE.format(name=name))
    made = Infra(Cli(oms_aws_emulator.environment()), file, name)
    yield made
    made("destroy", file, "--yes", "--force")


@pytest.fixture
def deployed(infra: Infra) -> Infra:
    assert infra("apply", infra.file, "--yes").exit_code == 0
    return infra


@pytest.fixture
def scripted() -> Iterator[tuple[Cli, CloudFormation]]:
    """The command against scripted answers, with those that every plan asks for."""
    with serving() as aws:
        aws.answer("DescribeStacks", stack("UPDATE_COMPLETE"))
        aws.answer("CreateChangeSet", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
        for operation in ("DeleteChangeSet", "ExecuteChangeSet"):
            aws.answer(operation, {})
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}
        yield Cli({**keys, "AWS_ENDPOINT_URL": aws.url}), aws


# ---------------------------------------------------------------------- synth


def test_a_template_is_printed_the_same_each_time(infra: Infra, tmp_path: Path) -> None:
    template = synthesize(read_source(str(infra.file)))
    printed = infra("synth", infra.file)
    assert (printed.exit_code, printed.stdout) == (0, template.to_json())
    assert infra("synth", infra.file).stdout == printed.stdout
    assert infra("synth", infra.file, "--json").stdout == template.body + "\n"
    assert yaml.safe_load(infra("synth", infra.file, "--format", "yaml").stdout) == template.document
    written = infra("synth", infra.file, "--output", tmp_path / "made.json")
    assert (written.stdout, (tmp_path / "made.json").read_text()) == ("", template.to_json())


def test_a_setting_goes_before_the_files(infra: Infra) -> None:
    template = json.loads(infra("synth", infra.file, "--set", 'description="another"').stdout)
    assert template["Description"] == "another"


def test_what_is_no_source_is_a_mistake_of_the_command_line(infra: Infra) -> None:
    assert infra("synth", "no-such-preset").exit_code == 2
    assert infra("synth", infra.file, "--set", "nameless").exit_code == 2
    neither = infra("outputs")
    assert (neither.exit_code, "give SOURCE" in neither.stderr) == (2, True)


@pytest.mark.parametrize("command", ["synth", "plan", "apply"])
def test_a_stack_cannot_have_any_name(infra: Infra, command: str) -> None:
    yes = ["--yes"] if command == "apply" else []
    refused = infra(command, infra.file, *yes, "--stack-name", "bad name!")
    assert (refused.exit_code, "name = 'bad name!': a stack's name is" in refused.stderr) == (2, True)


def test_another_name_stands_for_the_sources_in_every_command(infra: Infra) -> None:
    other = f"{infra.name}-other"
    assert infra("apply", infra.file, "--yes", "--stack-name", other).stdout.endswith(
        f"{other}: CREATE_COMPLETE\n"
    )
    assert infra("outputs", infra.file, "--stack-name", other).exit_code == 0
    assert infra("outputs", infra.file).exit_code == 1
    assert infra("destroy", infra.file, "--stack-name", other, "--yes").exit_code == 0


def test_nothing_of_the_command_line_is_ignored(infra: Infra) -> None:
    name = ("--stack-name", infra.name)
    assert "is neither a preset" in infra("outputs", "no-such-preset", *name).stderr
    assert "write key=value" in infra("outputs", infra.file, "--set", "nameless", *name).stderr
    alone = infra("outputs", "--set", "name=orders", *name)
    assert (alone.exit_code, "--set is for SOURCE" in alone.stderr) == (2, True)


# ---------------------------------------------------------------------- plan, apply


def test_a_plan_shows_what_would_change_and_leaves_nothing(infra: Infra) -> None:
    result = infra("plan", infra.file)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["add", f"Queue{camel(infra.name)}", "AWS::SQS::Queue"] in rows
    assert f"stack {infra.name} (new): 3 to add" in result.stdout
    assert infra("outputs", infra.file).exit_code == 1
    described = infra.json("plan", infra.file)
    assert (described["creates"], described["empty"], described["data_loss"]) == (True, False, [])
    assert {change["action"] for change in described["changes"]} == {"add"}


def test_nothing_is_applied_without_an_answer(infra: Infra) -> None:
    result = infra("apply", infra.file)
    assert (result.exit_code, "give --yes" in result.stderr) == (2, True)
    assert infra("outputs", infra.file).exit_code == 1
    assert infra("destroy", infra.file).exit_code == 2


def test_what_is_planned_is_applied_with_its_progress(infra: Infra) -> None:
    result = infra("apply", infra.file, "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"stack {infra.name}: CREATE_COMPLETE"
    assert "CREATE_COMPLETE      the stack" in result.stderr
    assert infra.json("outputs", infra.file) == {
        "archive_arn": "none",
        "queue_arns": {"orders": f"arn:aws:sqs:us-east-1:000000000000:{infra.name}"},
    }
    assert "queue_arns.orders  arn:aws:sqs:" in infra("outputs", "--stack-name", infra.name).stdout
    assert f"stack {infra.name} (exists): nothing to change" in infra("plan", infra.file).stdout
    infra.set_delay(5)
    changed = infra("apply", infra.file, "--yes")
    assert "1 to change" in changed.stdout
    assert "DelaySeconds" in changed.stdout
    assert infra.json("follow", infra.file)["status"] == "UPDATE_COMPLETE"
    assert infra("apply", infra.file, "--yes", "--json").exit_code == 0


def test_the_emulators_gaps_are_told_and_filled(deployed: Infra) -> None:
    deployed.add_archive()
    result = deployed("apply", deployed.file, "--yes")
    assert result.exit_code == 0, result.output
    notice = "the AWS emulator's CloudFormation lacks parts of 2 resources; they are made through their services"
    assert f"{notice} (--debug lists them)" in result.stderr.splitlines()
    assert "AWS::Events::Archive" not in "".join(re.findall("left out by.*", result.stderr))
    unchanged = deployed("plan", deployed.file, "--debug")
    assert (unchanged.exit_code, notice in unchanged.stderr) == (0, False)
    deployed.set_delay(5)
    listed = deployed("plan", deployed.file, "--debug").stderr
    assert notice in listed
    assert "(AWS::Events::Archive): made through the service's own API" in listed
    assert deployed.has_archive()
    assert deployed("destroy", deployed.file, "--yes").exit_code == 0
    assert not deployed.has_archive()


def test_a_bus_that_exists_outside_the_stack_is_told_by_the_plan(infra: Infra) -> None:
    infra.add_archive()
    infra.ask_aws("events", "create_event_bus", Name=infra.name)
    try:
        result = infra("plan", infra.file)
    finally:
        infra.ask_aws("events", "delete_event_bus", Name=infra.name)
    assert result.exit_code == 1
    assert f"'{infra.name}' exists, and not as a part of the stack" in result.stderr
    assert "--set event_bus_name=" in result.stderr


def test_a_stack_that_is_not_there_says_where_its_name_is_from(infra: Infra) -> None:
    hint = "(the name is that of SOURCE: give the same --set as at apply, or --stack-name)"
    assert hint in infra("outputs", infra.file).stderr
    named = infra("outputs", infra.file, "--stack-name", infra.name)
    assert (named.exit_code, hint in named.stderr) == (1, False)


def test_outputs_in_maps_are_printed_by_their_whole_path() -> None:
    assert dict(flat({"a": "1", "b": {"c": {"d": "2", "e": "3"}, "f": "4"}})) == {
        "a": "1", "b.c.d": "2", "b.c.e": "3", "b.f": "4",
    }  # fmt: skip


def test_a_loss_of_data_must_be_allowed(deployed: Infra) -> None:
    deployed.drop_table()
    shown = deployed("plan", deployed.file)
    assert (shown.exit_code, "remove (loses data)" in shown.stdout) == (0, True)
    refused = deployed("apply", deployed.file, "--yes")
    assert (refused.exit_code, "1 resource would lose data, and" in refused.stderr) == (1, True)
    assert deployed.ask_aws("dynamodb", "describe_table", TableName=deployed.name)
    assert deployed("apply", deployed.file, "--yes", "--allow-data-loss").exit_code == 0
    assert deployed.name not in deployed.ask_aws("dynamodb", "list_tables")["TableNames"]


def test_on_a_terminal_it_asks_and_a_loss_is_red(deployed: Infra) -> None:
    deployed.drop_table()
    arguments = ("apply", deployed.file, "--allow-data-loss")
    code, shown = on_terminal(deployed, b"n\n", *arguments)
    assert (code, "apply this?" in shown) == (1, True)
    assert re.search(r"\x1b\[1;31mremove", shown)
    code, out, shown = answer(deployed.cli, b"n\n", *arguments, "--json")
    assert (code, out) == (1, "")
    assert re.search(r"\x1b\[1;31mremove.*loses data: table", shown, re.DOTALL)
    code, shown = on_terminal(deployed, b"y\n", *arguments)
    assert (code, "1 to remove" in shown, "UPDATE_COMPLETE" in shown) == (0, True, True)


# ---------------------------------------------------------------------- drift, destroy


def test_drift_is_shown_and_ends_with_1(deployed: Infra) -> None:
    clean = deployed("drift", deployed.file)
    assert (clean.exit_code, "as its template says" in clean.stdout) == (0, True)
    url = deployed.ask_aws("sqs", "get_queue_url", QueueName=deployed.name)["QueueUrl"]
    deployed.ask_aws("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"DelaySeconds": "9"})
    found = deployed("drift", deployed.file)
    assert found.exit_code == 1
    assert found.stdout.splitlines()[1].split()[2:] == ["modified", "/DelaySeconds", "3", "9"]
    assert "1 resource differs" in found.stdout
    (one,) = deployed.json("drift", deployed.file, code=1)
    assert one["differences"] == [{"path": "/DelaySeconds", "expected": "3", "actual": "9"}]


def test_a_stack_with_data_is_destroyed_only_by_force(deployed: Infra) -> None:
    deployed.ask_aws("dynamodb", "put_item", TableName=deployed.name, Item={"pk": {"S": "1"}})
    refused = deployed("destroy", deployed.file, "--yes")
    assert (refused.exit_code, "--force deletes it" in refused.stderr) == (1, True)
    assert "was not deleted, for 1 reason: " in refused.stderr
    assert f"table {deployed.name} has items" in refused.stderr
    assert deployed("outputs", deployed.file).exit_code == 0
    done = deployed("destroy", deployed.file, "--yes", "--force")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"stack {deployed.name}: DELETE_COMPLETE"
    followed = re.search(r"follow --stack-name (arn:\S+)`", done.stderr.splitlines()[-1])
    assert followed is not None
    assert deployed.json("follow", "--stack-name", followed[1])["status"] == "DELETE_COMPLETE"
    assert deployed("destroy", deployed.file, "--yes").exit_code == 1


def test_what_arrives_after_the_question_keeps_all_of_the_stack(deployed: Infra) -> None:
    deployed.add_archive()
    assert deployed("apply", deployed.file, "--yes").exit_code == 0
    code, out, shown = answer(deployed.cli, b"y\n", "destroy", deployed.file, "--json", first=deployed.send)
    assert (code, out) == (1, "")
    assert f"queue {deployed.name} has about 1 messages" in shown
    assert re.search(rf"remove.* Queue.*stack {deployed.name}: \d resources.*delete stack", shown, re.DOTALL)
    assert deployed.has_archive()
    assert deployed("destroy", deployed.file, "--yes", "--force").exit_code == 0
    assert not deployed.has_archive()


# ---------------------------------------------------------------------- what the emulator does not answer


def test_a_replacement_and_a_failure_with_its_reason_are_told(
    scripted: tuple[Cli, CloudFormation], file: Path
) -> None:
    cli, aws = scripted
    change = {
        "Action": "Modify", "LogicalResourceId": "TableOrders", "ResourceType": "AWS::DynamoDB::Table",
        "PhysicalResourceId": "orders", "Replacement": "Conditional", "PolicyAction": "ReplaceAndRetain",
        "Details": [{"Target": {"Attribute": "Properties", "Name": "KeySchema", "Path": "/Properties/KeySchema",
                                "BeforeValue": "a", "AfterValue": "b", "RequiresRecreation": "Always"}}],
    }  # fmt: skip
    aws.answer("DescribeChangeSet", change_set(changes=[change]))
    shown = cli("infra", "plan", file)
    assert "may replace (loses data)" in shown.stdout
    assert "KeySchema a -> b (replaces), the old one is kept" in shown.stdout
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet"]
    aws.calls.clear()
    refused = cli("infra", "apply", file, "--yes")
    assert refused.exit_code == 1
    assert "loses data: table orders (TableOrders) may have to be replaced by an empty one" in refused.stderr
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet"]
    before, failed = event(0, "CREATE_COMPLETE"), event(2, "UPDATE_FAILED", "TableOrders", "is too busy")
    ended = event(3, "UPDATE_ROLLBACK_COMPLETE")
    aws.answer(
        "DescribeStackEvents", events(before), events(before, event(1, "UPDATE_IN_PROGRESS"), failed, ended)
    )
    aws.answer(
        "DescribeStacks", stack("UPDATE_COMPLETE"), stack("UPDATE_COMPLETE"), stack("UPDATE_ROLLBACK_COMPLETE")
    )
    result = cli("infra", "apply", file, "--yes", "--allow-data-loss")
    assert result.exit_code == 1
    assert "UPDATE_FAILED        TableOrders" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        "Error: stack 'orders' ended in UPDATE_ROLLBACK_COMPLETE: TableOrders (AWS::SQS::Queue): is too busy"
    )


def test_no_access_ends_with_1_and_one_line(scripted: tuple[Cli, CloudFormation]) -> None:
    cli, aws = scripted
    aws.answer("DescribeStacks", Refusal("AccessDenied", "User is not authorized", 403))
    result = cli("infra", "outputs", "--stack-name", STACK)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: DescribeStacks: AWS answered AccessDenied: User is not authorized; "
        "allow DescribeStacks to these credentials\n"
    )


REMOVAL = {
    "Action": "Remove", "LogicalResourceId": "TableOrders", "ResourceType": "AWS::DynamoDB::Table",
    "PhysicalResourceId": "orders", "PolicyAction": "Delete",
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "stack.toml"
    path.write_text(FILE.format(name=STACK))
    return path


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_at_the_question_leaves_no_plan(
    scripted: tuple[Cli, CloudFormation], file: Path, stop: signal.Signals
) -> None:
    cli, aws = scripted
    aws.answer("DescribeChangeSet", change_set(changes=[{**REMOVAL, "ResourceType": "AWS::SNS::Topic"}]))
    code, _, _ = answer(cli, stop, "apply", file)
    assert (code, aws.changes) == (130, ["CreateChangeSet", "DeleteChangeSet"])


def test_a_plan_that_cannot_be_removed_does_not_hide_why_it_should_be(
    scripted: tuple[Cli, CloudFormation], file: Path
) -> None:
    cli, aws = scripted
    aws.answer("DescribeChangeSet", change_set(changes=[REMOVAL]))
    aws.answer("DeleteChangeSet", Refusal("AccessDenied", "User is not authorized", 403))
    refused = cli("infra", "apply", file, "--yes")
    assert refused.exit_code == 1
    assert f"the plan's change set {CHANGE_SET_ID} could not be removed: DeleteChangeSet:" in refused.stderr
    assert "--allow-data-loss allows it" in refused.stderr.splitlines()[-1]
    shown = cli("infra", "plan", file)
    assert (shown.exit_code, "remove (loses data)" in shown.stdout) == (1, True)
    assert "allow DeleteChangeSet to these credentials" in shown.stderr


def test_who_is_stopped_while_a_plan_is_removed_removes_it_all_the_same(
    scripted: tuple[Cli, CloudFormation], file: Path
) -> None:
    cli, aws = scripted
    removing, stopped = threading.Event(), threading.Event()

    def wait() -> None:
        # As for a plan of a new stack, which has a stack of its own.
        aws.answer("DescribeStacks", stack("REVIEW_IN_PROGRESS"))
        removing.set()
        stopped.wait(10)

    aws.answer("DescribeStacks", MISSING)
    aws.answer("DescribeChangeSet", change_set())
    aws.answer("ListChangeSets", {"Summaries": []})
    aws.answer("DeleteChangeSet", Told(wait))
    aws.answer("DeleteStack", Told(lambda: aws.answer("DescribeStacks", MISSING)))
    process = cli.start("infra", "plan", file)
    assert removing.wait(20)
    process.send_signal(signal.SIGINT)
    # Until it has begun to end; no call tells when.
    stopped.wait(0.3)
    stopped.set()
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert aws.changes == ["CreateChangeSet", "DeleteChangeSet", "DeleteStack"]


class Told(UserDict[str, Any]):
    """An empty answer, before which something happens."""

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__()
        self._before = before

    def __iter__(self) -> Iterator[str]:
        self._before()
        return iter(())


def answer(
    cli: Cli, reply: bytes | signal.Signals, *arguments: object, first: Callable[[], object] = lambda: None
) -> tuple[int, str, str]:
    """Exit code, stdout, and what the terminal shows on which the command asks."""
    return asked([*COMMAND, "infra", *map(str, arguments)], clean(cli.env), reply, first=first)


def camel(name: str) -> str:
    return "".join(part[0].upper() + part[1:] for part in name.split("-"))


def on_terminal(infra: Infra, answer: bytes, *arguments: object) -> tuple[int, str]:
    """Exit code and what a terminal shows, on which the answer is typed."""
    ours, theirs = os.openpty()
    os.write(ours, answer)
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = infra.cli.start("infra", *arguments, **streams)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65_536):
            shown += data
    except OSError:
        # Linux ends a terminal that all have left with an error.
        pass
    os.close(ours)
    return process.wait(timeout=20), shown.decode()
