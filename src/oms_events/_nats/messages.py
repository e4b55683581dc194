"""NATS messages read as CloudEvents: the protocol binding 1.0.3, both content modes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import InvalidEventError
from oms_events.events import event_from_attributes, parse_event, read_payload

_CLOUDEVENTS: Final = "application/cloudevents"


def from_nats_message(headers: Mapping[str, str] | None, payload: bytes) -> CloudEvent:
    """Reads a NATS message of either content mode.

    Attributes of a binary-mode message are text, `time` excepted: the wire does not say their types.
    Raises `InvalidEventError` for what is no CloudEvent.
    """
    by_name = {name.lower(): value for name, value in (headers or {}).items()}
    content_type = by_name.get("content-type", "").strip()
    media_type = content_type.lower().partition(";")[0].rstrip()
    if media_type in (_CLOUDEVENTS, f"{_CLOUDEVENTS}+json"):
        return parse_event(payload)
    if media_type.startswith(_CLOUDEVENTS):
        raise InvalidEventError(f"Content-Type {content_type!r}: only single events in JSON are read")
    attributes: dict[str, Any] = {
        name[3:]: _decode(name, value) for name, value in by_name.items() if name.startswith("ce-")
    }
    for name in ("specversion", "id", "source", "type"):
        if name not in attributes:
            raise InvalidEventError(f"header 'ce-{name}' is missing; this is no CloudEvent", field=name)
    return event_from_attributes(attributes, read_payload(payload, attributes.get("datacontenttype")))


def _decode(name: str, value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidEventError(
            f"header {name!r} = {value!r} is not UTF-8 after percent-decoding", field=name[3:]
        ) from error
