"""Where starts go that nobody tries again by themselves."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from oms_events._aio import Clock
from oms_events.triggers.sending.letters import DeadLetter, StoredLetter, letter_text, read_letter
from oms_events.triggers.sending.memory_queue import MemoryQueue
from oms_events.triggers.sending.queues import MAX_MESSAGE_BYTES, MessageQueue, OutgoingMessage, ReceivedMessage
from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue

if TYPE_CHECKING:
    import aioboto3

_log = logging.getLogger("oms_events")

_ID_BYTES: Final = 32
_GROUP: Final = "dead-letters"


class DeadLetters(Protocol):
    """Where dead letters are put. SQS and memory pass the same contract suite."""

    async def put(self, letter: DeadLetter) -> None:
        """Stores a letter with its raw input; of one that the queue cannot take even compressed, the beginning.

        That is logged as an error. Raises `QueueError`; cancelled, and after an unknown outcome, it may be there.
        """
        ...


class QueuedLetters:
    """Dead letters on a queue; `SqsDeadLetters` and `MemoryDeadLetters` are the ones to use."""

    def __init__(self, queue: MessageQueue, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._queue = queue
        self._limit = max_message_bytes

    async def open(self) -> None:
        """Makes the queue ready; idempotent. Raises as `MessageQueue.open` does."""
        await self._queue.open()

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        await self._queue.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def put(self, letter: DeadLetter) -> None:
        """See `DeadLetters.put`."""
        body, is_cut = letter_text(letter, limit=self._limit)
        if is_cut:
            _log.error(
                "the dead letter of %s (%s) keeps only the beginning of its input, which queue %s does not take: "
                "it cannot be redriven",
                letter.correlation_id,
                letter.reason,
                self._queue.name,
                extra={"correlation_id": letter.correlation_id},
            )
        message = OutgoingMessage(body)
        if self._queue.is_fifo:
            deduplication_id = blake2b(body.encode(), digest_size=_ID_BYTES).hexdigest()
            message = OutgoingMessage(body, group=_GROUP, deduplication_id=deduplication_id)
        await self._queue.send([message])


class SqsDeadLetters(QueuedLetters):
    """Dead letters on a queue of SQS, as the preset `ingestion-triggers` makes one.

    Give a `session` (aioboto3) or a `client` (its `sqs` client) to use your own; neither is ever closed. Needs
    `sqs:SendMessage`.
    """

    def __init__(
        self,
        config: QueueConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(
            SqsQueue(config, session=session, client=client, clock=clock, draw=draw),
            max_message_bytes=min(config.max_message_bytes, config.max_batch_bytes),
        )


class MemoryDeadLetters(QueuedLetters):
    """Dead letters in memory, for tests; `DeadLetterAdmin(letters.queue)` redrives them."""

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES, clock: Clock | None = None) -> None:
        self.queue = MemoryQueue("memory-dlq", max_message_bytes=max_message_bytes, clock=clock)
        super().__init__(self.queue, max_message_bytes=max_message_bytes)

    @property
    def letters(self) -> list[StoredLetter]:
        """All letters, in order."""
        return [stored_letter(message) for message in self.queue.messages]


def stored_letter(message: ReceivedMessage) -> StoredLetter:
    """What a received message says as a dead letter."""
    return read_letter(
        message.message_id,
        message.body,
        attributes=message.attributes,
        message_attributes=message.message_attributes,
    )
