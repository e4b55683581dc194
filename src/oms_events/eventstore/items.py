"""The event store's items: events and command markers as DynamoDB's JSON, their conditions, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from oms_events.errors import AppendLimitError, EventUnreadableError
from oms_events.eventstore.records import CommandMarker, RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import (
    AGGREGATE_ID,
    EVENT_SEQUENCE,
    EVENT_TIME,
    EVENT_TYPE,
    TYPE_SHARD,
    type_shard,
)
from oms_events.outbox.codec import to_stored
from oms_events.outbox.schema import ITEM_LIMIT, item_size
from oms_events.outbox.store import Action

Item = Mapping[str, Mapping[str, Any]]

SCHEMA_VERSION: Final = "SchemaVersion"
EVENT: Final = "CloudEvent"
"""The event's attributes, as a JSON object."""
DATA: Final = "Data"
"""The event's data, as JSON."""
CHECKSUM: Final = "Checksum"

_SURELY_FITS: Final = 90_000
"""Characters, each at most 4 bytes; keys, type and names take less than what is left."""

COMMAND_PREFIX: Final = "command#"
"""Begins the key of command markers, and of no aggregate's id."""
FIRST_SEQUENCE: Final = "FirstSequence"
EVENT_COUNT: Final = "EventCount"
FINGERPRINT: Final = "Fingerprint"

NOT_THERE: Final = f"attribute_not_exists({AGGREGATE_ID})"
"""Of each put: what was recorded is never replaced. Whoever appends second at a position is refused."""
THERE: Final = f"attribute_exists({AGGREGATE_ID})"
"""Of the event before the first new one: an expectation that is too high would leave a gap."""


def event_key(aggregate_id: str, sequence: int) -> dict[str, dict[str, str]]:
    return {AGGREGATE_ID: {"S": aggregate_id}, EVENT_SEQUENCE: {"N": str(sequence)}}


def marker_key(aggregate_id: str, command_id: str) -> dict[str, dict[str, str]]:
    """The key of a command's marker: beside the aggregate's events, where no query of them reads it.

    The aggregate's length comes first, so that no two pairs of ids give one key.
    """
    return event_key(f"{COMMAND_PREFIX}{len(aggregate_id)}#{aggregate_id}#{command_id}", 0)


def event_item(event: RecordedEvent) -> dict[str, dict[str, Any]]:
    """The item of a recorded event. Raises `AppendLimitError` when it is too large."""
    head, data, _ = to_stored(event.encoded)
    item = {
        **event_key(event.aggregate_id, event.sequence),
        TYPE_SHARD: {"S": type_shard(event.type, event.aggregate_id)},
        EVENT_TIME: {"S": event.time_key},
        EVENT_TYPE: {"S": event.type},
        SCHEMA_VERSION: {"N": str(event.version)},
        EVENT: {"S": head},
        DATA: {"S": data},
        CHECKSUM: {"S": checksum(event.aggregate_id, event.sequence, head, data)},
    }
    # So far below the limit nobody need know the exact size.
    if len(head) + len(data) > _SURELY_FITS and (size := item_size(item)) > ITEM_LIMIT:
        text = (
            f"event {event.position} ({event.type}) has {size} bytes, but a DynamoDB item takes {ITEM_LIMIT}: "
            "keep large documents elsewhere, and their address in the event"
        )
        raise AppendLimitError(text, limit=ITEM_LIMIT, actual=size)
    return item


class _StoredEvent(RecordedEvent):
    """A recorded event of an item: as its class makes it, in half the time; histories are long."""

    __slots__ = ()

    def __init__(self, item: Item, registry: EventRegistry) -> None:
        self.aggregate_id = item[AGGREGATE_ID]["S"]
        self.sequence = int(item[EVENT_SEQUENCE]["N"])
        self.type = item[EVENT_TYPE]["S"]
        self.version = int(item[SCHEMA_VERSION]["N"])
        self._encoded = None
        self._head = item[EVENT]["S"]
        self._data = item[DATA]["S"]
        self._payload = None
        self._registry = registry
        self._domain_event = None


def read_item(item: Item, registry: EventRegistry) -> RecordedEvent:
    """The recorded event of an item. Raises `EventUnreadableError` for what is none."""
    try:
        return _StoredEvent(item, registry)
    except (KeyError, ValueError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
        raise EventUnreadableError(
            f"the item {what}",
            event_type=item.get(EVENT_TYPE, {}).get("S", "?"),
            version=0,
            position=position_of(item),
        ) from error


def is_event(item: Item) -> bool:
    """Whether an item of the table is an event, and no command's marker."""
    return not item[AGGREGATE_ID]["S"].startswith(COMMAND_PREFIX)


def sequence_of(item: Item) -> int:
    """Its position; 0 of a command's marker."""
    return int(item[EVENT_SEQUENCE]["N"])


def position_of(item: Item) -> str:
    return f"{item.get(AGGREGATE_ID, {}).get('S', '?')}@{item.get(EVENT_SEQUENCE, {}).get('N', '?')}"


def checksum(aggregate_id: str, sequence: int, head: str, data: str) -> str:
    """Of all that an event is: where it stands, its attributes, its data."""
    digest = blake2b(digest_size=16)
    for part in (aggregate_id, str(sequence), head, data):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8))
        digest.update(encoded)
    return digest.hexdigest()


def marker_item(aggregate_id: str, command_id: str, marker: CommandMarker) -> dict[str, dict[str, Any]]:
    return {
        **marker_key(aggregate_id, command_id),
        FIRST_SEQUENCE: {"N": str(marker.first_sequence)},
        EVENT_COUNT: {"N": str(marker.events)},
        FINGERPRINT: {"S": marker.fingerprint},
    }


def read_marker(item: Item) -> CommandMarker:
    return CommandMarker(int(item[FIRST_SEQUENCE]["N"]), int(item[EVENT_COUNT]["N"]), item[FINGERPRINT]["S"])


def put(table: str, item: Mapping[str, Any]) -> Action:
    """Puts what must not be there yet."""
    return {"Put": {"TableName": table, "Item": item, "ConditionExpression": NOT_THERE}}


def must_not_exist(table: str, aggregate_id: str, sequence: int) -> Action:
    """Makes a transaction depend on a position that is free."""
    key = event_key(aggregate_id, sequence)
    return {"ConditionCheck": {"TableName": table, "Key": key, "ConditionExpression": NOT_THERE}}


def must_exist(table: str, aggregate_id: str, sequence: int) -> Action:
    """Makes a transaction depend on an event that is there."""
    key = event_key(aggregate_id, sequence)
    return {"ConditionCheck": {"TableName": table, "Key": key, "ConditionExpression": THERE}}
