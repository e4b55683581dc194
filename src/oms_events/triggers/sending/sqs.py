"""A queue of SQS: calls of ten messages, of which some may fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import Field

from oms_events._aio import Clock, LoopBound, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.queue_urls import QueueUrl, is_fifo, queue_name
from oms_events._aws.service import ServiceClient
from oms_events._aws.sqs import code_of, is_gone, open_sqs
from oms_events.errors import QueueError
from oms_events.resilience.backoff import RetryConfig
from oms_events.triggers.config import SQS_BATCH
from oms_events.triggers.sending.queues import (
    MAX_MESSAGE_BYTES,
    OutgoingMessage,
    ReceivedMessage,
    check_messages,
    size_of,
)

if TYPE_CHECKING:
    import aioboto3

_SEND: Final = "SendMessageBatch"
_HIDE: Final = "ChangeMessageVisibilityBatch"
_DELETE: Final = "DeleteMessageBatch"
_RECEIVE: Final = "ReceiveMessage"
_LONGEST_WAIT: Final = 20


class QueueConfig(AwsConfig):
    """A queue of SQS; the fields of `AwsConfig` and these."""

    queue_url: QueueUrl
    """The queue's URL, as SQS and stacks tell it; that of a FIFO queue ends with `.fifo`."""
    connections: int = Field(default=10, ge=1)
    """Connections to SQS, and so many calls at the same time."""
    retry: RetryConfig = RetryConfig(max_attempts=4, initial=0.1, maximum=3.0)
    """How what failed is tried again, when it may go well then, or when no answer came."""
    max_message_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1024, le=MAX_MESSAGE_BYTES)
    """The longest message that the queue takes, its `MaximumMessageSize`."""
    max_batch_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1024, le=MAX_MESSAGE_BYTES)
    """Bytes of all messages of a call."""

    @property
    def queue_name(self) -> str:
        """The queue's name, the last part of its URL."""
        return queue_name(self.queue_url)

    @property
    def is_fifo(self) -> bool:
        """Whether it is a FIFO queue."""
        return is_fifo(self.queue_url)


class SqsQueue:
    """A queue of SQS.

    Give a `session` (aioboto3) or a `client` (its `sqs` client) to use your own; neither is ever closed. Opens at
    the first use, or as `async with`. Needs `sqs:SendMessage` to send, and `sqs:ReceiveMessage`,
    `sqs:DeleteMessage` and `sqs:ChangeMessageVisibility` for what else is used. In a FIFO queue a message that
    failed and is sent again comes after the later ones of its call.
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
        self._config = config
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._draw = draw
        self._opening = LoopBound(asyncio.Lock)
        self._slots = LoopBound(lambda: asyncio.Semaphore(config.connections))
        self._sqs: ServiceClient | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """See `MessageQueue.name`."""
        return self._config.queue_name

    @property
    def is_fifo(self) -> bool:
        """See `MessageQueue.is_fifo`."""
        return self._config.is_fifo

    async def open(self) -> None:
        """Makes the client; idempotent, also after `close`. It does not look at the queue.

        Raises `ConfigurationError` for a region, profile or file that is missing, `MissingExtraError` without
        aioboto3, and `QueueError` when credentials cannot be had.
        """
        self._is_closed = False
        async with self._opening():
            if self._sqs is None:
                config = self._config
                self._sqs = await open_sqs(
                    config, connections=config.connections, session=self._session, client=self._borrowed
                )

    async def close(self) -> None:
        """Closes what was opened here; idempotent. Calls that are under way fail, and so do later ones."""
        self._is_closed = True
        async with self._opening():
            sqs, self._sqs = self._sqs, None
            if sqs is not None:
                await sqs.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, messages: Sequence[OutgoingMessage], *, batch_size: int = SQS_BATCH) -> list[str]:
        """See `MessageQueue.send`. What follows a call that failed is not sent."""
        config = self._config
        check_messages(messages, limit=min(config.max_message_bytes, config.max_batch_bytes), fifo=self.is_fifo)
        ids: list[str] = []
        for call in _calls(messages, min(batch_size, SQS_BATCH), config.max_batch_bytes):
            results = await self._batch(_SEND, [_entry(message) for message in call])
            if errors := {at: result for at, result in enumerate(results) if isinstance(result, QueueError)}:
                unsent = range(len(ids) + len(call), len(messages))
                failed = [len(ids) + at for at, error in errors.items() if not error.unknown]
                raise _not_sent(errors, total=len(messages), failed=(*failed, *unsent), queue=self.name)
            ids += [str(result["MessageId"]) for result in results if not isinstance(result, QueueError)]
        return ids

    async def receive(
        self, *, limit: int = SQS_BATCH, hidden_for: int = 30, wait: int = 0
    ) -> list[ReceivedMessage]:
        """See `MessageQueue.receive`. Waits at most half the `read_timeout`, and 20 seconds."""
        waiting = min(wait, int(self._config.read_timeout / 2), _LONGEST_WAIT)
        answer = await self._call(
            _RECEIVE,
            {
                "MaxNumberOfMessages": min(limit, SQS_BATCH),
                "VisibilityTimeout": hidden_for,
                "WaitTimeSeconds": waiting,
                "MessageSystemAttributeNames": ["All"],
                "MessageAttributeNames": ["All"],
            },
        )
        return [_received(message) for message in answer.get("Messages", ())]

    async def hide(self, receipt_handles: Sequence[str], seconds: int) -> None:
        """See `MessageQueue.hide`."""
        entries = [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle in receipt_handles]
        for first in range(0, len(entries), SQS_BATCH):
            for result in await self._batch(_HIDE, entries[first : first + SQS_BATCH]):
                if isinstance(result, QueueError) and not is_gone(result.code, str(result)):
                    raise result

    async def delete(self, receipt_handle: str) -> None:
        """See `MessageQueue.delete`."""
        (result,) = await self._batch(_DELETE, [{"ReceiptHandle": receipt_handle}])
        # After a lost answer it is gone because it was deleted.
        if isinstance(result, QueueError) and not (result.unknown and is_gone(result.code, str(result))):
            raise result

    async def _batch(
        self, operation: str, entries: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any] | QueueError]:
        """Each entry's answer or error, aligned. What may go well later, and what is unknown, is sent again."""
        results: list[Mapping[str, Any] | QueueError] = [{}] * len(entries)
        pending: Sequence[int] = range(len(entries))
        unknown: set[int] = set()
        attempt = 0
        while True:
            attempt += 1
            errors = await self._attempt(operation, entries, pending, results)
            unknown |= {at for at, error in errors.items() if error.unknown}
            pending = [at for at, error in errors.items() if error.retryable]
            for at, error in errors.items():
                results[at] = _as_unknown(error) if at in unknown else error
            if not pending or attempt >= self._config.retry.max_attempts or self._is_closed:
                return results
            await self._pause(attempt)

    async def _attempt(
        self,
        operation: str,
        entries: Sequence[Mapping[str, Any]],
        pending: Sequence[int],
        results: list[Mapping[str, Any] | QueueError],
    ) -> dict[int, QueueError]:
        """Sends the pending entries once: puts the answers of those done into `results`, and gives the others'."""
        sent = [{"Id": str(at), **entries[at]} for at in pending]
        try:
            answer = await self._once(operation, {"Entries": sent}, changes=True)
        except QueueError as error:
            return dict.fromkeys(pending, error)
        done = {str(entry["Id"]): entry for entry in answer.get("Successful") or ()}
        refused = {str(entry["Id"]): entry for entry in answer.get("Failed") or ()}
        errors: dict[int, QueueError] = {}
        for at in pending:
            if (entry := done.get(str(at))) is not None:
                results[at] = entry
            else:
                errors[at] = _entry_error(operation, refused.get(str(at)))
        return errors

    async def _call(self, operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(operation, parameters, changes=False)
            except QueueError as error:
                if not error.retryable or attempt >= self._config.retry.max_attempts or self._is_closed:
                    raise
            await self._pause(attempt)

    async def _once(self, operation: str, parameters: Mapping[str, Any], *, changes: bool) -> Mapping[str, Any]:
        if self._sqs is None and not self._is_closed:
            await self.open()
        if (sqs := self._sqs) is None:
            raise QueueError(f"the connection to queue {self.name} was closed")
        async with self._slots():
            return await sqs.call(operation, {"QueueUrl": self._config.queue_url, **parameters}, changes=changes)

    async def _pause(self, attempt: int) -> None:
        await self._clock.sleep(self._config.retry.delay(attempt, self._draw))


def _entry(message: OutgoingMessage) -> dict[str, Any]:
    entry = {"MessageBody": message.body}
    if message.group is not None:
        entry["MessageGroupId"] = message.group
    if message.deduplication_id is not None:
        entry["MessageDeduplicationId"] = message.deduplication_id
    return entry


def _calls(
    messages: Sequence[OutgoingMessage], batch_size: int, max_bytes: int
) -> Iterator[Sequence[OutgoingMessage]]:
    call: list[OutgoingMessage] = []
    total = 0
    for message in messages:
        size = size_of(message)
        if call and (len(call) == batch_size or total + size > max_bytes):
            yield call
            call, total = [], 0
        call.append(message)
        total += size
    if call:
        yield call


def _entry_error(operation: str, refused: Mapping[str, Any] | None) -> QueueError:
    if refused is None:
        return QueueError(f"SQS {operation}: the answer leaves the entry out", retryable=True, unknown=True)
    code = code_of(str(refused.get("Code", "")))
    text = f"SQS {operation}: {code}: {refused.get('Message') or 'no reason given'}"
    return QueueError(text, code=code, retryable=not refused.get("SenderFault", False))


def _as_unknown(error: QueueError) -> QueueError:
    """An earlier try may have been done: what the last one said is about that one only."""
    if error.unknown:
        return error
    text = f"{error}; an earlier try had no answer, and may have been done"
    return QueueError(text, code=error.code, retryable=error.retryable, unknown=True)


def _not_sent(errors: Mapping[int, QueueError], *, total: int, failed: Sequence[int], queue: str) -> QueueError:
    # What can never be sent says more than what ran out of attempts.
    worst = min(errors.values(), key=lambda error: (error.retryable, error.unknown))
    lost = sum(error.unknown for error in errors.values())
    text = f"queue {queue}: {len(failed)} of {total} messages were not sent"
    if lost:
        text += f", and of {lost} it is not known"
    return QueueError(
        f"{text}: {worst}",
        code=worst.code,
        retryable=all(error.retryable for error in errors.values()),
        unknown=lost > 0,
        failed=tuple(failed),
    )


def _received(message: Mapping[str, Any]) -> ReceivedMessage:
    return ReceivedMessage(
        message_id=message["MessageId"],
        receipt_handle=message["ReceiptHandle"],
        body=message.get("Body", ""),
        attributes=message.get("Attributes") or {},
        message_attributes={
            name: str(value.get("StringValue", ""))
            for name, value in (message.get("MessageAttributes") or {}).items()
        },
    )
