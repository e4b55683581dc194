"""`infra ...`: the commands over stacks on the emulator, and over scripted answers where it gives none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
import pytest
import yaml
from click.testing import Result

from oms_events.devstack import AwsEmulator
from oms_events.provisioning.sources import read_source
from oms_events.provisioning.synthesis import synthesize
from tests.cli.conftest import Cli
from tests.provisioning.cloudformation import (
    CHANGE_SET_ID,
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
    archive = f'[[buses]]\nname = "{deployed.name}"\n[[archives]]\nname = "{deployed.name}"\n'
    bus = f'bus = {{ ref = "bus:{deployed.name}" }}\n\n[outputs]'
    deployed.file.write_text(deployed.file.read_text().replace("[outputs]", archive + bus))
    result = deployed("apply", deployed.file, "--yes")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("the AWS emulator")]
    assert "AWS::Events::Archive): made through the service's own API" in line
    assert deployed.ask_aws("events", "describe_archive", ArchiveName=deployed.name)["State"] == "ENABLED"
    assert deployed("destroy", deployed.file, "--yes").exit_code == 0
    archives = deployed.ask_aws("events", "list_archives")["Archives"]
    assert deployed.name not in [archive["ArchiveName"] for archive in archives]


def test_a_loss_of_data_must_be_allowed(deployed: Infra) -> None:
    deployed.drop_table()
    shown = deployed("plan", deployed.file)
    assert (shown.exit_code, "remove (loses data)" in shown.stdout) == (0, True)
    refused = deployed("apply", deployed.file, "--yes")
    assert (refused.exit_code, "--allow-data-loss allows it" in refused.stderr) == (1, True)
    assert deployed.ask_aws("dynamodb", "describe_table", TableName=deployed.name)
    assert deployed("apply", deployed.file, "--yes", "--allow-data-loss").exit_code == 0
    assert deployed.name not in deployed.ask_aws("dynamodb", "list_tables")["TableNames"]


def test_on_a_terminal_it_asks_and_a_loss_is_red(deployed: Infra) -> None:
    deployed.drop_table()
    arguments = ("apply", deployed.file, "--allow-data-loss")
    code, shown = on_terminal(deployed, b"n\n", *arguments)
    assert (code, "apply this?" in shown) == (1, True)
    assert re.search(r"\x1b\[1;31mremove", shown)
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
    (one,) = deployed.json("drift", deployed.file, code=1)
    assert one["differences"] == [{"path": "/DelaySeconds", "expected": "3", "actual": "9"}]


def test_a_stack_with_data_is_destroyed_only_by_force(deployed: Infra) -> None:
    deployed.ask_aws("dynamodb", "put_item", TableName=deployed.name, Item={"pk": {"S": "1"}})
    refused = deployed("destroy", deployed.file, "--yes")
    assert (refused.exit_code, "--force deletes it" in refused.stderr) == (1, True)
    assert f"table {deployed.name} has items" in refused.stderr
    assert deployed("outputs", deployed.file).exit_code == 0
    done = deployed("destroy", deployed.file, "--yes", "--force")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"stack {deployed.name}: DELETE_COMPLETE"
    assert deployed("destroy", deployed.file, "--yes").exit_code == 1


# ---------------------------------------------------------------------- what the emulator does not answer


def test_a_replacement_and_a_failure_with_its_reason_are_told(
    scripted: tuple[Cli, CloudFormation], tmp_path: Path
) -> None:
    cli, aws = scripted
    file = tmp_path / "stack.toml"
    file.write_text(FILE.format(name=STACK))
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
