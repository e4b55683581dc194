"""CloudEvents to the entries of an event bus, and delivered EventBridge events back to CloudEvents. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import AddressDeniedError, EventRejectedError, InvalidEventError
from oms_events.events import CORE_ATTRIBUTES, EncodedEvent, event_from_attributes, load_json, parse_event
from oms_events.publishers.eventbridge.config import DETAIL_TYPE_LENGTH, EventBridgeConfig
from oms_events.publishers.eventbridge.entries import Entry, entry_size

_JSON_OPTIONS: Final = orjson.OPT_UTC_Z
_MAX_DEPTH: Final = 1000
_CACHED: Final = 4096


_EVENT, _METADATA = "cloudEvents", "eventBridgeMetadata"
_WRAPPED_HEAD: Final = b'{"cloudEvents":'
_WRAPPED_TAIL: Final = b',"eventBridgeMetadata":{"mapping":"wrapped","converter":"oms-events","version":1}}'
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_NOT_NESTING: Final = re.compile(rb"[^\[\]{}]+")


class EventMapper:
    """Makes entries of one bus, as the configuration says.

    `Time` has whole seconds, as EventBridge keeps no more; the event's own time is in `Detail`.
    """

    def __init__(self, config: EventBridgeConfig) -> None:
        self._bus = config.event_bus_name
        self._resources = list(config.resources)
        self._limit = config.max_request_bytes
        wrapped = config.mapping == "wrapped"
        self._detail: Callable[[EncodedEvent], bytes] = _wrapped_detail if wrapped else _plain_detail
        prefix, table = config.source_prefix, dict(config.detail_types)
        # Few sources and types recur in many events; the bound is for those whose sources do not.
        self._source = lru_cache(_CACHED)(
            lambda source: _checked_source(_dotted_source(source, prefix) if wrapped else source, source)
        )
        self._detail_type = lru_cache(_CACHED)(
            lambda kind: _titled_type(kind) if wrapped else _plain_type(kind, table)
        )

    def entry(self, event: EncodedEvent, index: int) -> Entry:
        """Maps one event.

        Raises `AddressDeniedError` for a source that AWS keeps for itself, and `EventRejectedError` for an
        event that has no such form or is too large.
        """
        source = self._source(event.source)
        detail_type = self._detail_type(event.type)
        detail = self._detail(event)
        time = event.attributes.get("time")
        size = entry_size(source, detail_type, detail, self._resources, timed=time is not None)
        if size >= self._limit:
            raise EventRejectedError(
                f"the entry has {size} bytes and EventBridge takes less than {self._limit} "
                "(max_request_bytes); send a reference to the data (`dataref`) instead",
                code="EntryTooLarge",
            )
        document: dict[str, Any] = {
            "Source": source,
            "DetailType": detail_type,
            "Detail": detail.decode(),
            "EventBusName": self._bus,
        }
        if time is not None:
            document["Time"] = int(time.timestamp())
        if self._resources:
            document["Resources"] = self._resources
        return Entry(index, document, size)


def from_eventbridge_event(document: Mapping[str, Any] | str | bytes) -> CloudEvent:
    """Reads the CloudEvent out of a delivered EventBridge event of either mapping.

    Takes the event as a target gets it: an object (a Lambda function's argument) or its JSON text (the body
    of an SQS message). Raises `InvalidEventError` for anything else.
    """
    if isinstance(document, str | bytes):
        try:
            document = load_json(document)
        except orjson.JSONDecodeError as error:
            raise InvalidEventError(f"not JSON: {error}") from error
    if not isinstance(document, Mapping):
        raise InvalidEventError(f"an EventBridge event is a JSON object, not {type(document).__name__}")
    detail = document.get("detail")
    if not isinstance(detail, Mapping):
        raise InvalidEventError("has no object 'detail'; give the whole delivered event", field="detail")
    event = detail.get(_EVENT)
    if not isinstance(event, Mapping):
        raise InvalidEventError(f"'detail' has no object {_EVENT!r}: it was no CloudEvent", field="detail")
    if _METADATA in detail:
        return parse_event(event)
    if event.get("id") is None:
        raise InvalidEventError("attribute 'id' is missing", field="id")
    return event_from_attributes(dict(event), {name: value for name, value in detail.items() if name != _EVENT})


def _wrapped_detail(event: EncodedEvent) -> bytes:
    # The event and its data are objects around it: two levels.
    _check_depth(event, _MAX_DEPTH - 2)
    extensions = {name: value for name, value in event.attributes.items() if name not in CORE_ATTRIBUTES}
    context = orjson.dumps(extensions, option=_JSON_OPTIONS)
    return b"".join((_WRAPPED_HEAD, event.json, b',"omsContext":', context, _WRAPPED_TAIL))


def _plain_detail(event: EncodedEvent) -> bytes:
    payload = event.payload
    if event.kind != "json" or not payload.startswith(b"{"):
        raise EventRejectedError(
            f"data is {type(event.data).__name__}, and the mapping 'plain' takes JSON objects only; "
            "use the mapping 'wrapped'",
            code="DataNotAnObject",
        )
    _check_depth(event, _MAX_DEPTH)
    # A search for the text is quick and never misses a key; what it finds may be a value, or lie deeper.
    for name in (_EVENT, _METADATA):
        if name.encode() in payload and name in (
            event.data if isinstance(event.data, dict) else orjson.loads(payload)
        ):
            raise EventRejectedError(
                f"data has a key {name!r}, which the mapping 'plain' needs for the attributes or to be read "
                "back; rename it or use the mapping 'wrapped'",
                code="ReservedKey",
            )
    attributes = orjson.dumps(dict(event.attributes), option=_JSON_OPTIONS)
    comma = b"" if payload == b"{}" else b","
    return b"".join((payload[:-1], comma, b'"cloudEvents":', attributes, b"}"))


def _check_depth(event: EncodedEvent, limit: int) -> None:
    payload = event.payload
    if event.kind != "json" or payload.count(b"{") + payload.count(b"[") <= limit:
        return
    depth = deepest = 0
    for bracket in _NOT_NESTING.sub(b"", _STRINGS.sub(b"", payload)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > limit:
        raise EventRejectedError(
            f"data is nested {deepest} levels deep and EventBridge takes {limit} in this mapping", code="TooDeep"
        )


def _dotted_source(source: str, prefix: str | None) -> str:
    try:
        parts = urlsplit(source)
        # Neither user nor port: a password must not reach the bus, and rules match the host.
        text = f"{parts.hostname}/{parts.path}" if parts.hostname else parts.path or source
        if parts.scheme and not parts.netloc:
            text = f"{parts.scheme}/{text.replace(':', '/')}"
    except ValueError:
        text = source
    dotted = ".".join(segment for segment in text.strip().split("/") if segment)
    if prefix is None or dotted == prefix or dotted.startswith(f"{prefix}."):
        return dotted
    return f"{prefix}.{dotted}" if dotted else prefix


def _checked_source(mapped: str, source: str) -> str:
    if not mapped.strip():
        raise EventRejectedError(
            f"source {source!r} leaves nothing for EventBridge's Source; set source_prefix", code="EmptySource"
        )
    if mapped.startswith("aws."):
        raise AddressDeniedError(
            f"source {source!r} gives {mapped!r}, and AWS keeps 'aws.' for its own events; set source_prefix",
            code="NotAuthorizedForSourceException",
        )
    return mapped


def _titled_type(kind: str) -> str:
    segments = [segment for segment in kind.split(".") if segment.strip()]
    text = " ".join(segments[-2:]).replace("_", " ").title()
    return _checked_type(text[:DETAIL_TYPE_LENGTH], kind)


def _plain_type(kind: str, table: Mapping[str, str]) -> str:
    text = table.get(kind) or kind.rpartition(".")[2]
    if len(text) > DETAIL_TYPE_LENGTH:
        raise EventRejectedError(
            f"type {kind!r} gives a DetailType of {len(text)} characters and EventBridge takes "
            f"{DETAIL_TYPE_LENGTH}; give it a text in detail_types",
            code="DetailTypeTooLong",
        )
    return _checked_type(text, kind)


def _checked_type(text: str, kind: str) -> str:
    if not text.strip():
        raise EventRejectedError(f"type {kind!r} leaves nothing for a DetailType", code="EmptyDetailType")
    return text
