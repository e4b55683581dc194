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
    kind = _KINDS.get(stored.kind)
    if kind is None:
        raise InvalidEventError(f"data kind {stored.kind!r} is none of {', '.join(_KINDS)}", field="data")
    head = stored.head.encode()
    try:
        attributes = orjson.loads(head)
        if "time" in attributes:
            attributes["time"] = datetime.fromisoformat(attributes["time"])
        payload = base64.b64decode(stored.data, validate=True) if kind == "binary" else stored.data.encode()
        return EncodedEvent(None, attributes, head, payload, kind)
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise InvalidEventError(f"the stored event cannot be read: {error!r}") from error
