"""The tables of event sourcing and their keys: events, read models, snapshots and checkpoints. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from oms_events._aws.tables import IndexShape, TableShape

AGGREGATE_ID: Final = "AggregateId"
EVENT_SEQUENCE: Final = "EventSequence"
"""The event's position in its aggregate, from 1 on without gaps."""
EVENT_TYPE: Final = "EventType"

TYPE_SHARD: Final = "EventTypeShard"
"""`<type>#<shard>`, see `type_shard`."""
EVENT_TIME: Final = "EventTime"
"""`<time>#<aggregate>#<sequence>`, see `event_time`."""
BY_TYPE: Final = "EventTypeIndex"

TYPE_SHARDS: Final = 8
"""Into so many partitions of the index the events of one type go.

A partition takes 1,000 write units per second, of an index too, and a throttled index holds up writes to its table
(DynamoDB developer guide, "Designing partition keys" and "Global secondary indexes"): with one key per type that
would be the store's ceiling. A query by type reads all shards and merges them. The number may grow; it must not
shrink while older events are there.
"""

ACCOUNT_ID: Final = "AccountId"
PROJECTION_TYPE: Final = "ProjectionType"
PROJECTION_NAME: Final = "ProjectionName"
CHECKPOINT: Final = "CheckpointKey"
"""What the checkpoint is of: an aggregate, a shard of a stream, or a whole rebuild."""

EVENT_STORE: Final = TableShape(
    hash_key=AGGREGATE_ID,
    range_key=EVENT_SEQUENCE,
    types={EVENT_SEQUENCE: "N"},
    indexes=(IndexShape(name=BY_TYPE, hash_key=TYPE_SHARD, range_key=EVENT_TIME),),
    stream="new_image",
)
"""One item per event, put once and never changed; the stream tells projections of new ones."""

READ_MODEL: Final = TableShape(hash_key=ACCOUNT_ID, range_key=PROJECTION_TYPE)
"""One item per account and kind of view of it."""

SNAPSHOTS: Final = TableShape(hash_key=AGGREGATE_ID, range_key=EVENT_SEQUENCE, types={EVENT_SEQUENCE: "N"})
"""The state of an aggregate after an event; safe to delete."""

CHECKPOINTS: Final = TableShape(hash_key=CHECKPOINT, range_key=PROJECTION_NAME)
"""How far projections have come.

The hash key is what was read, not the projection: a projection writes one per aggregate with each event, and under
its own name they would all go to one partition.
"""

SUBJECT: Final = "Subject"
"""Whose key it is: a person's id."""

PERSONAL_KEYS: Final = TableShape(hash_key=SUBJECT)
"""The key of each person's data; a person is forgotten by deleting it from its item, which stays."""

SEQUENCE_DIGITS: Final = 16
"""To so many digits positions are padded where they must sort as text."""


def type_shard(event_type: str, aggregate_id: str) -> str:
    """The index's hash key of an event: an aggregate's events of a type stay together, in their order."""
    shard = int.from_bytes(blake2b(aggregate_id.encode(), digest_size=8).digest()) % TYPE_SHARDS
    return _shard(event_type, shard)


def type_shards(event_type: str) -> Sequence[str]:
    """All hash keys under which the index has events of a type."""
    return [_shard(event_type, shard) for shard in range(TYPE_SHARDS)]


def event_time(time: datetime, aggregate_id: str, sequence: int) -> str:
    """The index's range key of an event: sorts by time, and is another for each event of the same time.

    `time` is an aware one; it is kept to the microsecond, in UTC.
    """
    return f"{time_bound(time)}#{aggregate_id}#{sequence:0{SEQUENCE_DIGITS}d}"


def time_bound(time: datetime) -> str:
    """The beginning of all range keys of that time: it sorts before them, and after all of earlier times.

    Raises `ValueError` for a time without its zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"time = {time.isoformat()}: give it with its zone, such as UTC")
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _shard(event_type: str, shard: int) -> str:
    return f"{event_type}#{shard:02d}"
