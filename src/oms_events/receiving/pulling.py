"""Asking a pull consumer for messages, one request at a time, and noticing when nobody answers any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import orjson

from oms_events._nats.client import Client, Msg, Subscription, errors
from oms_events._nats.connection import fault_of
from oms_events.errors import PlatformDeniedError, TransientError
from oms_events.receiving.config import ReceiverConfig
from oms_events.receiving.deliveries import Delivery

_EXPIRES: Final = 30.0
"""Seconds that a request stays open at the server. It refuses heartbeats that are longer than half of it."""
_SILENCE: Final = 2.5
"""After so many heartbeats' time without one nobody answers."""
_UNSUBSCRIBE_TIMEOUT: Final = 1.0

_HEARTBEAT: Final = "100"
_NO_RESPONDERS: Final = "503"
# No messages; expired.
_ENDED: Final = ("404", "408")


class Puller:
    """One inbox on one connected client.

    Called on the event loop: `on_delivery` with each message, `on_life` when the server shows that it is at work.
    """

    def __init__(
        self,
        client: Client,
        config: ReceiverConfig,
        *,
        on_delivery: Callable[[Delivery], None],
        on_life: Callable[[], None],
    ) -> None:
        self.client = client
        self._config = config
        self._on_delivery = on_delivery
        self._on_life = on_life
        self._inbox = f"{client.new_inbox()}."
        self._next = f"{config.api_prefix}.CONSUMER.MSG.NEXT.{config.stream}.{config.durable}"
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()
        self._request = 0
        self._open = 0
        self._problem = ""

    async def attach(self) -> None:
        """Subscribes the inbox. Raises `TransientError`."""
        try:
            # Without limits: requests bound what comes, and a message that is dropped here would come late.
            self._subscription = await self.client.subscribe(
                f"{self._inbox}*", cb=self._take, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except (errors.Error, OSError) as error:
            raise TransientError(f"the inbox for messages could not be opened: {error}") from error

    async def detach(self) -> None:
        """Gives the inbox back; the client stays as it is. Idempotent."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(_UNSUBSCRIBE_TIMEOUT):
                    await subscription.unsubscribe()

    async def pull(self, count: int) -> None:
        """Asks for messages, and returns when that many came, or some did and the time is over.

        Raises `TransientError` when nobody answers any more, or the consumer is gone; `PlatformDeniedError` when
        this client may not subscribe its inbox.
        """
        client, heartbeat = self.client, self._config.heartbeat
        connection = self._connection()
        self._request += 1
        self._open, self._problem = count, ""
        self._news.clear()
        expires = max(_EXPIRES, 4 * heartbeat)
        body = {"batch": count, "expires": round(expires * 1e9), "idle_heartbeat": round(heartbeat * 1e9)}
        try:
            await client.publish(self._next, orjson.dumps(body), reply=f"{self._inbox}{self._request}")
        except (errors.Error, OSError) as error:
            raise TransientError(f"JetStream could not be asked for messages: {error}") from error
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while self._open > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(heartbeat / 2):
                    await self._news.wait()
            if self._problem:
                raise TransientError(self._problem)
            # A request does not outlive its connection.
            if self._connection() != connection:
                raise TransientError("the connection was lost while messages were waited for")
            if self._news.is_set():
                self._news.clear()
                heard = loop.time()
                self._on_life()
            elif loop.time() - heard > _SILENCE * heartbeat:
                raise self._silence()

    def _connection(self) -> tuple[int | None, int]:
        client = self.client
        if not client.is_connected or client.is_draining:
            raise fault_of(client)
        return client.client_id, client.stats["reconnects"]

    def _silence(self) -> TransientError | PlatformDeniedError:
        last = str(self.client.last_error or "")
        if f'permissions violation for subscription to "{self._inbox}*"'.lower() in last.lower():
            return PlatformDeniedError(f"no permission to subscribe {self._inbox}*; grant _INBOX.>")
        if f'permissions violation for publish to "{self._next}"'.lower() in last.lower():
            return PlatformDeniedError(f"no permission to publish to {self._next}; grant it")
        return TransientError("JetStream gives no sign of life to this consumer")

    async def _take(self, message: Msg) -> None:
        delivery = Delivery.read(message.subject, message.reply, message.headers, message.data)
        if delivery is not None:
            self._open -= 1
            self._news.set()
            self._on_delivery(delivery)
            return
        status = (message.headers or {}).get("Status", "")
        if status != _HEARTBEAT:
            if message.subject != f"{self._inbox}{self._request}":
                # Of an earlier request.
                return
            if status in _ENDED:
                self._open = 0
            elif status == _NO_RESPONDERS:
                self._problem = (
                    f"nobody answers for consumer {self._config.durable!r} of stream {self._config.stream!r}: "
                    "it is gone, or has no leader"
                )
            else:
                description = (message.headers or {}).get("Description", "no reason given")
                self._problem = (
                    f"JetStream ended the request for messages: {description} ({status or 'no status'})"
                )
        self._news.set()
