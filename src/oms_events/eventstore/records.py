"""Recorded events: domain events with their place in the history of an aggregate. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel

from oms_events.errors import EventUnreadableError, InvalidEventError
from oms_events.events import EncodedEvent, load_json
from oms_events.eventstore.registry import EventRegistry, version_of
from oms_events.eventstore.schema import SEQUENCE_DIGITS

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

MAX_AGGREGATE_BYTES: Final = 900
"""Of an aggregate's id in UTF-8: with a time and a sequence it is a sort key, which takes 1,024 bytes."""


class RecordedEvent:
    """An event in an aggregate's history. What it holds is read when it is asked for, and then kept.

    `sequence` counts from 1 without gaps; `encoded` is the CloudEvent, ready to be published as it was stored;
    `payload` its data as JSON, with personal data readable where a cipher revealed it.
    """

    __slots__ = ("_domain_event", "_registry", "aggregate_id", "encoded", "payload", "sequence", "type", "version")

    def __init__(
        self,
        aggregate_id: str,
        sequence: int,
        encoded: EncodedEvent,
        *,
        version: int,
        registry: EventRegistry,
        payload: bytes | None = None,
    ) -> None:
        self.aggregate_id = aggregate_id
        self.sequence = sequence
        self.type = encoded.type
        self.version = version
        self.encoded = encoded
        self.payload = encoded.payload if payload is None else payload
        self._registry = registry
        self._domain_event: BaseModel | None = None

    @property
    def position(self) -> str:
        """Where it is, in one word: `<aggregate>@<sequence>`."""
        return f"{self.aggregate_id}@{self.sequence}"

    @property
    def id(self) -> str:
        return self.encoded.id

    @property
    def time(self) -> datetime:
        """When it was appended, by the writer's clock."""
        time: datetime = self.encoded.attributes["time"]
        return time

    @property
    def event(self) -> CloudEvent:
        """The CloudEvent as it was stored."""
        return self.encoded.event

    @property
    def data(self) -> Any:
        """The data as JSON has it, in the version in which it was stored."""
        return load_json(self.payload) if self.payload else None

    @property
    def domain_event(self) -> BaseModel:
        """The typed event, brought to the newest version. Raises `EventUnreadableError`."""
        if self._domain_event is None:
            try:
                self._domain_event = self._registry.read(self.type, self.version, self.payload)
            except EventUnreadableError as error:
                raise EventUnreadableError(
                    str(error), event_type=self.type, version=self.version, position=self.position
                ) from error.__cause__
        return self._domain_event

    def revealed(self, payload: bytes) -> RecordedEvent:
        """The same event with other data to read: personal data in clear text. `encoded` stays as it is."""
        return RecordedEvent(
            self.aggregate_id,
            self.sequence,
            self.encoded,
            version=self.version,
            registry=self._registry,
            payload=payload,
        )

    def __repr__(self) -> str:
        return f"<RecordedEvent {self.position} {self.type} version {self.version} id={self.id!r}>"


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

    Raises `InvalidEventError` for one without `subject` and `sequence`: it is from no event store.
    """
    aggregate_id: Any = event.attributes.get("subject")
    sequence: Any = event.attributes.get("sequence")
    for name, value in (("subject", aggregate_id), ("sequence", sequence)):
        if not isinstance(value, str) or not value:
            text = f"attribute {name!r} = {value!r}: an event of an event store has it; route only those here"
            raise InvalidEventError(text, field=name)
    if not (sequence.isascii() and sequence.isdecimal() and int(sequence) > 0):
        text = f"attribute 'sequence' = {sequence!r} is no position in a history; route only stored events here"
        raise InvalidEventError(text, field="sequence")
    version = version_of(event.attributes.get("dataschema"))
    return RecordedEvent(aggregate_id, int(sequence), event, version=version, registry=registry)
