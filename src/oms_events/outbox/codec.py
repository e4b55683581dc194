"""The stored form of an event: two texts that a relay can publish without building the event again. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import orjson

from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, PayloadKind

_KINDS: Final[Mapping[str, PayloadKind]] = {"json": "json", "text": "text", "base64": "binary"}


class StoredEvent(NamedTuple):
    """An event as text: its attributes as a JSON object, its payload, and what kind of payload that is."""

    head: str
    data: str
    kind: str


def to_stored(event: EncodedEvent) -> StoredEvent:
    """The stored form of an event."""
    if event.kind == "binary":
        return StoredEvent(event.head.decode(), base64.b64encode(event.payload).decode(), "base64")
    return StoredEvent(event.head.decode(), event.payload.decode(), event.kind)


def from_stored(stored: StoredEvent) -> EncodedEvent:
    """The event of a stored form. Raises `InvalidEventError` when it is none."""
    return read_event(*stored)


def read_event(head: str, data: str, kind: str) -> EncodedEvent:
    """As `from_stored`, of the form's parts: nearly all of what a relay reads comes this way."""
    payload_kind = _KINDS.get(kind)
    if payload_kind is None:
        raise InvalidEventError(f"data kind {kind!r} is none of {', '.join(_KINDS)}", field="data")
    encoded = head.encode()
    try:
        attributes = orjson.loads(encoded)
        if "time" in attributes:
            attributes["time"] = datetime.fromisoformat(attributes["time"])
        payload = base64.b64decode(data, validate=True) if payload_kind == "binary" else data.encode()
        return EncodedEvent(None, attributes, encoded, payload, payload_kind)
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise InvalidEventError(f"the stored event cannot be read: {error!r}") from error
