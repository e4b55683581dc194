"""Read models of the test domain, what they must be in the end, and storage that dies or fails at a given step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel

from oms_events.errors import StorageOutcomeUnknownError, StorageUnavailableError
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.items import read_checkpoint, row_values
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels, ReadModels
from oms_events.eventstore.records import RecordedEvent
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, registry

T = TypeVar("T")
Fault = Literal["dies before", "dies after", "refuses", "loses the answer", "asks twice", "is overtaken"]
FAULTS: Sequence[Fault] = get_args(Fault)


class Summary(BaseModel):
    """An account while it is open, and what has happened to it in order."""

    balance: Decimal = Decimal(0)
    events: list[int] = []


class Total(BaseModel):
    """All transactions of a kind, of all accounts."""

    amount: Decimal = Decimal(0)
    count: int = 0


def summaries(poison: set[str] | None = None) -> Projection[Summary]:
    """A row per account, deleted when it is closed and made anew when it is opened again."""
    projection = Projection("Summary", Summary, registry=registry)
    bad = poison if poison is not None else set()

    @projection.on(AccountCreated)
    def created(row: Summary | None, event: AccountCreated, recorded: RecordedEvent) -> Summary:
        return _seen(row, recorded, bad)

    @projection.on(TransactionProcessed)
    def processed(row: Summary | None, event: TransactionProcessed, recorded: RecordedEvent) -> Summary:
        row = _seen(row, recorded, bad)
        row.balance += event.amount
        return row

    @projection.on(AccountClosed)
    def closed(row: Summary | None, event: AccountClosed, recorded: RecordedEvent) -> None:
        _seen(row, recorded, bad)

    return projection


def totals(poison: set[str] | None = None) -> Projection[Total]:
    """A row per kind of transaction, which all accounts share; nothing else is of interest."""
    projection = Projection("Total", Total, registry=registry)

    def kind(recorded: RecordedEvent) -> str:
        return str(recorded.data["kind"])

    @projection.on(TransactionProcessed, key=kind)
    def processed(row: Total | None, event: TransactionProcessed, recorded: RecordedEvent) -> Total:
        if poison is not None and recorded.position in poison:
            raise ValueError("poison")
        row = row or Total()
        return Total(amount=row.amount + event.amount, count=row.count + 1)

    return projection


def population() -> Projection[Total]:
    """One row for all accounts, how many are open; no row when none is."""
    projection = Projection("Population", Total, registry=registry)

    @projection.on(AccountCreated, AccountClosed, key=lambda recorded: "all")
    def changed(row: Total | None, event: BaseModel, recorded: RecordedEvent) -> Total | None:
        count = (row.count if row else 0) + (1 if isinstance(event, AccountCreated) else -1)
        return Total(count=count) if count else None

    return projection


def _seen(row: Summary | None, recorded: RecordedEvent, poison: set[str]) -> Summary:
    row = row or Summary()
    # In place, which a function should not do: when it fails after that, nothing of it may be kept.
    row.events.append(recorded.sequence)
    if recorded.position in poison:
        raise ValueError("poison")
    return row


async def folded(
    projection: Projection[Any], store: MemoryEventStore, *, without: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The rows as they must be: every event of the store once, each aggregate's in their order."""
    rows: dict[str, BaseModel | None] = {}
    for aggregate_id in aggregates(store):
        async for recorded in store.read(aggregate_id):
            if recorded.position in without:
                continue
            for handler in projection.handlers(recorded.type):
                key = handler.key_of(recorded)
                rows[key] = handler.handle(rows.get(key), recorded.domain_event, recorded)
    return {key: row.model_dump(mode="json") for key, row in rows.items() if row is not None}


def aggregates(store: MemoryEventStore) -> list[str]:
    return list(store.table._aggregates)


def rows_of(projection: Projection[Any], read_models: ReadModels) -> dict[str, Any]:
    """The rows that are there."""
    items = read_models.tables._items
    return {
        key.hash: row_values(item)
        for key, item in items.items()
        if key.table == "rows" and key.range == projection.full_name
    }


def waiting(read_models: ReadModels) -> list[str]:
    """The marks of parked events that are there: on checkpoints, and on the list."""
    items = read_models.tables._items
    marks = [key for key in items if key.hash.startswith("parked#")]
    marks += [key for key, item in items.items() if key.range.startswith("Summary@") and "Parked" in item]
    return [f"{key.hash} {key.range}" for key in marks]


def checkpoints(projection: Projection[Any], read_models: ReadModels) -> dict[str, int]:
    found = {}
    for key, item in read_models.tables._items.items():
        if key.table == "checkpoints" and key.range == projection.full_name:
            checkpoint = read_checkpoint(item)
            assert checkpoint is not None
            found[key.hash] = checkpoint.sequence
    return found


class Breaking:
    """Counts the calls of tables, and lets one of them go wrong: the process dies there, or an error comes.

    After its death everything hangs, until `revive`: nobody learns anything, and nothing is done. Or the call is
    made twice, as after a lost answer; or it comes after all that `other` does in between.
    """

    def __init__(self, at: int | None = None, fault: Fault = "refuses") -> None:
        self.steps = 0
        self.other: Callable[[], Awaitable[object]] | None = None
        self.died = asyncio.Event()
        self._at = at
        self._fault = fault

    def of(self, tables: Any) -> Any:
        return _Broken(tables, self)

    def revive(self) -> None:
        self.died = asyncio.Event()

    async def call(self, method: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        died = self.died
        if died.is_set():
            await _hang()
        self.steps += 1
        fault = self._fault if self.steps == self._at else None
        if fault == "refuses":
            raise StorageUnavailableError("throttled")
        if fault == "dies before":
            died.set()
            await _hang()
        if fault == "is overtaken" and self.other is not None:
            await self.other()
        answer = await method(*args, **options)
        if fault == "asks twice":
            answer = await method(*args, **options)
        if fault == "loses the answer":
            raise StorageOutcomeUnknownError("no answer")
        if fault == "dies after":
            died.set()
        if died.is_set():
            await _hang()
        return answer


class _Broken:
    """Tables whose calls go through a `Breaking`; opening and closing go well."""

    def __init__(self, tables: Any, breaking: Breaking) -> None:
        self._tables = tables
        self._breaking = breaking

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tables, name)
        if name in ("open", "close", "name", "_aggregates", "_items"):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            return await self._breaking.call(method, *args, **options)

        return call


async def _hang() -> None:
    await asyncio.get_running_loop().create_future()


def behind(breaking: Breaking, store: MemoryEventStore, read_models: MemoryReadModels) -> tuple[Any, Any]:
    """The store and the read models as a process sees them whose storage breaks."""
    seen_store = MemoryEventStore(registry=registry)
    seen_store.table = breaking.of(store.table)
    return seen_store, ReadModels(breaking.of(read_models.tables))


async def until_death(breaking: Breaking, work: Awaitable[T]) -> T | None:
    """What the work gives; None when the process died meanwhile, and is gone now."""
    task = asyncio.ensure_future(work)
    death = asyncio.ensure_future(breaking.died.wait())
    try:
        await asyncio.wait([task, death], return_when=asyncio.FIRST_COMPLETED)
        if not breaking.died.is_set():
            return await task
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        breaking.revive()
        return None
    finally:
        death.cancel()


async def deliver(projector: Projector, events: Sequence[RecordedEvent]) -> None:
    """Gives events to a projector until it has taken them all."""
    left = list(events)
    for _ in range(20):
        results = await projector.handle(left)
        left = [event for event, error in zip(left, results, strict=True) if error is not None]
        if not left:
            return
    raise AssertionError(f"never taken: {left}")
