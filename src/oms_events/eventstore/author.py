"""Makes recorded events of domain events: what an append stores, and what it refuses to."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final, cast
from uuid import UUID

from pydantic import BaseModel

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError, EventUnreadableError, InvalidEventError
from oms_events.events import build_event, encode
from oms_events.eventstore.append import check_aggregate_id
from oms_events.eventstore.failures import without_values
from oms_events.eventstore.personal.cipher import FieldCipher
from oms_events.eventstore.personal.marks import Nested, flat, is_marked
from oms_events.eventstore.personal.parts import parts_of
from oms_events.eventstore.personal.sealed import refuse_marks
from oms_events.eventstore.records import RecordedEvent, sequence_text
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import SEQUENCE_DIGITS

MAX_SEQUENCE: Final = 10**SEQUENCE_DIGITS - 1

_OWN: Final = frozenset(
    ("data", "data_base64", "datacontenttype", "dataschema", "id", "sequence", "source", "specversion", "subject",
     "time", "type")
)  # fmt: skip
"""What the store gives; the attributes of a caller may not be among them."""


class Author:
    """Writes domain events into the places that follow an aggregate's last event."""

    def __init__(
        self,
        source: str,
        registry: EventRegistry,
        cipher: FieldCipher | None,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._source = source
        self._registry = registry
        self._cipher = cipher
        self._clock = clock
        self._rng = rng

    async def write(
        self,
        aggregate_id: str,
        events: Iterable[BaseModel],
        *,
        after: int,
        correlation_id: str | None,
        causation_id: str | None,
        attributes: Mapping[str, Any],
    ) -> list[RecordedEvent]:
        """The events in their places, all of one time. What cannot be read back is refused.

        Raises `InvalidEventError`, `ConfigurationError`, `PersonalDataError` and a `StorageError`.
        """
        check_aggregate_id(aggregate_id)
        check_expected(after)
        common = {
            "partitionkey": aggregate_id,
            "correlationid": correlation_id,
            "causationid": causation_id,
            **_checked(attributes),
        }
        time = self._clock.now()
        return [
            await self._record(aggregate_id, sequence, event, time, common)
            for sequence, event in enumerate(_listed(events), after + 1)
        ]

    async def _record(
        self, aggregate_id: str, sequence: int, event: BaseModel, time: datetime, common: Mapping[str, Any]
    ) -> RecordedEvent:
        name = self._registry.name_of(event)
        data = clear = _json_of(event, name.type, may_tell=self._cipher is None)
        if self._cipher is None:
            _refuse_clear_text(type(event))
            # A cipher does it itself; without one others may still read the same table with one.
            refuse_marks(data)
        else:
            data = await self._cipher.protect(event, clear, subject=aggregate_id)
        built = build_event(
            name.type,
            self._source,
            data,
            id=str(UUID(int=self._rng.getrandbits(128), version=4)),
            time=time,
            subject=aggregate_id,
            dataschema=self._registry.dataschema(name),
            datacontenttype="application/json",
            sequence=sequence_text(sequence),
            **common,
        )
        recorded = RecordedEvent(
            aggregate_id, sequence, encode(built), version=name.version, registry=self._registry
        )
        if data is not clear:
            # The caller gets what it gave, not what only a key can read.
            recorded = recorded.revealed(encode(build_event(name.type, self._source, clear)).payload)
        _check_readable(recorded)
        return recorded


def check_expected(sequence: object) -> None:
    """Raises `InvalidEventError` for what no history can end at."""
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 <= sequence < MAX_SEQUENCE:
        text = f"expected_sequence = {sequence!r}: give the sequence of the aggregate's last event, 0 without any"
        raise InvalidEventError(text, field="sequence")


def _checked(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    if not attributes:
        return attributes
    if wrong := [name for name in attributes if not isinstance(name, str)]:
        raise InvalidEventError(f"attributes has the name {wrong[0]!r}: give text", field="attributes")
    if taken := sorted(_OWN & attributes.keys()):
        raise InvalidEventError(f"attribute {taken[0]!r} is the store's to give; leave it out", field=taken[0])
    # It may be another than the aggregate: whose order matters is the caller's to say. None has no order at all.
    if "partitionkey" in attributes and (not isinstance(key := attributes["partitionkey"], str) or not key):
        raise InvalidEventError(f"attribute 'partitionkey' = {key!r}: give some text", field="partitionkey")
    return attributes


def _listed(events: object) -> list[BaseModel]:
    """A model can be iterated too: it would give its fields."""
    if type(events) is list:
        return events
    if isinstance(events, BaseModel | str | bytes | Mapping) or not isinstance(events, Iterable):
        text = f"events is {type(events).__name__}: give a list of domain events"
        raise InvalidEventError(text, field="data")
    return list(events)


def _json_of(event: BaseModel, event_type: str, *, may_tell: bool) -> dict[str, Any]:
    try:
        # Values that do not fit their fields are found when the event is read back.
        return event.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    except Exception as error:
        # A serializer's own words may repeat what is personal.
        text = f"{event_type} has no JSON form: {error if may_tell else without_values(error)}"
        raise InvalidEventError(text, field="data") from error


def _refuse_clear_text(model: type[BaseModel]) -> None:
    """Raises `ConfigurationError` for a model with marks: what is stored in clear text cannot be forgotten."""
    if (field := _marked_field(model)) is not None:
        problem = (
            f"{field} is marked as personal data, and would be stored in clear text: give the store a cipher "
            "(PersonalDataCipher), or take the mark away"
        )
        raise ConfigurationError(model.__name__, [problem])


@cache
def _marked_field(model: type[BaseModel]) -> str | None:
    """The first field with a mark, of a model or of those in it."""
    models = [model]
    for each in models:
        for part in parts_of(each):
            if is_marked(part.node):
                return f"{each.__name__}.{part.name}"
            inner = [node.model for node in flat(part.node) if isinstance(node, Nested)]
            models += [found for found in inner if found not in models]
    return None


def _check_readable(recorded: RecordedEvent) -> None:
    """What is stored stays for ever: an event that its own model cannot read would end its aggregate's history.

    So it would be with a field whose alias is another for reading, one that is left out when written, and a value
    that nobody validated.
    """
    try:
        cast("object", recorded.domain_event)
    except EventUnreadableError as error:
        text = f"it could not be read back: {error}; mend the event, or how its model writes and reads it"
        raise InvalidEventError(text, field="data") from error
