"""The receiver for NATS JetStream: a durable pull consumer whose messages a handler gets as events, in batches."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from oms_events._aio import Clock, SystemClock, cancel_and_wait, cancelled_from_outside
from oms_events._nats.api import JetStreamApi
from oms_events._nats.client import Client, errors
from oms_events._nats.config import ConnectionState, NatsConfig
from oms_events._nats.connection import BorrowedConnection, Connection, OnState, OwnConnection
from oms_events._nats.own_client import round_trip
from oms_events.errors import EventRejectedError, InvalidEventError, PublishError
from oms_events.events import EncodedEvent
from oms_events.receiving.config import ReceiverConfig
from oms_events.receiving.consumer import prepare_consumer
from oms_events.receiving.deliveries import ACK, IN_PROGRESS, Delivery, Dropped, again, never_again, retry_delay
from oms_events.receiving.pulling import Puller

_log = logging.getLogger("oms_events")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_LAST_WORDS: Final = 1.0

Handler = Callable[[Sequence[EncodedEvent]], Awaitable[Sequence[Exception | None]]]
"""Gives per event None when it is handled, or why not; `InvalidEventError` and `EventRejectedError` say never."""
OnDropped = Callable[[Dropped], Awaitable[None] | None]
"""Hears of each message that will not come again; when it raises, the message does come again."""


class JetStreamReceiver:
    """Gives the events of a stream to a handler, at least once, through a durable consumer, while it is open.

    The handler gets one batch at a time, in the stream's order; what it did not handle comes again later, behind
    others. When it raises, none of the batch counts as handled. Messages that are no CloudEvent are dropped.
    Attributes of a binary-mode message are text, `time` excepted.

    `connection` is a connected client, which is borrowed, never closed, and keeps its callbacks, or a
    `NatsConfig`. A connection, server or consumer that goes and comes back is waited for, however long. `on_state`
    is called, on the event loop, with each change of an own connection. Raises `MissingExtraError` on import
    without nats-py.
    """

    def __init__(
        self,
        connection: Client | NatsConfig,
        config: ReceiverConfig,
        handler: Handler,
        *,
        on_dropped: OnDropped | None = None,
        on_state: OnState | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._handler = handler
        self._on_dropped = on_dropped
        self._clock = clock or SystemClock()
        self._draw = (rng or random.Random()).random  # noqa: S311
        if isinstance(connection, NatsConfig):
            self._connection: Connection = OwnConnection(
                connection, on_state=on_state or _ignore, on_error=_hear, jitter=self._draw
            )
        else:
            self._connection = BorrowedConnection(connection)
        self._opening = asyncio.Lock()
        self._client: Client | None = None
        self._puller: Puller | None = None
        self._ack_wait = config.ack_wait
        self._waiting: deque[Delivery] = deque()
        self._in_hand: Sequence[Delivery] = ()
        self._changed = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble: str | None = None
        self._failures = 0
        self._name = f"consumer {config.durable!r} of stream {config.stream!r}"
        self._counts = {"handled": 0, "failed": 0, "dropped": 0}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects, prepares the consumer, and begins to receive; idempotent.

        Raises `TransientError` or `PlatformDeniedError`, which say of a platform here what they say to publishers;
        may be called again after that, and after `close`.
        """
        async with self._opening:
            if self._tasks:
                return
            try:
                await self._attach()
            except BaseException:
                await self._detach()
                await self._connection.close()
                raise
            self._stopping = False
            self._tasks = [
                asyncio.create_task(self._kept_up(task), name=f"oms-events-receiver-{self._config.durable}-{what}")
                for what, task in (("fetch", self._fetch), ("handle", self._handle_all), ("hold", self._hold))
            ]
            for task in self._tasks:
                task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stops; idempotent. The batch in the handler gets `stop_timeout` seconds, and is cancelled then.

        What was not handled is given back, and comes again, here or elsewhere, at once; what was on its way, after
        `ack_wait`.
        """
        async with self._opening:
            tasks, self._tasks = self._tasks, []
            if not tasks:
                return
            fetch, handle, hold = tasks
            self._stopping = True
            try:
                await cancel_and_wait(fetch)
                await self._detach()
                await self._give_back()
                self._changed.set()
                await asyncio.wait((handle,), timeout=self._config.stop_timeout)
            finally:
                await cancel_and_wait(fetch, handle, hold)
                self._waiting.extend(self._in_hand)
                self._in_hand = ()
                await self._give_back()
                await self._detach()
                if self._client is not None:
                    await _flush(self._client)
                await self._connection.close()

    def describe(self) -> dict[str, Any]:
        """The receiver's state, for status pages; without secrets. `trouble` is why nothing comes now, or None."""
        config = self._config
        return {
            "kind": "jetstream",
            "stream": config.stream,
            "durable": config.durable,
            "servers": self._connection.servers(),
            "own_connection": self._connection.owned,
            "open": bool(self._tasks) and not self._stopping,
            "trouble": self._trouble,
            "waiting": len(self._waiting),
            "in_hand": len(self._in_hand),
            **self._counts,
        }

    # ------------------------------------------------------------------ tasks

    async def _kept_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does work until closing ends it: what else ends it is told, and it begins again."""
        while True:
            try:
                return await work()
            except (Exception, asyncio.CancelledError) as error:
                if _is_to_end(error):
                    raise
                _log.exception("%s: a task failed, and begins again", self._name)
            await self._clock.sleep(_FIRST_PAUSE)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Without one of the tasks the others would only keep messages from other receivers: they end too."""
        if self._stopping:
            return
        self._stopping = True
        self._trouble = f"task {task.get_name()} was cancelled by others; close the receiver, and open it again"
        _log.error("%s: no messages any more: %s", self._name, self._trouble)
        for other in self._tasks:
            other.cancel()

    # ------------------------------------------------------------------ fetching

    async def _attach(self) -> Puller:
        config = self._config
        await self._detach()
        self._client = client = await self._connection.open()
        api = JetStreamApi(client, prefix=config.api_prefix, timeout=config.request_timeout)
        self._ack_wait = await prepare_consumer(api, config)
        self._puller = puller = Puller(client, config, on_delivery=self._arrived, on_life=self._lives)
        await puller.attach()
        return puller

    async def _detach(self) -> None:
        puller, self._puller = self._puller, None
        if puller is not None:
            await puller.detach()

    async def _fetch(self) -> None:
        while True:
            try:
                puller = self._puller or await self._attach()
                while True:
                    await self._until(lambda: not self._waiting)
                    await puller.pull(self._config.batch)
                    self._lives()
            except PublishError as error:
                if str(error) != self._trouble:
                    _log.warning("%s: no messages now: %s", self._name, error)
                self._trouble = str(error)
            except (Exception, asyncio.CancelledError) as error:
                if _is_to_end(error):
                    raise
                # Of nats-py or of ours: whatever it is, receiving must not end with it.
                _log.exception("%s: receiving failed", self._name)
                self._trouble = repr(error)
            await self._detach()
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
            self._failures += 1
            await self._clock.sleep(pause * (0.5 + self._draw() / 2))

    def _lives(self) -> None:
        self._failures = 0
        if self._trouble is not None:
            self._trouble = None
            _log.info("%s: messages come again", self._name)

    def _arrived(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._changed.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        # Two tasks wait for changes: each looks again after any.
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    # ------------------------------------------------------------------ handling

    async def _handle_all(self) -> None:
        # What a batch left that was not handled to its end comes again: it is no longer held.
        self._in_hand = ()
        while True:
            await self._until(lambda: bool(self._waiting) or self._stopping)
            if not self._waiting:
                return
            self._in_hand = [self._waiting.popleft() for _ in range(min(self._config.batch, len(self._waiting)))]
            self._changed.set()
            await self._handle(self._in_hand)
            self._in_hand = ()

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        readable: list[tuple[Delivery, EncodedEvent]] = []
        for delivery in deliveries:
            try:
                readable.append((delivery, delivery.event()))
            except InvalidEventError as problem:
                await self._drop(delivery, problem, None)
        if not readable:
            return
        results = await self._call([event for _, event in readable])
        for (delivery, event), error in zip(readable, results, strict=True):
            if error is None:
                self._counts["handled"] += 1
                await self._say(delivery, ACK)
            elif isinstance(error, InvalidEventError | EventRejectedError) or self._is_last(delivery):
                await self._drop(delivery, error, event)
            else:
                self._counts["failed"] += 1
                await self._ask_again(delivery)

    async def _call(self, events: Sequence[EncodedEvent]) -> Sequence[Exception | None]:
        try:
            results = list(await self._handler(events))
            if len(results) != len(events):
                raise TypeError(
                    f"the handler gave {len(results)} results for {len(events)} events; give one for each"
                )
        except asyncio.CancelledError as error:
            if _is_to_end(error):
                raise
            return [RuntimeError(f"the handler was cancelled inside: {error!r}")] * len(events)
        except Exception as error:
            _log.exception("%s: the handler failed on %d events", self._name, len(events))
            return [error] * len(events)
        return results

    def _is_last(self, delivery: Delivery) -> bool:
        most = self._config.max_deliveries
        return most is not None and delivery.deliveries >= most

    async def _drop(self, delivery: Delivery, error: Exception, event: EncodedEvent | None) -> None:
        where = (delivery.stream, delivery.sequence, delivery.subject)
        if self._on_dropped is not None:
            dropped = Dropped(
                delivery.stream,
                delivery.sequence,
                delivery.subject,
                delivery.deliveries,
                error,
                event,
                delivery.headers,
                delivery.payload,
            )
            try:
                answer = self._on_dropped(dropped)
                if inspect.isawaitable(answer):
                    await answer
            except (Exception, asyncio.CancelledError) as failure:
                if _is_to_end(failure):
                    raise
                _log.exception("on_dropped failed for message %s@%d on %s", *where)
                self._counts["failed"] += 1
                await self._ask_again(delivery)
                return
        _log.warning("message %s@%d on %s is dropped: %s", *where, error)
        self._counts["dropped"] += 1
        await self._say(delivery, never_again(error))

    async def _ask_again(self, delivery: Delivery) -> None:
        config = self._config
        delay = retry_delay(
            delivery.deliveries, initial=config.retry_initial, maximum=config.retry_maximum, draw=self._draw()
        )
        await self._say(delivery, again(delay))

    async def _give_back(self) -> None:
        while self._waiting:
            await self._say(self._waiting.popleft(), again(0))

    async def _say(self, delivery: Delivery, word: bytes) -> None:
        """Tells JetStream; what is lost on the way leads to another delivery."""
        client = self._client
        if client is None or not client.is_connected:
            return
        with suppress(errors.Error, OSError):
            await client.publish(delivery.reply, word)

    async def _hold(self) -> None:
        """Keeps what waits or is in the handler from being delivered again."""
        while True:
            await self._clock.sleep(self._ack_wait / 3)
            for delivery in (*self._in_hand, *self._waiting):
                await self._say(delivery, IN_PROGRESS)


async def _flush(client: Client) -> None:
    """Waits until the server has what was said last; not for long."""
    with suppress(PublishError):
        # The client's ping overtakes what is buffered; the answer to a second one comes after it.
        for _ in range(2):
            await round_trip(client, _LAST_WORDS)


def _is_to_end(error: BaseException) -> bool:
    """Whether somebody cancelled this task, and not only something that it waited for."""
    return isinstance(error, asyncio.CancelledError) and cancelled_from_outside()


def _ignore(state: ConnectionState, text: str) -> None:
    pass


def _hear(error: Exception) -> None:
    _log.debug("NATS: %s", error)
