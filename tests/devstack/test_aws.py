from __future__ import annotations

import os

import aioboto3
import pytest

from oms_events.devstack import AwsEmulator, DevstackError
from tests.devstack.support import aws_client, children, environment_of, listening, needs_proc

pytestmark = needs_proc

USE = {
    "events": "list_event_buses",
    "sqs": "list_queues",
    "iot": "list_things",
    # This one would open a listener of its own.
    "transfer": "create_server",
}


async def test_reset_removes_everything_and_the_port_stays_over_a_restart() -> None:
    async with AwsEmulator(region="eu-west-1") as emulator, aws_client("sqs", emulator) as sqs:
        url = (await sqs.create_queue(QueueName="a"))["QueueUrl"]
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        assert answer["Attributes"]["QueueArn"].startswith("arn:aws:sqs:eu-west-1:")
        await emulator.reset()
        assert not (await sqs.list_queues()).get("QueueUrls")
        url = emulator.endpoint_url
        await emulator.stop()
        with pytest.raises(DevstackError, match="not running"):
            await emulator.reset()
        await emulator.start()
        assert emulator.endpoint_url == url
        await sqs.create_queue(QueueName="b")


@pytest.mark.parametrize("service", USE)
async def test_listens_on_one_port_of_loopback_only(oms_aws_emulator: AwsEmulator, service: str) -> None:
    async with aws_client(service, oms_aws_emulator) as client:
        await getattr(client, USE[service])()
    family = [oms_aws_emulator.pid, *children(oms_aws_emulator.pid)]
    addresses = set().union(*(listening(pid) for pid in family))
    assert addresses == {f"0100007F:{oms_aws_emulator.port:04X}"}


async def test_nothing_of_the_users_own_settings_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-user")
    monkeypatch.setenv("BIND_HOST", "0.0.0.0")
    monkeypatch.setenv("PERSIST_STATE", "1")
    async with AwsEmulator(settings={"BIND_HOST": "0.0.0.0", "AUTH": "false"}) as emulator:
        seen = environment_of(emulator.pid)
        folder = str(emulator._folder)
    assert seen["BIND_HOST"] == "127.0.0.1"
    assert seen["AUTH"] == "false"
    assert not {"AWS_SESSION_TOKEN", "PERSIST_STATE"} & seen.keys()
    assert {seen[name].startswith(folder) for name in ("HOME", "TMPDIR", "STATE_DIR", "S3_DATA_DIR")} == {True}


async def test_environment_leads_clients_to_it(
    oms_aws_emulator: AwsEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in oms_aws_emulator.environment().items():
        monkeypatch.setenv(name, value)
    async with aioboto3.Session().client("events") as client:
        assert client.meta.endpoint_url == oms_aws_emulator.endpoint_url
        assert client.meta.region_name == oms_aws_emulator.region
        assert (await client.list_event_buses())["EventBuses"][0]["Name"] == "default"


async def test_start_that_takes_too_long_ends_with_nothing_left() -> None:
    before = children(os.getpid())
    with pytest.raises(DevstackError, match=r"did not answer on 127.0.0.1:\d+ within 0.01 s"):
        async with AwsEmulator(startup_timeout=0.01):
            pass
    assert children(os.getpid()) == before
