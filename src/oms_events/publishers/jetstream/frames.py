"""How messages reach the wire and acks come back: a fast way inside nats-py, guarded, and the public way.

What nats-py does not promise about messages is in this file. `open_inbox` and `make_sender` look whether the
client has what the fast way needs, in the shape it needs (seen in nats-py 2.11 to 2.16), else they take the
public way.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from oms_events._nats.client import (
    AWAITING_CONTROL_LINE,
    Client,
    Msg,
    Parser,
    Subscription,
    TcpTransport,
    errors,
)
from oms_events._nats.connection import OnError
from oms_events.errors import TransientError
from oms_events.publishers.jetstream.binding import read_header_block

_log = logging.getLogger("oms_events")

Message = tuple[str, int, bytes, bytes]
"""Subject, token of the ack, header block, payload."""
OnAck = Callable[[int, bytes, str | None], None]
"""Token, payload and inline status of an ack."""

_MOST_SUBJECTS: Final = 4096
_MOST_UNWRITTEN: Final = 1 << 20
_POLL: Final = 0.005


class Sender(Protocol):
    """Puts messages on the wire, for one caller at a time."""

    handed: int
    """How many messages of the last `send` the client has, or may have: the others were not sent."""

    async def ready(self) -> None:
        """Waits until what was written before has left. Raises `TransientError`; nothing was sent."""
        ...

    async def send(self, messages: Sequence[Message]) -> None:
        """Writes messages in order. Raises `TransientError` for those that were not handed over."""
        ...


class _Transport(Protocol):
    def write(self, payload: bytes) -> None: ...

    async def drain(self) -> None: ...


class FrameSender:
    """Writes joined HPUB frames straight to the client's transport, as the client does with its own pings.

    They never enter the client's buffer, so a reconnect cannot send later what was reported as lost.
    """

    def __init__(self, client: Client, inbox: str) -> None:
        self._client = client
        self._inbox = inbox.encode()
        self._heads: dict[str, bytes] = {}
        self.handed = 0

    @staticmethod
    def fits(client: Client) -> bool:
        stats = getattr(client, "stats", None)
        return (
            type(getattr(client, "_transport", None)) is TcpTransport
            and isinstance(stats, dict)
            and {"out_msgs", "out_bytes"} <= stats.keys()
        )

    async def ready(self) -> None:
        try:
            await self._transport.drain()
        except OSError as error:
            raise TransientError(f"the connection was lost before sending: {error}") from error

    async def send(self, messages: Sequence[Message]) -> None:
        self.handed = 0
        heads = self._heads
        parts: list[bytes] = []
        size = 0
        for subject, token, block, payload in messages:
            head = heads.get(subject)
            if head is None:
                if len(heads) >= _MOST_SUBJECTS:
                    heads.clear()
                head = heads[subject] = b"HPUB %b %b" % (subject.encode(), self._inbox)
            length = len(block)
            total = length + len(payload)
            size += total
            parts += (b"%b%d %d %d\r\n" % (head, token, length, total), block, payload, b"\r\n")
        try:
            self._transport.write(b"".join(parts))
        except (OSError, RuntimeError) as error:
            raise TransientError(f"the connection was lost before sending: {error}") from error
        self.handed = len(messages)
        stats = self._client.stats
        stats["out_msgs"] += self.handed
        stats["out_bytes"] += size

    @property
    def _transport(self) -> _Transport:
        return cast("_Transport", self._client._transport)  # noqa: SLF001 - `fits` looked


class PublicSender:
    """Publishes one by one through `Client.publish`."""

    def __init__(self, client: Client, inbox: str) -> None:
        self._client = client
        self._inbox = inbox
        self.handed = 0

    async def ready(self) -> None:
        # The client has no public way to wait for its buffer alone; its flush waits for the server too.
        while self._client.pending_data_size > _MOST_UNWRITTEN:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)

    async def send(self, messages: Sequence[Message]) -> None:
        client = self._client
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        self.handed = 0
        for subject, token, block, payload in messages:
            # A client that is not connected may buffer, and deliver after we reported a failure.
            if not client.is_connected or client.is_draining:
                raise TransientError("the connection was lost before sending")
            self.handed += 1
            try:
                await client.publish(
                    subject, payload, reply=f"{self._inbox}{token}", headers=read_header_block(block)
                )
            except errors.Error as error:
                self.handed -= 1
                raise TransientError(f"the client did not take the message: {error}") from error
            # The client swallows a cancellation that reaches it while it waits for its flusher.
            if task is not None and task.cancelling() > cancelling:
                raise asyncio.CancelledError


class _AckSink:
    """Stands where nats-py has the future of a one-answer subscription: acks come without queue and task."""

    __slots__ = ("_on_ack", "_start")

    def __init__(self, on_ack: OnAck, start: int) -> None:
        self._on_ack = on_ack
        self._start = start

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        # Called from the client's read loop, which an error here would end.
        try:
            headers = message.headers
            self._on_ack(
                int(message.subject[self._start :]),
                message.data,
                headers.get("Status") if headers else None,
            )
        except Exception:
            _log.exception("an acknowledgement on %s could not be taken", message.subject)

    async def take(self, message: Msg) -> None:
        self.set_result(message)


class _AckParser(Parser):
    """nats-py's parser, with a shorter way for runs of acks; everything else goes the usual way.

    It shares the state of the parser it stands in for, so both may change places at any moment.
    """

    ack: re.Pattern[bytes]
    on_ack: OnAck
    on_error: OnError
    last_error: Exception | None

    async def parse(self, data: bytes = b"") -> None:
        # The client keeps its last error only. Cut before each, the data shows all of them.
        start = 0
        while (cut := data.find(b"-ERR", start + 1)) > 0:
            await self._parse(data[start:cut])
            start = cut
        await self._parse(data[start:])

    async def _parse(self, data: bytes) -> None:
        if self.state == AWAITING_CONTROL_LINE:
            self.buf.extend(data)
            data = b""
            self._take_acks()
            if not self.buf:
                return
        await super().parse(data)
        last = self.nc.last_error
        if last is not None and last is not self.last_error:
            self.last_error = last
            try:
                self.on_error(last)
            except Exception:
                _log.exception("an error of the server could not be taken")

    def _take_acks(self) -> None:
        buffer, match_at, on_ack = self.buf, self.ack.match, self.on_ack
        position = messages = size = 0
        while (found := match_at(buffer, position)) is not None:
            token, length, payload = found.groups()
            if len(payload) != int(length):
                break
            position = found.end()
            messages += 1
            size += len(payload)
            try:
                on_ack(int(token), payload, None)
            except Exception:
                _log.exception("an acknowledgement could not be taken")
        if messages:
            del buffer[:position]
            self.nc.stats["in_msgs"] += messages
            self.nc.stats["in_bytes"] += size

    @classmethod
    def install(
        cls, client: Client, inbox: str, subscription: Subscription, on_ack: OnAck, on_error: OnError
    ) -> None:
        """Takes the place of the client's parser, where that is the one we know."""
        parser = getattr(client, "_ps", None)
        sid = getattr(subscription, "_id", None)
        known = {"nc", "buf", "state", "needed", "header_needed", "msg_arg"}
        if type(parser) is not Parser or not isinstance(sid, int) or not known <= vars(parser).keys():
            return
        mine = cls.__new__(cls)
        mine.__dict__ = parser.__dict__
        mine.ack = re.compile(rb"MSG %b(\d+) %d (\d+)\r\n(\{[^\r\n]*\})\r\n" % (re.escape(inbox.encode()), sid))
        mine.on_ack = on_ack
        mine.on_error = on_error
        mine.last_error = client.last_error
        client._ps = mine  # noqa: SLF001

    @classmethod
    def remove(cls, client: Client, on_ack: OnAck) -> None:
        """Gives the client its own parser back."""
        mine = client._ps  # noqa: SLF001
        if isinstance(mine, cls) and mine.on_ack == on_ack:
            parser = Parser.__new__(Parser)
            parser.__dict__ = mine.__dict__
            client._ps = parser  # noqa: SLF001


def make_sender(client: Client, inbox: str, *, fast_path: bool) -> FrameSender | PublicSender:
    """The fastest sender that the client allows."""
    if fast_path and FrameSender.fits(client):
        return FrameSender(client, inbox)
    return PublicSender(client, inbox)


async def open_inbox(
    client: Client, inbox: str, on_ack: OnAck, on_error: OnError, *, fast_path: bool
) -> Subscription:
    """Subscribes to the acks on `<inbox><token>`; `inbox` ends with a dot.

    `on_error` hears each error of the server where the client allows it.
    """
    sink = _AckSink(on_ack, len(inbox))
    if fast_path:
        future: Any = sink
        subscription = await client.subscribe(f"{inbox}*", future=future)
        if getattr(subscription, "_future", None) is sink:
            _AckParser.install(client, inbox, subscription, on_ack, on_error)
            return subscription
        await subscription.unsubscribe()
    # Without limits: the pipeline's window bounds the acks, and a dropped one would be an unknown outcome.
    return await client.subscribe(f"{inbox}*", cb=sink.take, pending_msgs_limit=0, pending_bytes_limit=0)


async def close_inbox(client: Client, subscription: Subscription, on_ack: OnAck) -> None:
    """Undoes `open_inbox`."""
    _AckParser.remove(client, on_ack)
    await subscription.unsubscribe()
