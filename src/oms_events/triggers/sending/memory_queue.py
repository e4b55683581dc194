"""A queue in memory, for tests and for pipelines of one process."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from oms_events._aio import Clock, SystemClock
from oms_events.errors import QueueError
from oms_events.triggers.config import SQS_BATCH
from oms_events.triggers.sending.queues import (
    MAX_MESSAGE_BYTES,
    OutgoingMessage,
    ReceivedMessage,
    check_messages,
)

DEDUPLICATED_FOR: Final = 300.0
"""Seconds that a queue knows a deduplication id (SQS developer guide, "Using the message deduplication ID")."""


@dataclass(slots=True)
class _Stored:
    message: OutgoingMessage
    message_id: str
    visible_from: float
    attributes: dict[str, str]
    message_attributes: Mapping[str, str]
    receives: int = 0
    receipt: str | None = None


class MemoryQueue:
    """A standard or FIFO queue as SQS has them, in memory: what is in it ends with the process.

    A message can be received `delay` seconds after it was sent. Receiving does not wait.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        fifo: bool = False,
        delay: float = 0.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._name = name
        self._fifo = fifo
        self._delay = delay
        self._limit = max_message_bytes
        self._clock = clock or SystemClock()
        self._stored: list[_Stored] = []
        # Deduplication id to the message that had it, and until when it is known.
        self._known: dict[str, tuple[str, float]] = {}
        self._sequence = 0

    @property
    def name(self) -> str:
        """See `MessageQueue.name`."""
        return self._name

    @property
    def is_fifo(self) -> bool:
        """See `MessageQueue.is_fifo`."""
        return self._fifo

    @property
    def messages(self) -> list[ReceivedMessage]:
        """All messages that were not deleted, hidden or not, in order, without receiving them."""
        return [_told(stored) for stored in self._stored]

    @property
    def documents(self) -> list[Any]:
        """The JSON of all messages that were not deleted, hidden or not, in order."""
        return [json.loads(stored.message.body) for stored in self._stored]

    async def open(self) -> None:
        """See `MessageQueue.open`."""

    async def close(self) -> None:
        """See `MessageQueue.close`; what is in the queue stays."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, messages: Sequence[OutgoingMessage], *, batch_size: int = SQS_BATCH) -> list[str]:
        """See `MessageQueue.send`."""
        check_messages(messages, limit=self._limit, fifo=self._fifo)
        return [self.put(message) for message in messages]

    def put(self, message: OutgoingMessage, *, message_attributes: Mapping[str, str] | None = None) -> str:
        """Puts one message, with attributes of its sender's as AWS's own services give them; its id."""
        now = self._clock.monotonic()
        self._known = {key: known for key, known in self._known.items() if known[1] > now}
        if self._fifo and message.deduplication_id in self._known:
            return self._known[message.deduplication_id][0]
        message_id = str(uuid.uuid4())
        if self._fifo and message.deduplication_id is not None:
            self._known[message.deduplication_id] = (message_id, now + DEDUPLICATED_FOR)
        self._stored.append(
            _Stored(
                message, message_id, now + self._delay, self._attributes(message), dict(message_attributes or {})
            )
        )
        return message_id

    async def receive(
        self, *, limit: int = SQS_BATCH, hidden_for: int = 30, wait: int = 0
    ) -> list[ReceivedMessage]:
        """See `MessageQueue.receive`."""
        now = self._clock.monotonic()
        held = {stored.message.group for stored in self._stored if stored.receives and stored.visible_from > now}
        found = [
            stored
            for stored in self._stored
            if stored.visible_from <= now and not (self._fifo and stored.message.group in held)
        ]
        return [self._received(stored, now + hidden_for) for stored in found[: min(limit, SQS_BATCH)]]

    async def hide(self, receipt_handles: Sequence[str], seconds: int) -> None:
        """See `MessageQueue.hide`."""
        now = self._clock.monotonic()
        for stored in self._stored:
            if stored.receipt in receipt_handles and stored.visible_from > now:
                stored.visible_from = now + seconds

    async def delete(self, receipt_handle: str) -> None:
        """See `MessageQueue.delete`."""
        now = self._clock.monotonic()
        for stored in self._stored:
            if stored.receipt == receipt_handle and (stored.visible_from > now or not self._fifo):
                self._stored.remove(stored)
                return
        text = f"queue {self._name}: nothing was deleted, the receipt handle holds no message"
        raise QueueError(text, code="ReceiptHandleIsInvalid")

    def _attributes(self, message: OutgoingMessage) -> dict[str, str]:
        attributes = {"SentTimestamp": str(int(self._clock.now().timestamp() * 1000))}
        if self._fifo:
            self._sequence += 1
            attributes["SequenceNumber"] = str(self._sequence)
            attributes["MessageGroupId"] = message.group or ""
            attributes["MessageDeduplicationId"] = message.deduplication_id or ""
        return attributes

    def _received(self, stored: _Stored, visible_from: float) -> ReceivedMessage:
        stored.visible_from = visible_from
        stored.receives += 1
        stored.receipt = f"{stored.message_id}-{stored.receives}"
        return _told(stored)


def _told(stored: _Stored) -> ReceivedMessage:
    return ReceivedMessage(
        message_id=stored.message_id,
        receipt_handle=stored.receipt or "",
        body=stored.message.body,
        attributes={**stored.attributes, "ApproximateReceiveCount": str(stored.receives)},
        message_attributes=stored.message_attributes,
    )
