"""Completed results in local memory, in front of any store: a replay that was seen here costs no call."""

from __future__ import annotations

from collections import OrderedDict

from oms_events.errors import ConfigurationError
from oms_events.idempotency.records import RunRecord, RunState
from oms_events.idempotency.store import IdempotencyStore


class CachedIdempotencyStore:
    """Remembers up to `max_items` completed records of `store`, the least recently used go first.

    A record in progress is never cached: it may change elsewhere. A completed one does not change until it
    expires. The store beneath is opened and closed by its owner.
    """

    def __init__(self, store: IdempotencyStore, *, max_items: int = 256) -> None:
        if max_items < 1:
            raise ConfigurationError(type(self).__name__, [f"max_items = {max_items}: must be at least 1"])
        self.max_result_bytes = store.max_result_bytes
        self._store = store
        self._max_items = max_items
        self._records: OrderedDict[str, RunRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        known = self._records.get(record.key)
        if known is not None:
            if not known.yields_to(record, now):
                self._records.move_to_end(record.key)
                return known
            del self._records[record.key]
        standing = await self._store.write(record, now=now)
        self._remember(standing or record)
        return standing

    async def read(self, key: str) -> RunRecord | None:
        record = await self._store.read(key)
        if record is not None:
            self._remember(record)
        return record

    async def remove(self, key: str, token: str) -> None:
        await self._store.remove(key, token)
        self._records.pop(key, None)

    def _remember(self, record: RunRecord) -> None:
        if record.state is not RunState.COMPLETED:
            return
        self._records[record.key] = record
        self._records.move_to_end(record.key)
        if len(self._records) > self._max_items:
            self._records.popitem(last=False)
