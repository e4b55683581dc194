from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
import pytest

from oms_events.devstack import AwsEmulator
from oms_events.publishers.eventbridge import EventBridgeConfig, EventBridgePublisher

Configure = Callable[..., EventBridgeConfig]
Open = Callable[..., Any]


class Bus:
    """A bus whose every event lands in a queue."""

    def __init__(self, name: str, queue_url: str, sqs: Any) -> None:
        self.name = name
        self._queue_url = queue_url
        self._sqs = sqs
        self._received: list[str] = []

    async def received(self, count: int) -> list[str]:
        """The bodies of all messages so far, at least `count`."""
        async with asyncio.timeout(10):
            while len(self._received) < count:
                await self._receive(wait=1)
        while await self._receive(wait=0):
            pass
        return self._received

    async def _receive(self, *, wait: int) -> bool:
        answer = await self._sqs.receive_message(
            QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=wait
        )
        messages = answer.get("Messages", [])
        for message in messages:
            self._received.append(message["Body"])
            await self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return bool(messages)


@pytest.fixture(autouse=True)
def no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
async def aws(oms_aws_emulator: AwsEmulator) -> AsyncIterator[Callable[[str], Any]]:
    """Ordinary clients of the emulator, one per service."""
    session = aioboto3.Session(
        oms_aws_emulator.access_key, oms_aws_emulator.secret_key, region_name=oms_aws_emulator.region
    )
    async with AsyncExitStack() as stack:
        clients = {
            service: await stack.enter_async_context(
                session.client(service, endpoint_url=oms_aws_emulator.endpoint_url)
            )
            for service in ("events", "sqs")
        }
        yield clients.__getitem__


@pytest.fixture
async def bus(aws: Callable[[str], Any]) -> Bus:
    name = f"bus-{uuid.uuid4().hex[:12]}"
    events, sqs = aws("events"), aws("sqs")
    await events.create_event_bus(Name=name)
    queue_url = (await sqs.create_queue(QueueName=name))["QueueUrl"]
    attributes = await sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    # Every event has an account, so this pattern takes all.
    await events.put_rule(Name=name, EventBusName=name, EventPattern=json.dumps({"account": [{"exists": True}]}))
    await events.put_targets(
        Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": attributes["Attributes"]["QueueArn"]}]
    )
    return Bus(name, queue_url, sqs)


@pytest.fixture
def configure(oms_aws_emulator: AwsEmulator, bus: Bus) -> Configure:
    """Makes a configuration that leads to the emulator and the bus."""

    def make(**changes: Any) -> EventBridgeConfig:
        settings: dict[str, Any] = {
            "event_bus_name": bus.name,
            "aws_region": oms_aws_emulator.region,
            "endpoint_url": oms_aws_emulator.endpoint_url,
            "aws_access_key_id": oms_aws_emulator.access_key,
            "aws_secret_access_key": oms_aws_emulator.secret_key,
            "read_timeout": 2.0,
        }
        settings.update(changes)
        return EventBridgeConfig(**{name: value for name, value in settings.items() if value is not None})

    return make


@pytest.fixture
async def opened(configure: Configure) -> AsyncIterator[Open]:
    """Opens publishers that the test need not close."""
    async with AsyncExitStack() as stack:

        async def open_one(**changes: Any) -> EventBridgePublisher:
            publisher = EventBridgePublisher(configure(**changes))
            stack.push_async_callback(publisher.close)
            await publisher.open()
            return publisher

        yield open_one


@pytest.fixture(params=["direct", "ordinary"])
def direct_calls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "direct")
