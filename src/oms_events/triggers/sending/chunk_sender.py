"""The handler that sends a start's chunks to a queue."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from oms_events._aio import Clock
from oms_events.errors import QueueError
from oms_events.instrumentation.hooks import ChunksSent, Hook, Hooks
from oms_events.triggers.sending.chunks import Chunk, chunks_of, group_of
from oms_events.triggers.sending.queues import MessageQueue, OutgoingMessage, json_text
from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue
from oms_events.triggers.start import Start

if TYPE_CHECKING:
    import aioboto3


class ChunkSender:
    """Sends the chunks of a start to a queue, in calls of `options.sqs_send_batch_size` messages.

    At least once: a start that runs again, and a call whose answer was lost, send the same `chunk_id`s. Give a
    `QueueConfig`, with a `session` (aioboto3) or a `client` (its `sqs` client) to use your own; or a queue, which
    is borrowed, opened when it is needed, and never closed. In a FIFO queue the chunks of a domain and table keep
    their order. Opens at the first start, or as `async with`.
    """

    def __init__(
        self,
        queue: QueueConfig | MessageQueue,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._owned = (
            SqsQueue(queue, session=session, client=client, clock=clock, draw=draw)
            if isinstance(queue, QueueConfig)
            else None
        )
        self._queue: MessageQueue = queue if self._owned is None else self._owned  # type: ignore[assignment]
        self._hooks = Hooks(hooks)

    async def open(self) -> None:
        """Makes the queue ready; idempotent. Raises as `MessageQueue.open` does."""
        await self._queue.open()

    async def close(self) -> None:
        """Closes the queue, unless it is borrowed; idempotent."""
        if self._owned is not None:
            await self._owned.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __call__(self, start: Start) -> dict[str, Any]:
        """Sends the chunks: how many they and their symbols are, and the ids of the messages, in order.

        Raises `QueueError` when not all of them are certainly in the queue: the start has failed, and is to run
        again. Cancelled, some chunks may be there.
        """
        chunks = chunks_of(start)
        group = group_of(start) if self._queue.is_fifo else None
        messages = [_message(chunk, group) for chunk in chunks]
        try:
            ids = await self._queue.send(messages, batch_size=start.options.sqs_send_batch_size)
        except QueueError as error:
            # What is not known counts as taken: it may be there.
            self._hooks(ChunksSent(len(chunks) - len(error.failed), len(error.failed)))
            raise
        self._hooks(ChunksSent(len(chunks), 0))
        return {"chunks": len(chunks), "symbols": len(start.request.symbols), "messages": ids}

    def plan(self, start: Start) -> dict[str, Any]:
        """What would be sent, and to which queue; does no I/O."""
        chunks = chunks_of(start)
        return {
            "queue": self._queue.name,
            "chunks": len(chunks),
            "symbols": len(start.request.symbols),
            "documents": [dict(chunk.document) for chunk in chunks],
        }


def _message(chunk: Chunk, group: str | None) -> OutgoingMessage:
    deduplication_id = None if group is None else chunk.deduplication_id
    return OutgoingMessage(json_text(chunk.document), group=group, deduplication_id=deduplication_id)
