"""Messages in flight: who waits for which ack, how many may, and which will never come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from oms_events.errors import PublishError, UnknownOutcomeError
from oms_events.events import EncodedEvent
from oms_events.publishers.jetstream.acks import NO_RESPONDERS, read_ack
from oms_events.publishing import Receipt

_LONGEST_TICK = 0.1


class Call:
    """One call to `publish`: its results, and how many are still open.

    Events before `position` have a result, or are in a flight that will give them one.
    """

    __slots__ = ("events", "no_responders", "open", "position", "results", "waiter")

    def __init__(self, events: Sequence[EncodedEvent], waiter: asyncio.Future[None]) -> None:
        self.events = events
        self.position = 0
        self.open = len(events)
        self.results: list[Receipt | PublishError | None] = [None] * self.open
        self.waiter = waiter
        self.no_responders = False

    def settle(self, index: int, outcome: Receipt | PublishError) -> None:
        self.results[index] = outcome
        self.settled(1)

    def settled(self, count: int) -> None:
        self.open -= count
        if not self.open and not self.waiter.done():
            self.waiter.set_result(None)

    def fail_rest(self, error: PublishError) -> None:
        """Gives `error` to every event that was never in a flight and has no result."""
        for index in range(self.position, len(self.results)):
            if self.results[index] is None:
                self.settle(index, error)


class Flight:
    """Messages of one call that were written together: token `offset + i` acknowledges event `i`."""

    __slots__ = ("call", "count", "epoch", "left", "offset", "sent_at", "tokens")

    def __init__(self, call: Call, offset: int, tokens: list[int], epoch: int, sent_at: float) -> None:
        self.call = call
        self.offset = offset
        self.tokens = tokens
        self.count = self.left = len(tokens)
        self.epoch = epoch
        self.sent_at = sent_at


class Pipeline:
    """The window of unacknowledged messages of one publisher, over all its calls and connections.

    `turn` is held while one call puts its next messages on the wire: calls take turns first come, first
    served. Credits come back with acks and with messages given up, never with a cancelled call: what that
    sent is still in flight. `epoch` gives the number of the present connection, None when there is none.
    """

    def __init__(self, *, max_pending: int, ack_timeout: float, epoch: Callable[[], int | None]) -> None:
        self.turn = asyncio.Lock()
        self._free = self.max_pending = max_pending
        # Waking for every single credit would make single-message writes of a large batch.
        self._worthwhile = max(1, max_pending // 4)
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._slots: dict[int, Flight] = {}
        self._flights: dict[Flight, None] = {}
        self._ack_timeout = ack_timeout
        self._tick = min(_LONGEST_TICK, ack_timeout / 4)
        self._timer: asyncio.TimerHandle | None = None
        self._epoch = epoch
        self._next_token = 0
        self.on_tick: Callable[[], None] = lambda: None

    @property
    def in_flight(self) -> int:
        """Messages that are neither acknowledged nor given up."""
        return len(self._slots)

    async def room(self, wanted: int) -> int:
        """Waits until some messages may be sent and says how many, `wanted` at most. For the turn's holder."""
        self._wanted = min(wanted, self._worthwhile)
        while self._free < self._wanted:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return min(wanted, self._free)

    def reserve_tokens(self, count: int) -> int:
        """The first of `count` tokens that nobody else has."""
        first = self._next_token
        self._next_token += count
        return first

    def launch(self, call: Call, offset: int, tokens: list[int], epoch: int) -> Flight:
        """Books messages that are about to be written."""
        loop = asyncio.get_running_loop()
        flight = Flight(call, offset, tokens, epoch, loop.time())
        self._free -= flight.count
        self._slots.update(dict.fromkeys(tokens, flight))
        self._flights[flight] = None
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._watch)
        return flight

    def acknowledge(self, token: int, payload: bytes, status: str | None) -> None:
        """Takes one ack; one that came too late is ignored."""
        flight = self._slots.pop(token, None)
        if flight is None:
            return
        outcome = read_ack(payload, status)
        call = flight.call
        if status is not None and isinstance(outcome, PublishError) and outcome.code == NO_RESPONDERS:
            call.no_responders = True
        call.results[token - flight.offset] = outcome
        self._credit(flight, 1)

    def give_up(self, flight: Flight, error: PublishError, tokens: Iterable[int] | None = None) -> None:
        """Settles a flight's messages that are still open, or those of `tokens`, with `error`."""
        given_up = 0
        for token in flight.tokens if tokens is None else tokens:
            if self._slots.pop(token, None) is not None:
                flight.call.results[token - flight.offset] = error
                given_up += 1
        if given_up:
            self._credit(flight, given_up)

    def give_up_call(self, call: Call, error: PublishError) -> None:
        """Settles all messages of a call that are still in flight."""
        for flight in [flight for flight in self._flights if flight.call is call]:
            self.give_up(flight, error)

    def give_up_all(self, error: PublishError) -> None:
        """Settles everything in flight."""
        for flight in list(self._flights):
            self.give_up(flight, error)

    def events(self) -> Iterator[EncodedEvent]:
        """The events in flight."""
        for token, flight in self._slots.items():
            yield flight.call.events[token - flight.offset]

    def give_up_where(self, matches: Callable[[EncodedEvent], bool], error: PublishError) -> None:
        """Settles the messages in flight whose event matches."""
        for flight in list(self._flights):
            tokens = [
                token
                for token in flight.tokens
                if token in self._slots and matches(flight.call.events[token - flight.offset])
            ]
            self.give_up(flight, error, tokens)

    def look(self) -> None:
        """Gives up what can no longer be acknowledged: its connection is gone, or its time is up."""
        epoch = self._epoch()
        late = asyncio.get_running_loop().time() - self._ack_timeout
        for flight in list(self._flights):
            if flight.epoch != epoch:
                self.give_up(
                    flight,
                    UnknownOutcomeError(
                        "the connection was lost before the acknowledgement came", code="connection_lost"
                    ),
                )
            elif flight.sent_at <= late:
                self.give_up(
                    flight,
                    UnknownOutcomeError(
                        f"no acknowledgement within ack_timeout = {self._ack_timeout} s", code="ack_timeout"
                    ),
                )

    def stop(self) -> None:
        """Ends the watch; for closing, after everything in flight was given up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        self._timer = None
        self.on_tick()
        self.look()
        if self._flights:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._watch)

    def _credit(self, flight: Flight, count: int) -> None:
        flight.left -= count
        if not flight.left:
            del self._flights[flight]
            flight.call.settled(flight.count)
        self._free += count
        waiter = self._waiter
        if waiter is not None and self._free >= self._wanted and not waiter.done():
            waiter.set_result(None)
