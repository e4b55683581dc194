from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from oms_events.devstack import AwsEmulator

CERTIFICATES = Path(__file__).parent / "certificates"
Serve = Callable[..., AbstractAsyncContextManager[str]]


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(ConnectionError, ssl.SSLError, RuntimeError):
        writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    up_reader, up_writer = await asyncio.open_connection(host, port)
    await asyncio.gather(_pipe(reader, up_writer), _pipe(up_reader, writer))


@pytest.fixture(scope="session")
def tls_endpoint(oms_aws_emulator: AwsEmulator) -> Serve:
    """The emulator behind TLS, with the named certificate; `mutual` asks the client for one."""

    @contextlib.asynccontextmanager
    async def serve(certificate: str, *, mutual: bool = False) -> AsyncIterator[str]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(CERTIFICATES / "ca.pem"))
        context.load_cert_chain(CERTIFICATES / certificate)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        upstream = urlsplit(oms_aws_emulator.endpoint_url)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _join(reader, writer, upstream.hostname or "", upstream.port or 0)

        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        async with server:
            yield f"https://localhost:{server.sockets[0].getsockname()[1]}"

    return serve


@pytest.fixture(scope="session")
def tunnel() -> Serve:
    """An HTTP proxy that knows CONNECT and notes in `seen` where it was sent."""

    @contextlib.asynccontextmanager
    async def serve(seen: list[str]) -> AsyncIterator[str]:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            seen.append(head)
            host, _, port = head.split()[1].partition(":")
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _join(reader, writer, host, int(port))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    return serve
