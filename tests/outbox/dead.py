"""Short ways to records and dead letters, as processors leave them, for tests of what operators do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from oms_events import build_event
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import DeadLetter, NewRecord, PlatformState, RecordState, StoredRecord
from oms_events.publishing import Plan

BOTH = Plan("orders", "all", ("nats", "eventbridge"), first_that_works=False)
DELIVERED, HELD, DEAD = PlatformState.DELIVERED, PlatformState.HELD, PlatformState.DEAD
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def add(
    outbox: Outbox, number: int = 1, *, key: str | None = "A", kind: str = "shop.order.placed"
) -> StoredRecord:
    """Adds an event, and gives its record."""
    placed: list[NewRecord] = []
    unsubscribe = outbox.subscribe(lambda signal: placed.extend(getattr(signal, "records", ())))
    await outbox.add(build_event(kind, "/shop", {"number": number}, id=f"e-{number}", partitionkey=key))
    unsubscribe()
    (record,) = placed
    (found,) = await outbox.store.probe(record.partition, [record.sk])
    return found


def letter_of(record: StoredRecord, **fields: Any) -> DeadLetter:
    values: dict[str, Any] = {
        "platform": "nats",
        "key": record.key,
        "event": record.event,
        "reason": "it is too large",
        "code": "too_large",
        "attempts": 1,
        "added": record.added,
        "failed": int(NOON.timestamp() * 1000),
        "origin": record.partition,
        "origin_sk": record.sk,
        "plan": BOTH,
    }
    values |= fields
    return DeadLetter(**{"platforms": (values["platform"],), **values})


async def bury(outbox: Outbox, number: int = 1, *, key: str | None = "A", **fields: Any) -> DeadLetter:
    """Adds an event that becomes a dead letter whose record is gone."""
    letter = letter_of(await add(outbox, number, key=key), **fields)
    assert await outbox.store.bury(letter, None)
    return letter


async def hold(outbox: Outbox, number: int = 1) -> DeadLetter:
    """Adds an event whose key is held by a dead letter of nats, after eventbridge took it."""
    letter = letter_of(await add(outbox, number), held=True)
    state = RecordState(plan=BOTH, states={"nats": HELD, "eventbridge": DELIVERED}, attempts=1)
    assert await outbox.store.bury(letter, state)
    return letter
