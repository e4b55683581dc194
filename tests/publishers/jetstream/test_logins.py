"""What leaves the process when an own connection logs in, the first time and after an outage."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nkeys
import pytest

from oms_events.devstack import NatsServer, NatsTls
from oms_events.errors import PlatformDeniedError, TransientError
from oms_events.publishers.jetstream import (
    JetStreamOptions,
    JetStreamPublisher,
    NatsConfig,
    StreamPolicy,
    StreamSpec,
)
from oms_events.publishing import Receipt
from tests.publishers.jetstream.conftest import certificate, make_events

MAKE = JetStreamOptions(stream=StreamSpec(name="OMS", subjects=("oms.>",)), policy=StreamPolicy.CREATE)
LOGIN: dict[str, Any] = {"user": "oms", "password": "S3CRET"}


async def outcome(publisher: JetStreamPublisher) -> type:
    (result,) = await publisher.publish(make_events(1), timeout=2)
    return type(result)


async def comes_to(publisher: JetStreamPublisher, expected: type) -> None:
    async with asyncio.timeout(10):
        while await outcome(publisher) is not expected:  # noqa: ASYNC110 - the server's doings
            await asyncio.sleep(0.02)


@asynccontextmanager
async def eavesdropper(server: NatsServer, port: int | None = None) -> AsyncIterator[tuple[int, bytearray]]:
    """Passes everything on in the clear, and gives its port and what clients send."""
    heard = bytearray()
    writers: list[asyncio.StreamWriter] = []
    talks: list[asyncio.Task[Any]] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if record:
                    heard.extend(data)
                writer.write(data)
        writer.transport.abort()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.extend((writer, far_writer))
        talks.append(asyncio.create_task(pass_on(reader, far_writer, True)))
        talks.append(asyncio.create_task(pass_on(far_reader, writer, False)))

    async with await asyncio.start_server(talk, "127.0.0.1", port) as listening:
        yield listening.sockets[0].getsockname()[1], heard
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*talks)


async def test_no_login_leaves_without_the_tls_that_is_wanted() -> None:
    async with NatsServer(**LOGIN) as plain, eavesdropper(plain) as (port, heard):
        url = f"nats://127.0.0.1:{port}"
        publisher = JetStreamPublisher(NatsConfig(servers=(url,), tls=True, **LOGIN), options=MAKE)
        with pytest.raises(PlatformDeniedError, match="offers no TLS"):
            await publisher.open()
        assert not heard
        # What the eavesdropper would hear else.
        async with JetStreamPublisher(NatsConfig(servers=(url,), **LOGIN), options=MAKE) as publisher:
            assert await outcome(publisher) is Receipt
        assert b"S3CRET" in heard


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
async def test_no_login_leaves_when_tls_is_gone_after_an_outage(tmp_path: Path) -> None:
    tls: NatsTls = certificate(tmp_path, "server")
    async with NatsServer(tls=tls, **LOGIN) as server, NatsServer(**LOGIN) as plain:
        config = NatsConfig(servers=(server.url,), ca_file=tls.cert, reconnect_wait=0.05, **LOGIN)
        async with JetStreamPublisher(config, options=MAKE) as publisher:
            assert await outcome(publisher) is Receipt
            await server.kill()
            async with eavesdropper(plain, server.port) as (_, heard):
                await comes_to(publisher, PlatformDeniedError)
                with pytest.raises(PlatformDeniedError, match="offers no TLS"):
                    await publisher.check()
                assert not heard
            await server.start()
            await comes_to(publisher, Receipt)


class Operator:
    """A server's trust in keys, and a user's credentials file."""

    def __init__(self) -> None:
        operator, account, system, user = (
            self._key(prefix)
            for prefix in (
                nkeys.PREFIX_BYTE_OPERATOR,
                nkeys.PREFIX_BYTE_ACCOUNT,
                nkeys.PREFIX_BYTE_ACCOUNT,
                nkeys.PREFIX_BYTE_USER,
            )
        )
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        store = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        names = [key.public_key.decode() for key in (operator, account, system, user)]
        tokens = [
            self._token(operator, names[0], type="operator", system_account=names[2]),
            self._token(operator, names[1], type="account", limits={**limits, "wildcards": True, **store}),
            self._token(operator, names[2], type="account", limits={**limits, "wildcards": True}),
            self._token(account, names[3], type="user", subs=-1, data=-1, payload=-1),
        ]
        self.config = (
            f"operator: {tokens[0]}\nsystem_account: {names[2]}\nresolver: MEMORY\n"
            f"resolver_preload: {{ {names[1]}: {tokens[1]}\n {names[2]}: {tokens[2]} }}\n"
        )
        self.seed = user.seed.decode()
        self.jwt_part = f"-----BEGIN NATS USER JWT-----\n{tokens[3]}\n------END NATS USER JWT------\n\n"
        self.seed_part = f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"

    @staticmethod
    def _key(prefix: int) -> Any:
        return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))

    @staticmethod
    def _token(issuer: Any, subject: str, **nats: Any) -> str:
        def text(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        claims = {
            "jti": base64.b32encode(os.urandom(20)).decode(),
            "iat": int(time.time()),
            "iss": issuer.public_key.decode(),
            "sub": subject,
            "nats": {"version": 2, **nats},
        }
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        message = ".".join(text(json.dumps(part).encode()) for part in (header, claims))
        return f"{message}.{text(issuer.sign(message.encode()))}"


async def test_bad_credentials_during_an_outage_deny_until_they_are_good_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    operator = Operator()
    file = tmp_path / "oms.creds"
    good = operator.jwt_part + operator.seed_part
    file.write_text(good)
    async with NatsServer(config=operator.config) as server:
        config = NatsConfig(servers=(server.url,), credentials_file=file, reconnect_wait=0.05)
        async with JetStreamPublisher(config, options=MAKE) as publisher:
            assert await outcome(publisher) is Receipt
            for bad in ("", operator.seed_part, good.replace(operator.seed, "SUAXX"), None):
                await server.kill()
                if bad is None:
                    file.unlink()
                else:
                    file.write_text(bad)
                await server.start()
                await comes_to(publisher, PlatformDeniedError)
                file.write_text(good)
                await comes_to(publisher, Receipt)
    assert "never retrieved" not in caplog.text


async def test_credentials_without_a_token_are_denied_at_once(tmp_path: Path) -> None:
    file = tmp_path / "oms.creds"
    file.write_text(Operator().seed_part)
    async with NatsServer() as server:
        publisher = JetStreamPublisher(NatsConfig(servers=(server.url,), credentials_file=file))
        with pytest.raises(PlatformDeniedError, match="check the files"):
            await publisher.open()


async def test_a_greeting_that_is_none_does_not_end_reconnecting() -> None:
    greeted = asyncio.Event()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100_000)
        await reader.read(1)
        writer.transport.abort()
        greeted.set()

    async with NatsServer() as server:
        config = NatsConfig(servers=(server.url,), reconnect_wait=0.05)
        async with JetStreamPublisher(config, options=MAKE) as publisher:
            await server.kill()
            async with await asyncio.start_server(rude, "127.0.0.1", server.port):
                await asyncio.wait_for(greeted.wait(), 5)
                assert await outcome(publisher) is TransientError
            await server.start()
            await comes_to(publisher, Receipt)
