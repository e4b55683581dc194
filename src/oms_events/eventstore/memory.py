"""An event store in memory: for tests, and as the plainest reading of the contract."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from oms_events._aio import Clock
from oms_events.errors import StorageRejectedError
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.items import NOT_THERE, THERE, Item
from oms_events.eventstore.personal import FieldCipher
from oms_events.eventstore.registry import EventRegistry, default_registry
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE, EVENT_TIME, TYPE_SHARD
from oms_events.eventstore.store import EventStore
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import MemoryOutbox
from oms_events.outbox.store import Action

_PAGE: Final = 1000


class MemoryEventTable:
    """The `EventTable` in one process; give it the outbox's store to take part in its transactions.

    Each method yields to the event loop once and then does its work in one step.
    """

    def __init__(self, name: str, transactions: MemoryOutboxStore | None = None) -> None:
        self.name = name
        self._transactions = transactions or MemoryOutboxStore()
        self._transactions.tables[name] = self
        self._aggregates: dict[str, dict[int, Item]] = {}
        self._shards: dict[str, list[Item]] = {}

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    def refuses(self, action: Action) -> bool:
        ((kind, body),) = action.items()
        condition = body.get("ConditionExpression")
        if kind not in ("Put", "ConditionCheck") or condition not in (THERE, NOT_THERE):
            raise StorageRejectedError(f"{kind} with {condition!r}: events are put once, and never changed")
        there = self._find(body["Item"] if kind == "Put" else body["Key"]) is not None
        return there is (condition == NOT_THERE)

    def apply(self, action: Action) -> None:
        ((kind, body),) = action.items()
        if kind != "Put":
            return
        item = body["Item"]
        self._aggregates.setdefault(item[AGGREGATE_ID]["S"], {})[_sequence(item)] = item
        if TYPE_SHARD in item:
            shard = self._shards.setdefault(item[TYPE_SHARD]["S"], [])
            shard.insert(bisect_right(shard, _time(item), key=_time), item)

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
        found = sorted(sequence for sequence in events if after < sequence <= (up_to or sequence))
        return _page((events[sequence] for sequence in found), limit, newest_first=newest_first)

    async def read_shard(
        self,
        shard: str,
        *,
        since: str,
        until: str | None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        await asyncio.sleep(0)
        items = self._shards.get(shard, [])
        start = bisect_left(items, since, key=_time)
        end = len(items) if until is None else bisect_left(items, until, key=_time)
        return _page(items[start:end], limit, newest_first=newest_first)

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        await asyncio.sleep(0)
        names = list(self._aggregates)[segment::segments]
        items = [self._aggregates[name][sequence] for name in names for sequence in sorted(self._aggregates[name])]
        if start is not None:
            keys = [_key(item) for item in items]
            items = items[keys.index(start) + 1 :]
        return _page(items, limit, newest_first=False)

    async def get(self, key: Mapping[str, Any]) -> Item | None:
        await asyncio.sleep(0)
        return self._find(key)

    def _find(self, key: Mapping[str, Any]) -> Item | None:
        return self._aggregates.get(key[AGGREGATE_ID]["S"], {}).get(_sequence(key))


class MemoryEventStore(EventStore):
    """An event store in memory, for tests; with a `MemoryOutbox`, appends put their events there too."""

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
        table = MemoryEventTable(config.table_name, None if outbox is None else outbox.store)
        super().__init__(table, config, outbox=outbox, registry=registry, cipher=cipher, clock=clock, rng=rng)


def _page(items: Iterable[Item], limit: int | None, *, newest_first: bool) -> ItemPage:
    found = list(items)
    if newest_first:
        found.reverse()
    page = found[: limit or _PAGE]
    return ItemPage(page, _key(page[-1]) if len(page) < len(found) else None)


def _key(item: Item) -> Token:
    return {name: item[name] for name in (AGGREGATE_ID, EVENT_SEQUENCE)}


def _sequence(item: Mapping[str, Any]) -> int:
    return int(item[EVENT_SEQUENCE]["N"])


def _time(item: Item) -> str:
    time: str = item[EVENT_TIME]["S"]
    return time
