"""Events as NATS messages: the CloudEvents protocol binding 1.0.3, both content modes. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import orjson

from oms_events.errors import EventRejectedError
from oms_events.events import EncodedEvent, percent_encoder

MESSAGE_ID: Final = "Nats-Msg-Id"
"""The header by which JetStream drops a second copy."""

_HEAD: Final = f"NATS/1.0\r\n{MESSAGE_ID}: "
_END: Final = "\r\n\r\n"
_STRUCTURED_END: Final = "\r\nContent-Type: application/cloudevents+json\r\n\r\n"

# Attributes that are different in (nearly) every event would only push the others out of the cache.
_RARELY_REPEATED: Final = frozenset(
    (
        "id", "subject", "correlationid", "causationid", "traceparent", "tracestate", "sequence", "dataref",
        "commit",
    )
)  # fmt: skip
_LONGEST_CACHED: Final = 256

_percent_encode = percent_encoder()


def binary_message(event: EncodedEvent) -> tuple[bytes, bytes]:
    """The header block, as it stands on the wire, and the payload of a binary-mode message.

    Raises `EventRejectedError` for an attribute that has no text form.
    """
    identity = event.identity
    # The identity holds the id percent-encoded already, with "@" encoded too.
    event_id = identity.partition("@")[0]
    if "%" in event_id:
        event_id = _percent_encode(event.id)
    parts = [_HEAD, identity, "\r\nce-id: ", event_id]
    for name, value in event.attributes.items():
        if type(value) is not str:
            parts.append(_prefix(name) + attribute_text(name, value))
        elif name not in _RARELY_REPEATED and len(value) <= _LONGEST_CACHED:
            parts.append(_cached_line(name, value))
        elif name != "id":
            parts.append(_line(name, value))
    parts.append(_END)
    return "".join(parts).encode(), event.payload


def structured_message(event: EncodedEvent) -> tuple[bytes, bytes]:
    """The header block, as it stands on the wire, and the payload of a structured-mode message."""
    return f"{_HEAD}{event.identity}{_STRUCTURED_END}".encode(), event.json


def read_header_block(block: bytes) -> dict[str, str]:
    """A header block made here, as the mapping that NATS clients take."""
    lines = block.decode().split("\r\n")[1:-2]
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def attribute_text(name: str, value: object) -> str:
    """The canonical text of an attribute: `true`, decimal, RFC 3339. Raises `EventRejectedError`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is not UTC:
            # RFC 3339 has no seconds in an offset, which some zones had before 1970.
            offset = value.utcoffset()
            if offset is not None and offset.seconds % 60:
                value = value.astimezone(UTC)
        return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()[1:-1]
    raise EventRejectedError(
        f"attribute {name!r} is {type(value).__name__}, which has no form in a NATS header; make it text"
    )


@lru_cache(maxsize=512)
def _prefix(name: str) -> str:
    if not (name.isascii() and name.isalnum()):
        raise EventRejectedError(f"attribute name {name!r} has more than letters and digits; rename it")
    return f"\r\nce-{name}: "


def _line(name: str, text: str) -> str:
    return _prefix(name) + _percent_encode(text)


_cached_line = lru_cache(maxsize=4096)(_line)
