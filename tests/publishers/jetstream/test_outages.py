from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from oms_events.devstack import NatsServer
from oms_events.errors import TransientError, UnknownOutcomeError
from oms_events.publishers.jetstream import JetStreamPublisher, NatsConfig
from oms_events.publishing import Receipt
from tests.publishers.jetstream.conftest import Stream, make_events, make_stream, until

UNBOUNDED_WRITELINES_UNTIL = {(3, 12): (3, 12, 9), (3, 13): (3, 13, 2)}


@pytest.fixture
async def server() -> AsyncIterator[NatsServer]:
    async with NatsServer() as server:
        yield server


@pytest.fixture
async def client(server: NatsServer) -> AsyncIterator[Client]:
    """A client as users have it: it buffers while it reconnects."""
    client = await nats.connect(server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_quiet)
    yield client
    await client.close()


@pytest.fixture
async def stream(client: Client) -> AsyncIterator[Stream]:
    async with make_stream(client) as stream:
        yield stream


@pytest.fixture(params=["borrowed", "own"])
async def publisher(
    request: pytest.FixtureRequest, server: NatsServer, client: Client, stream: Stream, fast_path: bool
) -> AsyncIterator[JetStreamPublisher]:
    own = NatsConfig(servers=(server.url,), reconnect_wait=0.05)
    connection = client if request.param == "borrowed" else own
    options = stream.options(fast_path=fast_path)
    async with JetStreamPublisher(connection, options=options) as publisher:
        yield publisher


async def _quiet(_: Exception) -> None:
    pass


async def deliver(publisher: JetStreamPublisher, events: Any) -> list[Receipt]:
    """Publishes until all is delivered, as the layers above do."""
    receipts: list[Receipt] = []
    async with asyncio.timeout(15):
        while events:
            results = await publisher.publish(events, timeout=5)
            receipts += [result for result in results if isinstance(result, Receipt)]
            events = [
                event for event, result in zip(events, results, strict=True) if not isinstance(result, Receipt)
            ]
            await asyncio.sleep(0.01)
    return receipts


async def test_killed_in_a_batch_of_ten_thousand(
    server: NatsServer, client: Client, stream: Stream, publisher: JetStreamPublisher
) -> None:
    seen = 0
    halfway = asyncio.Event()

    async def count(_: Msg) -> None:
        nonlocal seen
        seen += 1
        if seen == 2000:
            halfway.set()

    await client.subscribe(f"{stream.name}.>", cb=count)
    events = make_events(10_000)
    publishing = asyncio.create_task(publisher.publish(events, timeout=20))
    await asyncio.wait_for(halfway.wait(), 15)
    await server.kill()
    results = await asyncio.wait_for(publishing, 10)
    outcomes = Counter(type(result) for result in results)
    assert set(outcomes) == {Receipt, UnknownOutcomeError, TransientError}
    assert outcomes.total() == 10_000

    await server.start()
    await until(lambda: client.is_connected)
    (probe,) = make_events(1)
    await deliver(publisher, [probe])
    stored = await stream.ids()
    assert stored.pop() == probe.id
    assert len(stored) == len(set(stored))
    by_type: dict[type, set[str]] = {kind: set() for kind in outcomes}
    for event, result in zip(events, results, strict=True):
        by_type[type(result)].add(event.id)
        if isinstance(result, Receipt):
            assert stored[(result.sequence or 0) - 1] == event.id
    assert by_type[TransientError].isdisjoint(stored)
    assert set(stored) - by_type[UnknownOutcomeError] == by_type[Receipt]

    unknown = [event for event in events if event.id in by_type[UnknownOutcomeError]]
    receipts = await deliver(publisher, unknown)
    assert sum(receipt.duplicate for receipt in receipts) == len(set(stored) & by_type[UnknownOutcomeError])
    assert sorted(await stream.ids()) == sorted({probe.id} | by_type[Receipt] | by_type[UnknownOutcomeError])


async def test_a_lost_connection_settles_what_is_in_flight_at_once(
    server: NatsServer, publisher: JetStreamPublisher
) -> None:
    server.pause()
    publishing = asyncio.create_task(publisher.publish(make_events(10), timeout=30))
    await until(lambda: publisher.describe()["in_flight"] == 10)
    await server.kill()
    results = await asyncio.wait_for(publishing, 3)
    assert {type(result) for result in results} == {UnknownOutcomeError}
    assert "connection was lost" in str(results[0])
    await server.start()


async def test_without_a_connection_nothing_is_sent_ever(
    server: NatsServer, client: Client, stream: Stream, publisher: JetStreamPublisher
) -> None:
    await server.kill()
    await until(lambda: not publisher.describe()["connected"] and not client.is_connected)
    results = await asyncio.wait_for(publisher.publish(make_events(5), timeout=30), 2)
    assert {type(result) for result in results} == {TransientError}
    with pytest.raises(TransientError):
        await publisher.check()
    await server.start()
    await until(lambda: client.is_connected)
    await deliver(publisher, make_events(1))
    await publisher.check()
    assert await stream.size() == 1
    assert publisher.describe()["reconnects"] == 1


async def test_a_paused_server_fails_the_check_in_time(server: NatsServer, stream: Stream) -> None:
    options = stream.options(request_timeout=0.2)
    async with JetStreamPublisher(NatsConfig(servers=(server.url,)), options=options) as publisher:
        server.pause()
        try:
            with pytest.raises(TransientError, match=r"did not answer .* within 0.2 s"):
                await asyncio.wait_for(publisher.check(), 2)
        finally:
            server.resume()
        await publisher.check()


async def test_opening_on_a_paused_server_leaves_the_client_alive(
    server: NatsServer, client: Client, stream: Stream, fast_path: bool
) -> None:
    options = stream.options(request_timeout=0.1, fast_path=fast_path)
    publisher = JetStreamPublisher(client, options=options)
    server.pause()
    try:
        with pytest.raises(TransientError, match="did not answer within"):
            await publisher.open()
    finally:
        server.resume()
    await client.flush()
    await publisher.open()
    await deliver(publisher, make_events(1))
    await publisher.close()
    assert client.stats["reconnects"] == 0


async def test_a_paused_server_takes_no_unbounded_backlog(
    server: NatsServer, publisher: JetStreamPublisher, client: Client, fast_path: bool
) -> None:
    """What cannot leave is not written: repeated attempts against a hanging server end as not sent."""
    if not fast_path and (3, 12) <= sys.version_info < UNBOUNDED_WRITELINES_UNTIL.get(sys.version_info[:2], (0,)):
        pytest.skip("this Python's asyncio buffers writelines without bound (CVE-2024-12254); update it")
    events = make_events(64, padding="x" * 30_000)
    server.pause()
    try:
        kinds: list[set[type]] = []
        for _ in range(12):
            results = await publisher.publish(events, timeout=0.15)
            kinds.append({type(result) for result in results})
    finally:
        server.resume()
    assert kinds[0] == {UnknownOutcomeError}
    assert kinds[-1] == {TransientError}
    await deliver(publisher, events)
