"""Events: builders, identity, and one fast encoding per event, on the CloudEvents SDK's own `CloudEvent`."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Literal

import orjson
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import InvalidEventError

CORE_ATTRIBUTES: Final = frozenset(
    ("id", "source", "type", "specversion", "datacontenttype", "dataschema", "subject", "time")
)
"""The attributes of CloudEvents 1.0 itself; every other attribute is an extension."""

_TEXT_ATTRIBUTES: Final = CORE_ATTRIBUTES - {"time"}
_JSON_OPTIONS: Final = orjson.OPT_UTC_Z
_DIGITS_TO_ZERO: Final = bytes(ord("0") if chr(code) in "0123456789" else ord(" ") for code in range(256))
_LONG_NUMBER: Final = b"0" * 19

Data = Mapping[str, Any] | Sequence[Any] | str | bytes | int | float | bool | None
"""What an event may carry: JSON, text or bytes. `None` is no data, or JSON null with a JSON content type."""

PayloadKind = Literal["json", "text", "binary"]
"""What a payload is: JSON text (or nothing), other text, or bytes."""


def build_event(
    type: str,  # noqa: A002 - the attribute's name in the specification
    source: str,
    data: Data = None,
    *,
    id: str | None = None,  # noqa: A002
    time: datetime | None = None,
    subject: str | None = None,
    datacontenttype: str | None = None,
    dataschema: str | None = None,
    partitionkey: str | None = None,
    sequence: str | None = None,
    correlationid: str | None = None,
    causationid: str | None = None,
    traceparent: str | None = None,
    tracestate: str | None = None,
    dataref: str | None = None,
    expirytime: datetime | None = None,
    **extensions: str | int | bool | datetime | None,
) -> CloudEvent:
    """Builds a CloudEvent; `id` is a UUID4 and `time` is now unless given; attributes of None are left out.

    Raises `InvalidEventError` that names the attribute, as `encode` does for data that cannot be encoded.
    """
    attributes: dict[str, Any] = {"type": type, "source": source}
    optional = {
        "id": id, "time": time, "subject": subject, "datacontenttype": datacontenttype,
        "dataschema": dataschema, "partitionkey": partitionkey, "sequence": sequence,
        "correlationid": correlationid, "causationid": causationid, "traceparent": traceparent,
        "tracestate": tracestate, "dataref": dataref, "expirytime": expirytime,
    }  # fmt: skip
    attributes.update((name, value) for name, value in optional.items() if value is not None)
    attributes.update((name, value) for name, value in extensions.items() if value is not None)
    return _make(attributes, data)


def parse_event(document: bytes | str | Mapping[str, Any]) -> CloudEvent:
    """Reads one structured JSON CloudEvent (JSON text, or an object already parsed).

    Raises `InvalidEventError` when it is no JSON object or no valid CloudEvent 1.0.
    """
    if isinstance(document, Mapping):
        attributes = dict(document)
    else:
        try:
            attributes = load_json(document)
        except orjson.JSONDecodeError as error:
            raise InvalidEventError(f"not JSON: {error}") from error
        if not isinstance(attributes, dict):
            raise InvalidEventError(f"a CloudEvent is a JSON object, not {_kind(attributes)}")
    if attributes.get("id") is None:
        raise InvalidEventError("attribute 'id' is missing; give the event one", field="id")
    data = attributes.pop("data", None)
    encoded = attributes.pop("data_base64", None)
    if encoded is not None:
        if data is not None:
            raise InvalidEventError("has both 'data' and 'data_base64'; keep one", field="data")
        try:
            data = base64.b64decode(encoded, validate=True)
        except (ValueError, TypeError) as error:
            raise InvalidEventError(f"'data_base64' is not base64: {error}", field="data") from error
    return event_from_attributes(attributes, data)


def event_from_attributes(attributes: dict[str, Any], data: Data) -> CloudEvent:
    """Makes an event of attributes as the wire has them: `time` may be RFC 3339 text, null means absent."""
    attributes = {name: value for name, value in attributes.items() if value is not None}
    time = attributes.get("time")
    if isinstance(time, str):
        try:
            attributes["time"] = datetime.fromisoformat(time)
        except ValueError as error:
            raise InvalidEventError(f"attribute 'time' = {time!r} is not RFC 3339", field="time") from error
    if "time" in attributes:
        return _make(attributes, data)
    event = _make(attributes, data)
    # The SDK stamps an event that has no time; one that was read keeps the time it was sent with: none.
    del event.get_attributes()["time"]
    return event


def _make(attributes: dict[str, Any], data: Data) -> CloudEvent:
    try:
        return CloudEvent(attributes, data)  # type: ignore[arg-type]  # the SDK's type is narrower than JSON
    except CloudEventValidationError as error:
        field, reasons = next(iter(error.errors.items()))
        value = attributes.get(field)
        raise InvalidEventError(f"attribute {field!r} = {value!r}: {reasons[0]}", field=field) from error
    except TypeError as error:
        raise InvalidEventError(f"attribute names are text: {error}") from error


class EncodedEvent:
    """An event on its way: its attributes at hand, and each of its encodings made once for all platforms.

    `payload` is the data alone (the body of binary content mode; empty when there is none), `head` the
    attributes as a JSON object, `json` the structured JSON form. Made by `encode`; constant from then on.
    """

    __slots__ = (
        "_event",
        "_identity",
        "_json",
        "attributes",
        "head",
        "id",
        "kind",
        "payload",
        "source",
        "type",
    )

    def __init__(
        self,
        event: CloudEvent | None,
        attributes: Mapping[str, Any],
        head: bytes,
        payload: bytes,
        kind: PayloadKind,
    ) -> None:
        self._event = event
        self.attributes = attributes
        self.type: str = attributes["type"]
        self.source: str = attributes["source"]
        self.id: str = attributes["id"]
        self.payload = payload
        self.kind: PayloadKind = kind
        self.head = head
        self._json: bytes | None = None
        self._identity: str | None = None

    @property
    def event(self) -> CloudEvent:
        """The event itself; made of the encodings when this one was read from where it was stored."""
        if self._event is None:
            self._event = event_from_attributes(dict(self.attributes), self._stored_data())
        return self._event

    @property
    def data(self) -> Any:
        """The event's data as the caller gave it."""
        return self.event.get_data()

    @property
    def identity(self) -> str:
        """`(source, id)` as one unambiguous line of printable ASCII, for deduplication: `id@source`."""
        if self._identity is None:
            self._identity = f"{_escape_id(self.id)}@{_escape_source(self.source)}"
        return self._identity

    @property
    def json(self) -> bytes:
        """The structured JSON form, in UTF-8."""
        if self._json is None:
            self._json = self.head[:-1] + self._data_member() + b"}"
        return self._json

    @property
    def size(self) -> int:
        """Bytes of the structured JSON form."""
        return len(self.json)

    def _data_member(self) -> bytes:
        if self.kind == "binary":
            return b',"data_base64":"' + base64.b64encode(self.payload) + b'"'
        if self.kind == "text":
            return b',"data":' + orjson.dumps(self.payload.decode())
        return b',"data":' + self.payload if self.payload else b""

    def _stored_data(self) -> Data:
        if self.kind == "binary":
            return self.payload
        if self.kind == "text":
            return self.payload.decode()
        return load_json(self.payload) if self.payload else None


def encode(event: object) -> EncodedEvent:
    """Checks an event and encodes its data.

    Takes the SDK's `cloudevents.core.v1` events, older SDK events (`cloudevents.v1`) and events encoded
    before. Raises `InvalidEventError` for anything else, and for data or attributes that cannot be encoded.
    """
    if type(event) is not CloudEvent:
        if isinstance(event, EncodedEvent):
            return event
        event = _at_the_door(event)
    attributes = event.get_attributes().copy()
    if not (attributes.get("id") and attributes.get("source") and attributes.get("type")):
        raise _missing_attribute(attributes)
    time = attributes.get("time")
    # Nearly every event has text everywhere and a time in UTC: the close look is for the others.
    plain = type(time) is datetime and time.tzinfo is UTC
    for value in attributes.values():
        plain = plain and (type(value) is str or value is time)
    if not plain:
        attributes = {name: _checked_attribute(name, value) for name, value in attributes.items()}
    data = event.get_data()
    content_type = attributes.get("datacontenttype")
    kind: PayloadKind = "json"
    is_json = content_type is None or is_json_type(content_type)
    if is_json and type(data) is dict:
        payload = _dump(data, "data")
    elif data is None:
        payload = b"null" if is_json and content_type is not None else b""
    elif isinstance(data, bytes | bytearray | memoryview):
        kind = "binary"
        payload = bytes(data)
    elif is_json:
        payload = _dump(data, "data")
    elif isinstance(data, str):
        kind = "text"
        payload = _utf8(data, "data")
    else:
        raise InvalidEventError(
            f"data is {_kind(data)}, but datacontenttype is {content_type!r}: give text or bytes, "
            "or a JSON content type",
            field="data",
        )
    try:
        head = orjson.dumps(attributes, option=_JSON_OPTIONS)
    except TypeError as error:
        raise _bad_attribute(attributes) from error
    return EncodedEvent(event, attributes, head, payload, kind)


@lru_cache(maxsize=256)
def is_json_type(content_type: str) -> bool:
    """Whether a `datacontenttype` means JSON (CloudEvents JSON format 1.0.2, section 3.1)."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence in ("application/json", "text/json") or essence.endswith("+json")


def load_json(text: bytes | str) -> Any:
    """Reads JSON as orjson does, and integers over 64 bits exactly.

    Raises `orjson.JSONDecodeError`, also for integers beyond the range of floats (309 digits).
    """
    value = orjson.loads(text)
    raw = text.encode() if isinstance(text, str) else text
    # orjson makes floats of integers that need more than 64 bits: 19 digits or more. Ten times as fast as a
    # regular expression. Where nesting is too deep for the standard library, floats it is.
    if _LONG_NUMBER in raw.translate(_DIGITS_TO_ZERO):
        with contextlib.suppress(RecursionError):
            return json.loads(raw)
    return value


def read_payload(payload: bytes, content_type: str | None) -> Any:
    """The data of a binary-mode message: JSON parsed, other text as text, else bytes.

    An empty payload is None: on this wire `b""`, empty text and no data at all are the same. Raises
    `InvalidEventError` when the content type says JSON and the payload is none.
    """
    if not payload:
        return None
    if content_type is None or is_json_type(content_type):
        try:
            return load_json(payload)
        except orjson.JSONDecodeError as error:
            if content_type is None:
                return payload
            raise InvalidEventError(f"data is not the JSON it claims to be: {error}", field="data") from error
    if content_type.lower().startswith("text/") or content_type.lower().partition(";")[0].endswith("xml"):
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return payload
    return payload


def _at_the_door(event: object) -> CloudEvent:
    legacy = sys.modules.get("cloudevents.v1.abstract")
    if isinstance(event, CloudEvent):
        return event
    if legacy is not None and isinstance(event, legacy.CloudEvent):
        attributes = dict(event.get_attributes())
        if attributes.get("specversion") != "1.0":
            raise InvalidEventError("only CloudEvents 1.0 are taken; convert the event", field="specversion")
        return event_from_attributes(attributes, event.get_data())
    raise InvalidEventError(
        f"{_kind(event)} is no CloudEvent; build one with oms_events.build_event or the CloudEvents SDK"
    )


def _checked_attribute(name: str, value: object) -> object:
    """A value as CloudEvents 1.0 (section 3.1, type system) allows it."""
    if isinstance(value, str) and name != "time":
        return str.__str__(value)
    if name in _TEXT_ATTRIBUTES:
        raise InvalidEventError(f"attribute {name!r} = {value!r}: give it some text", field=name)
    if isinstance(value, datetime):
        return _moment(name, value)
    if name == "time" or not isinstance(value, bool | int):
        kinds = (
            "an aware datetime" if name == "time" else "text, true or false, a 32-bit integer or an aware datetime"
        )
        raise InvalidEventError(f"attribute {name!r} = {value!r} is {_kind(value)}; give {kinds}", field=name)
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        raise InvalidEventError(f"attribute {name!r} = {value!r} is beyond 32 bits; give it as text", field=name)
    return value


def _missing_attribute(attributes: Mapping[str, Any]) -> InvalidEventError:
    name = next(name for name in ("id", "source", "type") if not attributes.get(name))
    return InvalidEventError(f"attribute {name!r} = {attributes.get(name)!r}: give it some text", field=name)


def _moment(name: str, value: datetime) -> datetime:
    offset = value.utcoffset()
    if offset is None:
        raise InvalidEventError(f"attribute {name!r} = {value!r} has no time zone; give it one", field=name)
    # RFC 3339 knows offsets of whole minutes only: a moment with another one is told in UTC.
    return value.astimezone(UTC) if offset.total_seconds() % 60 else value


def _bad_attribute(attributes: Mapping[str, Any]) -> InvalidEventError:
    for name, value in attributes.items():
        try:
            orjson.dumps(value)
        except TypeError as error:
            return InvalidEventError(f"attribute {name!r} = {value!r} has no JSON form: {error}", field=name)
    return InvalidEventError("attribute names are text")


def _dump(value: object, field: str) -> bytes:
    try:
        encoded = orjson.dumps(value, option=_JSON_OPTIONS)
    except TypeError:
        return _dump_like_sdk(value, field)
    # orjson turns NaN and infinities into null, which would change the data without a word. Searched from the end,
    # which bytes do thrice as fast.
    if encoded.rfind(b"null") >= 0 and _has_non_finite(value):
        raise InvalidEventError(f"{field} has a NaN or an infinity, which JSON does not know", field=field)
    return encoded


def _dump_like_sdk(value: object, field: str) -> bytes:
    """What orjson refuses and JSON allows: integers over 64 bits, keys that are numbers."""

    def default(item: object) -> str:
        if isinstance(item, datetime):
            return item.isoformat().replace("+00:00", "Z")
        raise TypeError(f"{_kind(item)} has no JSON form")

    try:
        text = json.dumps(value, default=default, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEventError(f"{field} cannot be written as JSON: {error}", field=field) from error
    return _utf8(text, field)


def _utf8(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEventError(f"{field} has a lone surrogate, which UTF-8 lacks", field=field) from error


def _has_non_finite(value: object) -> bool:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_non_finite, value))
    return (
        dataclasses.is_dataclass(value)
        and not isinstance(value, type)
        and _has_non_finite(dataclasses.asdict(value))
    )


def _kind(value: object) -> str:
    return type(value).__name__


def percent_encoder(extra: str = "") -> Callable[[str], str]:
    """A function that percent-encodes space, quote, percent, `extra` and all but printable ASCII in UTF-8.

    The set that the CloudEvents NATS and HTTP bindings name (HTTP binding 1.0.2, section 3.1.3.2).
    """
    safe = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%' + extra)
    is_safe = re.compile(f"[{re.escape(safe)}]*").fullmatch
    unsafe = re.compile(f"[^{re.escape(safe)}]")

    def encode_one(match: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in match.group().encode())

    def encode_text(text: str) -> str:
        return text if is_safe(text) else unsafe.sub(encode_one, text)

    return encode_text


_escape_id = percent_encoder("@")
_escape_source = lru_cache(maxsize=1024)(percent_encoder())
