"""`dev up` and `demo`: real processes, which end with the command."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oms_events.devstack import free_port
from tests.cli.conftest import Cli
from tests.devstack.support import alive, children, needs_proc

pytestmark = needs_proc


@contextmanager
def started(cli: Cli, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    process = cli.start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


def wait_for_end(pids: set[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_up_serves_the_other_commands_and_leaves_nothing(cli: Cli, number: signal.Signals) -> None:
    port = free_port()
    with started(cli, "dev", "up", "--json", "--nats-port", port) as process:
        stack = json.loads(line_of(process))
        family = children(process.pid)
        assert len(family) == 4
        env: dict[str, str] = stack["environment"]
        assert env["OMS_NATS_URL"] == stack["nats_url"] == f"nats://127.0.0.1:{port}"
        schema = ("publish", "--type", "com.foundry.oms.schema.created", "--data", '{"n": 1}', "--json")
        result = cli(*schema, **env)
        assert result.exit_code == 0, result.stderr
        platforms = json.loads(result.stdout)["platforms"]
        assert platforms["nats"]["receipt"]["stream"] == stack["stream"] == "OMS"
        assert asyncio.run(first_in_queue(stack))["id"] == platforms["eventbridge"]["receipt"]["id"]
        process.send_signal(number)
        assert process.wait(15) == 0
        assert process.stderr is not None
        assert process.stderr.read().decode().splitlines()[-1] == "Stopping ..."
    wait_for_end(family)


async def first_in_queue(stack: dict[str, Any]) -> dict[str, Any]:
    import aioboto3

    env = stack["environment"]
    session = aioboto3.Session(
        region_name=env["AWS_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )
    async with session.client("sqs", endpoint_url=env["AWS_ENDPOINT_URL"]) as sqs:
        which = {"QueueUrl": stack["queue_url"], "AttributeNames": ["Policy", "QueueArn"]}
        attributes = (await sqs.get_queue_attributes(**which))["Attributes"]
        (allowed,) = json.loads(attributes["Policy"])["Statement"]
        assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
        assert (allowed["Action"], allowed["Resource"]) == ("sqs:SendMessage", attributes["QueueArn"])
        assert ":rule/oms-events/" in allowed["Condition"]["ArnEquals"]["aws:SourceArn"]
        answer = await sqs.receive_message(QueueUrl=stack["queue_url"], WaitTimeSeconds=5)
    message: dict[str, Any] = json.loads(answer["Messages"][0]["Body"])
    return message


def test_dev_up_prints_settings_to_export_and_ends_when_a_server_does(cli: Cli) -> None:
    with started(cli, "dev", "up") as process:
        settings = [shlex.split(line_of(process)) for _ in range(7)]
        assert {word for word, _ in settings} == {"export"}
        names = {setting.partition("=")[0] for _, setting in settings}
        assert {"OMS_NATS_URL", "AWS_ENDPOINT_URL", "OMS_EVENTBRIDGE_BUS_NAME", "AWS_REGION"} <= names
        family = children(process.pid)
        servers = [pid for pid in family if b"nats-server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(servers[0], signal.SIGKILL)
        assert process.wait(15) == 1
        assert process.stderr is not None
        assert b"Error: NATS has ended by itself" in process.stderr.read()
    wait_for_end(family)


def test_dev_up_takes_the_subjects_of_one_s_own(cli: Cli) -> None:
    with started(cli, "dev", "up", "--json", "--subject", "shop.>") as process:
        env = json.loads(line_of(process))["environment"]
        result = cli("publish", "--type", "shop.order.placed", **env)
        assert result.exit_code == 0, result.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_dev_up_says_which_port_is_taken(cli: Cli, oms_nats_server: Any) -> None:
    result = cli("dev", "up", "--nats-port", oms_nats_server.port)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"port {oms_nats_server.port} is taken by another program" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_demo_shows_the_whole_job_and_tells_each_check(cli: Cli) -> None:
    result = cli("demo", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ok"] is True
    assert len(found["checks"]) > 10
    assert all(check["ok"] for check in found["checks"])
    position = 0
    for line in (
        "all 9 plans are fulfilled",
        "JetStream has com.foundry.oms.schema.created unchanged",
        "the queue has com.foundry.oms.system.healthcheck unchanged",
        "every branch event was delivered by EventBridge",
        "NATS is passed over once its breaker is open",
        "the primary is healthy again",
        "the first processor is killed (SIGKILL)",
        "ok: all 1,000 events arrived, each once, and nothing else",
        "ok: the events of each of the 20 customers are in the order of the orders",
        "== Everything was as it should be",
    ):
        position = result.stderr.find(line, position)
        assert position >= 0, f"not found, or not after the lines before: {line}\n{result.stderr}"
    assert "WRONG" not in result.stderr


def test_demo_stops_all_on_ctrl_c(cli: Cli) -> None:
    with started(cli, "demo") as process:
        while "Events of every family" not in (line := line_of(process)):
            assert line
        family = children(process.pid)
        assert len(family) == 4
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
    wait_for_end(family)


def test_demo_shows_its_program(cli: Cli) -> None:
    result = cli("demo", "--source")
    assert result.exit_code == 0
    compile(result.stdout, "demo", "exec")
    assert "async def fail_and_recover" in result.stdout
