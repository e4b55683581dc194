"""Dead letters for operators: look at them, start them again, delete them."""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from oms_events._aio import Clock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events.errors import OmsEventsError, QueueError, TriggerError
from oms_events.triggers.responses import TriggerResponse
from oms_events.triggers.sending.dead_letters import stored_letter
from oms_events.triggers.sending.letters import LetterKind, StoredLetter
from oms_events.triggers.sending.queues import MessageQueue, OutgoingMessage, ReceivedMessage, json_text
from oms_events.triggers.sending.sqs import QueueConfig, SqsQueue

if TYPE_CHECKING:
    import aioboto3

_HIDDEN_FOR: Final = 300
_ID_BYTES: Final = 32
_ALL: Final = sys.maxsize
GROUP_SEEN: Final = 10
"""Letters of a group of a FIFO queue that are seen at most: the later ones show when these are deleted."""

_NOT_REACHED: Final = "it was not reached, or others have it for a while; call it again"

_STARTS: Final = frozenset((LetterKind.START, LetterKind.EVENT, LetterKind.INVOCATION, LetterKind.DELAYED))


class RedriveTarget(Protocol):
    """What a dead letter is sent to when it is redriven."""

    takes: frozenset[LetterKind]
    """The letters that belong there."""

    async def take(self, letter: StoredLetter) -> None:
        """Sends it on, and returns when that is certain; raises an `OmsEventsError` when it is not.

        `LetterMovedError` says that the target has made another letter of it, so that this one can go.
        """
        ...


class LetterMovedError(TriggerError):
    """What a target raises that could not send a letter on, and has put another one of its start into a queue."""


class LetterOutcome(StrEnum):
    """What became of a letter."""

    TAKEN = "taken"
    """It was sent on, and is deleted."""
    TAKEN_AND_KEPT = "taken_and_kept"
    """It was sent on, but could not be deleted: it is there again, and is a duplicate of what runs."""
    MOVED = "moved"
    """It was started, did not go on, as `problem` says, and is another dead letter now; this one is deleted."""
    DELETED = "deleted"
    KEPT = "kept"
    """It could not be sent on, or not be deleted, or was seen before and not reached; `problem` says why."""
    MISSING = "missing"
    """There is no such letter, or others have it for a while; it was never seen."""


_GONE: Final = frozenset((LetterOutcome.TAKEN, LetterOutcome.MOVED, LetterOutcome.DELETED))


@dataclass(frozen=True, slots=True)
class HandledLetter:
    """What became of one letter, and what stood in the way."""

    message_id: str
    outcome: LetterOutcome
    problem: str | None = None


class DeadLetterAdmin:
    """Reads a queue of dead letters for operators; nothing is lost by looking.

    Looking receives the letters and gives them back, so that their receive counts rise: a dead-letter queue with
    a dead-letter queue of its own would lose them to that. While somebody looks, others do not see them; after a
    crash or a cancellation they are back within `hidden_for` seconds. Of each group of a FIFO queue the first ten
    letters can be seen: SQS gives no more until they are deleted.

    Understands our own letters, those of EventBridge's rules and of Lambda's asynchronous invocations, and what
    the preset's queues give up. Give a `QueueConfig`, with a `session` (aioboto3) or a `client` (its `sqs` client)
    to use your own; or a queue, which is borrowed. Needs `sqs:ReceiveMessage`, `sqs:ChangeMessageVisibility` and
    `sqs:DeleteMessage`. `wait` is in seconds: so long the last call waits for letters, as SQS may keep some back
    from one that does not wait.
    """

    def __init__(
        self,
        queue: QueueConfig | MessageQueue,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        hidden_for: int = _HIDDEN_FOR,
        wait: int = 1,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._owned: SqsQueue | None = None
        if isinstance(queue, QueueConfig):
            self._owned = SqsQueue(queue, session=session, client=client, clock=clock, draw=draw)
            self._queue: MessageQueue = self._owned
        else:
            self._queue = queue
        self._hidden_for = hidden_for
        self._wait = wait

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

    async def letters(self, *, limit: int = 100) -> list[StoredLetter]:
        """At most `limit` letters, in the queue's order, about, of a standard queue. Raises `QueueError`."""
        found: list[StoredLetter] = []

        async def look(message: ReceivedMessage) -> bool:
            if len(found) < limit:
                found.append(stored_letter(message))
            return len(found) < limit

        await self._walk(look)
        return found

    async def show(self, message_id: str) -> StoredLetter | None:
        """One letter, or None when it cannot be found. Raises `QueueError`."""
        found: list[StoredLetter] = []

        async def look(message: ReceivedMessage) -> bool:
            if message.message_id == message_id:
                found.append(stored_letter(message))
            return not found

        await self._walk(look)
        return found[0] if found else None

    async def redrive(
        self,
        target: RedriveTarget,
        ids: Collection[str] | None = None,
        *,
        limit: int | None = None,
        listed: bool = False,
    ) -> list[HandledLetter]:
        """Sends letters on, those with these ids or all, and deletes each that was taken; one after the other.

        All are those, at most `limit`, that can be seen when it begins: it looks at them first, and leaves what
        comes later. One that fails is kept, and with it the later ones of its group in a FIFO queue; one of which
        the target has made another letter is deleted. At least once: what is sent on and cannot be deleted is
        there again, and after a crash in between both letters are. One that was seen and is not reached any more
        is kept too: of all, and of `ids` when they come out of a listing (`listed`). Raises `QueueError` when the
        queue cannot be read; cancelled, the letter at hand may have been sent on and be there again.
        """
        if ids is None:
            # By their ids, as clocks differ: what a target gives up at once comes back here.
            ids = [letter.message_id for letter in await self.letters(limit=_ALL if limit is None else limit)]
            listed = True
        stuck: set[str] = set()

        async def act(message: ReceivedMessage) -> HandledLetter:
            group = message.group if self._queue.is_fifo else None
            if group in stuck:
                return HandledLetter(
                    message.message_id, LetterOutcome.KEPT, "an earlier letter of its group was kept"
                )
            handled = await self._redrive_one(target, message)
            if group is not None and handled.outcome is LetterOutcome.KEPT:
                stuck.add(group)
            return handled

        return await self._handle(act, ids, listed=listed)

    async def delete(self, ids: Collection[str], *, listed: bool = False) -> list[HandledLetter]:
        """Deletes the letters with these ids, for good; `listed` as for `redrive`.

        Raises `QueueError` when the queue cannot be read.
        """

        async def act(message: ReceivedMessage) -> HandledLetter:
            try:
                await self._queue.delete(message.receipt_handle)
            except QueueError as error:
                return HandledLetter(message.message_id, LetterOutcome.KEPT, str(error))
            return HandledLetter(message.message_id, LetterOutcome.DELETED)

        return await self._handle(act, ids, listed=listed)

    async def _redrive_one(self, target: RedriveTarget, message: ReceivedMessage) -> HandledLetter:
        letter = stored_letter(message)
        if (problem := _unfit(letter, target)) is not None:
            return HandledLetter(message.message_id, LetterOutcome.KEPT, problem)
        outcome, problem = LetterOutcome.TAKEN, None
        try:
            await target.take(letter)
        except LetterMovedError as error:
            outcome, problem = LetterOutcome.MOVED, str(error)
        except OmsEventsError as error:
            return HandledLetter(message.message_id, LetterOutcome.KEPT, str(error))
        try:
            await self._queue.delete(message.receipt_handle)
        except QueueError as error:
            if outcome is LetterOutcome.MOVED:
                text = f"{problem}; it is another dead letter now, and this one could not be deleted: {error}"
                return HandledLetter(message.message_id, LetterOutcome.KEPT, text)
            return HandledLetter(message.message_id, LetterOutcome.TAKEN_AND_KEPT, str(error))
        return HandledLetter(message.message_id, outcome, problem)

    async def _handle(
        self,
        act: Callable[[ReceivedMessage], Awaitable[HandledLetter]],
        ids: Collection[str],
        *,
        listed: bool,
    ) -> list[HandledLetter]:
        wanted = dict.fromkeys(ids)
        handled: dict[str, HandledLetter] = {}

        async def one(message: ReceivedMessage) -> bool:
            if message.message_id in wanted:
                handled[message.message_id] = await act(message)
            return len(handled) < len(wanted)

        if wanted:
            await self._walk(one, gone=lambda message_id: _is_gone(handled.get(message_id)))
        outcome, problem = (LetterOutcome.KEPT, _NOT_REACHED) if listed else (LetterOutcome.MISSING, None)
        return [handled.get(message_id) or HandledLetter(message_id, outcome, problem) for message_id in wanted]

    async def _walk(
        self,
        visit: Callable[[ReceivedMessage], Awaitable[bool]],
        *,
        gone: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Receives all messages, visits each once until that says to stop, and gives back what is not `gone`."""
        held: dict[str, str] = {}
        again: set[str] = set()
        try:
            while True:
                page = await self._queue.receive(hidden_for=self._hidden_for, wait=self._wait)
                fresh = [message for message in page if message.message_id not in held]
                held |= {message.message_id: message.receipt_handle for message in page}
                # A whole round: what was hidden long ago may be back, and others after all of it.
                ids = {message.message_id for message in page}
                if not fresh and ids <= again:
                    return
                again = set() if fresh else again | ids
                for message in fresh:
                    if not await visit(message):
                        return
        finally:
            back = [handle for message_id, handle in held.items() if not gone(message_id)]
            if back:
                await self._queue.hide(back, 0)


# ---------------------------------------------------------------------- targets


class FunctionTarget:
    """Starts a function of Lambda again with a letter's input, asynchronously.

    A pipeline's letter goes as an envelope of the delay queue (`StoredLetter.input`), another's as its raw input.
    Taken means that Lambda has queued the invocation: what becomes of it is the function's, and may be another
    dead letter; what may go well later Lambda delivers again, manual calls too. Lambda keeps no order, and takes
    up to 1 MB. Needs `lambda:InvokeFunction`. Give a `session` (aioboto3) or a `client` (its `lambda` client) to
    use your own; neither is ever closed. Opens at the first letter, or as `async with`.
    """

    takes = _STARTS

    def __init__(
        self, function: str, config: AwsConfig, *, session: aioboto3.Session | None = None, client: Any = None
    ) -> None:
        self._function = function
        self._config = config
        self._session = session
        self._borrowed = client
        self._stack = AsyncExitStack()
        self._control: ControlClient | None = None

    async def open(self) -> None:
        """Makes the client; idempotent. Raises `ConfigurationError`, `MissingExtraError` and `AccessError`."""
        if self._control is None:
            opening = open_control(self._config, "lambda", session=self._session, client=self._borrowed)
            self._control = await self._stack.enter_async_context(opening)

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        self._control = None
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def take(self, letter: StoredLetter) -> None:
        """See `RedriveTarget.take`. Raises `ProvisioningError`, with AWS's code, when Lambda does not take it."""
        await self.open()
        if self._control is None:
            raise TriggerError(f"the connection to function {self._function} was closed")
        payload = json_text(letter.input()).encode()
        await self._control.call("Invoke", FunctionName=self._function, InvocationType="Event", Payload=payload)


class PipelineTarget:
    """Starts a pipeline in this process again: `PipelineTarget(pipeline.handle)`.

    Taken means that it went well, or waits in the pipeline's delay queue, which must outlive the process then.
    When the pipeline makes another dead letter of a start that it refuses once more, this one is moved.
    """

    takes = _STARTS | {LetterKind.OTHER}

    def __init__(self, handle: Callable[[Any], Awaitable[TriggerResponse]]) -> None:
        self._handle = handle

    async def take(self, letter: StoredLetter) -> None:
        """See `RedriveTarget.take`. Raises `TriggerError` with the answer, when that is not that it went on."""
        response = await self._handle(letter.input())
        if response.ok:
            return
        stopped = [one for one in response.results or (response,) if not one.ok]
        problems = "; ".join(str(problem) for one in stopped for problem in one.problems) or "no problem told"
        is_moved = all(one.dead_letter for one in stopped)
        kind = LetterMovedError if is_moved else TriggerError
        raise kind(f"answered {response.status_code} {response.status}: {problems}")


class QueueTarget:
    """Puts what a queue gave up back into it: chunks, and starts of the delay queue. The queue is borrowed."""

    takes = frozenset((LetterKind.CHUNK, LetterKind.DELAYED))

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue

    async def take(self, letter: StoredLetter) -> None:
        """See `RedriveTarget.take`. Raises `QueueError`."""
        message = OutgoingMessage(letter.body)
        if self._queue.is_fifo:
            # Not that of the first time, which the queue may still know.
            identity = f"{letter.message_id}\0{letter.body}".encode()
            deduplication_id = blake2b(identity, digest_size=_ID_BYTES).hexdigest()
            message = OutgoingMessage(
                letter.body, group=letter.group or letter.kind, deduplication_id=deduplication_id
            )
        await self._queue.send([message])


def _unfit(letter: StoredLetter, target: RedriveTarget) -> str | None:
    if letter.kind not in target.takes:
        fitting = ", ".join(sorted(target.takes))
        return f"a letter of kind {letter.kind} cannot be sent there: it takes {fitting}"
    if not letter.is_whole:
        return "its raw input was not kept whole, so that nothing can be started with it"
    return None


def _is_gone(handled: HandledLetter | None) -> bool:
    return handled is not None and handled.outcome in _GONE
