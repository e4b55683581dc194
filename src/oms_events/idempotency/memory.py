"""A store in memory: for tests, for consumers in one process, and as the plainest reading of the contract."""

from __future__ import annotations

from oms_events.idempotency.records import RunRecord

_SWEEP = 1024


class MemoryIdempotencyStore:
    """Keeps records in this process; expired ones are removed as it grows."""

    def __init__(self, *, max_result_bytes: int = 400_000) -> None:
        self.max_result_bytes = max_result_bytes
        self._records: dict[str, RunRecord] = {}
        self._sweep_at = _SWEEP

    def __len__(self) -> int:
        return len(self._records)

    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        standing = self._records.get(record.key)
        if standing is not None and not standing.yields_to(record, now):
            return standing
        self._records[record.key] = record
        if len(self._records) >= self._sweep_at:
            self._records = {key: kept for key, kept in self._records.items() if kept.is_live(now)}
            self._sweep_at = max(_SWEEP, 2 * len(self._records))
        return None

    async def read(self, key: str) -> RunRecord | None:
        return self._records.get(key)

    async def remove(self, key: str, token: str) -> None:
        standing = self._records.get(key)
        if standing is not None and standing.token == token:
            del self._records[key]
