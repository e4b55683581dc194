"""The delay queue: starts that came too fast, and run later, in order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError, QueueError
from oms_events.triggers.sending.memory_queue import MemoryQueue
from oms_events.triggers.sending.queues import (
    BAD_CHARACTERS,
    MAX_HIDDEN,
    MessageQueue,
    OutgoingMessage,
    ReceivedMessage,
    json_text,
)
from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue
from oms_events.triggers.start import Queued

if TYPE_CHECKING:
    import aioboto3

_LONGEST_RUN: Final = 900
MAX_HOLD: Final = MAX_HIDDEN - _LONGEST_RUN
"""Seconds that a message may be held on. SQS counts its 12 hours from when the message was received, and refuses
more: as long ago as the function may run (AWS Lambda guide, "Lambda quotas": 15 minutes)."""

_ID_BYTES: Final = 32


class DelayQueue(Protocol):
    """Where starts wait that came too fast. SQS and memory pass the same contract suite."""

    async def put(self, message: Mapping[str, Any], *, group: str, key: str) -> None:
        """Puts a start at the end of its group, in which order holds.

        The very same message is there once, when it is put again within five minutes. Raises `QueueError`;
        cancelled, and after an unknown outcome, it may be there.
        """
        ...

    async def hold(self, queued: Queued, seconds: float) -> None:
        """Keeps a received message, and with it all later ones of its group, for so long from now.

        At most 42,300 seconds: then it is received, and may be held again. One that is no longer held by its
        receipt handle is left alone, as it comes back by itself. So is one of another queue: it comes back when
        that queue's visibility timeout is over. Raises `QueueError`: then the same holds.
        """
        ...


class QueuedStarts:
    """A delay queue on a FIFO queue; `SqsDelayQueue` and `MemoryDelayQueue` are the ones to use.

    Lambda reads the queue by itself; elsewhere `receive_batch` and `settle` do what Lambda does.
    """

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

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

    async def put(self, message: Mapping[str, Any], *, group: str, key: str) -> None:
        """See `DelayQueue.put`."""
        try:
            body = json_text(message)
        except (TypeError, ValueError, RecursionError) as error:
            raise QueueError(f"nothing was queued: no JSON: {error}", code=BAD_CHARACTERS, failed=(0,)) from error
        # Of the whole message, not of the key alone: a start that has left the queue and is redriven within five
        # minutes may have to wait again, and SQS drops a message with a known id without a word.
        identity = "\0".join((group, key, body)).encode()
        deduplication_id = blake2b(identity, digest_size=_ID_BYTES).hexdigest()
        await self._queue.send([OutgoingMessage(body, group=group, deduplication_id=deduplication_id)])

    async def hold(self, queued: Queued, seconds: float) -> None:
        """See `DelayQueue.hold`."""
        if queued.queue_arn and queued.queue_arn.rpartition(":")[2] != self.name:
            # Its receipt handle is no other queue's, and we may not be allowed to change that one.
            return
        if not queued.receipt_handle:
            raise QueueError(f"queue {self.name}: message {queued.message_id} came without a receipt handle")
        await self._queue.hide([queued.receipt_handle], min(max(math.ceil(seconds), 0), MAX_HOLD))

    async def receive_batch(
        self, *, limit: int = 1, hidden_for: int = 360, wait: int = 0
    ) -> Mapping[str, Any] | None:
        """Receives messages as Lambda hands them to a function, for `TriggerPipeline.handle`; None: none is there.

        They are hidden for `hidden_for` seconds: longer than their starts take. Raises `QueueError`.
        """
        received = await self._queue.receive(limit=limit, hidden_for=hidden_for, wait=wait)
        return {"Records": [_record(message, self.name) for message in received]} if received else None

    async def settle(self, batch: Mapping[str, Any], failed: Collection[str] = ()) -> None:
        """Deletes the messages of a batch but those whose ids `failed`, which come back. Raises `QueueError`.

        As Lambda takes it, an empty id stands for all of them.
        """
        if "" in failed:
            return
        for record in batch["Records"]:
            if record["messageId"] not in failed:
                await self._queue.delete(record["receiptHandle"])


class SqsDelayQueue(QueuedStarts):
    """A delay queue on a FIFO queue of SQS, as the preset `ingestion-triggers` makes one.

    Give a `session` (aioboto3) or a `client` (its `sqs` client) to use your own; neither is ever closed. Needs
    `sqs:SendMessage` and `sqs:ChangeMessageVisibility`. Raises `ConfigurationError` for a queue that is no FIFO
    queue.
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
        if not config.is_fifo:
            problem = f"queue_url = {config.queue_url!r}: the delay queue must be a FIFO queue, or order is lost"
            raise ConfigurationError("SqsDelayQueue", [problem])
        super().__init__(SqsQueue(config, session=session, client=client, clock=clock, draw=draw))


class MemoryDelayQueue(QueuedStarts):
    """A delay queue in memory, for tests and for pipelines of one process; `delay` is in seconds."""

    def __init__(self, *, delay: float = 0.0, clock: Clock | None = None) -> None:
        self._memory = MemoryQueue("memory-delay.fifo", fifo=True, delay=delay, clock=clock)
        super().__init__(self._memory)

    @property
    def documents(self) -> list[Any]:
        """The messages that wait, held or not, in order."""
        return self._memory.documents


def _record(message: ReceivedMessage, queue: str) -> dict[str, Any]:
    return {
        "messageId": message.message_id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": dict(message.attributes),
        "messageAttributes": {
            name: {"stringValue": value, "dataType": "String"}
            for name, value in message.message_attributes.items()
        },
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:::{queue}",
    }
