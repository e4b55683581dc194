"""Recorded events: domain events with their place in the history of an aggregate. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel

from oms_events.errors import EventUnreadableError, InvalidEventError
from oms_events.events import EncodedEvent, load_json
from oms_events.eventstore.registry import EventRegistry, version_of
from oms_events.eventstore.schema import SEQUENCE_DIGITS, event_time
from oms_events.outbox.codec import read_event

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

MAX_AGGREGATE_BYTES: Final = 900
"""Of an aggregate's id in UTF-8: with a time and a sequence it is a sort key, which takes 1,024 bytes."""
_DIGITS: Final = re.compile(rf"[0-9]{{1,{SEQUENCE_DIGITS}}}")


class RecordedEvent:
    """An event in an aggregate's history. What it holds is read when it is asked for, and then kept.

    `sequence` counts from 1 without gaps; `type` and `version` are those under which it was stored. What is read
    later (`encoded` and all that comes of it, `domain_event`) raises `EventUnreadableError` where it is damaged.
    """

    __slots__ = (
        "_data",
        "_domain_event",
        "_encoded",
        "_head",
        "_payload",
        "_registry",
        "aggregate_id",
        "sequence",
        "type",
        "version",
    )

    def __init__(
        self,
        aggregate_id: str,
        sequence: int,
        encoded: EncodedEvent | None,
        *,
        version: int,
        registry: EventRegistry,
        payload: bytes | None = None,
        type: str = "",  # noqa: A002 - as CloudEvents has it
        head: str = "",
        data: str = "",
    ) -> None:
        """Of a CloudEvent; or, with none, of its stored form: its type, its attributes and its data as JSON."""
        self.aggregate_id = aggregate_id
        self.sequence = sequence
        self.type = type if encoded is None else encoded.type
        self.version = version
        self._encoded = encoded
        self._head = head
        self._data = data
        self._payload = payload
        self._registry = registry
        self._domain_event: BaseModel | None = None

    @property
    def encoded(self) -> EncodedEvent:
        """The CloudEvent, ready to be published as it was stored. Raises `EventUnreadableError`."""
        encoded = self._encoded
        if encoded is None:
            encoded = self._encoded = self._read_stored()
        return encoded

    @property
    def payload(self) -> bytes:
        """The data as JSON, in the version in which it was stored, with what was revealed in clear text."""
        if self._payload is None:
            self._payload = self._data.encode() if self._encoded is None else self._encoded.payload
        return self._payload

    @property
    def position(self) -> str:
        """Where it is, in one word: `<aggregate>@<sequence>`."""
        return f"{self.aggregate_id}@{self.sequence}"

    @property
    def id(self) -> str:
        """The CloudEvent's id."""
        return self.encoded.id

    @property
    def time(self) -> datetime:
        """When it was appended, by the writer's clock."""
        time: datetime = self.encoded.attributes["time"]
        return time

    @property
    def time_key(self) -> str:
        """Its place among the events of its type by time: where `EventStore.events_by_type` goes on `after`."""
        return event_time(self.time, self.aggregate_id, self.sequence)

    @property
    def event(self) -> CloudEvent:
        """The CloudEvent as it was stored."""
        return self.encoded.event

    @property
    def data(self) -> Any:
        """The data as Python has JSON, in the version in which it was stored."""
        return load_json(self.payload) if self.payload else None

    @property
    def domain_event(self) -> BaseModel:
        """The typed event, brought to the newest version. Raises `EventUnreadableError`."""
        found = self._domain_event
        if found is None:
            # Text is read as it is: most events are asked for nothing else.
            as_text = self._payload is None and self._encoded is None
            payload = self._data if as_text else self.payload
            try:
                found = self._domain_event = self._registry.read(self.type, self.version, payload)
            except EventUnreadableError as error:
                raise self._unreadable(str(error)) from error.__cause__
        return found

    def revealed(self, payload: bytes) -> RecordedEvent:
        """The same event with other data to read: personal data in clear text. `encoded` stays as it is."""
        return RecordedEvent(
            self.aggregate_id,
            self.sequence,
            self._encoded,
            version=self.version,
            registry=self._registry,
            payload=payload,
            type=self.type,
            head=self._head,
            data=self._data,
        )

    def _read_stored(self) -> EncodedEvent:
        try:
            encoded = read_event(self._head, self._data, "json")
            if not isinstance(encoded.attributes.get("time"), datetime):
                raise InvalidEventError("attribute 'time' is missing", field="time")
        except InvalidEventError as error:
            raise self._unreadable(f"the item cannot be read: {error}") from error
        return encoded

    def _unreadable(self, text: str) -> EventUnreadableError:
        return EventUnreadableError(text, event_type=self.type, version=self.version, position=self.position)

    def __repr__(self) -> str:
        return f"<RecordedEvent {self.position} {self.type} version {self.version}>"


class CommandMarker(NamedTuple):
    """That a command was carried out: its first event's sequence, how many events it led to, what it was like."""

    first_sequence: int
    events: int
    fingerprint: str


def sequence_text(sequence: int) -> str:
    """A position as the CloudEvents extension `sequence` has it: padded, so that texts sort as numbers."""
    return f"{sequence:0{SEQUENCE_DIGITS}d}"


def recorded_of(event: EncodedEvent, registry: EventRegistry) -> RecordedEvent:
    """The recorded event of a CloudEvent that a platform delivered.

    Raises `InvalidEventError` for one without `subject`, `sequence` and `time`: it is from no event store. The
    data of one that came with a `dataref` (the outbox's claim check) is not in it: read it from the store.
    """
    aggregate_id: Any = event.attributes.get("subject")
    sequence: Any = event.attributes.get("sequence")
    for name, value in (("subject", aggregate_id), ("sequence", sequence)):
        if not isinstance(value, str) or not value:
            text = f"attribute {name!r} = {value!r}: an event of an event store has it; route only those here"
            raise InvalidEventError(text, field=name)
    if not isinstance(event.attributes.get("time"), datetime):
        text = "attribute 'time' is missing: an event of an event store has it; route only those here"
        raise InvalidEventError(text, field="time")
    if not (_DIGITS.fullmatch(sequence) and int(sequence)):
        text = f"attribute 'sequence' = {sequence!r} is no position in a history; route only stored events here"
        raise InvalidEventError(text, field="sequence")
    version = version_of(event.attributes.get("dataschema"))
    return RecordedEvent(aggregate_id, int(sequence), event, version=version, registry=registry)
