"""Records, letters and readings for the contract of `OutboxStore`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from oms_events.events import build_event, encode
from oms_events.outbox.records import (
    NEW,
    Bucket,
    DeadLetter,
    Lease,
    NewRecord,
    Partition,
    PlatformState,
    RecordState,
    StoredRecord,
    sequence_key,
)
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import Plan

BUCKET = Bucket(1, 3)
KEYED = Partition(BUCKET, keyed=True)
UNKEYED = Partition(BUCKET, keyed=False)
PLAN = Plan("orders", "ALL_PLATFORMS", ("nats", "web-hook_2"), first_that_works=False)
FAILOVER = Plan("orders", "FAILOVER", ("nats", "web-hook_2"), first_that_works=True)
DELIVERED, REJECTED, DEAD, HELD = PlatformState

_TYPE = "com.foundry.oms.contract.checked"
ADDED = 1_767_225_600_000
LARGE = 200_000


def make_record(
    number: int, *, partition: Partition = KEYED, data: Any = None, state: RecordState = NEW, **attributes: Any
) -> NewRecord:
    """A record for contract tests; the number is its place, and is in its event's data unless you give some."""
    event = build_event(_TYPE, "/contract", {"number": number} if data is None else data, **attributes)
    key, sk = (
        (f"key {number}", sequence_key(number)) if partition.keyed else (None, f"{ADDED + number}-{'0f' * 8}")
    )
    return NewRecord(partition, sk, key, encode(event), ADDED + number, state)


def make_letter(
    record: NewRecord, *, platform: str = "nats", platforms: tuple[str, ...] = (), held: bool = False
) -> DeadLetter:
    """A dead letter of a record."""
    return DeadLetter(
        platform=platform,
        platforms=platforms or (platform,),
        key=record.key,
        event=record.event,
        reason="it is 'too large' for ü",
        code="message_too_large",
        attempts=3,
        added=record.added,
        failed=ADDED + 5_000,
        origin=record.partition,
        origin_sk=record.sk,
        plan=PLAN,
        held=held,
        history=({"platform": platform, "attempt": 1, "error": "ü"},),
    )


async def put(store: OutboxStore, *records: NewRecord) -> None:
    """Commits records in transactions of 100."""
    for start in range(0, len(records), 100):
        await store.commit([store.put_action(record) for record in records[start : start + 100]], uuid4().hex)


async def read_all(store: OutboxStore, partition: Partition = KEYED, *, limit: int = 100) -> list[StoredRecord]:
    """All records of a partition, page by page."""
    found: list[StoredRecord] = []
    page = await store.read(partition, limit=limit)
    while page.next is not None:
        assert len(page.records) <= limit
        found += page.records
        page = await store.read(partition, after=page.next, limit=limit)
    return [*found, *page.records]


async def read_letters(store: OutboxStore, platform: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
    """All dead letters, page by page."""
    found: list[DeadLetter] = []
    page = await store.dead_letters(platform=platform, limit=limit)
    while page.next is not None:
        assert len(page.letters) <= limit
        found += page.letters
        page = await store.dead_letters(platform=platform, after=page.next, limit=limit)
    return [*found, *page.letters]


def sks(records: Sequence[StoredRecord | NewRecord]) -> list[str]:
    return [record.sk for record in records]


def facts_of(thing: DeadLetter | StoredRecord | NewRecord) -> dict[str, Any]:
    """What must come back, comparable: events by their bytes, sequences as lists."""
    if isinstance(thing, DeadLetter):
        names: Sequence[str] = tuple(DeadLetter.__dataclass_fields__)
    else:
        names = NewRecord._fields
    facts = {name: getattr(thing, name) for name in names}
    event = facts["event"]
    facts["event"] = event and (event.json, event.kind, event.attributes, event.payload)
    facts["history"] = [dict(entry) for entry in facts["history"]]
    return facts


async def state_of(store: OutboxStore, record: NewRecord) -> RecordState:
    (found,) = [found for found in await read_all(store, record.partition) if found.sk == record.sk]
    return found.state


def settled_as(states: Mapping[str, PlatformState], **others: Any) -> RecordState:
    return RecordState(**{"plan": PLAN, "states": states, "attempts": 1, **others})


async def buried(
    store: OutboxStore, record: NewRecord, state: RecordState | None, *, held: bool = False
) -> DeadLetter:
    letter = make_letter(record, held=held)
    await put(store, record)
    assert await store.bury(letter, state)
    return letter


async def taken_by(store: OutboxStore, lease: Lease, owner: str) -> Lease:
    taken = await store.take(lease, owner)
    assert taken is not None
    return taken
