"""Opening, closing, and what a receiver outlives."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from oms_events._aio import SystemClock
from oms_events.devstack import NatsServer
from oms_events.errors import PlatformDeniedError, TransientError
from oms_events.publishers.jetstream import NatsConfig
from oms_events.receiving import JetStreamReceiver
from tests.publishers.jetstream.conftest import Stream, make_stream
from tests.receiving.conftest import Handler, all_acknowledged, config_for, is_full, publish, until

pytestmark = pytest.mark.serial


def own_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("oms-events-receiver")]


async def test_a_borrowed_connection_stays_open_and_no_task_is_left(
    client: Client, stream: Stream, handler: Handler
) -> None:
    receiver = JetStreamReceiver(client, config_for(stream), handler)
    await receiver.close()
    subscriptions = len(client._subs)
    for rounds in (1, 2):
        await receiver.open()
        await receiver.open()
        assert len(own_tasks()) == 3
        await publish(stream, client, 1)
        await until(lambda count=rounds: len(handler.ids) == count)  # type: ignore[misc]
        await receiver.close()
        await receiver.close()
        assert own_tasks() == []
    assert client.is_connected
    assert len(client._subs) == subscriptions
    assert len(handler.ids) == 2


async def test_an_own_connection_is_closed(oms_nats_server: NatsServer, stream: Stream, handler: Handler) -> None:
    states: list[str] = []
    config = NatsConfig(servers=(oms_nats_server.url,))
    receiver = JetStreamReceiver(
        config, config_for(stream), handler, on_state=lambda state, text: states.append(state)
    )
    async with receiver:
        assert receiver.describe()["own_connection"] is True
    assert states == ["connected"]
    assert not [task for task in asyncio.all_tasks() if "nats" in task.get_name()]


async def test_closing_waits_for_the_handler_and_gives_the_rest_back(
    client: Client, stream: Stream, handler: Handler
) -> None:
    handler.gate.clear()
    ids = await publish(stream, client, 6)
    # Only what is given back comes again soon: the server would wait a minute.
    config = config_for(stream, batch=2, ack_wait=60)
    receiver = JetStreamReceiver(client, config, handler)
    await receiver.open()
    await until(lambda: is_full(receiver, 2))
    held = receiver.describe()["in_hand"]
    closing = asyncio.create_task(receiver.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    handler.gate.set()
    await closing
    assert handler.ids == ids[:held]
    assert receiver.describe()["handled"] == held
    async with JetStreamReceiver(client, config, other := Handler()):
        await until(lambda: len(other.ids) == 6 - held, seconds=5)
        await all_acknowledged(stream)
    assert sorted(other.ids) == sorted(ids[held:])


async def test_closing_cancels_a_handler_that_does_not_end(
    client: Client, stream: Stream, handler: Handler
) -> None:
    handler.gate.clear()
    ids = await publish(stream, client, 3)
    config = config_for(stream, ack_wait=60, stop_timeout=0.05)
    receiver = JetStreamReceiver(client, config, handler)
    await receiver.open()
    await until(lambda: bool(handler.ids))
    async with asyncio.timeout(5):
        await receiver.close()
    assert own_tasks() == []
    async with JetStreamReceiver(client, config, other := Handler()):
        await until(lambda: len(other.ids) == 3, seconds=5)
    assert sorted(other.ids) == sorted(ids)


async def test_what_must_be_there_is_asked_for(client: Client, stream: Stream, handler: Handler) -> None:
    with pytest.raises(PlatformDeniedError, match=r"stream 'NO' does not exist"):
        await JetStreamReceiver(client, config_for(Stream("NO", stream.js)), handler).open()
    with pytest.raises(PlatformDeniedError, match=r"has no consumer 'projections'; make it, or set manage"):
        await JetStreamReceiver(client, config_for(stream, manage=False), handler).open()
    await stream.js.add_consumer(stream.name, durable_name="pushing", deliver_subject="x", ack_policy="explicit")
    with pytest.raises(PlatformDeniedError, match=r"pushes its messages"):
        await JetStreamReceiver(client, config_for(stream, durable="pushing"), handler).open()
    await stream.js.add_consumer(stream.name, durable_name="careless", ack_policy="none")
    with pytest.raises(PlatformDeniedError, match=r"ack_policy = 'none'"):
        await JetStreamReceiver(client, config_for(stream, durable="careless"), handler).open()
    too_far = config_for(stream, subjects=(f"{stream.name}.a", f"{stream.name}.a"))
    with pytest.raises(PlatformDeniedError, match=r"cannot be used: .* change the configuration"):
        await JetStreamReceiver(client, too_far, handler).open()
    assert own_tasks() == []


async def test_a_server_that_is_not_there_is_told(handler: Handler) -> None:
    config = NatsConfig(servers=("nats://127.0.0.1:1",), connect_timeout=0.5)
    receiver = JetStreamReceiver(config, config_for(Stream("S", None)), handler)  # type: ignore[arg-type]
    with pytest.raises(TransientError):
        await receiver.open()
    assert receiver.describe()["open"] is False


async def test_a_consumer_that_others_made_keeps_its_settings(
    client: Client, stream: Stream, handler: Handler
) -> None:
    await stream.js.add_consumer(
        stream.name, durable_name="projections", ack_policy="explicit", ack_wait=7, description="theirs"
    )
    async with JetStreamReceiver(client, config_for(stream, manage=False), handler):
        await publish(stream, client, 1)
        await until(lambda: len(handler.ids) == 1)
    info = await stream.js.consumer_info(stream.name, "projections")
    assert (info.config.ack_wait, info.config.description) == (7, "theirs")
    async with JetStreamReceiver(client, config_for(stream, ack_wait=9), handler):
        info = await stream.js.consumer_info(stream.name, "projections")
        assert (info.config.ack_wait, info.config.description) == (9, "theirs")


async def test_jetstream_itself_gives_no_message_up(
    client: Client, stream: Stream, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    await stream.js.add_consumer(
        stream.name, durable_name="projections", ack_policy="explicit", max_deliver=2, backoff=[0.1, 0.2]
    )
    handler.answer = lambda event: OSError("not now") if len(handler.ids) < 5 else None
    with caplog.at_level(logging.WARNING, "oms_events"):
        async with JetStreamReceiver(client, config_for(stream, manage=False), handler):
            pass
        assert "has max_deliver = 2" in caplog.text
        caplog.clear()
        await publish(stream, client, 1)
        async with JetStreamReceiver(client, config_for(stream), handler):
            await until(lambda: len(handler.ids) == 5)
            await all_acknowledged(stream)
        async with JetStreamReceiver(client, config_for(stream, manage=False), handler):
            pass
        assert "max_deliver" not in caplog.text


class Faults:
    """Raised once, where it is said to be."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error: type[BaseException] | None = error

    def __call__(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error


class FaultyClient(Client):
    faults: Faults

    async def publish(self, subject: str, *args: Any, **options: Any) -> None:
        if ".MSG.NEXT." in subject:
            self.faults()
        await super().publish(subject, *args, **options)


class FaultyClock(SystemClock):
    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    async def sleep(self, seconds: float) -> None:
        self.faults()
        await super().sleep(seconds)


class FaultyRandom(random.Random):
    faults: Faults

    def random(self) -> float:
        self.faults()
        return super().random()


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
class TestFaultsInside:
    async def test_fetching_goes_on(
        self, oms_nats_server: NatsServer, client: Client, stream: Stream, handler: Handler, error: Any
    ) -> None:
        faulty = FaultyClient()
        faulty.faults = Faults(error)
        await faulty.connect(oms_nats_server.url)
        ids = await publish(stream, client, 3)
        async with JetStreamReceiver(faulty, config_for(stream), handler):
            await until(lambda: handler.ids == ids)
            await all_acknowledged(stream)
        assert faulty.faults.error is None
        await faulty.close()

    async def test_holding_goes_on(self, client: Client, stream: Stream, handler: Handler, error: Any) -> None:
        faults = Faults(error)
        handler.gate.clear()
        ids = await publish(stream, client, 2)
        config = config_for(stream, batch=1, ack_wait=0.4)
        async with JetStreamReceiver(client, config, handler, clock=FaultyClock(faults)) as receiver:
            await until(lambda: receiver.describe()["waiting"] == 1)
            async with JetStreamReceiver(client, config, other := Handler()):
                await asyncio.sleep(1.0)
            handler.gate.set()
            await all_acknowledged(stream)
        assert (handler.ids, other.ids) == (ids, [])
        assert faults.error is None

    async def test_handling_goes_on_and_the_batch_comes_again(
        self, client: Client, stream: Stream, handler: Handler, error: Any
    ) -> None:
        rng = FaultyRandom()
        rng.faults = Faults(error)
        handler.answer = lambda event: OSError("not now") if len(handler.ids) == 1 else None
        (first,) = await publish(stream, client, 1)
        async with JetStreamReceiver(client, config_for(stream, ack_wait=0.4), handler, rng=rng):
            # Where the failed message's next delivery is set.
            await until(lambda: handler.ids == [first, first])
            await all_acknowledged(stream)
        assert rng.faults.error is None


@pytest.mark.parametrize("what", ["fetch", "handle", "hold"])
async def test_a_task_that_others_cancel_keeps_no_messages(
    client: Client, stream: Stream, handler: Handler, what: str
) -> None:
    handler.gate.clear()
    ids = await publish(stream, client, 3)
    config = config_for(stream, batch=1, ack_wait=0.4)
    async with JetStreamReceiver(client, config, handler) as receiver:
        await until(lambda: receiver.describe()["waiting"] == 1)
        (task,) = (one for one in asyncio.all_tasks() if one.get_name().endswith(f"projections-{what}"))
        task.cancel()
        await until(lambda: not own_tasks())
        assert receiver.describe()["open"] is False
        assert f"{what} was cancelled by others" in str(receiver.describe()["trouble"])
        async with JetStreamReceiver(client, config, other := Handler()):
            await until(lambda: set(other.ids) == set(ids))
            await all_acknowledged(stream)
        await receiver.close()
        await receiver.open()
        assert receiver.describe()["open"] is True


async def test_a_consumer_that_was_deleted_is_made_anew(client: Client, stream: Stream, handler: Handler) -> None:
    async with JetStreamReceiver(client, config_for(stream), handler) as receiver:
        before = await publish(stream, client, 2)
        await all_acknowledged(stream)
        await stream.js.delete_consumer(stream.name, "projections")
        after = await publish(stream, client, 2)
        await until(lambda: set(handler.ids[2:]) >= set(after))
        await all_acknowledged(stream)
        await until(lambda: receiver.describe()["trouble"] is None)
    # From the beginning again: none is lost.
    assert handler.ids[2:] == before + after


async def test_a_stream_that_was_deleted_is_waited_for(client: Client, stream: Stream, handler: Handler) -> None:
    async with JetStreamReceiver(client, config_for(stream), handler) as receiver:
        await publish(stream, client, 1)
        await all_acknowledged(stream)
        await stream.js.delete_stream(stream.name)
        await until(lambda: "does not exist" in str(receiver.describe()["trouble"]))
        await stream.js.add_stream(name=stream.name, subjects=[f"{stream.name}.>"])
        (event_id,) = await publish(stream, client, 1)
        await until(lambda: event_id in handler.ids)


class TestOutages:
    @pytest.fixture
    async def server(self) -> AsyncIterator[NatsServer]:
        async with NatsServer() as server:
            yield server

    @pytest.fixture
    async def client(self, server: NatsServer) -> AsyncIterator[Client]:
        client = await nats.connect(
            server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_quiet, ping_interval=1
        )
        yield client
        await client.close()

    @pytest.fixture(params=["borrowed", "own"])
    def connection(self, request: pytest.FixtureRequest, server: NatsServer, client: Client) -> Any:
        own = NatsConfig(servers=(server.url,), reconnect_wait=0.05)
        return client if request.param == "borrowed" else own

    async def test_a_server_that_is_killed_and_comes_back(
        self, server: NatsServer, client: Client, connection: Any, handler: Handler
    ) -> None:
        async with (
            make_stream(client) as stream,
            # Noticed by the connection: the missing heartbeats would show after ten seconds only.
            JetStreamReceiver(connection, config_for(stream, batch=10, heartbeat=4.0), handler) as receiver,
        ):
            ids = await publish(stream, client, 200)
            await until(lambda: len(handler.ids) >= 50)
            await server.kill()
            await server.start()
            await until(lambda: set(handler.ids) == set(ids), seconds=7)
            # And once more while it waits for messages.
            await server.kill()
            await server.start()
            await until(lambda: client.is_connected)
            ids += await publish(stream, client, 50)
            await until(lambda: set(handler.ids) == set(ids), seconds=7)
            await all_acknowledged(stream)
            await until(lambda: receiver.describe()["trouble"] is None)

    async def test_what_is_in_the_handler_while_the_server_restarts_is_not_lost(
        self, server: NatsServer, client: Client, connection: Any, handler: Handler
    ) -> None:
        async with make_stream(client) as stream:
            config = config_for(stream, batch=10, ack_wait=0.5)
            async with JetStreamReceiver(connection, config, handler) as receiver:
                handler.gate.clear()
                ids = await publish(stream, client, 30)
                await until(lambda: receiver.describe()["in_hand"] > 0)
                await server.kill()
                await until(lambda: not client.is_connected)
                # Its acknowledgements find no server.
                handler.gate.set()
                await until(lambda: receiver.describe()["in_hand"] == 0)
                await server.start()
                await all_acknowledged(stream)
                assert set(handler.ids) == set(ids)

    async def test_a_server_that_is_silent_is_noticed(
        self, server: NatsServer, client: Client, connection: Any, handler: Handler
    ) -> None:
        async with (
            make_stream(client) as stream,
            JetStreamReceiver(connection, config_for(stream, heartbeat=0.1), handler) as receiver,
        ):
            await publish(stream, client, 1)
            await until(lambda: len(handler.ids) == 1)
            server.pause()
            await until(lambda: "no sign of life" in str(receiver.describe()["trouble"]))
            server.resume()
            (event_id,) = await publish(stream, client, 1)
            await until(lambda: event_id in handler.ids)
            await until(lambda: receiver.describe()["trouble"] is None)

    async def test_closing_while_the_server_is_gone(
        self, server: NatsServer, client: Client, connection: Any, handler: Handler
    ) -> None:
        async with make_stream(client) as stream:
            receiver = JetStreamReceiver(connection, config_for(stream), handler)
            await receiver.open()
            await server.kill()
            async with asyncio.timeout(5):
                await receiver.close()
            assert own_tasks() == []
            await server.start()
            await until(lambda: client.is_connected)


async def test_missing_permissions_are_named(handler: Handler) -> None:
    users = """
    authorization { users: [
        {user: admin, password: admin}
        {user: blind, password: blind, permissions: {
            publish: ["$JS.API.CONSUMER.INFO.>"], subscribe: ["_INBOX.>"]
        }}
    ] }
    """
    async with NatsServer(config=users) as server:
        client = await nats.connect(server.url, user="admin", password="admin")
        async with make_stream(client) as stream:
            blind = NatsConfig(servers=(server.url,), user="blind", password="blind")
            with pytest.raises(PlatformDeniedError, match=r"no permission for \$JS\.API\.CONSUMER\.CREATE"):
                await JetStreamReceiver(blind, config_for(stream, request_timeout=0.2), handler).open()
            with pytest.raises(NotFoundError):
                await stream.js.consumer_info(stream.name, "projections")
            await stream.js.add_consumer(stream.name, durable_name="projections", ack_policy="explicit")
            async with JetStreamReceiver(blind, config_for(stream, manage=False), handler) as receiver:
                await until(
                    lambda: (
                        "no permission to publish to $JS.API.CONSUMER.MSG.NEXT"
                        in str(receiver.describe()["trouble"])
                    )
                )
        await client.close()


async def _quiet(_: Exception) -> None:
    pass
