"""What a run of events makes of the rows of a read model: one transaction's worth of changes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from oms_events.errors import EventUnreadableError, StorageRejectedError
from oms_events.eventstore.failures import place_of, without_values
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections.items import dump_row, read_row, validation_text
from oms_events.eventstore.projections.projection import Projection, RowHandler
from oms_events.eventstore.records import RecordedEvent
from oms_events.outbox.limits import MAX_ACTIONS, MAX_BYTES
from oms_events.outbox.schema import ITEM_LIMIT, item_size

T = TypeVar("T")

MAX_ROWS: Final = MAX_ACTIONS - 3
"""Of one transaction: beside them go the checkpoint, a parked event, and one that is parked no more."""
_OWN_BYTES: Final = 4 * 1024
"""More than the read model itself adds to a row, and than any other item of the transaction takes."""
_SURELY_FITS: Final = MAX_BYTES // ITEM_LIMIT - 1
_MAX_REASON: Final = 1000
_ANY: Final = "?"
"""The type of what cannot be read at all: it may concern everybody."""


class BrokenEvent(NamedTuple):
    """What stands in the history at `sequence` and cannot be read as an event."""

    sequence: int
    type: str
    reason: str


HistoryEvent = RecordedEvent | BrokenEvent


class Poison(NamedTuple):
    """An event that the projection cannot take, and why."""

    sequence: int
    type: str
    reason: str


class RowChange(NamedTuple):
    """A row's attributes as they will be (None: no row), and the event that it was made of last."""

    attributes: dict[str, dict[str, Any]] | None
    revision: str


@dataclass(slots=True)
class Folded:
    """What to write: rows by key, and events to park. `next` is the index of the first event not in it.

    `handled` are those that took effect. With `is_held` the last of `poison` is the event at `next`.
    """

    rows: dict[str, RowChange] = field(default_factory=dict)
    handled: list[RecordedEvent] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    is_held: bool = False
    next: int = 0


Rows = Mapping[str, Item | None]
"""The stored rows by key, None where there is none."""


class PoisonError(Exception):
    """Why an event is poison, in words that may be stored. Never leaves the fold."""


def concerns(event: HistoryEvent, projection: Projection[Any]) -> bool:
    """Whether a projection has to do with an event."""
    return bool(projection.handlers(event.type)) or (isinstance(event, BrokenEvent) and event.type == _ANY)


class Folding:
    """Folds events onto the rows of a projection.

    With `is_private`, what the projection's functions say of their failures is kept out of reasons: it may repeat
    personal data, which is encrypted everywhere else.
    """

    def __init__(self, projection: Projection[Any], *, pass_poison: bool, is_private: bool) -> None:
        self._projection = projection
        self._pass_poison = pass_poison
        self._is_private = is_private

    def keys_of(self, event: HistoryEvent) -> list[str]:
        """The keys of the rows that an event changes; none for one that is poison already by them."""
        if isinstance(event, BrokenEvent):
            return []
        try:
            return [self._key(handler, event) for handler in self._projection.handlers(event.type)]
        except PoisonError:
            # Met again when the event is folded.
            return []

    def fold(self, events: Sequence[HistoryEvent], rows: Rows) -> Folded:
        """Folds events onto the rows that they need, as far as one transaction takes them.

        `events` are those that concern the projection, in order. Poison ends it, or is passed over.
        """
        try:
            return self._at_once(events, rows)
        except PoisonError:
            # One of them is poison, or all together are too much: which, shows one by one.
            return self._one_by_one(events, rows)

    def _at_once(self, events: Sequence[HistoryEvent], rows: Rows) -> Folded:
        folded = Folded(next=len(events))
        models: dict[str, BaseModel | None] = {}
        revisions: dict[str, str] = {}
        for found in events:
            event = _readable(found)
            self._handle(event, rows, models, revisions)
            folded.handled.append(event)
        folded.rows = self._changes(models, revisions)
        _check(folded.rows)
        return folded

    def _one_by_one(self, events: Sequence[HistoryEvent], rows: Rows) -> Folded:
        folded, stored = Folded(), dict(rows)
        for found in events:
            try:
                event = _readable(found)
                # The rows are read anew: a function that fails may leave the one that it was given half changed.
                models: dict[str, BaseModel | None] = {}
                revisions: dict[str, str] = {}
                self._handle(event, stored, models, revisions)
                changes = self._changes(models, revisions)
                _check(changes)
            except PoisonError as error:
                if not _has_room(folded, {}, poison=1):
                    return folded
                folded.poison.append(Poison(found.sequence, found.type, str(error)))
                if not self._pass_poison:
                    folded.is_held = True
                    return folded
            else:
                if not _has_room(folded, changes):
                    return folded
                folded.rows |= changes
                stored |= {key: change.attributes for key, change in changes.items()}
                folded.handled.append(event)
            folded.next += 1
        return folded

    def _handle(
        self, event: RecordedEvent, rows: Rows, models: dict[str, BaseModel | None], revisions: dict[str, str]
    ) -> None:
        """Changes the models of the event's rows, which are read from `rows` where they are not there yet."""
        try:
            domain_event = event.domain_event
        except EventUnreadableError as error:
            raise PoisonError(self._unreadable(error)) from error
        # All keys first: one that fails is why there is no row for the others either.
        keyed = [(handler, self._key(handler, event)) for handler in self._projection.handlers(event.type)]
        for handler, key in keyed:
            if key not in models:
                models[key] = self._model(rows, key)
            row = models[key]
            after = self._call(lambda: handler.handle(row, domain_event, event))  # noqa: B023 - called at once
            if after is not None and not isinstance(after, self._projection.row):
                name = getattr(handler.handle, "__qualname__", repr(handler.handle))
                wanted = self._projection.row.__name__
                raise PoisonError(f"{name} gave {type(after).__name__}; give {wanted}, or None to delete the row")
            models[key] = after
            revisions[key] = event.position

    def _key(self, handler: RowHandler, event: RecordedEvent) -> str:
        return self._call(lambda: handler.key_of(event))

    def _model(self, rows: Rows, key: str) -> BaseModel | None:
        if key not in rows:
            raise PoisonError(
                "the event's row has another key each time it is asked for: make `key` a pure function"
            )
        item = rows[key]
        try:
            return None if item is None else read_row(item, self._projection)
        except ValueError as error:
            raise PoisonError(str(error)) from error

    def _changes(
        self, models: Mapping[str, BaseModel | None], revisions: Mapping[str, str]
    ) -> dict[str, RowChange]:
        return {key: RowChange(self._attributes(key, models[key]), revisions[key]) for key in revisions}

    def _attributes(self, key: str, row: BaseModel | None) -> dict[str, dict[str, Any]] | None:
        if row is None:
            return None
        attributes = self._call(lambda: dump_row(row))
        size = item_size(attributes) + len(key.encode()) + _OWN_BYTES
        if size > ITEM_LIMIT:
            text = f"the row has about {size} bytes, but a DynamoDB item takes {ITEM_LIMIT}: split it"
            raise PoisonError(text)
        return attributes

    def _call(self, call: Callable[[], T]) -> T:
        """What the projection's own code gives."""
        try:
            return call()
        except MemoryError:
            # Not the event's fault.
            raise
        except Exception as error:
            raise PoisonError(self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        if isinstance(error, StorageRejectedError) and not self._is_private:
            return _cut(str(error))
        if self._is_private:
            # Where it failed, and not what was there.
            return f"{without_values(error)}; its text is left out, as it may hold personal data"
        if isinstance(error, ValidationError):
            # Its own text repeats values.
            return _cut(f"{error.title}: {validation_text(error)}{place_of(error)}")
        return _cut(f"{type(error).__name__}: {_said(error)}{place_of(error)}")

    def _unreadable(self, error: EventUnreadableError) -> str:
        if self._is_private and error.__cause__ is not None:
            return f"{error.event_type} version {error.version}: {self._reason(error)}"
        return _cut(str(error))


def _readable(event: HistoryEvent) -> RecordedEvent:
    if isinstance(event, BrokenEvent):
        raise PoisonError(event.reason)
    return event


def _check(changes: Mapping[str, RowChange]) -> None:
    if len(changes) > _SURELY_FITS and not _has_room(Folded(), changes):
        text = (
            f"{len(changes)} rows of about {_bytes(changes)} bytes are changed at once, but a transaction takes "
            f"{MAX_ROWS} rows and {MAX_BYTES} bytes"
        )
        raise PoisonError(text)


def _has_room(folded: Folded, changes: Mapping[str, RowChange], *, poison: int = 0) -> bool:
    rows, others = {**folded.rows, **changes}, len(folded.poison) + poison
    is_few = len(rows) + max(0, others - 1) <= MAX_ROWS
    return is_few and _bytes(rows) + (others + 3) * _OWN_BYTES <= MAX_BYTES


def _bytes(rows: Mapping[str, RowChange]) -> int:
    return sum(item_size(change.attributes or {}) + len(key.encode()) + _OWN_BYTES for key, change in rows.items())


def _said(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text fails itself)"


def _cut(text: str) -> str:
    """As much of a text as is kept, without what UTF-8 lacks: it would keep the reason from being stored."""
    text = text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
    return text.encode(errors="replace").decode()
