"""The items of read models and checkpoints, and the conditions under which they change. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from oms_events._aws.marshal import from_item, to_item
from oms_events.eventstore.failures import without_values
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections.projection import RESERVED, REVISION, UPDATED, Projection
from oms_events.eventstore.schema import (
    ACCOUNT_ID,
    CHECKPOINT,
    PROJECTION_NAME,
    PROJECTION_TYPE,
    SEQUENCE_DIGITS,
)

TableRole = Literal["rows", "checkpoints"]
Expected = Mapping[str, Mapping[str, Any] | None]
ABSENT: Final[Expected] = {}
"""What is expected of an item that must not be there."""

SEQUENCE: Final = "Sequence"
"""Of a checkpoint: up to which event the aggregate is in the read model."""
PARKED: Final = "Parked"
"""Of a checkpoint: the event that the aggregate waits for, or waited for and has not caught up from yet."""

PARKED_PREFIX: Final = "parked#"
"""Begins the hash key under which a projection's parked events are listed."""
EVENT_PREFIX: Final = "event#"
"""Begins their range keys, and no projection's name."""
POINTER_PREFIX: Final = "projection#"
"""Begins the hash key of the pointer to a projection's active version."""
POINTER: Final = "active"
"""Its range key: no projection's full name, which has an '@'."""
VERSION: Final = "Version"
SWITCHED: Final = "SwitchedAt"

_PARKED_AT: Final = "ParkedAt"
_REASON: Final = "Reason"
_EVENT_TYPE: Final = "EventType"
_AGGREGATE: Final = "AggregateId"
_HELD: Final = "Held"
_ATTEMPTS: Final = "Attempts"


class ItemKey(NamedTuple):
    """Where an item is: its table, hash key and range key."""

    table: TableRole
    hash: str
    range: str


class Write(NamedTuple):
    """One action of a transaction: puts `item`, or deletes what is there (None), or leaves it (`keep`).

    It takes only if there is an item with the attributes of `expected`, where None says that it lacks one; with an
    empty `expected` only if there is no item; with None always. So what was decided on something that has changed
    since is refused.
    """

    key: ItemKey
    item: Item | None
    expected: Expected | None
    keep: bool = False


class Checkpoint(NamedTuple):
    """How far an aggregate is in a read model: its last event there, and the one that it waits for.

    Once `sequence` has passed `parked` it waits no more, but has not caught up with what came meanwhile.
    """

    sequence: int = 0
    parked: int | None = None

    @property
    def is_held(self) -> bool:
        return self.parked is not None and self.parked > self.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedEvent:
    """An event that a projection could not take, and why; `held`: the aggregate waits for it there.

    `attempts` counts how often it was tried; `projection` is the full name, with the version.
    """

    projection: str
    aggregate_id: str
    sequence: int
    event_type: str
    reason: str
    parked_at: datetime
    held: bool
    attempts: int = 1

    @property
    def position(self) -> str:
        """Where it is: `<aggregate>@<sequence>`."""
        return f"{self.aggregate_id}@{self.sequence}"


# ---------------------------------------------------------------------- rows


def row_key(projection: str, key: str) -> ItemKey:
    return ItemKey("rows", key, projection)


def dump_row(row: BaseModel) -> dict[str, dict[str, Any]]:
    """The attributes of a row. Raises `ValueError` for what DynamoDB cannot hold, and for reserved names."""
    data = row.model_dump(mode="json", by_alias=True)
    if taken := sorted(RESERVED & data.keys()):
        raise ValueError(f"the row has a field {taken[0]!r}, which the read model has itself; rename it")
    return to_item(data, path="row")


def row_item(key: ItemKey, attributes: Item, *, revision: str, now: datetime) -> Item:
    return {
        ACCOUNT_ID: {"S": key.hash},
        PROJECTION_TYPE: {"S": key.range},
        **attributes,
        REVISION: {"S": revision},
        UPDATED: {"S": time_text(now)},
    }


def row_values(item: Item) -> dict[str, Any]:
    """The fields of a row as JSON has them, without the read model's own attributes."""
    values: dict[str, Any] = _plain(from_item(item))
    return {name: value for name, value in values.items() if name not in RESERVED}


def read_row(item: Item, projection: Projection[Any]) -> BaseModel:
    """The row of an item. Raises `ValueError` for one that does not fit the projection's model."""
    try:
        values = {name: value for name, value in row_values(item).items() if name not in projection.computed}
        # As JSON, which is how it was written: a strict model takes a time from text there only.
        row: BaseModel = projection.row.model_validate_json(json.dumps(values))
    except MemoryError:
        # Not the row's fault.
        raise
    except Exception as error:
        # Also a validator's own: pydantic takes only ValueError and AssertionError for the data's fault.
        why = validation_text(error) if isinstance(error, ValidationError) else without_values(error)
        text = (
            f"the stored row does not fit {projection.row.__name__}: {why}; raise the projection's version and "
            "rebuild it"
        )
        raise ValueError(text) from None
    return row


def row_write(key: ItemKey, before: Item | None, after: Item | None) -> Write:
    """The change of a row from what was read to `after`; None is no row."""
    expected: Expected = ABSENT if before is None else {REVISION: before.get(REVISION)}
    return Write(key, after, expected, keep=after is before)


def validation_text(error: ValidationError) -> str:
    """What is wrong first, without the value, which may be personal."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "row"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}"


# ---------------------------------------------------------------------- checkpoints


def checkpoint_key(projection: str, aggregate_id: str) -> ItemKey:
    return ItemKey("checkpoints", aggregate_id, projection)


def checkpoint_write(key: ItemKey, before: Checkpoint | None, after: Checkpoint, now: datetime) -> Write:
    """The change of a checkpoint from what was read."""
    item = {
        CHECKPOINT: {"S": key.hash},
        PROJECTION_NAME: {"S": key.range},
        SEQUENCE: {"N": str(after.sequence)},
        UPDATED: {"S": time_text(now)},
    }
    if after.parked is not None:
        item[PARKED] = {"N": str(after.parked)}
    if before is None:
        return Write(key, item, ABSENT)
    parked: Mapping[str, Any] | None = None if before.parked is None else {"N": str(before.parked)}
    return Write(key, item, {SEQUENCE: {"N": str(before.sequence)}, PARKED: parked})


def read_checkpoint(item: Item | None) -> Checkpoint | None:
    if item is None:
        return None
    return Checkpoint(int(item[SEQUENCE]["N"]), int(item[PARKED]["N"]) if PARKED in item else None)


# ---------------------------------------------------------------------- parked events


def parked_list(projection: str) -> str:
    """The hash key of a projection's parked events."""
    return f"{PARKED_PREFIX}{projection}"


def parked_prefix(aggregate_id: str | None) -> str:
    """What the range keys of an aggregate's parked events begin with; of all of them, for None."""
    return EVENT_PREFIX if aggregate_id is None else f"{EVENT_PREFIX}{aggregate_id}@"


def parked_key(projection: str, aggregate_id: str, sequence: int) -> ItemKey:
    place = f"{parked_prefix(aggregate_id)}{sequence:0{SEQUENCE_DIGITS}d}"
    return ItemKey("checkpoints", parked_list(projection), place)


def parked_item(event: ParkedEvent) -> Item:
    key = parked_key(event.projection, event.aggregate_id, event.sequence)
    return {
        CHECKPOINT: {"S": key.hash},
        PROJECTION_NAME: {"S": key.range},
        _AGGREGATE: {"S": event.aggregate_id},
        SEQUENCE: {"N": str(event.sequence)},
        _EVENT_TYPE: {"S": event.event_type},
        _REASON: {"S": event.reason},
        _PARKED_AT: {"S": time_text(event.parked_at)},
        _HELD: {"BOOL": event.held},
        _ATTEMPTS: {"N": str(event.attempts)},
    }


def read_parked(item: Item) -> ParkedEvent:
    return ParkedEvent(
        projection=item[CHECKPOINT]["S"].removeprefix(PARKED_PREFIX),
        aggregate_id=item[_AGGREGATE]["S"],
        sequence=int(item[SEQUENCE]["N"]),
        event_type=item[_EVENT_TYPE]["S"],
        reason=item[_REASON]["S"],
        parked_at=datetime.fromisoformat(item[_PARKED_AT]["S"]),
        held=item[_HELD]["BOOL"],
        attempts=int(item[_ATTEMPTS]["N"]),
    )


def parked_write(event: ParkedEvent) -> Write:
    """Parks an event, or says anew why it is parked still."""
    return Write(parked_key(event.projection, event.aggregate_id, event.sequence), parked_item(event), None)


def parked_change(before: ParkedEvent, after: ParkedEvent | None) -> Write:
    """Changes what is said of a parked event, or takes it from the list, if nobody else did in between."""
    key = parked_key(before.projection, before.aggregate_id, before.sequence)
    item = None if after is None else parked_item(after)
    as_read = parked_item(before)
    return Write(key, item, {name: as_read[name] for name in (_ATTEMPTS, _HELD, _PARKED_AT)})


# ---------------------------------------------------------------------- the active version


def pointer_key(name: str) -> ItemKey:
    return ItemKey("rows", f"{POINTER_PREFIX}{name}", POINTER)


class Pointer(NamedTuple):
    """The version of a projection that readers get, and when it took another's place; None for the first."""

    version: int
    switched_at: datetime | None


def pointer_write(name: str, version: int, expected: int | None, now: datetime) -> Write:
    key = pointer_key(name)
    item = {
        ACCOUNT_ID: {"S": key.hash},
        PROJECTION_TYPE: {"S": key.range},
        VERSION: {"N": str(version)},
    }
    if expected is not None:
        item[SWITCHED] = {"S": time_text(now)}
    return Write(key, item, _pointing_to(expected))


def pointer_removal(name: str, expected: int) -> Write:
    """Deletes the pointer: readers get no version. Refuses the transaction when another one is active."""
    return Write(pointer_key(name), None, _pointing_to(expected))


def pointer_check(name: str, expected: int | None) -> Write:
    """Leaves the pointer as it is, and refuses the transaction when another version is active."""
    return Write(pointer_key(name), None, _pointing_to(expected), keep=True)


def read_pointer(item: Item | None) -> Pointer | None:
    if item is None:
        return None
    switched_at = datetime.fromisoformat(item[SWITCHED]["S"]) if SWITCHED in item else None
    return Pointer(int(item[VERSION]["N"]), switched_at)


def _pointing_to(version: int | None) -> Expected:
    return ABSENT if version is None else {VERSION: {"N": str(version)}}


# ---------------------------------------------------------------------- values


def keys_of(items: Sequence[Item], table: TableRole) -> list[ItemKey]:
    """The keys of items of a table."""
    hash_name, range_name = KEY_NAMES[table]
    return [ItemKey(table, item[hash_name]["S"], item[range_name]["S"]) for item in items]


KEY_NAMES: Final[Mapping[TableRole, tuple[str, str]]] = {
    "rows": (ACCOUNT_ID, PROJECTION_TYPE),
    "checkpoints": (CHECKPOINT, PROJECTION_NAME),
}


def _plain(value: Any) -> Any:
    """Values as JSON has them. Rows are written from JSON: what is no whole number was a float."""
    match value:
        case Decimal():
            return float(value)
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return value


def time_text(time: datetime) -> str:
    """A time as items have it."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
