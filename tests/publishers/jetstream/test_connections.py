from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from oms_events.devstack import NatsServer, NatsTls
from oms_events.devstack.server import free_port
from oms_events.errors import AddressDeniedError, PlatformDeniedError, TransientError, UnknownOutcomeError
from oms_events.events import build_event, encode
from oms_events.publishers.jetstream import (
    ConnectionState,
    JetStreamOptions,
    JetStreamPublisher,
    NatsConfig,
    StreamPolicy,
    StreamSpec,
)
from oms_events.publishing import Receipt
from tests.publishers.jetstream.conftest import TYPE, certificate, make_events, until

pytestmark = pytest.mark.serial

SPEC = StreamSpec(name="OMS", subjects=("oms.>",))
MAKE = JetStreamOptions(stream=SPEC, policy=StreamPolicy.CREATE)


def config(server: NatsServer, **values: Any) -> NatsConfig:
    return NatsConfig(**{"servers": (server.url,), "reconnect_wait": 0.05, **values})


async def publishes(publisher: JetStreamPublisher) -> bool:
    (result,) = await publisher.publish(make_events(1), timeout=5)
    return isinstance(result, Receipt)


async def test_nobody_there_is_transient_and_open_may_be_called_again(fast_path: bool) -> None:
    port = free_port()
    options = MAKE.model_copy(update={"fast_path": fast_path})
    publisher = JetStreamPublisher(NatsConfig(servers=(f"nats://127.0.0.1:{port}",)), options=options)
    async with asyncio.timeout(1):
        with pytest.raises(TransientError, match=f"cannot connect to 127.0.0.1:{port}"):
            await publisher.open()
    (result,) = await publisher.publish(make_events(1), timeout=5)
    assert isinstance(result, TransientError)
    async with NatsServer(port=port):
        await publisher.open()
        assert await publishes(publisher)
        await publisher.close()


async def test_a_publisher_that_could_not_open_heals_by_itself() -> None:
    port = free_port()
    publisher = JetStreamPublisher(NatsConfig(servers=(f"nats://127.0.0.1:{port}",)), options=MAKE)
    with pytest.raises(TransientError):
        await publisher.open()
    async with NatsServer(port=port):
        assert await publishes(publisher)
        await publisher.close()


async def test_one_of_several_servers_is_enough() -> None:
    async with NatsServer() as server:
        servers = (f"nats://127.0.0.1:{free_port()}", server.url)
        async with JetStreamPublisher(config(server, servers=servers), options=MAKE) as publisher:
            assert await publishes(publisher)


async def test_a_server_that_hangs_is_given_up_in_time() -> None:
    async with NatsServer() as server:
        publisher = JetStreamPublisher(config(server, connect_timeout=0.3), options=MAKE)
        server.pause()
        try:
            async with asyncio.timeout(5):
                with pytest.raises(TransientError):
                    await publisher.open()
        finally:
            server.resume()
        await publisher.open()
        await publisher.close()


async def test_opening_may_be_cancelled_and_shared() -> None:
    async with NatsServer() as server:
        publisher = JetStreamPublisher(config(server), options=MAKE)
        opening = asyncio.create_task(publisher.open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.gather(*(publisher.open() for _ in range(5)))
        assert await publishes(publisher)
        await publisher.close()


async def test_closing_while_opening_is_no_cancellation() -> None:
    async with NatsServer() as server:
        publisher = JetStreamPublisher(config(server), options=MAKE)
        server.pause()
        try:
            opening = asyncio.create_task(publisher.open())
            publishing = asyncio.create_task(publisher.publish(make_events(2), timeout=30))
            await asyncio.sleep(0)
            await publisher.close()
            with pytest.raises(TransientError, match="closed while it opened"):
                await opening
            assert {type(result) for result in await publishing} == {TransientError}
        finally:
            server.resume()


@pytest.mark.parametrize(
    "wrong", [{"user": "oms", "password": "wrong"}, {}, {"token": "t"}, {"nkey_seed": "no seed"}]
)
async def test_a_wrong_login_is_denied(wrong: dict[str, Any]) -> None:
    async with NatsServer(user="oms", password="s3cret") as server:
        publisher = JetStreamPublisher(config(server, **wrong), options=MAKE)
        with pytest.raises(PlatformDeniedError, match="check credentials"):
            await publisher.open()
        await publisher.close()


async def test_the_right_login_works_and_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with NatsServer(user="oms", password="s3cret") as server:
        url = server.url.replace("nats://", "nats://oms:s3cret@")
        async with JetStreamPublisher(NatsConfig(servers=(url,)), options=MAKE) as publisher:
            assert await publishes(publisher)
            assert "s3cret" not in str(publisher.describe()) + caplog.text
    async with (
        NatsServer(token="t0ken") as server,
        JetStreamPublisher(config(server, token="t0ken"), options=MAKE) as publisher,
    ):
        assert await publishes(publisher)


async def test_missing_credentials_files_are_denied() -> None:
    async with NatsServer(user="oms", password="s3cret") as server:
        for values in ({"credentials_file": "/nowhere.creds"}, {"ca_file": "/nowhere.pem"}):
            publisher = JetStreamPublisher(config(server, **values), options=MAKE)
            with pytest.raises(PlatformDeniedError, match="nowhere"):
                await publisher.open()


async def test_reconnects_are_told_and_harmless() -> None:
    states: list[ConnectionState] = []
    async with NatsServer() as server:
        publisher = JetStreamPublisher(
            config(server), options=MAKE, on_state=lambda state, text: states.append(state)
        )
        await publisher.open()
        await server.kill()
        await until(lambda: ConnectionState.DISCONNECTED in states)
        with pytest.raises(TransientError):
            await publisher.open()
        await server.start()
        await until(lambda: ConnectionState.RECONNECTED in states)
        assert await publishes(publisher)
        await publisher.close()
    assert states == [ConnectionState.CONNECTED, ConnectionState.DISCONNECTED, ConnectionState.RECONNECTED]


async def test_a_connection_closed_for_good_is_made_anew() -> None:
    states: list[ConnectionState] = []
    async with NatsServer() as server:
        publisher = JetStreamPublisher(
            config(server), options=MAKE, on_state=lambda state, text: states.append(state)
        )
        await publisher.open()
        link = publisher._link
        assert link is not None
        # The server answers a broken protocol with an error and closes; nats-py never reconnects then.
        link.client._transport.write(b"NONSENSE\r\n")
        await until(lambda: ConnectionState.CLOSED in states)
        assert await publishes(publisher)
        await publisher.check()
        await publisher.close()


async def test_a_revoked_user_is_denied_until_it_is_back() -> None:
    def users(name: str) -> str:
        return f"authorization {{ users: [{{user: {name}, password: p}}] }}\n"

    async with NatsServer(config=users("oms")) as server:
        file = Path(server._folder or "") / "nats.conf"
        text = file.read_text()

        def reload(name: str) -> None:
            file.write_text(text.replace(users("oms"), users(name)))
            os.kill(server.pid, signal.SIGHUP)

        async def outcome() -> type:
            (result,) = await publisher.publish(make_events(1), timeout=5)
            return type(result)

        publisher = JetStreamPublisher(config(server, user="oms", password="p"), options=MAKE)
        await publisher.open()
        for name, expected in (("other", PlatformDeniedError), ("oms", Receipt)):
            reload(name)
            async with asyncio.timeout(10):
                while await outcome() is not expected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await publisher.close()


async def test_a_borrowed_client_must_be_connected_and_may_come_back() -> None:
    async with NatsServer() as server:
        client = nats.aio.client.Client()
        publisher = JetStreamPublisher(client, options=MAKE)
        with pytest.raises(TransientError, match="not connected"):
            await publisher.open()
        await client.connect(server.url, reconnect_time_wait=0.05)
        assert await publishes(publisher)
        await client.close()
        (result,) = await publisher.publish(make_events(1), timeout=5)
        assert isinstance(result, TransientError)
        await client.connect(server.url, reconnect_time_wait=0.05)
        assert await publishes(publisher)
        # Closed and connected between two calls, which nothing but the client's id shows.
        await client.close()
        await client.connect(server.url, reconnect_time_wait=0.05)
        assert await publishes(publisher)
        await publisher.close()
        await client.close()


async def test_a_draining_client_takes_nothing() -> None:
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        publisher = JetStreamPublisher(client, options=MAKE)
        await publisher.open()
        await client.drain()
        (result,) = await publisher.publish(make_events(1), timeout=5)
        assert isinstance(result, TransientError)
        await publisher.close()


RESTRICTED = """
authorization {{ users: [
  {{user: admin, password: p}},
  {{user: oms, password: p, permissions: {{
    publish: {{ allow: [{allow}] }}, subscribe: {{ allow: ["{inbox}"] }} }} }}
] }}
"""


@asynccontextmanager
async def restricted(allow: str, inbox: str = "_INBOX.>") -> AsyncIterator[NatsServer]:
    async with (
        NatsServer(config=RESTRICTED.format(allow=allow, inbox=inbox)) as server,
        JetStreamPublisher(config(server, user="admin", password="p"), options=MAKE),
    ):
        yield server


@pytest.mark.parametrize("own", [True, False])
async def test_a_denied_subject_is_the_addresss_fault(own: bool, fast_path: bool) -> None:
    async with restricted('"oms.schema.>"') as server:
        options = JetStreamOptions(fast_path=fast_path)
        client = await nats.connect(server.url, user="oms", password="p")
        connection = config(server, user="oms", password="p") if own else client
        async with JetStreamPublisher(connection, options=options) as publisher:
            denied = encode(build_event("com.foundry.oms.Branch.created", "/s"))
            async with asyncio.timeout(10):
                results = await publisher.publish([denied, *make_events(3)], timeout=30)
            assert [type(result) for result in results] == [AddressDeniedError, Receipt, Receipt, Receipt]
            assert "oms.branch.created" in str(results[0])
        await client.close()


async def test_without_the_api_acks_are_the_proof(caplog: pytest.LogCaptureFixture) -> None:
    async with restricted('"oms.>"') as server:
        options = JetStreamOptions(stream="OMS", request_timeout=0.6)
        connection = config(server, user="oms", password="p")
        async with JetStreamPublisher(connection, options=options) as publisher:
            assert "verified by acknowledgements only" in caplog.text
            assert await publishes(publisher)
            await publisher.check()
            async with asyncio.timeout(0.5):
                await publisher.check()
        denied = JetStreamPublisher(connection, options=MAKE.model_copy(update={"request_timeout": 0.3}))
        with pytest.raises(PlatformDeniedError, match=r"no permission for \$JS.API.STREAM.INFO.OMS; grant it"):
            await denied.open()
        await denied.close()


async def test_without_its_inbox_it_does_not_open() -> None:
    async with restricted('">"', inbox="other.>") as server:
        publisher = JetStreamPublisher(config(server, user="oms", password="p"))
        with pytest.raises(PlatformDeniedError, match=r"grant _INBOX.>"):
            await publisher.open()
        await publisher.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
async def test_tls_with_client_certificates(tmp_path: Path, fast_path: bool) -> None:
    own, theirs = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    tls = NatsTls(cert=own.cert, key=own.key, ca=theirs.cert, verify=True)
    async with NatsServer(tls=tls) as server:
        right = {"ca_file": own.cert, "cert_file": theirs.cert, "key_file": theirs.key}
        options = MAKE.model_copy(update={"fast_path": fast_path})
        async with JetStreamPublisher(config(server, **right), options=options) as publisher:
            results = await publisher.publish(make_events(2000), timeout=10)
            assert all(isinstance(result, Receipt) for result in results)
            assert publisher.describe()["fast_path"] is fast_path
        for wrong in ({"ca_file": theirs.cert}, {**right, "tls_hostname": "elsewhere"}):
            publisher = JetStreamPublisher(config(server, **wrong), options=options)
            with pytest.raises(PlatformDeniedError, match="check credentials and TLS"):
                await publisher.open()


async def test_a_server_without_tls_is_denied_when_tls_is_wanted() -> None:
    async with NatsServer() as server:
        publisher = JetStreamPublisher(config(server, tls=True), options=MAKE)
        with pytest.raises(PlatformDeniedError, match="offers no TLS"):
            await publisher.open()
        await publisher.close()


async def test_an_event_of_a_type_that_is_denied_by_case_only(fast_path: bool) -> None:
    """nats-py lowers what the server says: which of two subjects was meant, only the acks tell."""
    async with restricted('"oms.schema.>"') as server:
        connection = config(server, user="oms", password="p")
        options = JetStreamOptions(fast_path=fast_path, ack_timeout=0.3)
        async with JetStreamPublisher(connection, options=options) as publisher:
            upper = encode(build_event(TYPE.replace("schema", "SCHEMA"), "/s"))
            denied, fine = await publisher.publish([upper, *make_events(1)], timeout=5)
            assert isinstance(denied, AddressDeniedError | UnknownOutcomeError)
            assert isinstance(fine, Receipt)


TWO_DENIED = """
authorization {{ users: [
  {{user: admin, password: p}},
  {{user: oms, password: p, permissions: {{ publish: {{ deny: [{deny}] }} }} }}
] }}
"""


@asynccontextmanager
async def denying(*subjects: str) -> AsyncIterator[NatsServer]:
    deny = ", ".join(f'"{subject}"' for subject in subjects)
    async with (
        NatsServer(config=TWO_DENIED.format(deny=deny)) as server,
        JetStreamPublisher(config(server, user="admin", password="p"), options=MAKE),
    ):
        yield server


def events_of(*types: str) -> list[Any]:
    return [encode(build_event(f"com.foundry.{type_}", "/s")) for type_ in types]


async def quiet(_: Exception) -> None:
    pass


async def test_of_two_denied_subjects_a_borrowed_client_shows_both() -> None:
    async with denying("oms.account.>", "oms.branch.>") as server:
        client = await nats.connect(server.url, user="oms", password="p", error_cb=quiet)
        async with JetStreamPublisher(client, options=JetStreamOptions(stream="OMS")) as publisher:
            events = events_of("oms.account.created", "oms.branch.created", "oms.schema.created")
            async with asyncio.timeout(10):
                results = await publisher.publish(events, timeout=30)
            assert [type(result) for result in results] == [AddressDeniedError, AddressDeniedError, Receipt]
            await client.close()
            # A subject that holds such words says nothing about the login.
            (closed,) = await publisher.publish(make_events(1), timeout=5)
            assert isinstance(closed, TransientError)


async def test_results_do_not_wait_for_a_reason_that_may_not_be_asked() -> None:
    async with denying("$JS.API.STREAM.LIST") as server:
        options = JetStreamOptions(stream="OMS")
        async with JetStreamPublisher(config(server, user="oms", password="p"), options=options) as publisher:
            events = events_of("oms.schema.created", *(f"elsewhere.number{number}" for number in range(20)))
            for seconds in (1.0, 0.2):
                async with asyncio.timeout(seconds):
                    results = await publisher.publish(events, timeout=30)
                assert [type(result) for result in results] == [Receipt] + [AddressDeniedError] * 20


async def test_results_do_not_wait_for_a_reason_that_does_not_come() -> None:
    async with NatsServer() as server, JetStreamPublisher(config(server), options=MAKE):
        client = await nats.connect(server.url)
        received = await client.subscribe("silent.API.>")
        options = JetStreamOptions(policy=StreamPolicy.NONE, api_prefix="silent.API")
        async with JetStreamPublisher(client, options=options) as publisher:
            events = events_of("oms.schema.created", *(f"elsewhere.number{number}" for number in range(20)))
            async with asyncio.timeout(1):
                results = await publisher.publish(events, timeout=30)
            assert [type(result) for result in results] == [Receipt] + [AddressDeniedError] * 20
        assert received.pending_msgs > 0
        await client.close()
