from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from oms_events.devstack import NatsServer
from oms_events.errors import TransientError, UnknownOutcomeError
from oms_events.publishers.jetstream import JetStreamOptions, JetStreamPublisher, NatsConfig
from oms_events.publishing import Receipt
from tests.publishers.jetstream.conftest import Stream, make_events, make_stream, until

pytestmark = pytest.mark.serial

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
    results = await asyncio.wait_for(publishing, 10)
    assert {type(result) for result in results} == {UnknownOutcomeError}
    assert "connection was lost" in str(results[0])
    await server.start()


async def test_without_a_connection_nothing_is_sent_ever(
    server: NatsServer, client: Client, stream: Stream, publisher: JetStreamPublisher
) -> None:
    await server.kill()
    await until(lambda: not publisher.describe()["connected"] and not client.is_connected)
    results = await asyncio.wait_for(publisher.publish(make_events(5), timeout=30), 10)
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
                await asyncio.wait_for(publisher.check(), 10)
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
            if kinds[-1] == {TransientError}:
                break
    finally:
        server.resume()
    assert kinds[0] == {UnknownOutcomeError}
    assert kinds[-1] == {TransientError}
    await deliver(publisher, events)


async def test_a_server_that_hangs_with_a_backlog_is_left_for_the_next(fast_path: bool) -> None:
    async with NatsServer() as one, NatsServer() as two:
        for each in (one, two):
            async with await nats.connect(each.url) as client:
                await client.jetstream().add_stream(name="S", subjects=["oms.>"])
        config = NatsConfig(servers=(one.url, two.url), ping_interval=0.1, reconnect_wait=0.05)
        options = JetStreamOptions(stream="S", fast_path=fast_path)
        async with JetStreamPublisher(config, options=options) as publisher:
            hanging = one if str(one.port) in publisher.describe()["connected_to"] else two
            hanging.pause()
            try:
                await publisher.publish(make_events(100, padding="x" * 100_000), timeout=0.2)
                async with asyncio.timeout(5):
                    await deliver(publisher, make_events(1))
            finally:
                hanging.resume()


async def test_closing_on_a_server_that_hangs_leaves_no_socket(
    server: NatsServer, stream: Stream, fast_path: bool
) -> None:
    options = stream.options(fast_path=fast_path)
    publisher = JetStreamPublisher(NatsConfig(servers=(server.url,)), options=options)
    await publisher.open()
    link = publisher._link
    assert link is not None
    writer: Any = link.client._transport._io_writer  # type: ignore[union-attr]
    socket = writer.get_extra_info("socket")
    server.pause()
    try:
        await publisher.publish(make_events(100, padding="x" * 100_000), timeout=0.2)
        assert writer.transport.get_write_buffer_size()
        async with asyncio.timeout(5):
            await publisher.close()
            await until(lambda: socket.fileno() == -1)
    finally:
        server.resume()


async def test_reconnects_to_a_server_that_hangs_pile_up_no_sockets(server: NatsServer, stream: Stream) -> None:
    config = NatsConfig(servers=(server.url,), ping_interval=0.05, reconnect_wait=0.01, connect_timeout=0.05)
    async with JetStreamPublisher(config, options=stream.options()) as publisher:
        link = publisher._link
        assert link is not None
        sockets: set[Any] = set()

        def another() -> bool:
            writer: Any = getattr(link.client._transport, "_io_writer", None)
            if writer is not None and (socket := writer.get_extra_info("socket")) is not None:
                sockets.add(socket)
            return len(sockets) >= 5

        server.pause()
        try:
            await until(another)
            assert sum(socket.fileno() != -1 for socket in sockets) <= 1
        finally:
            server.resume()
        await deliver(publisher, make_events(1))


async def test_an_own_connection_buffers_nothing_while_it_is_away(server: NatsServer, stream: Stream) -> None:
    config = NatsConfig(servers=(server.url,), reconnect_wait=0.05)
    async with JetStreamPublisher(config, options=stream.options()) as publisher:
        link = publisher._link
        assert link is not None
        await server.kill()
        await until(lambda: not link.client.is_connected)
        with pytest.raises(errors.OutboundBufferLimitError):
            await link.client.publish(f"{stream.name}.x", b"")
        await server.start()


async def test_what_is_in_flight_over_a_quick_reconnect_is_unknown_at_once(
    client: Client, stream: Stream, fast_path: bool
) -> None:
    # Somebody listens, and never acknowledges.
    await client.subscribe("silent.>", cb=_ignore)
    options = stream.options(subject="silent.{type}", fast_path=fast_path, ack_timeout=30)
    async with JetStreamPublisher(client, options=options) as publisher:
        publishing = asyncio.create_task(publisher.publish(make_events(3), timeout=30))
        await until(lambda: publisher.describe()["in_flight"] == 3)
        client.options["reconnect_time_wait"] = 0
        client._transport._io_writer.transport.abort()  # type: ignore[union-attr]
        results = await asyncio.wait_for(publishing, 5)
        assert {type(result) for result in results} == {UnknownOutcomeError}
        assert "connection was lost" in str(results[0])
        await until(lambda: client.is_connected)


async def test_events_before_one_that_the_client_does_not_take_keep_their_acks(
    server: NatsServer, stream: Stream
) -> None:
    class Full(Client):
        """A client whose buffer is full at the sixth message."""

        taken = 0

        async def publish(self, subject: str, *args: Any, **options: Any) -> None:
            if subject.startswith(stream.name):
                self.taken += 1
                if self.taken == 6:
                    raise errors.OutboundBufferLimitError
            await super().publish(subject, *args, **options)

    client = Full()
    await client.connect(server.url)
    async with JetStreamPublisher(client, options=stream.options(fast_path=False)) as publisher:
        results = await asyncio.wait_for(publisher.publish(make_events(10), timeout=30), 10)
        assert [type(result) for result in results] == [Receipt] * 5 + [TransientError] * 5
    assert await stream.size() == 5
    await client.close()


async def _ignore(_: Msg) -> None:
    pass
