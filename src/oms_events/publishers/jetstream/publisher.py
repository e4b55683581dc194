"""The publisher for NATS JetStream: pipelined, with an acknowledgement and a result for every event."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from oms_events._aio import cancel_and_wait
from oms_events._nats.api import (
    STREAM_NOT_FOUND,
    ApiForbiddenError,
    ApiRefusedError,
    JetStreamApi,
    denied_subject,
)
from oms_events._nats.client import Client
from oms_events._nats.config import ConnectionState, NatsConfig
from oms_events._nats.connection import BorrowedConnection, Connection, OnState, OwnConnection
from oms_events._nats.own_client import round_trip
from oms_events._nats.refusals import error_of
from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.publishers.jetstream.acks import NO_RESPONDERS
from oms_events.publishers.jetstream.binding import binary_message, structured_message
from oms_events.publishers.jetstream.config import ContentMode, JetStreamOptions
from oms_events.publishers.jetstream.frames import FrameSender, Message
from oms_events.publishers.jetstream.link import Link
from oms_events.publishers.jetstream.pipeline import Call, Pipeline
from oms_events.publishers.jetstream.streams import check_usable, prepare_stream, why_nobody_listens
from oms_events.publishing import PublisherTraits, Receipt

_log = logging.getLogger("oms_events")

_MOST_PER_WRITE: Final = 256
_MOST_BYTES_PER_WRITE: Final = 256 * 1024
_DIAGNOSIS_KEPT: Final = 1.0
_LONGEST_DIAGNOSIS: Final = 0.5
_MOST_DIAGNOSES: Final = 256
_TRAITS: Final = PublisherTraits(max_batch=_MOST_PER_WRITE, deduplicates=True)


class JetStreamPublisher:
    """Publishes to NATS JetStream through a borrowed client, or an own connection from a `NatsConfig`.

    A borrowed client must be connected, is never closed, and keeps its callbacks. `on_state` is called, on
    the event loop, with each change of an own connection and a text. Events of one call are sent in order;
    calls take turns. Messages in flight when the connection goes are unknown at once. Raises
    `MissingExtraError` on import without nats-py.
    """

    def __init__(
        self,
        connection: Client | NatsConfig,
        *,
        options: JetStreamOptions | None = None,
        on_state: OnState | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._options = options or JetStreamOptions()
        self._on_state = on_state
        if isinstance(connection, NatsConfig):
            self._connection: Connection = OwnConnection(
                connection, on_state=self._state_changed, on_error=self._heard, jitter=jitter
            )
        else:
            self._connection = BorrowedConnection(connection)
        self._subject_of = self._options.subject_template()
        binary = self._options.mode is ContentMode.BINARY
        self._message_of = binary_message if binary else structured_message
        self._link: Link | None = None
        self._wanted = False
        self._opening: asyncio.Task[None] | None = None
        self._pipeline = Pipeline(
            max_pending=self._options.max_pending,
            ack_timeout=self._options.ack_timeout,
            epoch=self._epoch,
        )
        self._pipeline.on_tick = self._listen
        self._stream: str | None = self._options.stream_name
        self._duplicate_window: float | None = None
        self._forbidden: set[str] = set()
        self._diagnoses: dict[str, tuple[float, PublishError | None]] = {}

    @property
    def traits(self) -> PublisherTraits:
        return _TRAITS

    async def __aenter__(self) -> JetStreamPublisher:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects, opens the inbox for acks, and does what the stream policy says; idempotent.

        Raises `TransientError` or `PlatformDeniedError`; may be called again after that, after a cancellation,
        and after `close`. Callers at the same time share one attempt.
        """
        self._wanted = True
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="oms-events-jetstream-open")
            self._opening.add_done_callback(_retrieve)
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and (task is None or not task.cancelling()):
                raise TransientError("the JetStream publisher was closed while it opened") from None
            raise

    async def close(self) -> None:
        """Ends an own connection; events in flight become unknown, those not sent fail. Idempotent."""
        self._wanted = False
        opening, self._opening = self._opening, None
        await cancel_and_wait(opening)
        link, self._link = self._link, None
        self._pipeline.give_up_all(UnknownOutcomeError("the publisher was closed before the acknowledgement"))
        self._pipeline.stop()
        if link is not None:
            await link.detach()
        await self._connection.close()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        if not events:
            return []
        if timeout <= 0:
            return [_too_late()] * len(events)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        call = Call(events, loop.create_future())
        try:
            async with asyncio.timeout_at(deadline):
                await self._send(call)
                if call.open:
                    await call.waiter
                if call.no_responders:
                    await self._diagnose(call)
        except TimeoutError:
            self._listen()
            self._pipeline.look()
            self._pipeline.give_up_call(
                call, UnknownOutcomeError(f"no acknowledgement within {timeout} s", code="timeout")
            )
            call.fail_rest(_too_late())
        results = call.results
        last = results[-1]
        if self._stream is None and type(last) is Receipt:
            self._stream = last.stream
        return results  # type: ignore[return-value]  # a call without open events has no None

    async def check(self) -> None:
        """Asks JetStream about the stream, or about the account where the stream is not known.

        Falls back to what the permissions allow, at the least to a round trip to the server.
        """
        link = await self._ready()
        probes = [f"STREAM.INFO.{self._stream}"] if self._stream else []
        for probe in [*probes, "INFO"]:
            if probe in self._forbidden:
                continue
            try:
                answer = await link.api.request(probe)
            except ApiForbiddenError:
                self._forbidden.add(probe)
                _log.warning("no permission for %s; health checks do without", probe)
            except ApiRefusedError as refused:
                if refused.number == STREAM_NOT_FOUND and self._options.stream_name is None:
                    # Its name is known from an acknowledgement only; other streams may take the events.
                    self._stream = None
                    continue
                raise _denied(error_of(refused.error, f"JetStream refuses {probe}")) from refused
            else:
                if "config" in answer:
                    check_usable(answer["config"])
                return
        await round_trip(link.client, self._options.request_timeout)

    def describe(self) -> dict[str, Any]:
        """The publisher's state, for status pages; without secrets."""
        link = self._link
        url = link.client.connected_url if link is not None else None
        return {
            "kind": "jetstream",
            "servers": self._connection.servers(),
            "own_connection": self._connection.owned,
            "connected": link is not None and link.fault() is None,
            "connected_to": f"{url.hostname}:{url.port}" if url is not None else None,
            "reconnects": link.client.stats["reconnects"] if link is not None else 0,
            "max_payload": link.client.max_payload if link is not None else None,
            "fast_path": link is not None and isinstance(link.sender, FrameSender),
            "stream": self._stream,
            "duplicate_window": self._duplicate_window,
            "in_flight": self._pipeline.in_flight,
            "max_pending": self._pipeline.max_pending,
        }

    async def _open(self) -> None:
        link = self._link
        if link is not None:
            fault = link.fault()
            if fault is None:
                return
            if not link.lost:
                raise fault
            self._link = None
            # What the old link has in flight gets no ack any more.
            self._pipeline.look()
            await link.detach()
        client = await self._connection.open()
        link = await Link.attach(client, self._pipeline.acknowledge, self._heard, self._options)
        try:
            stream = await prepare_stream(link.api, self._options)
        except BaseException:
            await link.detach()
            raise
        if stream is not None:
            self._stream = self._stream or stream["name"]
            self._duplicate_window = stream.get("duplicate_window", 0) / 1e9
        self._link = link

    async def _ready(self) -> Link:
        """The link, made anew when its connection ended for good: a client mends only lost connections."""
        link = self._link
        if link is not None:
            fault = link.fault()
            if fault is None:
                return link
            if not link.lost:
                raise fault
        if not self._wanted:
            raise TransientError("the JetStream publisher is not open; call open() first", code="not_open")
        await self.open()
        if self._link is None:
            raise TransientError("the JetStream publisher was closed", code="not_open")
        return self._link

    async def _send(self, call: Call) -> None:
        pipeline = self._pipeline
        count = len(call.events)
        try:
            link = await self._ready()
            while call.position < count:
                async with pipeline.turn:
                    room = await pipeline.room(min(count - call.position, _MOST_PER_WRITE))
                    await link.sender.ready()
                    # Nothing is awaited between this look and the write.
                    if (fault := link.fault()) is not None:
                        raise fault
                    await self._write(link, call, room)
        except PublishError as error:
            call.fail_rest(error)

    async def _write(self, link: Link, call: Call, room: int) -> None:
        """Writes as many events as fit in the room and one write."""
        start = call.position
        events, subject_of, message_of = call.events, self._subject_of, self._message_of
        limit = link.client.max_payload
        first = self._pipeline.reserve_tokens(len(events) - start)
        offset = first - start
        messages: list[Message] = []
        tokens: list[int] = []
        size, index, end = 0, start, len(events)
        while index < end and len(tokens) < room and size < _MOST_BYTES_PER_WRITE:
            event = events[index]
            try:
                block, payload = message_of(event)
                total = len(block) + len(payload)
                if total > limit:
                    raise EventRejectedError(
                        f"the message has {total} bytes and the server's max_payload is {limit}; make the "
                        "event smaller or raise the limit",
                        code="max_payload",
                    )
                messages.append((subject_of(event), offset + index, block, payload))
                tokens.append(offset + index)
                size += total
            except PublishError as error:
                call.settle(index, error)
            except (TypeError, ValueError) as error:
                call.settle(index, EventRejectedError(f"the event has no form in NATS: {error}"))
            index += 1
        call.position = index
        if tokens:
            flight = self._pipeline.launch(call, offset, tokens, link.epoch)
            sender = link.sender
            sender.handed = 0
            try:
                await sender.send(messages)
            except PublishError as error:
                self._pipeline.give_up(flight, error, tokens[sender.handed :])
                raise
            except asyncio.CancelledError:
                self._pipeline.give_up(flight, _too_late(), tokens[sender.handed :])
                raise

    async def _diagnose(self, call: Call) -> None:
        """Says why nobody listens, where that is soon known: all results of the call wait for it."""
        link = self._link
        if link is None or not link.may_diagnose:
            return
        now = asyncio.get_running_loop().time
        patience = min(self._options.request_timeout, _LONGEST_DIAGNOSIS / 2)
        api = JetStreamApi(link.client, prefix=self._options.api_prefix, timeout=patience)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_DIAGNOSIS):
                for index, outcome in enumerate(call.results):
                    if not isinstance(outcome, PublishError) or outcome.code != NO_RESPONDERS:
                        continue
                    subject = self._subject_of(call.events[index])
                    known = self._diagnoses.get(subject)
                    if known is None or now() - known[0] > _DIAGNOSIS_KEPT:
                        try:
                            why = await why_nobody_listens(api, subject, self._options.stream_name)
                        except ApiForbiddenError as forbidden:
                            link.may_diagnose = False
                            _log.warning("no permission for %s: uncovered subjects stay unexplained", forbidden)
                            return
                        if len(self._diagnoses) >= _MOST_DIAGNOSES:
                            self._diagnoses.clear()
                        known = self._diagnoses[subject] = (now(), why)
                    call.results[index] = known[1] or outcome

    def _epoch(self) -> int | None:
        link = self._link
        return link.epoch if link is not None and link.fault() is None else None

    def _listen(self) -> None:
        if self._link is not None and (error := self._link.news()) is not None:
            self._heard(error)

    def _heard(self, error: Exception) -> None:
        """Settles messages whose subject the server just denied: for them no ack will come."""
        denied = denied_subject(error)
        if denied is None:
            return
        # The client tells the subject in lower case. Where two subjects in flight differ in nothing else, the
        # error may be about either, and only acks can tell.
        meant = {
            subject for subject in map(self._subject_of, self._pipeline.events()) if subject.lower() == denied
        }
        if len(meant) == 1:
            self._pipeline.give_up_where(
                lambda event: self._subject_of(event) in meant,
                AddressDeniedError(f"no permission to publish to {denied!r}; grant it", code="permission"),
            )

    def _state_changed(self, state: ConnectionState, text: str) -> None:
        if state is not ConnectionState.CONNECTED:
            self._pipeline.look()
        if self._on_state is not None:
            self._on_state(state, text)


def _too_late() -> TransientError:
    return TransientError("the deadline passed before the event was sent", code="deadline")


def _denied(error: PublishError) -> PublishError:
    """A refused health check is no matter of one address."""
    return error if isinstance(error, TransientError) else PlatformDeniedError(str(error), code=error.code)


def _retrieve(task: asyncio.Task[None]) -> None:
    # All callers may have been cancelled; nobody is left to be told then.
    if not task.cancelled():
        task.exception()
