"""Where the client comes from: borrowed from the user, or an own one that reconnects for ever."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr

from oms_events._aio import cancel_and_wait
from oms_events._nats.client import Client, RawCredentials, errors
from oms_events._nats.config import ConnectionState, NatsConfig
from oms_events._nats.own_client import NoTlsError, OwnClient, abort
from oms_events.errors import PlatformDeniedError, PublishError, TransientError

_log = logging.getLogger("oms_events")

_CLOSE_TIMEOUT = 2.0
_AFTER_DENIAL = (ConnectionResetError, BrokenPipeError)
# What the server says, in lower case, when the same login will not be better later.
_DENIED = frozenset(
    (
        "account authentication expired",
        "authentication expired",
        "authorization violation",
        "secure connection - tls required",
        "user authentication expired",
        "user authentication revoked",
    )
)
_DENIALS = (ssl.SSLError, NoTlsError, errors.AuthorizationError, errors.InvalidUserCredentialsError)
_CREDENTIALS_PARTS = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")

OnState = Callable[[ConnectionState, str], None]
OnError = Callable[[Exception], None]
"""Hears what the server said went wrong."""


class Connection(Protocol):
    """Gives the client, and takes it back."""

    owned: bool

    async def open(self) -> Client:
        """The connected client; raises a `PublishError` when there is none."""
        ...

    async def close(self) -> None: ...

    def servers(self) -> list[str]:
        """Host and port of the servers, without user and password."""
        ...


class BorrowedConnection:
    """A client that belongs to the user: never closed, and its callbacks stay theirs."""

    owned = False

    def __init__(self, client: Client) -> None:
        self._client = client

    async def open(self) -> Client:
        if not self._client.is_connected or self._client.is_draining:
            raise fault_of(self._client)
        return self._client

    async def close(self) -> None:
        pass

    def servers(self) -> list[str]:
        return [f"{url.hostname}:{url.port}" for url in self._client.servers]


class OwnConnection:
    """A client of our own. `on_error` hears what the client's error callback hears."""

    owned = True

    def __init__(
        self, config: NatsConfig, *, on_state: OnState, on_error: OnError, jitter: Callable[[], float]
    ) -> None:
        self._config = config
        self._on_state = on_state
        self._on_error = on_error
        self._jitter = jitter
        self._client: Client | None = None

    async def open(self) -> Client:
        client = self._client
        if client is not None and not client.is_closed:
            if client.is_connected:
                return client
            raise fault_of(client)
        await self.close()
        client = await self._connect()
        self._client = client
        self._report(ConnectionState.CONNECTED, _address(client))
        return client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    def servers(self) -> list[str]:
        return [server.partition("://")[2] for server in self._config.servers]

    async def _connect(self) -> Client:
        context, credentials = await self._read_files()
        options = self._options(context, credentials)
        client = OwnClient(needs_tls=self._config.wants_tls, before_login=lambda: self._read_again(credentials))
        failures: list[Exception] = []
        all_failed = asyncio.Event()

        async def on_error(error: Exception) -> None:
            if self._client is client:
                client.options["reconnect_time_wait"] = self._wait()
                self._on_error(error)
                return
            # The client tells of the closed socket after the server's reason: that is no second failure.
            if failures and _is_denial(failures[-1]) and isinstance(error, _AFTER_DENIAL):
                return
            failures.append(error)
            if len(failures) >= len(self._config.servers):
                all_failed.set()

        connecting = asyncio.create_task(
            client.connect(error_cb=on_error, **options, **self._callbacks(lambda: self._client is client)),
            name="oms-events-nats-connect",
        )
        failing = asyncio.create_task(all_failed.wait(), name="oms-events-nats-connect-failures")
        try:
            await asyncio.wait(
                (connecting, failing),
                timeout=self._config.connect_timeout * len(self._config.servers),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if connecting.done() and connecting.exception() is None:
                return client
            if connecting.done() and (error := connecting.exception()) is not None:
                failures.append(error if isinstance(error, Exception) else OSError(str(error)))
            raise self._failure(failures)
        except BaseException:
            await cancel_and_wait(connecting)
            await _close(client)
            raise
        finally:
            await cancel_and_wait(failing)

    def _failure(self, failures: list[Exception]) -> PublishError:
        where = ", ".join(self.servers())
        if not failures:
            return TransientError(
                f"no connection to {where} within connect_timeout = {self._config.connect_timeout} s"
            )
        last = failures[-1]
        text = f"cannot connect to {where}: {last or type(last).__name__}"
        # While one server may come back, the platform as a whole has not denied us.
        if all(_is_denial(failure) for failure in failures):
            error: PublishError = PlatformDeniedError(f"{text}; check credentials and TLS settings")
        else:
            error = TransientError(text)
        error.__cause__ = last
        return error

    def _options(self, context: ssl.SSLContext | None, credentials: RawCredentials | None) -> dict[str, Any]:
        config = self._config
        options: dict[str, Any] = {
            "servers": list(config.servers),
            "name": config.name,
            "connect_timeout": config.connect_timeout,
            "reconnect_time_wait": self._wait(),
            "max_reconnect_attempts": -1,
            "ping_interval": config.ping_interval,
            "pending_size": 0,
            "user": config.user,
            "password": _reveal(config.password),
            "token": _reveal(config.token),
            "nkeys_seed_str": _reveal(config.nkey_seed),
            "user_credentials": credentials,
        }
        if context is not None:
            options["tls"] = context
            options["tls_hostname"] = config.tls_hostname
            options["tls_handshake_first"] = config.tls_handshake_first
        return options

    async def _read_files(self) -> tuple[ssl.SSLContext | None, RawCredentials | None]:
        """The TLS context and the credentials, where they are wanted."""
        config = self._config

        def read() -> tuple[ssl.SSLContext | None, RawCredentials | None]:
            file = config.credentials_file
            credentials = RawCredentials(_read_credentials(file)) if file is not None else None
            if not config.wants_tls:
                return None, credentials
            context = ssl.create_default_context(cafile=config.ca_file)
            if config.cert_file is not None:
                context.load_cert_chain(config.cert_file, config.key_file)
            return context, credentials

        try:
            return await asyncio.to_thread(read)
        except (OSError, ValueError, errors.InvalidUserCredentialsError) as error:
            raise PlatformDeniedError(
                f"credentials_file = {config.credentials_file}, ca_file = {config.ca_file}, cert_file = "
                f"{config.cert_file}, key_file = {config.key_file}: cannot be loaded: {error}; check the files"
            ) from error

    def _read_again(self, credentials: RawCredentials | None) -> None:
        """Takes credentials that were replaced since the last login. Blocks as long as reading a small file."""
        if credentials is not None and self._config.credentials_file is not None:
            credentials.data = _read_credentials(self._config.credentials_file)

    def _callbacks(self, is_ours: Callable[[], bool]) -> dict[str, Any]:
        # Callbacks of a client that never came to be ours say nothing about our connection.
        def reporter(state: ConnectionState, text: str) -> Callable[[], Any]:
            async def report() -> None:
                if is_ours():
                    self._report(state, text)

            return report

        return {
            "disconnected_cb": reporter(ConnectionState.DISCONNECTED, "connection lost"),
            "reconnected_cb": reporter(ConnectionState.RECONNECTED, "connection is back"),
            "closed_cb": reporter(ConnectionState.CLOSED, "the server closed the connection for good"),
        }

    def _report(self, state: ConnectionState, text: str) -> None:
        bad = state in (ConnectionState.DISCONNECTED, ConnectionState.CLOSED)
        _log.log(logging.WARNING if bad else logging.INFO, "NATS %s: %s", state, text)
        try:
            self._on_state(state, text)
        except Exception:
            _log.exception("on_state failed on %s", state)

    def _wait(self) -> float:
        return self._config.reconnect_wait * (0.5 + self._jitter())


def fault_of(client: Client) -> PublishError:
    """Why a client that is not connected cannot send; of the class that its last error has."""
    last = client.last_error
    denied = last is not None and _is_denial(last)
    state = "closed" if client.is_closed else "draining" if client.is_draining else "not connected"
    text = f"the NATS client is {state} ({last or 'no error given'})"
    if denied:
        return PlatformDeniedError(f"{text}; check credentials and TLS settings", code="not_connected")
    return TransientError(text, code="not_connected")


def _is_denial(error: Exception) -> bool:
    if isinstance(error, _DENIALS):
        return True
    if isinstance(error, OSError):
        return error.filename is not None
    if isinstance(error, errors.Error):
        return str(error).lower().removeprefix("nats: ").strip("' ") in _DENIED
    # nkeys and base64 raise their own errors for a seed that is none.
    return not isinstance(error, EOFError | asyncio.LimitOverrunError)


def _address(client: Client) -> str:
    url = client.connected_url
    return f"{url.hostname}:{url.port}" if url is not None else "nowhere"


def _read_credentials(file: Path) -> str:
    text = file.read_text()
    # Where one is missing, nats-py searches for ever.
    if not all(part in text for part in _CREDENTIALS_PARTS):
        raise errors.InvalidUserCredentialsError
    return text


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


async def _close(client: Client) -> None:
    # A server that hangs takes nothing, and the client would wait for it.
    aborting = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT / 2, abort, client)
    try:
        # A client that failed half-way stumbles over what it lacks; there is nothing left to close then.
        with suppress(errors.Error, OSError, TimeoutError, AssertionError, AttributeError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await client.close()
    finally:
        aborting.cancel()
        abort(client)
