"""The event store as services use it: appends with their outbox records, histories, and events by type."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Final, NamedTuple, Self

from pydantic import BaseModel

from oms_events._aio import Clock, SystemClock
from oms_events.errors import (
    ConcurrencyError,
    ConditionFailedError,
    DuplicateCommandError,
    EventUnreadableError,
    OutboxClosedError,
    PersonalDataError,
    StorageError,
    StorageUnavailableError,
    TransactionConflictError,
)
from oms_events.eventstore.append import Append, check_aggregate_id, check_command_id
from oms_events.eventstore.author import Author
from oms_events.eventstore.by_type import items_by_type
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import EventTable, Token
from oms_events.eventstore.items import Item, is_event, marker_key, read_item, read_marker, sequence_of
from oms_events.eventstore.personal.cipher import FieldCipher
from oms_events.eventstore.records import CommandMarker, RecordedEvent
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.outbox.commit import Committer
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import NewRecord
from oms_events.outbox.store import Action
from oms_events.resilience.backoff import RetryConfig

_LOOKS: Final = 8
"""So often in all a history with a gap is read: what is being committed shows within milliseconds."""
_PAUSE: Final = RetryConfig(initial=0.02, maximum=1.0)


Damaged = Callable[[RecordedEvent, PersonalDataError], None]
"""Is told of an event whose personal data cannot be revealed, which is given as it was stored then."""


class EventPage(NamedTuple):
    """Recorded events in order; `next` is where to go on, None when there are no more."""

    events: Sequence[RecordedEvent]
    next: Token | None


class EventStore:
    """Histories of aggregates; `DynamoDBEventStore` and `MemoryEventStore` are what services make.

    With an `outbox`, each append puts its events there too, in the same transaction. Opens its table at the first
    use, or as `async with`; it never closes the outbox. Safe to use concurrently.
    """

    def __init__(
        self,
        table: EventTable,
        config: EventStoreConfig,
        *,
        outbox: Outbox | None = None,
        registry: EventRegistry = default_registry,
        cipher: FieldCipher | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.table = table
        self.config = config
        self.registry = registry
        self.cipher = cipher
        self.outbox = outbox
        self._clock = clock = clock or SystemClock()
        # The system's own source: processes that were forked share no event ids and no tokens.
        self._rng = rng = rng or random.SystemRandom()
        self._author = Author(config.source or config.table_name, registry, cipher, clock=clock, rng=rng)
        self._committer = self._new_committer()
        self._is_closed = False

    async def open(self) -> None:
        """Opens the table; idempotent, also after `close`. Raises what its `open` does."""
        if self._is_closed:
            self._committer = self._new_committer()
            self._is_closed = False
        await self.table.open()

    async def close(self) -> None:
        """Closes what was opened here; idempotent. A borrowed client, a session and the outbox stay open.

        Reads under way end with `StorageUnavailableError`, and so do appends without an outbox of which nothing
        was sent; of the others it is not known: `CommitOutcomeUnknownError`. Those with an outbox go on through
        it. Nothing new begins until `open` is called again.
        """
        self._is_closed = True
        self._committer.close()
        await self.table.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------ appending

    async def append(
        self,
        aggregate_id: str,
        events: Iterable[BaseModel],
        *,
        expected_sequence: int,
        command_id: str | None = None,
        fingerprint: str = "",
        correlation_id: str | None = None,
        causation_id: str | None = None,
        attributes: Mapping[str, str | int | bool | datetime] | None = None,
        actions: Iterable[Action] = (),
    ) -> list[RecordedEvent]:
        """Appends domain events after the one at `expected_sequence` (0: they are the first), all or none.

        Take the expectation from what you decided on: a read, or an append's answer. One that is guessed ahead of
        the events before it may put the events into the outbox in another order. A `command_id` is remembered with
        them for ever: the command is carried out once on this aggregate, also one without events. `attributes` are
        further CloudEvents attributes of all the events (a `partitionkey` there is the outbox's order key in place
        of the aggregate); `actions` are your own writes to other tables, as TransactWriteItems has them, in the
        same transaction. At most 100 actions, 4 MB, 400 KB an event: an event is one action, with an outbox two,
        the command and the expectation one each. Nothing at all to store is done at once, and nothing is checked.

        Raises, with nothing written: `ConcurrencyError`; `DuplicateCommandError`; `ConditionFailedError` for a
        condition of your `actions`; `AppendLimitError`, `OutboxLimitError`, `InvalidEventError`,
        `ConfigurationError`, `PersonalDataError` for what cannot be stored; `TransactionConflictError`,
        `StorageUnavailableError`, `StorageDeniedError`, `StorageRejectedError`, `OutboxClosedError`. With
        `CommitOutcomeUnknownError`, or cancelled while it commits, all or nothing was written: do it again with
        the same `command_id` and the same expectation.
        """
        self._check_open()
        try:
            recorded = await self._author.write(
                aggregate_id,
                events,
                after=expected_sequence,
                correlation_id=correlation_id,
                causation_id=causation_id,
                attributes=attributes or {},
            )
        except PersonalDataError as error:
            # Of somebody who was forgotten after the command was carried out.
            if command_id is None:
                raise
            check_command_id(command_id)
            if (marker := await self.marker(aggregate_id, command_id)) is None:
                raise
            raise _duplicate(aggregate_id, command_id, marker) from error
        append = Append(
            self.table.name, aggregate_id, expected_sequence, recorded, command_id, fingerprint, actions
        )
        append.check(with_outbox=self.outbox is not None)
        if not append.actions:
            return []
        try:
            await self._commit(append)
        except ConditionFailedError as error:
            if (failure := await self._refusal(append, error)) is None:
                raise
            raise failure from error
        except TransactionConflictError as error:
            # Who was there first shows in what is stored now.
            if (failure := await self._overtaken(append)) is None:
                raise
            raise failure from error
        return recorded

    async def _commit(self, append: Append) -> None:
        if self.outbox is not None:
            events = [event.encoded for event in append.events]
            await self.outbox.commit(append.actions, events, size=append.size)
            return
        # Not inside the commit: what takes its time there counts as an answer that did not come.
        await self.ensure_open()
        try:
            await self._committer.commit(append.actions)
        except OutboxClosedError:
            raise self._closed() from None

    async def ensure_open(self) -> None:
        """Opens the table at its first use; never after `close`, as nobody would close it again.

        Raises `StorageUnavailableError` then, and what `open` raises.
        """
        self._check_open()
        await self.table.open()

    async def _refusal(self, append: Append, error: ConditionFailedError) -> Exception | None:
        """What a refused condition means; None when it was one of the caller's own."""
        is_duplicate = append.is_duplicate(error.reasons)
        if not (is_duplicate or append.is_overtaken(error.reasons)):
            return None
        actual = None
        try:
            # Beside a conflict at the marker, the history's condition may be all that is told.
            if (marker := await self._marker(append)) is not None:
                return _duplicate(append.aggregate_id, append.command_id, marker)
            actual = await self.last_sequence(append.aggregate_id)
        except StorageError:
            if is_duplicate:
                raise
        return ConcurrencyError(append.aggregate_id, expected=append.expected, actual=actual)

    async def _overtaken(self, append: Append) -> Exception | None:
        marker = await self._marker(append)
        if marker is not None:
            return _duplicate(append.aggregate_id, append.command_id, marker)
        actual = await self.last_sequence(append.aggregate_id)
        if actual == append.expected:
            return None
        return ConcurrencyError(append.aggregate_id, expected=append.expected, actual=actual)

    async def _marker(self, append: Append) -> CommandMarker | None:
        return None if append.command_id is None else await self.marker(append.aggregate_id, append.command_id)

    # ------------------------------------------------------------------ reading

    async def marker(self, aggregate_id: str, command_id: str) -> CommandMarker | None:
        """What became of a command, strongly consistent; None when it was not carried out."""
        self._check_open()
        item = await self.table.get(marker_key(aggregate_id, command_id))
        return None if item is None else read_marker(item)

    async def last_sequence(self, aggregate_id: str) -> int:
        """The sequence of an aggregate's last event, strongly consistent; 0 without events."""
        check_aggregate_id(aggregate_id)
        self._check_open()
        page = await self.table.read(aggregate_id, after=0, limit=1, newest_first=True)
        return sequence_of(page.items[0]) if page.items else 0

    async def pages(
        self,
        aggregate_id: str,
        *,
        after: int = 0,
        up_to: int | None = None,
        limit: int | None = None,
        damaged: Damaged | None = None,
    ) -> AsyncGenerator[Sequence[RecordedEvent]]:
        """An aggregate's events, `after` < sequence <= `up_to`, page by page, strongly consistent.

        A page has `limit` events at most, and 1 MB. Without gaps: beside an append of several events DynamoDB may
        show a later one alone, and then it is read again. Raises `EventUnreadableError`, also for an event that
        stays missing; `PersonalDataError` for personal data that cannot be revealed, unless `damaged` is told of
        it; `ValueError`; a `StorageError`.
        """
        check_aggregate_id(aggregate_id)
        _check_least("after", after, 0)
        _check_least("up_to", up_to, 0)
        _check_least("limit", limit, 1)
        looks = 0
        while True:
            self._check_open()
            page = await self.table.read(aggregate_id, after=after, up_to=up_to, limit=limit)
            items = _without_gap(page.items, after)
            if items:
                events = await self.revealed(items, damaged=damaged)
                after, looks = events[-1].sequence, 0
                yield events
            if len(items) < len(page.items) or (page.next is not None and not items):
                looks += 1
                if looks == _LOOKS:
                    raise _missing(aggregate_id, after + 1)
                await self._clock.sleep(_PAUSE.delay(looks, self._rng.random))
            elif page.next is None:
                return

    async def read(
        self, aggregate_id: str, *, after: int = 0, up_to: int | None = None
    ) -> AsyncGenerator[RecordedEvent]:
        """An aggregate's events one by one; see `pages`."""
        async with aclosing(self.pages(aggregate_id, after=after, up_to=up_to)) as pages:
            async for events in pages:
                for event in events:
                    yield event

    async def events_by_type(
        self,
        event_type: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        after: str | None = None,
        newest_first: bool = False,
        page_size: int | None = None,
        damaged: Damaged | None = None,
    ) -> AsyncGenerator[RecordedEvent]:
        """The events of a type of all aggregates by time, `start` <= time < `end` (aware times).

        Eventually consistent: an event shows up within about a second, and then at its own time, which is its
        writer's clock's; projections are for those who must miss none. `after` is the `time_key` of the event to
        go on from; `page_size` bounds what is read at once from each of the 8 shards (1 MB unless given). Raises
        `ValueError` for a time without its zone, `EventUnreadableError`, `PersonalDataError` for personal data
        that cannot be revealed, unless `damaged` is told of it, and a `StorageError`.
        """
        _check_least("page_size", page_size, 1)
        self._check_open()
        items = items_by_type(
            self.table,
            event_type,
            start=start,
            end=end,
            after=after,
            newest_first=newest_first,
            page_size=page_size,
        )
        async with aclosing(items) as batches:
            async for batch in batches:
                for event in await self.revealed(batch, damaged=damaged):
                    yield event
                self._check_open()

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> EventPage:
        """One page of all events, or of one of `segments` parts of them, consistent; `limit` items at most.

        The events of an aggregate come together, all of them in one segment; rely on no order. Of an append that
        commits meanwhile a later event may be there without an earlier one: read the aggregate before you call
        that a gap. Costs a read of the whole table. Raises `EventUnreadableError`, `ValueError` and a
        `StorageError`.
        """
        _check_least("limit", limit, 1)
        if not 0 <= segment < segments:
            raise ValueError(f"segment = {segment}, segments = {segments}: count segments from 0")
        self._check_open()
        page = await self.table.scan(start=start, segment=segment, segments=segments, limit=limit)
        return EventPage(await self.revealed([item for item in page.items if is_event(item)]), page.next)

    async def revealed(self, items: Sequence[Item], *, damaged: Damaged | None = None) -> list[RecordedEvent]:
        """The recorded events of items, personal data in clear text where the cipher still has the key."""
        events = [read_item(item, self.registry) for item in items]
        return events if self.cipher is None else await reveal(events, self.cipher, damaged=damaged)

    def _new_committer(self) -> Committer:
        config = self.config
        return Committer(
            _WithoutOutbox(self.table),
            WriterConfig(conflict_attempts=config.conflict_attempts, commit_timeout=config.commit_timeout),
            None,
            owner=f"the event store {self.table.name!r}",
            clock=self._clock,
            rng=self._rng,
        )

    def _check_open(self) -> None:
        """In memory nothing else would end."""
        if self._is_closed:
            raise self._closed()

    def _closed(self) -> StorageUnavailableError:
        text = f"the event store {self.table.name!r} was closed: nothing was written; open it again"
        return StorageUnavailableError(text)


async def reveal(
    events: Sequence[RecordedEvent], cipher: FieldCipher, *, damaged: Damaged | None = None
) -> list[RecordedEvent]:
    """The events with personal data in clear text; those that `damaged` is told of stay as they were stored.

    Raises `PersonalDataError`, which names the event at fault and has its `index`, and a `StorageError`.
    """
    try:
        payloads = await cipher.reveal([event.payload for event in events])
    except PersonalDataError as error:
        if damaged is not None and len(events) == 1:
            damaged(events[0], error)
            return [*events]
        if damaged is not None:
            # Which of them are damaged shows one by one.
            return [found for event in events for found in await reveal([event], cipher, damaged=damaged)]
        if error.index is None:
            raise
        text = f"{events[error.index].position}: {error}"
        raise PersonalDataError(text, subject=error.subject, index=error.index) from error
    return [
        event if payload is event.payload else event.revealed(payload)
        for event, payload in zip(events, payloads, strict=True)
    ]


class _WithoutOutbox:
    """What a commit needs of a store, where no events go to an outbox."""

    def __init__(self, table: EventTable) -> None:
        self.table = table.name
        self.commit = table.commit

    def put_action(self, record: NewRecord) -> Action:
        raise TypeError("an event store without an outbox puts no outbox records")


def _without_gap(items: Sequence[Item], after: int) -> Sequence[Item]:
    """The items up to the first one that does not follow the one before it."""
    if not items or sequence_of(items[-1]) == after + len(items):
        return items
    count = next(index for index, item in enumerate(items) if sequence_of(item) != after + 1 + index)
    return items[:count]


def _missing(aggregate_id: str, sequence: int) -> EventUnreadableError:
    text = (
        "the event is missing, but later ones are there: it was deleted, or the table was copied while it was "
        "written; restore it before anything is decided on this history"
    )
    return EventUnreadableError(text, event_type="?", version=0, position=f"{aggregate_id}@{sequence}")


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} = {value}: give {least} or more")


def _duplicate(aggregate_id: str, command_id: str | None, marker: CommandMarker) -> DuplicateCommandError:
    return DuplicateCommandError(
        aggregate_id,
        command_id or "",
        first_sequence=marker.first_sequence,
        events=marker.events,
        fingerprint=marker.fingerprint,
    )
