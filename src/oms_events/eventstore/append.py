"""One append: its events, the actions of its transaction, and what a refusal of them means."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from oms_events._aio import Clock
from oms_events._aws.dynamodb import CONDITION_FAILED
from oms_events.errors import AppendLimitError, InvalidEventError
from oms_events.events import build_event, encode
from oms_events.eventstore.items import (
    COMMAND_PREFIX,
    event_item,
    marker_item,
    must_exist,
    must_not_exist,
    put,
)
from oms_events.eventstore.personal import FieldCipher
from oms_events.eventstore.records import MAX_AGGREGATE_BYTES, CommandMarker, RecordedEvent, sequence_text
from oms_events.eventstore.registry import EventRegistry
from oms_events.outbox.limits import MAX_ACTIONS, MAX_BYTES
from oms_events.outbox.schema import item_size
from oms_events.outbox.store import Action

MAX_COMMAND_BYTES: Final = 900
"""Of a command's id in UTF-8: with its aggregate's it is a hash key, which takes 2,048 bytes."""

_OWN: Final = frozenset(
    ("type", "source", "id", "time", "subject", "sequence", "dataschema", "datacontenttype", "specversion")
)
"""The attributes that the store gives; those of a caller may not be among them."""


class Author:
    """Makes recorded events of domain events."""

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
        events: Sequence[BaseModel],
        *,
        after: int,
        correlation_id: str | None,
        causation_id: str | None,
        attributes: Mapping[str, Any],
    ) -> list[RecordedEvent]:
        """The events in their places. Raises `InvalidEventError`, `ConfigurationError`, `PersonalDataError`."""
        check_aggregate_id(aggregate_id)
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            text = f"expected_sequence = {after!r}: give the sequence of the aggregate's last event, 0 without any"
            raise InvalidEventError(text, field="sequence")
        if taken := sorted(_OWN & attributes.keys()):
            raise InvalidEventError(f"attribute {taken[0]!r} is the store's to give; leave it out", field=taken[0])
        # partitionkey may be another than the aggregate: whose order matters is the caller's to say.
        common = {
            "partitionkey": aggregate_id,
            "correlationid": correlation_id,
            "causationid": causation_id,
            **attributes,
        }
        time = self._clock.now()
        return [
            await self._record(aggregate_id, sequence, event, time, common)
            for sequence, event in enumerate(events, after + 1)
        ]

    async def _record(
        self, aggregate_id: str, sequence: int, event: BaseModel, time: datetime, common: Mapping[str, Any]
    ) -> RecordedEvent:
        name = self._registry.name_of(event)
        data = clear = event.model_dump(mode="json", by_alias=True, round_trip=True)
        if self._cipher is not None:
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
        # The caller gets what it gave, not what only a key can read.
        return recorded if data is clear else recorded.revealed(encode(build_event(name.type, "-", clear)).payload)


class Append:
    """The transaction of one append."""

    def __init__(
        self,
        table: str,
        aggregate_id: str,
        expected: int,
        events: Sequence[RecordedEvent],
        command_id: str | None,
        fingerprint: str,
        others: Sequence[Action],
    ) -> None:
        self.table = table
        self.aggregate_id = aggregate_id
        self.expected = expected
        self.events = events
        self.command_id = command_id
        self._fingerprint = fingerprint
        self._others = others

    @cached_property
    def actions(self) -> list[Action]:
        """The expectation, the events, the command, the caller's own; nothing when there is nothing to store."""
        if not (self.events or self.command_id is not None or self._others):
            return []
        return [*self._history, *self._marker, *self._others]

    def check(self, *, with_outbox: bool) -> None:
        """Raises `AppendLimitError` and `InvalidEventError`."""
        if self.command_id is not None:
            _check_text("command_id", self.command_id, MAX_COMMAND_BYTES)
        records = len(self.events) if with_outbox else 0
        count = len(self.actions) + records
        if count > MAX_ACTIONS:
            others = count - len(self.events) - records
            most = (MAX_ACTIONS - others) // (2 if with_outbox else 1)
            text = (
                f"{len(self.events)} events and what goes with them are {count} actions, but a transaction takes "
                f"{MAX_ACTIONS}: append at most {max(0, most)} events at once"
            )
            raise AppendLimitError(text, limit=MAX_ACTIONS, actual=count)
        size = sum(map(_size, self.actions))
        if with_outbox:
            size += sum(len(event.encoded.head) + len(event.encoded.payload) for event in self.events)
        if size > MAX_BYTES:
            text = f"about {size} bytes, but a transaction takes {MAX_BYTES}: append fewer events at once"
            raise AppendLimitError(text, limit=MAX_BYTES, actual=size)

    def is_duplicate(self, reasons: Sequence[str]) -> bool:
        """Whether the command's marker was there."""
        start = len(self._history)
        return CONDITION_FAILED in reasons[start : start + len(self._marker)]

    def is_overtaken(self, reasons: Sequence[str]) -> bool:
        """Whether the history was not as long as expected."""
        return CONDITION_FAILED in reasons[: len(self._history)]

    @cached_property
    def _history(self) -> list[Action]:
        found = [must_exist(self.table, self.aggregate_id, self.expected)] if self.expected else []
        if not self.events:
            # Decided on a state that is not the last any more, a command without effect may have had one.
            return [*found, must_not_exist(self.table, self.aggregate_id, self.expected + 1)]
        return [*found, *(put(self.table, event_item(event)) for event in self.events)]

    @cached_property
    def _marker(self) -> list[Action]:
        if self.command_id is None:
            return []
        marker = CommandMarker(self.expected + 1, len(self.events), self._fingerprint)
        return [put(self.table, marker_item(self.aggregate_id, self.command_id, marker))]


def check_aggregate_id(aggregate_id: object) -> None:
    """Raises `InvalidEventError` for what is no aggregate's id."""
    _check_text("aggregate_id", aggregate_id, MAX_AGGREGATE_BYTES)
    if str(aggregate_id).startswith(COMMAND_PREFIX):
        text = f"aggregate_id = {aggregate_id!r}: {COMMAND_PREFIX!r} begins the keys of commands; choose another"
        raise InvalidEventError(text, field="subject")


def _check_text(name: str, value: object, limit: int) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidEventError(f"{name} = {value!r}: give it some text", field="subject")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidEventError(f"{name} has a lone surrogate, which UTF-8 lacks", field="subject") from error
    if size > limit:
        raise InvalidEventError(f"{name} has {size} bytes of UTF-8; at most {limit} fit in a key", field="subject")


def _size(action: Action) -> int:
    (body,) = action.values()
    size = item_size(body.get("Item") or body.get("Key") or {})
    return size + item_size(body.get("ExpressionAttributeValues", {}))
