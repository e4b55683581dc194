"""One append: its events, the actions of its transaction, and what a refusal of them means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from oms_events._aws.dynamodb import CONDITION_FAILED
from oms_events.errors import AppendLimitError, InvalidEventError, StorageRejectedError
from oms_events.eventstore.items import (
    COMMAND_PREFIX,
    event_item,
    marker_item,
    must_exist,
    must_not_exist,
    put,
)
from oms_events.eventstore.records import MAX_AGGREGATE_BYTES, CommandMarker, RecordedEvent
from oms_events.outbox.limits import MAX_ACTIONS, MAX_BYTES
from oms_events.outbox.schema import item_size
from oms_events.outbox.store import Action
from oms_events.outbox.transaction import checked_action

MAX_COMMAND_BYTES: Final = 900
"""Of a command's id in UTF-8: with its aggregate's it is a hash key, which takes 2,048 bytes."""

_PLACE_BYTES: Final = 8_000
"""Of an event's or a marker's action, at most, besides attributes and data: keys, type, names and numbers."""


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
        others: Iterable[Action],
    ) -> None:
        """Raises `StorageRejectedError` for one of `others` that is no action, or writes to the event store."""
        self.table = table
        self.aggregate_id = aggregate_id
        self.expected = expected
        self.events = events
        self.command_id = command_id
        self._fingerprint = fingerprint
        self._others = [self._checked(number, action) for number, action in enumerate(others)]

    @cached_property
    def actions(self) -> list[Action]:
        """The expectation, the events, the command, the caller's own; nothing when there is nothing to store."""
        if not (self.events or self.command_id is not None or self._others):
            return []
        return [*self._history, *self._marker, *self._others]

    @cached_property
    def size(self) -> int:
        """The bytes of its actions; where even twice as many would fit, rather more of them, which is faster."""
        texts = sum(len(event.encoded.head) + len(event.encoded.payload) for event in self.events)
        most = texts + sum(map(_size, self._others)) + _PLACE_BYTES * (len(self.events) + 1)
        return most if 2 * most <= MAX_BYTES else sum(map(_size, self.actions))

    def check(self, *, with_outbox: bool) -> None:
        """Raises `AppendLimitError` and `InvalidEventError`. The bytes of records are the outbox's to count."""
        if self.command_id is not None:
            check_command_id(self.command_id)
            check_fingerprint(self._fingerprint)
        records = len(self.events) if with_outbox else 0
        count = len(self.actions) + records
        if count > MAX_ACTIONS:
            rest = count - len(self.events) - records
            most = (MAX_ACTIONS - rest) // (2 if with_outbox else 1)
            text = (
                f"{len(self.events)} events and what goes with them are {count} actions, but a transaction takes "
                f"{MAX_ACTIONS}: append at most {max(0, most)} events at once"
            )
            raise AppendLimitError(text, limit=MAX_ACTIONS, actual=count)
        if self.size > MAX_BYTES:
            text = f"about {self.size} bytes, but a transaction takes {MAX_BYTES}: append fewer events at once"
            raise AppendLimitError(text, limit=MAX_BYTES, actual=self.size)

    def is_duplicate(self, reasons: Sequence[str]) -> bool:
        """Whether the command's marker was there."""
        start = len(self._history)
        return CONDITION_FAILED in reasons[start : start + len(self._marker)]

    def is_overtaken(self, reasons: Sequence[str]) -> bool:
        """Whether the history was not as long as expected."""
        return CONDITION_FAILED in reasons[: len(self._history)]

    def _checked(self, number: int, action: Action) -> Action:
        kind, body = checked_action(action, f"actions[{number}]")
        # In the place of its name an ARN may stand, which ends with it.
        if kind != "ConditionCheck" and body["TableName"].rpartition("/")[2] == self.table:
            raise StorageRejectedError(
                f"actions[{number}]: {kind} on the event store's table {self.table!r}: events are only appended, "
                "by `append`; check a condition there, or use a table of your own"
            )
        return {kind: body}

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
    _check_text("aggregate_id", aggregate_id, MAX_AGGREGATE_BYTES, field="subject")
    if str(aggregate_id).startswith(COMMAND_PREFIX):
        text = f"aggregate_id = {aggregate_id!r}: {COMMAND_PREFIX!r} begins the keys of commands; choose another"
        raise InvalidEventError(text, field="subject")


def check_command_id(command_id: object) -> None:
    """Raises `InvalidEventError` for what is no command's id."""
    _check_text("command_id", command_id, MAX_COMMAND_BYTES)


def check_fingerprint(fingerprint: object) -> None:
    """Raises `InvalidEventError` for what is no fingerprint of a command; empty text is one."""
    if fingerprint != "":
        _check_text("fingerprint", fingerprint, MAX_COMMAND_BYTES)


def _check_text(name: str, value: object, limit: int, *, field: str | None = None) -> None:
    field = field or name
    if not isinstance(value, str) or not value:
        raise InvalidEventError(f"{name} = {value!r}: give it some text", field=field)
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidEventError(f"{name} has a lone surrogate, which UTF-8 lacks", field=field) from error
    if size > limit:
        raise InvalidEventError(f"{name} has {size} bytes of UTF-8; give at most {limit}", field=field)


def _size(action: Action) -> int:
    (body,) = action.values()
    size = item_size(body.get("Item") or body.get("Key") or {})
    return size + item_size(body.get("ExpressionAttributeValues", {}))
