from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from nats.aio.client import Client

from oms_events.devstack import NatsServer
from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent
from oms_events.publishers.jetstream import JetStreamPublisher, NatsConfig
from oms_events.publishing import Receipt
from oms_events.receiving import Dropped, JetStreamReceiver, ReceiverConfig
from tests.publishers.jetstream.conftest import Stream, client, make_events, stream, until

__all__ = ["client", "stream"]


class Handler:
    """What the receiver gives, and the answers it gets: `answer(event)` says them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.answer: Callable[[EncodedEvent], Exception | None] = lambda event: None
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def ids(self) -> list[str]:
        return [event_id for batch in self.batches for event_id in batch]

    async def __call__(self, events: Sequence[EncodedEvent]) -> list[Exception | None]:
        self.batches.append([event.id for event in events])
        await self.gate.wait()
        return [self.answer(event) for event in events]


def config_for(stream: Stream, **changes: Any) -> ReceiverConfig:
    quick = {"heartbeat": 0.2, "retry_initial": 0.05, "retry_maximum": 0.2, "ack_wait": 1.0}
    return ReceiverConfig(**{"stream": stream.name, "durable": "projections", **quick, **changes})


async def publish(stream: Stream, client: Client, count: int, **attributes: Any) -> list[str]:
    """Publishes events, and gives their ids."""
    events = make_events(count, **attributes)
    async with JetStreamPublisher(client, options=stream.options()) as publisher:
        receipts = await publisher.publish(events, timeout=10)
    assert all(isinstance(receipt, Receipt) for receipt in receipts)
    return [event.id for event in events]


async def all_acknowledged(stream: Stream, durable: str = "projections") -> None:
    """Waits until the consumer has nothing left: neither to deliver nor to hear of."""
    async with asyncio.timeout(15):
        while True:
            info = await stream.js.consumer_info(stream.name, durable)
            if info.num_pending == 0 and info.num_ack_pending == 0:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture(params=["borrowed", "own"])
def connection(request: pytest.FixtureRequest, oms_nats_server: NatsServer, client: Client) -> Client | NatsConfig:
    return client if request.param == "borrowed" else NatsConfig(servers=(oms_nats_server.url,))


@pytest.fixture
async def receiver(client: Client, stream: Stream, handler: Handler) -> AsyncIterator[JetStreamReceiver]:
    """A receiver that is not open yet."""
    receiver = JetStreamReceiver(client, config_for(stream), handler)
    yield receiver
    await receiver.close()


class Drops:
    """Hears of dropped messages."""

    def __init__(self) -> None:
        self.all: list[Dropped] = []

    def __call__(self, dropped: Dropped) -> None:
        self.all.append(dropped)


__all__ += ["Drops", "InvalidEventError", "until"]


def is_full(receiver: JetStreamReceiver, batch: int) -> bool:
    """Whether it asks for no more before its handler has ended: that may have got less than a whole batch."""
    told = receiver.describe()
    return bool(told["waiting"]) and (told["in_hand"] + told["waiting"]) % batch == 0
