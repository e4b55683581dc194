"""Domain events, stores and readings for the contract of event stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from pydantic import BaseModel

from oms_events.events import EncodedEvent
from oms_events.eventstore.items import must_exist
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.store import EventStore
from oms_events.outbox.records import Bucket, Partition
from oms_events.outbox.schema import bucket_of
from oms_events.outbox.store import Action
from oms_events.testing.clock import ManualClock

registry = EventRegistry()
START = datetime(2026, 3, 1, tzinfo=UTC)


@registry.event(type="contract.Opened", version=3)
class Opened(BaseModel, frozen=True):
    """An event with fields that JSON has no types for."""

    owner: str = "ü"
    limit: Decimal = Decimal("10.50")
    since: datetime = START
    tags: tuple[str, ...] = ()


@registry.event(type="contract.Changed")
class Changed(BaseModel, frozen=True):
    """One of many: they are told from each other by `number`."""

    number: int = 0
    text: str = ""


def new_id(prefix: str = "contract") -> str:
    """An aggregate that nobody has."""
    return f"{prefix}-{uuid4().hex}"


def with_types(store: EventStore, types: EventRegistry = registry, clock: ManualClock | None = None) -> EventStore:
    """Another service on the same events: with its own types, and if wanted its own clock."""
    return EventStore(store.table, store.config, outbox=store.outbox, registry=types, clock=clock)


def new_type() -> tuple[EventRegistry, type[BaseModel], str]:
    """An event type that nobody has used, with its model, a kind of `Changed`."""

    class Noted(Changed):
        """An event of a type of its own."""

    types, name = EventRegistry(), new_id("Noted")
    types.event(type=name)(Noted)
    return types, Noted, name


async def history(store: EventStore, aggregate_id: str, **bounds: Any) -> list[RecordedEvent]:
    """An aggregate's events."""
    return [event async for event in store.read(aggregate_id, **bounds)]


async def sequences(store: EventStore, aggregate_id: str, **bounds: Any) -> list[int]:
    """Where an aggregate's events are."""
    return [event.sequence for event in await history(store, aggregate_id, **bounds)]


async def fill(store: EventStore, aggregate_id: str, count: int, **options: Any) -> list[RecordedEvent]:
    """Appends so many events to a new aggregate, as many at once as an append takes."""
    found: list[RecordedEvent] = []
    while len(found) < count:
        events = [Changed(number=number) for number in range(len(found) + 1, min(count, len(found) + 45) + 1)]
        found += await store.append(aggregate_id, events, expected_sequence=len(found), **options)
    return found


def after_event(store: EventStore, aggregate_id: str, sequence: int) -> Action:
    """An action of one's own that is refused until that event is there."""
    return must_exist(store.table.name, aggregate_id, sequence)


async def in_outbox(store: EventStore, key: str) -> list[EncodedEvent]:
    """The events of a key that are in the store's outbox, in the order in which they will be delivered."""
    found: list[EncodedEvent] = []
    if store.outbox is None:
        return found
    outbox = store.outbox.store
    layout = await outbox.read_layout()
    for epoch in layout.epochs if layout else ():
        partition = Partition(Bucket(epoch.number, bucket_of(key, epoch.buckets)), keyed=True)
        page = await outbox.read(partition)
        records = list(page.records)
        while page.next is not None:
            page = await outbox.read(partition, after=page.next)
            records += page.records
        found += [record.event for record in records if record.event is not None and record.key == key]
    return found


async def check_outbox(store: EventStore, aggregate_id: str, events: Sequence[RecordedEvent]) -> None:
    """With an outbox, it holds exactly these events of the aggregate, as they were stored, and in their order."""
    wanted = [] if store.outbox is None else [event.encoded.json for event in events]
    assert [event.json for event in await in_outbox(store, aggregate_id)] == wanted
