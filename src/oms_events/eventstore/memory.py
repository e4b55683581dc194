"""An event store in memory: for tests, and as the plainest reading of the contract."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any, Final

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError, StorageRejectedError
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.items import NOT_THERE, THERE, Item, sequence_of
from oms_events.eventstore.personal.cipher import FieldCipher
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE, EVENT_TIME, TYPE_SHARD
from oms_events.eventstore.store import EventStore
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import MemoryOutbox
from oms_events.outbox.store import Action

_PAGE: Final = 1000
_KEY: Final = (AGGREGATE_ID, EVENT_SEQUENCE)


class MemoryEventTable:
    """The `EventTable` in one process; give it the outbox's store to take part in its transactions.

    Each method yields to the event loop once and then does its work in one step.
    """

    def __init__(self, name: str, transactions: MemoryOutboxStore | None = None) -> None:
        self.name = name
        self.identity: str | None = None
        self._transactions = transactions or MemoryOutboxStore()
        self._transactions.tables[name] = self
        self._aggregates: dict[str, dict[int, Item]] = {}
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._shards: dict[str, list[Item]] = {}

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    def refuses(self, action: Action) -> bool:
        ((kind, body),) = action.items()
        condition = body.get("ConditionExpression")
        if kind not in ("Put", "ConditionCheck") or (kind == "Put" and condition != NOT_THERE):
            raise StorageRejectedError(f"{kind} with {condition!r}: events are put once, and never changed")
        if condition not in (THERE, NOT_THERE):
            text = f"{condition!r}: an event store in memory knows the conditions {THERE!r} and {NOT_THERE!r} only"
            raise StorageRejectedError(text)
        there = self._find(body["Item"] if kind == "Put" else body["Key"]) is not None
        return there is (condition == NOT_THERE)

    def apply(self, action: Action) -> None:
        ((kind, body),) = action.items()
        if kind != "Put":
            return
        item = body["Item"]
        name = item[AGGREGATE_ID]["S"]
        if name not in self._aggregates:
            self._aggregates[name] = {}
            self._numbers[name] = len(self._names)
            self._names.append(name)
        self._aggregates[name][sequence_of(item)] = item
        if TYPE_SHARD in item:
            insort(self._shards.setdefault(item[TYPE_SHARD]["S"], []), item, key=_time)

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await self._transactions.commit(actions, token)

    async def read(
        self,
        aggregate_id: str,
        *,
        after: int,
        up_to: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        await asyncio.sleep(0)
        events = self._aggregates.get(aggregate_id, {})
        # They were put in their order.
        last = next(reversed(events), 0)
        found = range(after + 1, (last if up_to is None else min(up_to, last)) + 1)
        items = [events[number] for number in (found[::-1] if newest_first else found) if number in events]
        return _page(items, limit, _KEY)

    async def read_shard(
        self,
        shard: str,
        *,
        since: str,
        until: str | None,
        start: Token | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        await asyncio.sleep(0)
        items = self._shards.get(shard, [])
        first = bisect_left(items, since, key=_time)
        end = len(items) if until is None else bisect_left(items, until, key=_time)
        if start is not None and newest_first:
            end = min(end, bisect_left(items, _time(start), key=_time))
        elif start is not None:
            first = max(first, bisect_right(items, _time(start), key=_time))
        found = items[first:end]
        return _page(found[::-1] if newest_first else found, limit, (*_KEY, TYPE_SHARD, EVENT_TIME))

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        await asyncio.sleep(0)
        number, after = (
            (segment, -1) if start is None else (self._numbers[start[AGGREGATE_ID]["S"]], sequence_of(start))
        )
        items: list[Item] = []
        most = limit or _PAGE
        for name in self._names[number::segments]:
            events = self._aggregates[name]
            items += (events[sequence] for sequence in sorted(events) if sequence > after)
            after = -1
            if len(items) > most:
                break
        return _page(items, most, _KEY)

    async def get(self, key: Mapping[str, Any]) -> Item | None:
        await asyncio.sleep(0)
        return self._find(key)

    def _find(self, key: Mapping[str, Any]) -> Item | None:
        return self._aggregates.get(key[AGGREGATE_ID]["S"], {}).get(sequence_of(key))


class MemoryEventStore(EventStore):
    """An event store in memory, for tests; with a `MemoryOutbox`, appends put their events there too.

    Stores of one outbox and one table name have the same events, as services on one table do.
    """

    def __init__(
        self,
        config: EventStoreConfig | None = None,
        *,
        outbox: MemoryOutbox | None = None,
        registry: EventRegistry = default_registry,
        cipher: FieldCipher | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        config = config or EventStoreConfig(table_name="event-store")
        super().__init__(
            _table_of(config.table_name, outbox),
            config,
            outbox=outbox,
            registry=registry,
            cipher=cipher,
            clock=clock,
            rng=rng,
        )


def _table_of(name: str, outbox: Any) -> MemoryEventTable:
    if outbox is None:
        return MemoryEventTable(name)
    store = getattr(outbox, "store", None)
    if not isinstance(store, MemoryOutboxStore):
        problem = f"outbox is {type(outbox).__name__}; give a MemoryOutbox, or leave it out"
        raise ConfigurationError("MemoryEventStore", [problem])
    table = store.tables.get(name)
    return table if isinstance(table, MemoryEventTable) else MemoryEventTable(name, store)


def _page(items: Sequence[Item], limit: int | None, key: Sequence[str]) -> ItemPage:
    page = items[: limit or _PAGE]
    return ItemPage(page, {name: page[-1][name] for name in key} if len(page) < len(items) else None)


def _time(item: Item) -> str:
    time: str = item[EVENT_TIME]["S"]
    return time
