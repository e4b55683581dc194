"""Whether items of an event store say what was written: keys, checksums, positions. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final, NamedTuple

import orjson

from oms_events.errors import EventUnreadableError
from oms_events.eventstore.items import (
    CHECKSUM,
    COMMAND_PREFIX,
    DATA,
    EVENT,
    SCHEMA_VERSION,
    Item,
    checksum,
    position_of,
    read_item,
    read_marker,
)
from oms_events.eventstore.records import CommandMarker, RecordedEvent
from oms_events.eventstore.registry import EventRegistry, version_of
from oms_events.eventstore.schema import (
    AGGREGATE_ID,
    EVENT_SEQUENCE,
    EVENT_TIME,
    EVENT_TYPE,
    TYPE_SHARD,
    event_time,
    type_shard,
)

_NO_REGISTRY: Final = EventRegistry()
_BUCKETS: Final = 256


class ProblemKind(StrEnum):
    """What is wrong: `gap` and `beginning_missing` (events are lost), `duplicate` (one event stands twice),
    `checksum` (it was changed), `misplaced` (it is another position's), `keys` (what the index knows of it is
    wrong), `unreadable` (it is no event), `unsupported` (this code cannot read it), `marker` (a command's events
    are lost), `index` (the index by type has more or fewer events than the table)."""

    GAP = "gap"
    BEGINNING_MISSING = "beginning_missing"
    DUPLICATE = "duplicate"
    CHECKSUM = "checksum"
    MISPLACED = "misplaced"
    KEYS = "keys"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    MARKER = "marker"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a position: `<aggregate>@<sequence>`, of the first event where there are several."""

    kind: ProblemKind
    position: str
    text: str


class Place(NamedTuple):
    """A position in a history, as two values."""

    aggregate_id: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.aggregate_id}@{self.sequence}"


class Gap(NamedTuple):
    """Positions of an aggregate where no event is, from `first` to `last`."""

    aggregate_id: str
    first: int
    last: int


class CheckedItem(NamedTuple):
    """An item: its event where it can be read, whether it is where it belongs, and what is wrong with it."""

    place: Place
    event: RecordedEvent | None
    is_placed: bool
    problems: Sequence[Problem]


class CheckedMarker(NamedTuple):
    """A command's marker, with the last event that it implies; None when it implies none."""

    command_id: str
    marker: CommandMarker | None
    needs: Place | None
    problems: Sequence[Problem]


def check_event(item: Item, registry: EventRegistry = _NO_REGISTRY) -> CheckedItem:
    """Looks at the item of an event."""
    key = Place(item[AGGREGATE_ID]["S"], int(item[EVENT_SEQUENCE]["N"]))
    try:
        event = read_item(item, registry)
        own = _own_place(event)
        expected = _derived(event, own)
    except EventUnreadableError as error:
        return _unreadable(key, str(error).removeprefix(f"{key}: "))
    except (KeyError, TypeError, ValueError) as error:
        what = f"has no attribute {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
        return _unreadable(key, f"its event {what}")
    problems = []
    if own != key:
        text = f"its event says that it is {own}: it was moved or copied here"
        problems.append(Problem(ProblemKind.MISPLACED, str(key), text))
    elif key.sequence < 1:
        text = "events count from 1: no history begins here"
        problems.append(Problem(ProblemKind.MISPLACED, str(key), text))
    is_placed = not problems
    # What was moved whole is not changed too.
    problems += _changes(item, event, key, own)
    wrong = [
        f"{name} is {_value(item, name)}, not {value!r}" for name, value in expected if _value(item, name) != value
    ]
    if wrong:
        problems.append(Problem(ProblemKind.KEYS, str(key), "; ".join(wrong)))
    return CheckedItem(key, event, is_placed, problems)


def check_marker(item: Item) -> CheckedMarker:
    """Looks at the item of a command's marker."""
    key: str = item[AGGREGATE_ID]["S"]
    try:
        length, _, rest = key.removeprefix(COMMAND_PREFIX).partition("#")
        size = int(length)
        aggregate_id, command_id = rest[:size], rest[size + 1 :]
        if size < 1 or len(aggregate_id) < size or rest[size : size + 1] != "#" or not command_id:
            raise ValueError("its key names no aggregate and command")
        if item[EVENT_SEQUENCE]["N"] != "0":
            raise ValueError("a command's marker has sequence 0")
        marker = read_marker(item)
    except (KeyError, ValueError) as error:
        what = f"it has no attribute {error}" if isinstance(error, KeyError) else str(error)
        return CheckedMarker("", None, None, [Problem(ProblemKind.UNREADABLE, position_of(item), what)])
    # Also a command without events was carried out on a state, which has a last event.
    last = marker.first_sequence + marker.events - 1
    return CheckedMarker(command_id, marker, Place(aggregate_id, last) if last > 0 else None, ())


def lost_events(found: CheckedMarker) -> Problem:
    """What it means that the event which a marker implies is not there."""
    marker, needs = found.marker, found.needs
    if marker is None or needs is None:
        raise ValueError("a marker that implies no event")
    if marker.events:
        which = f"the events {marker.first_sequence} to {needs.sequence}"
        which = which if marker.events > 1 else f"event {needs.sequence}"
        text = f"command {found.command_id!r} led to {which}: the history's end is missing"
    else:
        text = f"command {found.command_id!r} was decided after this event: the history's end is missing"
    return Problem(ProblemKind.MARKER, str(needs), text)


class HistoryCheck:
    """Follows the items of a scan, aggregate by aggregate, and tells of which some are left out.

    Those of an aggregate may come in any order: they are whole when there are as many as the highest number says.
    """

    def __init__(self) -> None:
        self.aggregates = 0
        self._aggregate_id: str | None = None
        self._count = self._whole = self._last = 0

    def take(self, place: Place) -> Gap | None:
        """Where events of the aggregate before are missing, when this is the first of another."""
        gap = None
        if place.aggregate_id != self._aggregate_id:
            gap = self.end()
            self.aggregates += 1
            self._aggregate_id = place.aggregate_id
        if place.sequence > 0:
            self._count += 1
            self._last = max(self._last, place.sequence)
            if place.sequence == self._whole + 1:
                self._whole = place.sequence
        return gap

    def end(self) -> Gap | None:
        """Where events of the last aggregate are missing: somewhere from `first` to `last`."""
        gap = None
        if self._aggregate_id is not None and self._count < self._last:
            gap = Gap(self._aggregate_id, self._whole + 1, self._last)
        self._aggregate_id = None
        self._count = self._whole = self._last = 0
        return gap


def missing(gap: Gap) -> Problem:
    """The problem that events are not there."""
    aggregate_id, first, last = gap
    which = f"event {first} is" if first == last else f"events {first} to {last} are"
    if first == 1:
        text = f"{which} missing: the history begins with event {last + 1}"
        return Problem(ProblemKind.BEGINNING_MISSING, str(Place(aggregate_id, first)), text)
    return Problem(ProblemKind.GAP, str(Place(aggregate_id, first)), f"{which} missing")


def duplicate(identity: tuple[str, str], places: Sequence[Place]) -> Problem:
    """The problem that one event stands at several places."""
    source, id = identity  # noqa: A001 - as CloudEvents has it
    others = ", ".join(map(str, places[1:]))
    text = f"event id {id!r} of source {source!r} is also at {others}: consumers drop all but one"
    return Problem(ProblemKind.DUPLICATE, str(places[0]), text)


class Identities:
    """Which (source, id) were seen twice, at 8 bytes each; `limit` of them at most are looked at."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buckets = [array("Q") for _ in range(_BUCKETS)]
        self.count = 0

    @property
    def is_full(self) -> bool:
        return self.count >= self._limit

    def add(self, identity: tuple[str, str]) -> None:
        if not self.is_full:
            digest = digest_of(identity)
            self._buckets[digest % _BUCKETS].append(digest)
            self.count += 1

    def repeated(self) -> Iterator[set[int]]:
        """The digests that came more than once, bucket by bucket; each bucket is given up."""
        for number, bucket in enumerate(self._buckets):
            ordered = sorted(bucket)
            self._buckets[number] = array("Q")
            yield {one for one, other in pairwise(ordered) if one == other}


def digest_of(identity: tuple[str, str]) -> int:
    """An event's identity in 64 bits: others may have the same."""
    return int.from_bytes(blake2b("\0".join(identity).encode(), digest_size=8).digest())


def _unreadable(key: Place, text: str) -> CheckedItem:
    return CheckedItem(key, None, True, [Problem(ProblemKind.UNREADABLE, str(key), text)])


def _own_place(event: RecordedEvent) -> Place:
    attributes = event.encoded.attributes
    subject: Any = attributes["subject"]
    if not isinstance(subject, str):
        raise TypeError(f"subject = {subject!r}")
    return Place(subject, int(attributes["sequence"]))


def _derived(event: RecordedEvent, own: Place) -> list[tuple[str, str]]:
    """What an item has beside its event, all of which follows from that."""
    event_type = event.encoded.type
    return [
        (TYPE_SHARD, type_shard(event_type, own.aggregate_id)),
        (EVENT_TIME, event_time(event.time, own.aggregate_id, own.sequence)),
        (EVENT_TYPE, event_type),
        (SCHEMA_VERSION, str(version_of(event.encoded.attributes.get("dataschema")))),
    ]


def _changes(item: Item, event: RecordedEvent, key: Place, own: Place) -> Iterator[Problem]:
    stored = _value(item, CHECKSUM)
    if stored is None:
        yield Problem(ProblemKind.CHECKSUM, str(key), "it has no checksum")
    elif stored != checksum(own.aggregate_id, own.sequence, item[EVENT]["S"], item[DATA]["S"]):
        yield Problem(ProblemKind.CHECKSUM, str(key), "its checksum is another: the event was changed")
    elif not _is_json(event.payload):
        yield Problem(ProblemKind.UNREADABLE, str(key), "its data is no JSON")


def _is_json(payload: bytes) -> bool:
    try:
        orjson.loads(payload or b"null")
    except orjson.JSONDecodeError:
        return False
    return True


def _value(item: Item, name: str) -> str | None:
    """A text or number, as it was stored."""
    return next(iter(item.get(name, {}).values()), None)
