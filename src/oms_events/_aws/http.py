"""The HTTP session under our AWS clients: full TLS checks, and the mark of what has been sent."""

from __future__ import annotations

import ssl
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.httpsession import create_urllib3_context, get_cert_path

from oms_events._aws.sending import Sending

CURRENT_SENDING: Final[ContextVar[Sending | None]] = ContextVar("oms_events_sending", default=None)
"""The call that is going on in this context; its mark is set when its body begins to leave."""


class HttpSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """Checks certificates as boto3 does. aiobotocore's own session checks no host name, and nothing at all
    behind a proxy that has no CA of its own."""

    async def send(self, request: Any) -> Any:
        # Only the JSON services have this header: a role assumed on the way (STS) must not set the mark.
        if "X-Amz-Target" not in request.headers:
            return await super().send(request)
        given = request.body
        request.body = _MarkedBody(given.encode() if isinstance(given, str) else given, CURRENT_SENDING.get())
        try:
            return await super().send(request)
        finally:
            # botocore rewinds it before a retry.
            request.body = given

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        authorities = get_cert_path(self._verify)
        if not authorities or self._cert_file is not None or proxy_url is not None:
            connector: aiohttp.TCPConnector = super()._create_connector(proxy_url)
            return connector
        return aiohttp.TCPConnector(
            limit=self._max_pool_connections, ssl=_context_of(authorities), **self._connector_args
        )

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.check_hostname = True
        return context

    def _setup_proxy_ssl_context(self, proxy_url: str) -> ssl.SSLContext:
        # The base class loads our certificate and our authorities into it, if there is one.
        return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()


def _context_of(authorities: str) -> ssl.SSLContext:
    """One for all clients with these authorities: reading them holds the event loop up for 40 ms."""
    file = Path(authorities).stat()
    return _read_context(authorities, (file.st_mtime_ns, file.st_size, file.st_ino))


@lru_cache(maxsize=16)
def _read_context(authorities: str, version: tuple[int, ...]) -> ssl.SSLContext:
    """`version` changes with the file: one that was renewed is read again."""
    context: ssl.SSLContext = create_urllib3_context()
    context.check_hostname = True
    context.load_verify_locations(authorities)
    return context


def http_session_of(client: Any) -> HttpSession | None:
    """The HTTP session under a client, if it is ours: a session's own default settings can replace it.

    The one place that reads a private attribute of aiobotocore.
    """
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    return session if isinstance(session, HttpSession) else None


class _MarkedBody(aiohttp.Payload):
    # Not aiohttp's own payload for bytes: that one warns of bodies over 1 MiB, which ours may well have.
    def __init__(self, body: bytes, sending: Sending | None) -> None:
        super().__init__(body)
        self._size = len(body)
        self._sending = sending

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: Any) -> None:
        if self._sending is not None:
            self._sending.begun = True
        await writer.write(self._value)
