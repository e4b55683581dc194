"""Which records and dead letters an operator means, and the ids under which they are shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from oms_events.errors import ConfigurationError
from oms_events.events import EncodedEvent
from oms_events.outbox.records import (
    UNREADABLE,
    Bucket,
    DeadLetter,
    Partition,
    PlatformState,
    StoredRecord,
    open_platforms,
    partition_key,
)
from oms_events.outbox.schema import parse_letter_id

_RECORD_ID: Final = re.compile(r"([ku])#(\d{4,})#(\d{4,})#([0-9a-f-]+)")
_HIGHEST: Final = "\U0010ffff"


class TypePattern(Protocol):
    """A compiled regular expression that is to match whole event types."""

    def fullmatch(self, text: str, /) -> object | None: ...


@dataclass(frozen=True, slots=True)
class OutboxFilter:
    """Which records or dead letters are meant: those that agree with every field that is given.

    `event_type` is a type, or a compiled pattern for whole types. `since` and `until` (aware, the second one
    excluded) are compared with when a dead letter's platform gave up, or a pending record was added. `event_id`
    is the event's id, or its identity. A pending record is a platform's once its plan is recorded and that
    platform is owed the event, or holds it. Raises `ConfigurationError` for a time without a zone.
    """

    platform: str | None = None
    event_type: str | TypePattern | None = None
    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None
    event_id: str | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {time.isoformat()} has no time zone; give it one, such as UTC"
            for name, time in (("since", self.since), ("until", self.until))
            if time is not None and time.tzinfo is None
        ]
        if problems:
            raise ConfigurationError("OutboxFilter", problems)

    def takes_letter(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is meant."""
        return self._takes((letter.platform,), letter.key, letter.event, letter.failed)

    def takes_record(self, record: StoredRecord) -> bool:
        """Whether a pending record is meant."""
        return self._takes(platforms_of(record), record.key, record.event, record.added)

    def _takes(self, platforms: Collection[str], key: str | None, event: EncodedEvent | None, time: int) -> bool:
        return (
            (self.platform is None or self.platform in platforms)
            and (self.key is None or self.key == key)
            and (self.since is None or time >= _milliseconds(self.since))
            and (self.until is None or time < _milliseconds(self.until))
            and (self.event_id is None or (event is not None and has_id(event, (self.event_id,))))
            and (self.event_type is None or (event is not None and _is_of_type(event, self.event_type)))
        )


EVERYTHING: Final = OutboxFilter()


class Place(NamedTuple):
    """Where a record is."""

    partition: Partition
    sk: str


def record_id(record: StoredRecord) -> str:
    """The id under which a pending record is shown: it says where the record is."""
    return f"{partition_key(record.partition)}#{record.sk}"


def place_of(id: str) -> Place | None:  # noqa: A002 - what it is called everywhere else
    """Where the record of an id is, None when it is no record's id."""
    found = _RECORD_ID.fullmatch(id)
    if found is None:
        return None
    kind, epoch, bucket, sk = found.groups()
    return Place(Partition(Bucket(int(epoch), int(bucket)), kind == "k"), sk)


def platform_of(letter_id: str) -> str | None:
    """The platform that a dead letter's id names, None when it is no dead letter's id."""
    platform, mark, _ = letter_id.partition("#")
    return platform if mark and place_of(letter_id) is None else None


def is_letter_id(id: str) -> bool:  # noqa: A002
    """Whether an id is a dead letter's."""
    try:
        parse_letter_id(id)
    except ValueError:
        return False
    return True


def just_below(id: str) -> str:  # noqa: A002
    """A text that sorts directly below an id, for reading from that id on."""
    return f"{id[:-1]}{chr(ord(id[-1]) - 1)}{_HIGHEST}"


def after_all_of(platform: str) -> str:
    """A text that sorts above all ids of a platform's dead letters, and below those of the next platform."""
    return f"{platform}#{_HIGHEST}"


def platforms_of(record: StoredRecord) -> tuple[str, ...]:
    """The platforms that are owed a record's event, or hold it; none is known before its plan is recorded."""
    if record.problem is not None:
        return (UNREADABLE,)
    plan, states = record.state.plan, record.state.states
    owed = () if plan is None else open_platforms(plan, states)
    return (*owed, *(name for name, state in states.items() if state is PlatformState.HELD))


def has_id(event: EncodedEvent, ids: Collection[str]) -> bool:
    """Whether the event's id or its identity is among these."""
    return event.id in ids or event.identity in ids


def _is_of_type(event: EncodedEvent, wanted: str | TypePattern) -> bool:
    return event.type == wanted if isinstance(wanted, str) else wanted.fullmatch(event.type) is not None


def _milliseconds(time: datetime) -> float:
    return time.timestamp() * 1000
