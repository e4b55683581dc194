from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import nats
import pytest

from oms_events.devstack import DevstackError, NatsServer, NatsTls
from oms_events.errors import ConfigurationError
from tests.devstack.support import alive, listening, needs_proc


async def connect(server: NatsServer, **options: Any) -> nats.NATS:
    async def ignore(_: Exception) -> None:
        pass

    return await nats.connect(server.url, allow_reconnect=False, connect_timeout=5, error_cb=ignore, **options)


async def first_words(server: NatsServer, login: dict[str, str]) -> str:
    """What the server says to a client that connects so; the real client leaks sockets when it is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
    try:
        words = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()
    return words.decode()


async def test_acked_messages_survive_kill_and_start_on_the_same_port() -> None:
    async with NatsServer() as server:
        client = await connect(server)
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s.>"])
        for number in range(50):
            await stream.publish("s.x", b"%d" % number)
        port, pid, folder = server.port, server.pid, server._folder
        await server.kill()
        assert not server.running
        assert not alive(pid)
        await client.close()

        await server.start()
        assert server.port == port
        client = await connect(server)
        info = await client.jetstream().stream_info("S")
        assert info.state.messages == 50
        await client.close()
    assert folder is not None
    assert not folder.exists()


async def test_stop_and_start_keep_the_data_and_starting_twice_is_harmless(
    oms_nats_server: NatsServer,
) -> None:
    client = await connect(oms_nats_server)
    await client.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
    await client.close()
    await oms_nats_server.stop()
    await oms_nats_server.start()
    pid = oms_nats_server.pid
    await oms_nats_server.start()
    assert oms_nats_server.pid == pid
    client = await connect(oms_nats_server)
    await client.jetstream().delete_stream("KEPT")
    await client.close()


async def test_paused_server_hangs_until_it_is_resumed() -> None:
    async with NatsServer() as server:
        client = await connect(server)
        server.pause()
        server.pause()
        with pytest.raises(TimeoutError):
            await client.jetstream(timeout=0.2).account_info()
        assert server.running
        server.resume()
        await client.jetstream().account_info()
        await client.close()


async def test_paused_server_is_stopped_all_the_same() -> None:
    async with NatsServer() as server:
        pid = server.pid
        server.pause()
    assert not alive(pid)


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        (
            {"user": "oms", "password": 'p"a$ß'},
            {"user": "oms", "password": 'p"a$ß'},
            {"user": "oms", "pass": "no"},
        ),
        ({"token": "secret {1}"}, {"token": "secret {1}"}, {}),
    ],
)
async def test_login_is_asked_for(options: dict[str, str], good: dict[str, str], bad: dict[str, str]) -> None:
    async with NatsServer(**options) as server:
        client = await connect(server, **good)
        await client.close()
        assert "Authorization Violation" in await first_words(server, bad)
        assert "@" not in server.url


async def test_limits_and_further_settings_reach_the_server() -> None:
    async with NatsServer(
        max_payload=4096,
        config="mappings: { from.here: to.there }",
        jetstream_config="max_file_store: 10MB",
    ) as server:
        client = await connect(server)
        assert client.max_payload == 4096
        mapped = await client.subscribe("to.there")
        await client.publish("from.here", b"x")
        assert (await mapped.next_msg(5)).data == b"x"
        with pytest.raises(nats.js.errors.ServerError, match="insufficient storage"):
            await client.jetstream().add_stream(name="BIG", subjects=["big"], max_bytes=20_000_000)
        await client.close()


def make_certificate(folder: Path, name: str) -> NatsTls:
    """A self-signed certificate that is its own authority."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return NatsTls(cert=cert, key=key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
async def test_tls_with_client_certificates(tmp_path: Path) -> None:
    own, theirs = make_certificate(tmp_path, "server"), make_certificate(tmp_path, "client")
    tls = NatsTls(cert=own.cert, key=own.key, ca=theirs.cert, verify=True)
    async with NatsServer(tls=tls) as server:
        assert server.url.startswith("tls://")
        context = ssl.create_default_context(cafile=str(own.cert))
        assert '"tls_verify":true' in await first_words(server, {})
        context.load_cert_chain(theirs.cert, theirs.key)
        client = await connect(server, tls=context)
        await client.flush()
        await client.close()


@needs_proc
async def test_listens_on_loopback_only(oms_nats_server: NatsServer) -> None:
    assert listening(oms_nats_server.pid) == {f"0100007F:{oms_nats_server.port:04X}"}


async def test_server_that_cannot_start_says_why() -> None:
    with pytest.raises(DevstackError, match=r"(?s)nats-server: ended with status 1.*Parse error"):
        async with NatsServer(config="nonsense {"):
            pass


async def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DevstackError, match=f"port {port} is taken"):
            async with NatsServer(port=port):
                pass


async def test_answer_of_another_server_is_not_taken_for_its_own(oms_nats_server: NatsServer) -> None:
    with pytest.raises(DevstackError, match="is taken"):
        async with NatsServer(port=oms_nats_server.port):
            pass


def test_half_a_login_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="go together"):
        NatsServer(user="oms")
    with pytest.raises(ConfigurationError, match="one kind"):
        NatsServer(user="oms", password="x", token="y")
