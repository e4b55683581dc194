"""The port to a queue, as SQS has them: messages that are received, hidden for a while, and deleted when done."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from oms_events.errors import QueueError
from oms_events.triggers.config import SQS_BATCH

MAX_MESSAGE_BYTES: Final = 1_048_576
"""What SQS takes as a message, and as all messages of a call (SQS API reference, SendMessageBatch)."""

MAX_HIDDEN: Final = 43_200
"""Seconds that a message may be hidden, from when it was received on (SQS API reference,
ChangeMessageVisibility)."""

TOO_LONG: Final = "MessageTooLong"
BAD_CHARACTERS: Final = "InvalidMessageContents"
# What XML 1.0 does not have (SQS API reference, SendMessage).
_FORBIDDEN: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class OutgoingMessage(NamedTuple):
    """A message to be sent; a FIFO queue wants a group, in which order holds, and a deduplication id."""

    body: str
    group: str | None = None
    deduplication_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message as a queue gave it: `attributes` are the queue's own, `message_attributes` the sender's."""

    message_id: str
    receipt_handle: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    message_attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def receive_count(self) -> int:
        """How often it was received, this time included; about, of a standard queue."""
        return counted(self.attributes.get("ApproximateReceiveCount"))

    @property
    def group(self) -> str | None:
        """The group of a FIFO queue's message."""
        return self.attributes.get("MessageGroupId")


class MessageQueue(Protocol):
    """A queue. SQS and memory pass the same contract suite. All methods but `close` may raise `QueueError`.

    Safe to call concurrently. Opens at the first use.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def is_fifo(self) -> bool:
        """Whether the messages of a group keep their order, and the same deduplication id is stored once."""
        ...

    async def open(self) -> None:
        """Makes it ready; idempotent, also after `close`."""
        ...

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        ...

    async def send(self, messages: Sequence[OutgoingMessage], *, batch_size: int = SQS_BATCH) -> list[str]:
        """Sends messages in calls of at most `batch_size`, and gives their ids, in order.

        At least once: after a lost answer they are sent again. Nothing is sent when one of them can never be.
        Raises `QueueError`, whose `failed` are the places of those that certainly are not in the queue. Cancelled,
        some may be there.
        """
        ...

    async def receive(
        self, *, limit: int = SQS_BATCH, hidden_for: int = 30, wait: int = 0
    ) -> list[ReceivedMessage]:
        """At most `limit` (to 10) messages, hidden from others for `hidden_for` seconds; waits for the first.

        Of a FIFO queue's group nothing is given while one of its messages is hidden. Cancelled, or after a lost
        answer, messages come back after that time.
        """
        ...

    async def hide(self, receipt_handles: Sequence[str], seconds: int) -> None:
        """Hides received messages for so many seconds from now; 0 gives them back at once.

        Those that are gone, or no longer held by the receipt handle, are left alone.
        """
        ...

    async def delete(self, receipt_handle: str) -> None:
        """Deletes a received message. Raises `QueueError` when the receipt handle no longer holds it.

        A FIFO queue refuses a handle whose time is over; a standard queue takes it until the message is received
        again.
        """
        ...


def counted(told: str | None) -> int:
    """How often a message was received, as its attribute tells; 1 where that says nothing."""
    return int(told) if told and told.isascii() and told.isdigit() and len(told) < 10 else 1


def json_text(value: Any) -> str:
    """JSON that every queue takes: ASCII, without what JSON does not have.

    Raises `TypeError`, `ValueError` and `RecursionError`.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def check_messages(messages: Sequence[OutgoingMessage], *, limit: int, fifo: bool) -> None:
    """Raises `QueueError`, all of them failed, when one can never be in the queue."""
    for place, message in enumerate(messages):
        if (problem := _problem(message, limit, fifo)) is not None:
            code, text = problem
            several = f"message {place} of {len(messages)}" if len(messages) > 1 else "the message"
            raise QueueError(f"nothing was sent: {several} {text}", code=code, failed=tuple(range(len(messages))))


def _problem(message: OutgoingMessage, limit: int, fifo: bool) -> tuple[str, str] | None:
    size = size_of(message)
    if not 1 <= size <= limit:
        return TOO_LONG, f"has {size:,} bytes, and the queue takes 1 to {limit:,}: make it smaller"
    if (wrong := _FORBIDDEN.search(message.body)) is not None:
        return BAD_CHARACTERS, f"has the character U+{ord(wrong[0]):04X}, which no queue takes: escape it"
    if fifo and not (message.group and message.deduplication_id):
        return "MissingParameter", "has no group or no deduplication id: a FIFO queue wants both"
    return None


def size_of(message: OutgoingMessage) -> int:
    """The bytes that SQS counts."""
    return len(message.body.encode("utf-8", "surrogatepass"))
