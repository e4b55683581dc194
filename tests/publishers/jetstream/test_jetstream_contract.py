from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events.devstack import NatsServer
from oms_events.publishers.jetstream import (
    JetStreamOptions,
    JetStreamPublisher,
    NatsConfig,
    StreamPolicy,
    StreamSpec,
    from_nats_message,
)
from oms_events.testing.contract import PublisherContract, make_event
from tests.publishers.jetstream.conftest import until

SPEC = StreamSpec(name="CONTRACT", subjects=("oms.>",))


class JetStreamContract(PublisherContract):
    server: NatsServer

    async def stored(self, publisher: Any, count: int) -> list[CloudEvent]:
        client = await nats.connect(self.server.url)
        try:
            js = client.jetstream()
            size = (await js.stream_info(SPEC.name)).state.messages
            messages = [await js.get_msg(SPEC.name, sequence + 1) for sequence in range(size)]
            assert len(messages) >= count
            return [from_nats_message(message.headers, message.data or b"") for message in messages]
        finally:
            await client.close()

    def unopened(self, publisher: Any) -> JetStreamPublisher:
        return JetStreamPublisher(NatsConfig(servers=(self.server.url,)))

    def too_large(self, publisher: Any) -> CloudEvent:
        return make_event("x" * 1_100_000)

    @asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        self.server.pause()
        try:
            yield
        finally:
            self.server.resume()

    def outage(self, publisher: Any) -> Any:
        return self._paused()


@pytest.fixture
async def server() -> AsyncIterator[NatsServer]:
    async with NatsServer() as server:
        yield server


class TestOwnConnection(JetStreamContract):
    @pytest.fixture
    async def publisher(self, server: NatsServer) -> AsyncIterator[JetStreamPublisher]:
        type(self).server = server
        options = JetStreamOptions(stream=SPEC, policy=StreamPolicy.CREATE, request_timeout=0.5)
        async with JetStreamPublisher(NatsConfig(servers=(server.url,)), options=options) as publisher:
            yield publisher


class TestBorrowedClientPublicPath(JetStreamContract):
    @pytest.fixture
    async def publisher(self, server: NatsServer) -> AsyncIterator[JetStreamPublisher]:
        type(self).server = server
        client = await nats.connect(server.url)
        options = JetStreamOptions(stream=SPEC, policy=StreamPolicy.CREATE, request_timeout=0.5, fast_path=False)
        async with JetStreamPublisher(client, options=options) as publisher:
            yield publisher
        await client.close()
        await until(lambda: client.is_closed)
