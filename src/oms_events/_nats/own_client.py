"""How an own connection logs in and comes back, and what nats-py does not promise about that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from oms_events._nats.client import Client, errors
from oms_events.errors import PlatformDeniedError, TransientError


async def round_trip(client: Client, timeout: float) -> None:
    """Waits for the server's answer to a ping. Raises `TransientError`.

    Not with the client's `flush`: when that times out, the late answer ends the client's read loop (the
    answer is set on a cancelled future, nats-py 2.16), and the connection is deaf from then on.
    """
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    send_ping = getattr(client, "_send_ping", None)
    try:
        if not client.is_connected:
            raise errors.ConnectionClosedError
        if send_ping is None:
            await client.flush()
            return
        await send_ping(answered)
    except (errors.Error, OSError) as error:
        raise TransientError(f"the NATS server could not be asked: {error}") from error
    await asyncio.wait((answered,), timeout=timeout)
    if not answered.done():
        raise TransientError(f"the NATS server did not answer within {timeout} s")


class NoTlsError(errors.Error):
    """The server offers no TLS, and TLS is demanded."""

    def __str__(self) -> str:
        return "the server offers no TLS and the configuration demands it; turn it on at the server"


class OwnClient(Client):
    """nats-py's client, which sends no login in the clear and comes back from whatever a server does.

    With `needs_tls`, logging in without TLS raises `NoTlsError`: nats-py itself encrypts only where the server
    asks for it. `before_login` is called before each login.
    """

    def __init__(self, *, needs_tls: bool, before_login: Callable[[], None]) -> None:
        if needs_tls and not callable(getattr(Client, "_connect_command", None)):
            raise PlatformDeniedError("TLS cannot be enforced in this nats-py; take a version from 2.11 to 2.16")
        super().__init__()
        self._needs_tls = needs_tls
        self._before_login = before_login

    async def _select_next_server(self) -> None:
        # nats-py forgets the socket of a failed attempt without closing it.
        abort(self)
        await super()._select_next_server()

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except (errors.Error, OSError, TimeoutError):
            raise
        except Exception as error:
            # Any other error would end the reconnecting for good.
            raise errors.Error(f"the server's greeting cannot be read: {error}") from error

    def _connect_command(self) -> bytes:
        if self._needs_tls and not is_encrypted(self):
            raise NoTlsError
        try:
            self._before_login()
            return super()._connect_command()
        except (errors.Error, OSError):
            raise
        except Exception as error:
            raise errors.InvalidUserCredentialsError from error

    async def _attempt_reconnect(self) -> None:
        # nats-py waits until all that was written has left, which a server that hangs never lets happen.
        abort(self)
        await super()._attempt_reconnect()


def is_encrypted(client: Client) -> bool:
    """Whether the client shows that its connection has TLS."""
    transport = getattr(client, "_transport", None)
    writer = getattr(transport, "_io_writer", None)
    if writer is None:
        return getattr(transport, "_using_tls", None) is True
    return writer.get_extra_info("ssl_object") is not None


def abort(client: Client) -> None:
    """Closes the client's socket, if it has one, without sending what is still buffered."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
