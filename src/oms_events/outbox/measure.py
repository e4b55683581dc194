"""Looks at how much is in the outbox, for metrics and the status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from oms_events._aio import Clock
from oms_events.errors import StorageError
from oms_events.instrumentation.hooks import BacklogMeasured, Hooks
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.records import Count
from oms_events.outbox.relay import PartitionRelay
from oms_events.outbox.store import OutboxStore


class Backlog:
    """Measures what one processor's buckets hold, and says so when it cannot."""

    def __init__(self, store: OutboxStore, *, config: ProcessorConfig, clock: Clock, hooks: Hooks) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._hooks = hooks
        self._latest: BacklogMeasured | None = None

    def latest(self) -> dict[str, Any]:
        """The last measurement as plain values."""
        latest = self._latest
        if latest is None:
            return {"available": False}
        return {
            "available": latest.available,
            "pending": latest.pending,
            "bounded": latest.bounded,
            "oldest_age": latest.oldest_age,
            "dead_letters": None if latest.dead_letters is None else dict(latest.dead_letters),
        }

    async def measure(self, relays: Sequence[PartitionRelay], in_flight: int) -> None:
        """Counts what is pending; a partition that was read to its end costs no read."""
        now = int(self._clock.now().timestamp() * 1000)
        buckets = len({relay.partition.bucket for relay in relays})
        try:
            counts = [await self._count(relay) for relay in relays]
            dead = await self._dead_letters(relays)
        except StorageError:
            old = self._latest or BacklogMeasured(0, False, None, 0, None, 0, available=False)
            measured = BacklogMeasured(
                old.pending, old.bounded, old.oldest_age, in_flight, old.dead_letters, buckets, available=False
            )
        else:
            oldest = min((count.oldest for count in counts if count.oldest is not None), default=None)
            measured = BacklogMeasured(
                sum(count.pending for count in counts),
                any(count.bounded for count in counts),
                None if oldest is None else max(0.0, (now - oldest) / 1000),
                in_flight,
                dead,
                buckets,
                available=True,
            )
        self._latest = measured
        self._hooks(measured)

    async def _count(self, relay: PartitionRelay) -> Count:
        if relay.problem is not None:
            # It could not be read just now: what memory holds says nothing of it.
            return await self._store.count(relay.partition, limit=self._config.measure_limit)
        if relay.knows_all:
            entries = relay.window.entries.values()
            return Count(len(entries), False, min((entry.record.added for entry in entries), default=None))
        return await self._store.count(relay.partition, limit=self._config.measure_limit)

    async def _dead_letters(self, relays: Iterable[PartitionRelay]) -> dict[str, int] | None:
        """Dead letters by platform, up to the limit; measured by the processor that has the first bucket only."""
        if not any(relay.partition.bucket.number == 0 for relay in relays):
            return None
        found: dict[str, int] = {}
        after, left = None, self._config.measure_limit
        while left > 0:
            page = await self._store.dead_letters(after=after, limit=min(100, left))
            for letter in page.letters:
                found[letter.platform] = found.get(letter.platform, 0) + 1
            left -= len(page.letters)
            if page.next is None:
                break
            after = page.next
        return found
