"""What the tests of the writing side share: a store with faults on demand, and short ways to look into it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from oms_events import build_event
from oms_events.errors import OutboxLimitError, TransactionCanceledError
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import Bucket, Layout, Partition, StoredRecord
from oms_events.outbox.schema import bucket_of
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.store import Action
from oms_events.outbox.transaction import Transaction

Faults = deque[BaseException | None]


class FaultyStore(MemoryOutboxStore):
    """A memory store that writes its calls down, and fails those that its scripts say.

    A fault of `before` comes in place of the call, one of `after` in place of its answer; None lets a call
    through. `gate`, when it is not set, keeps reservations on the wire.
    """

    def __init__(self, *, refuse: Callable[[Action], bool] | None = None) -> None:
        super().__init__(refuse=refuse)
        self.before: Faults = deque()
        self.after: Faults = deque()
        self.reserve_faults: Faults = deque()
        self.on_commit: Callable[[], None] = lambda: None
        self.commits: list[tuple[list[Action], str]] = []
        self.reserved: list[tuple[Bucket, int]] = []
        self.layouts_read = 0
        self.reserving = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def read_layout(self) -> Layout | None:
        self.layouts_read += 1
        return await super().read_layout()

    async def reserve(self, bucket: Bucket, count: int) -> int:
        self.reserved.append((bucket, count))
        self.reserving.set()
        await self.gate.wait()
        _raise_next(self.reserve_faults)
        return await super().reserve(bucket, count)

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        self.commits.append((list(actions), token))
        self.on_commit()
        _raise_next(self.before)
        await super().commit(actions, token)
        _raise_next(self.after)


def _raise_next(faults: Faults) -> None:
    fault = faults.popleft() if faults else None
    if fault is not None:
        raise fault


def conflict(count: int = 2) -> TransactionCanceledError:
    """What DynamoDB answers when another writer is at the first of `count` items."""
    return TransactionCanceledError("conflict", reasons=["TransactionConflict", *["None"] * (count - 1)])


def event(key: str | None = "order-1", data: Any = None, **attributes: Any) -> CloudEvent:
    return build_event("com.example.order.placed", "/orders", data, partitionkey=key, **attributes)


def order(number: str = "1") -> dict[str, Any]:
    return {"pk": f"order-{number}", "total": 12}


async def transact(outbox: Outbox, *steps: Callable[[Transaction], None]) -> None:
    """One transaction that takes these steps."""
    async with outbox.transaction() as tx:
        for step in steps:
            step(tx)


class _FitsError(Exception):
    """Ends a transaction that is not to be sent."""


async def longest(outbox: Outbox, make: Callable[[int], CloudEvent], *, below: int = 500_000) -> CloudEvent:
    """The largest event that a transaction takes, of those that `make` gives for a length."""
    low = 0
    while below - low > 1:
        middle = (low + below) // 2
        try:
            async with outbox.transaction() as tx:
                tx.add(make(middle))
                raise _FitsError
        except OutboxLimitError:
            below = middle
        except _FitsError:
            low = middle
    return make(low)


def listen(outbox: Outbox) -> list[Committed | Voided]:
    """Everything that the outbox tells its own process, from now on."""
    heard: list[Committed | Voided] = []
    outbox.subscribe(heard.append)
    return heard


def numbers_of(actions: Sequence[Action]) -> list[str]:
    """The sort keys that a request puts records under."""
    return [
        action["Put"]["Item"]["sk"]["S"] for action in actions if "sk" in action.get("Put", {}).get("Item", {})
    ]


async def records_of(outbox: Outbox, key: str | None = "order-1") -> list[StoredRecord]:
    """The records of a key's partition, or all those without a key, in order."""
    layout = await outbox.store.read_layout()
    if layout is None:
        return []
    found: list[StoredRecord] = []
    for epoch in layout.epochs:
        buckets = range(epoch.buckets) if key is None else [bucket_of(key, epoch.buckets)]
        for number in buckets:
            page = await outbox.store.read(Partition(Bucket(epoch.number, number), key is not None))
            found += page.records
    return found


async def ids_of(outbox: Outbox, key: str | None = "order-1") -> list[str]:
    return [record.event.id for record in await records_of(outbox, key) if record.event is not None]
