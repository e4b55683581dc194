"""Correlation ids: what makes a start unique, so that the same start delivered again is recognized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from oms_events.events import percent_encoder
from oms_events.triggers.request import MAX_CORRELATION_ID

_LONGEST: Final = 4096
"""More is not encoded to be made a digest of at last."""

_escaped = percent_encoder()


def derived_id(*parts: str) -> str:
    """An id of what makes a start unique: printable ASCII, and a digest where that is too long.

    What may be anything in a part is percent-encoded, so that different parts never make the same id.
    """
    return short_id("".join(parts))


def escaped(text: str) -> str:
    """The text as printable ASCII without spaces, so that it can be told again; a very long one as its digest."""
    return _escaped(text) if len(text) <= _LONGEST else f"sha256:{sha256(text.encode()).hexdigest()}"


def known_id(identifier: object) -> str | None:
    """The id of what has this identifier, as it came: None where it has none."""
    return derived_id(escaped(identifier)) if isinstance(identifier, str) and identifier else None


def told_id(correlation_id: object) -> str | None:
    """A correlation id out of an input that is wrong, as it may be logged: None where it has none."""
    if isinstance(correlation_id, str) and correlation_id.isprintable() and correlation_id:
        return short_id(correlation_id)
    return known_id(correlation_id)


def object_id(bucket: object, key: object, *writings: object) -> str | None:
    """The id of a new object: `writings` tell this writing of the key from the next one, the best first."""
    writing = next((one for one in writings if isinstance(one, str) and one), None)
    if not isinstance(bucket, str) or not isinstance(key, str) or writing is None:
        return None
    return derived_id(escaped(bucket), "/", escaped(key), "#", escaped(writing))


def short_id(text: str) -> str:
    """The id itself, or its digest when it is longer than an id may be."""
    if len(text) <= MAX_CORRELATION_ID:
        return text
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def given_id(value: Any) -> Any:
    """An id that somebody gave: a long one becomes its digest, all else is checked with the other fields."""
    return short_id(value) if isinstance(value, str) and value.isprintable() else value


def event_id(source: str, identifier: str) -> str:
    """The id of a CloudEvent: its identity, as `EncodedEvent.identity` has it."""
    return derived_id(escaped(identifier).replace("@", "%40"), "@", escaped(source))


def digest_of(document: Mapping[str, Any]) -> str:
    """16 characters that differ for different documents, whatever the order of their names."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]
