"""`python -m oms_events.provisioning.eventbridge_setup`, against the emulator."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from oms_events._aws.control import open_control
from oms_events.devstack import AwsEmulator
from oms_events.errors import DataLossRefusedError, StackNotFoundError
from oms_events.oms.catalogue import EventType
from oms_events.provisioning.deployment.destroy import destroy
from oms_events.provisioning.deployment.stacks import find_stack
from oms_events.provisioning.eventbridge_setup import main, setup
from oms_events.provisioning.presets.oms import OmsPreset
from tests.cli.asking import asked
from tests.cli.conftest import clean
from tests.provisioning.cloudformation import CHANGE_SET_ID, STACK_ID, change_set, serving, stack
from tests.provisioning.embedded import aws_config

BUS = "setup-oms"
MODULE = [sys.executable, "-m", "oms_events.provisioning.eventbridge_setup"]
# What the emulator's CloudFormation refuses.
WITHOUT = ("--no-archive", "--no-alarms")


class Command:
    """The command with what leads it to the emulator, and what it wrote."""

    def __init__(self, emulator: AwsEmulator, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = aws_config(emulator)
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *options: str) -> int:
        address = ("--event-bus-name", BUS, "--endpoint-url", str(self.config.endpoint_url))
        code = main([*address, *options])
        self.out, self.err = self._capsys.readouterr()
        return code

    def ask(self, service: str, operation: str, **parameters: Any) -> Any:
        async def asked() -> Any:
            async with open_control(self.config, service) as control:
                return await control.call(operation, **parameters)

        return asyncio.run(asked())

    def destroy(self) -> None:
        with contextlib.suppress(StackNotFoundError):
            asyncio.run(destroy(BUS, self.config, force=True))


@pytest.fixture
def command(
    oms_aws_emulator: AwsEmulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    for name, value in oms_aws_emulator.environment().items():
        monkeypatch.setenv(name, value)
    made = Command(oms_aws_emulator, capsys)
    yield made
    made.destroy()


def test_one_command_makes_the_bus_and_says_how_to_use_it(command: Command) -> None:
    assert command(*WITHOUT, "--no-tables") == 0, command.err
    assert f"stack {BUS} (new):" in command.out
    assert f"  add {len(EventType)} AWS::Events::Rule" in command.out
    assert "CREATE_COMPLETE" in command.err
    arn = command.ask("events", "DescribeEventBus", Name=BUS)["Arn"]
    assert f"  event_bus_arn = {arn}" in command.out
    assert len(command.ask("events", "ListRules", EventBusName=BUS)["Rules"]) == len(EventType)
    for line in (
        "  export AWS_REGION=us-east-1",
        f"  export AWS_ENDPOINT_URL={command.config.endpoint_url}",
        f"  export OMS_EVENTBRIDGE_BUS_NAME={BUS}",
        f"role {BUS}-publisher-role",
        "The rules have no targets yet.",
    ):
        assert line in command.out
    assert "OMS_OUTBOX_TABLE" not in command.out

    assert command(*WITHOUT, "--no-tables") == 0, command.err
    assert f"stack {BUS}: nothing to change" in command.out
    assert f"  export OMS_EVENTBRIDGE_BUS_NAME={BUS}" in command.out


def test_what_changes_something_that_is_there_is_asked_for_and_no_data_is_lost(command: Command) -> None:
    def tables() -> set[str]:
        return {name for name in command.ask("dynamodb", "ListTables")["TableNames"] if name.startswith(BUS)}

    assert command(*WITHOUT, "--no-tables") == 0, command.err
    assert command(*WITHOUT) == 1
    assert "  change RoleSetupOmsPublisherRole (AWS::IAM::Role)" in command.out
    assert "nothing was done; --yes allows it" in command.err
    assert tables() == set()

    assert command(*WITHOUT, "--yes") == 0, command.err
    assert f"  export OMS_OUTBOX_TABLE={BUS}-outbox" in command.out
    assert tables() == {f"{BUS}-outbox", f"{BUS}-idempotency"}

    assert command(*WITHOUT, "--no-tables", "--yes") == 1
    assert f"table {BUS}-outbox" in command.err
    assert "oms-events infra apply oms --allow-data-loss" in command.err
    plans = command.ask("cloudformation", "ListChangeSets", StackName=BUS)["Summaries"]
    assert [one for one in plans if one["ExecutionStatus"] == "AVAILABLE"] == []
    assert tables() == {f"{BUS}-outbox", f"{BUS}-idempotency"}


def test_a_dry_run_makes_nothing(command: Command) -> None:
    assert command(*WITHOUT, "--no-tables", "--dry-run") == 0, command.err
    assert "  add 1 AWS::Events::EventBus" in command.out
    assert "AWS::DynamoDB::Table" not in command.out

    async def stack() -> object:
        async with open_control(command.config, "cloudformation") as control:
            return await find_stack(control, BUS)

    assert asyncio.run(stack()) is None
    assert BUS not in {bus["Name"] for bus in command.ask("events", "ListEventBuses")["EventBuses"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--event-bus-name", "oms events"], ["event_bus_name = 'oms events'", "letters"]),
        (["--alarm-topic-arn", "operators"], ["alarm_topic_arn", "is no ARN"]),
        (["--endpoint-url", "localhost"], ["endpoint_url = 'localhost'"]),
        (["--profile", "no-such-profile"], ["no-such-profile"]),
        (["--alarm-topic-arn", "arn:aws:sns:us-east-1:123456789012:a", "--no-alarms"], ["enable_alarms = true"]),
    ],
)
def test_what_cannot_work_is_told_in_a_line(command: Command, options: list[str], words: list[str]) -> None:
    assert command(*options) == 2
    assert command.out == ""
    assert command.err.startswith("Error: ")
    assert [word for word in words if word not in command.err] == []


@pytest.mark.parametrize("options", [["--bus", "x"], ["--event-bus", "x"], ["--dry"]])
def test_unknown_and_shortened_options_are_refused(command: Command, options: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command(*options)
    assert refused.value.code == 2


@pytest.mark.parametrize(("reply", "expected"), [(b"n\n", 1), (signal.SIGINT, 130)])
def test_who_does_not_agree_leaves_no_plan(reply: bytes | signal.Signals, expected: int) -> None:
    with serving() as aws:
        change = {"Action": "Modify", "LogicalResourceId": "Role", "ResourceType": "AWS::IAM::Role"}
        aws.answer("DescribeStacks", stack("UPDATE_COMPLETE"))
        aws.answer("CreateChangeSet", {"Id": CHANGE_SET_ID, "StackId": STACK_ID})
        aws.answer("DescribeChangeSet", change_set(changes=[change]))
        aws.answer("DeleteChangeSet", {})
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}
        code, out, _ = asked([*MODULE, "--endpoint-url", aws.url], clean(keys), reply)
        assert (code, aws.changes) == (expected, ["CreateChangeSet", "DeleteChangeSet"])
    assert "  change Role (AWS::IAM::Role)" in out


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [*MODULE, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "python -m oms_events.provisioning.eventbridge_setup" in told
    assert "the embedded emulator needs --no-archive --no-alarms" in told
    assert "a new stack is made at once" in told


async def test_from_python_it_gives_the_outputs_and_never_loses_data(oms_aws_emulator: AwsEmulator) -> None:
    config = aws_config(oms_aws_emulator)
    few: dict[str, Any] = {
        "event_bus_name": "setup-few",
        "event_types": ["com.acme.order.placed"],
        "enable_archive": False,
        "enable_alarms": False,
    }
    told = []
    found = await setup(OmsPreset(**few), config, on_event=told.append)
    try:
        assert found["rule_names"] == {"com.acme.order.placed": "oms_order_placed_rule"}
        assert told[-1].status == "CREATE_COMPLETE"
        with pytest.raises(DataLossRefusedError, match="setup-few-outbox"):
            await setup(OmsPreset(**few, enable_outbox=False), config)
        assert await setup(OmsPreset(**few), config) == found
    finally:
        await destroy("setup-few", config, force=True)
