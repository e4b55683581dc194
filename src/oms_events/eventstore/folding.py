"""What a run of events makes of the rows of a read model: one transaction's worth of changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from oms_events.errors import EventUnreadableError
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections import Projection, RowHandler
from oms_events.eventstore.read_model_items import ItemKey, dump_row, read_row, row_key, validation_text
from oms_events.eventstore.records import RecordedEvent
from oms_events.outbox.limits import MAX_ACTIONS, MAX_BYTES
from oms_events.outbox.schema import ITEM_LIMIT, item_size

MAX_ROWS: Final = MAX_ACTIONS - 3
"""Of one transaction, beside the checkpoint, the list's entry of a parked event, and that of one that is no more."""
_OWN_BYTES: Final = 4 * 1024
"""At most, of a row's key, revision and times; and of each further item of the transaction."""
_MAX_REASON: Final = 1000


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
    """A row's attributes as they will be (None: no row), and the event that changed it last."""

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


def is_of_interest(event: HistoryEvent, projection: Projection[Any]) -> bool:
    """Whether a projection has to do with an event; with one whose type cannot be read, too."""
    return bool(projection.handlers(event.type)) or (isinstance(event, BrokenEvent) and event.type == "?")


def keys_of(event: HistoryEvent, projection: Projection[Any]) -> list[str]:
    """The keys of the rows that an event changes; none for one that is poison by them."""
    if isinstance(event, BrokenEvent):
        return []
    try:
        return [handler.key_of(event) for handler in projection.handlers(event.type)]
    except Exception:
        # Found again when the event is folded, and told there.
        return []


def fold(
    projection: Projection[Any], events: Sequence[HistoryEvent], rows: Rows, *, pass_poison: bool = False
) -> Folded:
    """Folds events onto the rows that they need, as far as one transaction takes them.

    `events` are those of interest, in order. Poison ends it, or is passed over.
    """
    try:
        return _fold_at_once(projection, events, rows)
    except Exception:
        # One of them is poison, or all are too much: which, shows one by one.
        return _fold_one_by_one(projection, events, rows, pass_poison=pass_poison)


def _fold_at_once(projection: Projection[Any], events: Sequence[HistoryEvent], rows: Rows) -> Folded:
    folded, models, revisions = Folded(next=len(events)), _Models(projection, rows), dict[str, str]()
    for event in events:
        event = _readable(event)
        for handler in projection.handlers(event.type):
            key = handler.key_of(event)
            models[key] = _handle(projection, handler, models[key], event)
            revisions[key] = event.position
        folded.handled.append(event)
    for key, revision in revisions.items():
        folded.rows[key] = RowChange(_dump(projection, key, models[key]), revision)
    _check(folded)
    return folded


def _fold_one_by_one(
    projection: Projection[Any], events: Sequence[HistoryEvent], rows: Rows, *, pass_poison: bool
) -> Folded:
    folded = Folded()
    stored = dict(rows)
    for event in events:
        try:
            changes = _changes(projection, event, stored)
            _check(Folded(rows=changes))
        except Exception as error:
            if pass_poison and not _has_room(folded, {}):
                return folded
            folded.poison.append(Poison(event.sequence, event.type, reason_of(error)))
            if not pass_poison:
                folded.is_held = True
                return folded
        else:
            if not _has_room(folded, changes):
                return folded
            folded.rows |= changes
            for key, change in changes.items():
                stored[key] = change.attributes
            folded.handled.append(_readable(event))
        folded.next += 1
    return folded


def _changes(projection: Projection[Any], event: HistoryEvent, stored: Rows) -> dict[str, RowChange]:
    """What one event changes. The rows are read anew: a function that failed may have left its own half done."""
    event = _readable(event)
    models, changes = _Models(projection, stored), dict[str, RowChange]()
    for handler in projection.handlers(event.type):
        key = handler.key_of(event)
        models[key] = _handle(projection, handler, models[key], event)
        changes[key] = RowChange(_dump(projection, key, models[key]), event.position)
    return changes


class _Models(dict[str, "BaseModel | None"]):
    """Rows as their model, read when they are asked for first."""

    def __init__(self, projection: Projection[Any], rows: Rows) -> None:
        super().__init__()
        self._projection = projection
        self._rows = rows

    def __missing__(self, key: str) -> BaseModel | None:
        item = self._rows[key]
        row = None if item is None else read_row(item, self._projection)
        self[key] = row
        return row


def _readable(event: HistoryEvent) -> RecordedEvent:
    if isinstance(event, BrokenEvent):
        raise EventUnreadableError(event.reason, event_type=event.type, version=0)
    return event


def _handle(
    projection: Projection[Any], handler: RowHandler, row: BaseModel | None, event: RecordedEvent
) -> BaseModel | None:
    after = handler.handle(row, event.domain_event, event)
    if after is not None and not isinstance(after, projection.row):
        name = getattr(handler.handle, "__name__", "its function")
        raise TypeError(
            f"{name} gave {type(after).__name__}; give {projection.row.__name__}, or None to delete the row"
        )
    return after


def _dump(projection: Projection[Any], key: str, row: BaseModel | None) -> dict[str, dict[str, Any]] | None:
    if row is None:
        return None
    attributes = dump_row(row)
    size = item_size(attributes) + _key_size(row_key(projection.full_name, key)) + _OWN_BYTES // 2
    if size > ITEM_LIMIT:
        raise ValueError(
            f"the row {key!r} has about {size} bytes, but a DynamoDB item takes {ITEM_LIMIT}: split it"
        )
    return attributes


def _check(folded: Folded) -> None:
    if not _has_room(Folded(), folded.rows):
        raise ValueError(
            f"{len(folded.rows)} rows of about {_bytes(folded.rows)} bytes are changed at once, but a transaction "
            f"takes {MAX_ROWS} rows and {MAX_BYTES} bytes"
        )


def _has_room(folded: Folded, changes: Mapping[str, RowChange]) -> bool:
    rows = {**folded.rows, **changes}
    others = len(folded.poison)
    return len(rows) + others <= MAX_ROWS and _bytes(rows) + (others + 3) * _OWN_BYTES <= MAX_BYTES


def _bytes(rows: Mapping[str, RowChange]) -> int:
    return sum(item_size(change.attributes or {}) + len(key) * 4 + _OWN_BYTES for key, change in rows.items())


def _key_size(key: ItemKey) -> int:
    return len(key.hash.encode()) + len(key.range.encode()) + _OWN_BYTES // 4


def reason_of(error: Exception) -> str:
    """Why an event is poison, in one line."""
    if isinstance(error, ValidationError):
        # Its own text repeats values, which may be personal.
        text = f"{error.title}: {validation_text(error)}"
    elif isinstance(error, EventUnreadableError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
