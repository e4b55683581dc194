"""What a replay does with an item that it read: leaves it, or sends it where. Pure."""

from __future__ import annotations

from typing import Final, Protocol

import orjson

from oms_events.errors import EventUnreadableError, UnroutableEventError
from oms_events.events import EncodedEvent
from oms_events.eventstore.items import CHECKSUM, Item, checksum, position_of, read_item
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.replay.config import ReplaySelection
from oms_events.eventstore.replay.report import ReplayFailure, Tally
from oms_events.eventstore.replay.sources import Filter, Missing
from oms_events.eventstore.replay.window import Planned
from oms_events.eventstore.schema import EVENT_TYPE
from oms_events.publishing import Plan

REPLAY_NAME: Final = "replayname"
"""The CloudEvents attribute that a replayed event has more than it had at first."""


class Planning(Protocol):
    """What decides where an event goes: the router."""

    def plan_event(self, event: EncodedEvent) -> Plan: ...


class Planner:
    """Selects events, marks them, and decides where they go; counts what it sees."""

    def __init__(
        self, router: Planning, registry: EventRegistry, selection: ReplaySelection, where: Filter, tally: Tally
    ) -> None:
        self._router = router
        self._registry = registry
        self._rule = selection.rule
        self._where = where
        self._tally = tally
        only = selection.platform
        self._only = None if only is None else Plan(selection.rule, "replay", (only,), first_that_works=False)

    def plan(self, item: Item | Missing) -> Planned | ReplayFailure | None:
        """What to send; None for what is not meant, or no rule takes."""
        if isinstance(item, Missing):
            return _missing(item) if self._where.takes_between(item.before, item.after) else None
        self._tally.read += 1
        if not self._where.takes(item):
            return None
        try:
            # As it was stored: what is encrypted stays so, and a replay needs nobody's keys.
            recorded = read_item(item, self._registry)
            stored = recorded.encoded
        except EventUnreadableError as error:
            return _unreadable(item, str(error))
        sealed = item.get(CHECKSUM, {}).get("S")
        if sealed != checksum(
            recorded.aggregate_id, recorded.sequence, stored.head.decode(), stored.payload.decode()
        ):
            return _unreadable(item, "its checksum is not that of its attributes and data: it was changed")
        event = marked(stored, self._tally.name)
        plan = self._plan_of(event)
        if plan is not None:
            self._tally.plan(event.type, plan)
            return Planned(event, plan, recorded.aggregate_id, recorded.sequence)
        return None

    def _plan_of(self, event: EncodedEvent) -> Plan | None:
        if self._only is not None and self._rule is None:
            return self._only
        try:
            plan = self._router.plan_event(event)
        except UnroutableEventError:
            if self._rule is None:
                self._tally.unroutable(event.type)
            return None
        if self._rule is not None and plan.rule != self._rule:
            return None
        return self._only or plan


def marked(event: EncodedEvent, name: str) -> EncodedEvent:
    """The same event, with the same identity, that says of which replay it is."""
    head = orjson.dumps({**orjson.loads(event.head), REPLAY_NAME: name})
    return EncodedEvent(None, {**event.attributes, REPLAY_NAME: name}, head, event.payload, event.kind)


def _missing(gap: Missing) -> ReplayFailure:
    which = "it is" if gap.first == gap.last else f"events {gap.first} to {gap.last} are"
    why = f"{which} not there, but event {gap.last + 1} is; `store verify` tells of all"
    return ReplayFailure("missing", f"{gap.aggregate_id}@{gap.first}", "?", "?", {"": why})


def _unreadable(item: Item, why: str) -> ReplayFailure:
    event_type = item.get(EVENT_TYPE, {}).get("S", "?")
    return ReplayFailure("unreadable", position_of(item), event_type, "?", {"": why})
