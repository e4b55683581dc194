"""One connected client as the publisher uses it: inbox, sender, JetStream API, and whether it still stands."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from oms_events._nats.api import JetStreamApi
from oms_events._nats.client import Client, Subscription, errors
from oms_events._nats.connection import OnError, fault_of
from oms_events._nats.own_client import round_trip
from oms_events.errors import PlatformDeniedError, PublishError, TransientError
from oms_events.publishers.jetstream.config import JetStreamOptions
from oms_events.publishers.jetstream.frames import (
    FrameSender,
    OnAck,
    PublicSender,
    close_inbox,
    make_sender,
    open_inbox,
)

_UNSUBSCRIBE_TIMEOUT = 1.0


class Link:
    """Made by `attach`. `epoch` is another number after each reconnect: older messages get no ack any more.

    `may_diagnose` is turned off by whoever finds that the permissions do not allow to ask about streams.
    """

    def __init__(
        self,
        client: Client,
        subscription: Subscription,
        on_ack: OnAck,
        sender: FrameSender | PublicSender,
        api: JetStreamApi,
    ) -> None:
        self.client = client
        self.sender = sender
        self.api = api
        self.epoch = 0
        self.lost = False
        self.may_diagnose = True
        self._subscription = subscription
        self._on_ack = on_ack
        self._reconnects = client.stats["reconnects"]
        self._client_id = client.client_id
        self._last_error = client.last_error

    @classmethod
    async def attach(cls, client: Client, on_ack: OnAck, on_error: OnError, options: JetStreamOptions) -> Link:
        """Subscribes the inbox and waits until the server has it. Raises a `PublishError`."""
        inbox = f"{client.new_inbox()}."
        seen = client.last_error
        try:
            async with asyncio.timeout(options.request_timeout):
                subscription = await open_inbox(client, inbox, on_ack, on_error, fast_path=options.fast_path)
        except (errors.Error, OSError) as error:
            raise TransientError(f"the inbox for acknowledgements could not be opened: {error}") from error
        sender = make_sender(client, inbox, fast_path=options.fast_path)
        api = JetStreamApi(client, prefix=options.api_prefix, timeout=options.request_timeout)
        link = cls(client, subscription, on_ack, sender, api)
        try:
            # The client's ping overtakes the subscription; the answer to a second one comes after it.
            for _ in range(2):
                await round_trip(client, options.request_timeout)
            last = client.last_error
            violation = f'permissions violation for subscription to "{inbox}*"'.lower()
            if last is not seen and violation in str(last):
                raise PlatformDeniedError(
                    f"no permission to subscribe {inbox}*, where acknowledgements arrive; grant _INBOX.>"
                )
        except BaseException:
            await link.detach()
            raise
        return link

    def fault(self) -> PublishError | None:
        """Why nothing can be sent now, or None. Looks at the client only; costs no call."""
        client = self.client
        if self.lost or not client.is_connected or client.is_draining:
            self.lost = self.lost or client.is_closed or client.is_draining
            return fault_of(client)
        if client.client_id != self._client_id or client.stats["reconnects"] != self._reconnects:
            if client.stats["reconnects"] == self._reconnects:
                # Connected anew from the start: a client forgets its subscriptions then.
                self.lost = True
                return TransientError("the NATS client was closed and connected again since `open`")
            self._reconnects, self._client_id = client.stats["reconnects"], client.client_id
            self.epoch += 1
        return None

    def news(self) -> Exception | None:
        """The client's last error, once."""
        last = self.client.last_error
        if last is self._last_error:
            return None
        self._last_error = last
        return last

    async def detach(self) -> None:
        """Gives the inbox back; the client stays as it is."""
        self.lost = True
        with suppress(errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_UNSUBSCRIBE_TIMEOUT):
                await close_inbox(self.client, self._subscription, self._on_ack)
