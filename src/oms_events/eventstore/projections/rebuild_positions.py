"""How far a rebuild has come: where each part of the scan is, kept beside the projection's checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from oms_events.eventstore.history import Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections.items import ABSENT, ItemKey, Write, time_text
from oms_events.eventstore.projections.projection import UPDATED
from oms_events.eventstore.schema import CHECKPOINT, PROJECTION_NAME

REBUILD_PREFIX: Final = "rebuild#"
"""Begins the hash key of a projection's rebuild, in the table of checkpoints."""

SEGMENT_PREFIX: Final = "segment#"
"""Begins the range keys of the positions."""

_STORE: Final = "Store"
_DONE: Final = "Done"
_GO_ON: Final = "Position"
_LAST: Final = "LastAggregate"
_AGGREGATES: Final = "Aggregates"
_EVENTS: Final = "Events"


class SegmentPosition(NamedTuple):
    """Where one part of the scan goes on (None: at its beginning), and what it has met so far.

    `last` is the aggregate that the page before ended with: the next one may begin with it.
    """

    token: Token | None = None
    is_done: bool = False
    last: str | None = None
    aggregates: int = 0
    events: int = 0

    def after(self, aggregate_ids: Sequence[str], next_token: Token | None) -> SegmentPosition:
        """The position after a page with events of these aggregates, those of one together."""
        last, aggregates = self.last, self.aggregates
        for aggregate_id in aggregate_ids:
            aggregates += aggregate_id != last
            last = aggregate_id
        return SegmentPosition(next_token, next_token is None, last, aggregates, self.events + len(aggregate_ids))


def position_key(full_name: str, segment: int, segments: int) -> ItemKey:
    return ItemKey("checkpoints", rebuild_key(full_name), f"{SEGMENT_PREFIX}{segment:04d}/{segments:04d}")


def retiring_key(full_name: str) -> ItemKey:
    """Of the mark that a version is being deleted."""
    return ItemKey("checkpoints", rebuild_key(full_name), "retiring")


def retiring_write(full_name: str, now: datetime) -> Write:
    key = retiring_key(full_name)
    item = {CHECKPOINT: {"S": key.hash}, PROJECTION_NAME: {"S": key.range}, UPDATED: {"S": time_text(now)}}
    return Write(key, item, None)


def not_retiring_check(full_name: str) -> Write:
    """Refuses the transaction when the version is being deleted."""
    return Write(retiring_key(full_name), None, ABSENT, keep=True)


def rebuild_key(full_name: str) -> str:
    """The hash key of all positions of a projection's rebuild."""
    return f"{REBUILD_PREFIX}{full_name}"


def position_write(key: ItemKey, store: str, position: SegmentPosition, now: datetime) -> Write:
    """Keeps a position in place of the one before; `store` is the name of the event store's table."""
    item: dict[str, dict[str, Any]] = {
        CHECKPOINT: {"S": key.hash},
        PROJECTION_NAME: {"S": key.range},
        _STORE: {"S": store},
        _DONE: {"BOOL": position.is_done},
        _AGGREGATES: {"N": str(position.aggregates)},
        _EVENTS: {"N": str(position.events)},
        UPDATED: {"S": time_text(now)},
    }
    if position.token is not None:
        item[_GO_ON] = {"S": json.dumps(position.token)}
    if position.last is not None:
        item[_LAST] = {"S": position.last}
    return Write(key, item, None)


def read_position(item: Item | None, store: str) -> SegmentPosition:
    """The position of an item; the beginning where there is none, or one of another store."""
    if item is None or item[_STORE]["S"] != store:
        return SegmentPosition()
    return SegmentPosition(
        token=json.loads(item[_GO_ON]["S"]) if _GO_ON in item else None,
        is_done=bool(item[_DONE]["BOOL"]),
        last=item[_LAST]["S"] if _LAST in item else None,
        aggregates=int(item[_AGGREGATES]["N"]),
        events=int(item[_EVENTS]["N"]),
    )
