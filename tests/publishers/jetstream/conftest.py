from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from cloudevents.core.v1.event import CloudEvent
from nats.aio.client import Client
from nats.js.client import JetStreamContext

from oms_events.devstack import NatsServer, NatsTls
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.publishers.jetstream import JetStreamOptions, JetStreamPublisher, from_nats_message

TYPE = "com.foundry.oms.schema.created"


def make_events(count: int, **attributes: Any) -> list[EncodedEvent]:
    return [encode(build_event(TYPE, "/oms/main", {"number": number}, **attributes)) for number in range(count)]


async def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - the server's doings are no events of this loop
            await asyncio.sleep(0.002)


def certificate(folder: Path, name: str) -> NatsTls:
    """A self-signed certificate that is its own authority."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return NatsTls(cert=cert, key=key)


@dataclass
class Stream:
    """A stream of this test's own; publishers reach it with the options that `options` gives."""

    name: str
    js: JetStreamContext

    def options(self, **changes: Any) -> JetStreamOptions:
        values = {"subject": f"{self.name}.{{type}}", "stream": self.name} | changes
        return JetStreamOptions(**values)

    async def size(self) -> int:
        return (await self.js.stream_info(self.name)).state.messages

    async def message(self, sequence: int) -> Any:
        return await self.js.get_msg(self.name, sequence)

    async def ids(self) -> list[str]:
        """The events' ids in the order of the stream, quickly."""
        size = await self.size()
        subscription = await self.js.subscribe(f"{self.name}.>", ordered_consumer=True, stream=self.name)
        messages = [await subscription.next_msg(timeout=5) for _ in range(size)]
        await subscription.unsubscribe()
        return [message.headers["ce-id"] for message in messages]

    async def read(self) -> list[CloudEvent]:
        messages = [await self.message(sequence + 1) for sequence in range(await self.size())]
        return [from_nats_message(message.headers, message.data) for message in messages]


@pytest.fixture
async def client(oms_nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(oms_nats_server.url)
    yield client
    await client.close()


@pytest.fixture
async def stream(client: Client) -> AsyncIterator[Stream]:
    async with make_stream(client) as stream:
        yield stream


class make_stream:  # noqa: N801 - used like a function
    def __init__(self, client: Client, **config: Any) -> None:
        self.stream = Stream(f"T{uuid.uuid4().hex}", client.jetstream())
        self._config = {"subjects": [f"{self.stream.name}.>"]} | config

    async def __aenter__(self) -> Stream:
        await self.stream.js.add_stream(name=self.stream.name, **self._config)
        return self.stream

    async def __aexit__(self, *_: object) -> None:
        if self.stream.js._nc.is_connected:
            await self.stream.js.delete_stream(self.stream.name)


@pytest.fixture(params=[True, False], ids=["fast", "public"])
def fast_path(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def publisher(client: Client, stream: Stream, fast_path: bool) -> AsyncIterator[JetStreamPublisher]:
    async with JetStreamPublisher(client, options=stream.options(fast_path=fast_path)) as publisher:
        assert publisher.describe()["fast_path"] is fast_path
        yield publisher


@pytest.fixture
def open_with(client: Client, stream: Stream) -> Callable[..., JetStreamPublisher]:
    return lambda **changes: JetStreamPublisher(client, options=stream.options(**changes))
