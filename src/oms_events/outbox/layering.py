"""The order between the layouts of an outbox: when keyed records of a newer one may be relayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from oms_events._aio import Clock
from oms_events.errors import StorageError
from oms_events.outbox.records import Bucket, Partition
from oms_events.outbox.store import OutboxStore

_AT_ONCE: Final = 8
_LOOK: Final = 2.0
"""Seconds between two looks at what is left in the older layouts."""
_PAGES: Final = 20


class EpochGate:
    """Says which keyed records of a newer layout have to wait for those of the older ones.

    Every counter of an older layout was closed before the newer one opened. What was reserved in it before may be
    committed for as long as a writer tries: for `drain_time` seconds, by this processor's clock, from when it
    first saw the newer layout, all keyed records of that wait. Then those keys wait that still have records in an
    older layout, and all of them while there are more than 2,000 such records in one bucket.
    """

    def __init__(self, store: OutboxStore, *, drain_time: float, clock: Clock) -> None:
        self.waiting: set[int] = set()
        self.on_wait: Callable[[], None] = lambda: None
        self._store = store
        self._drain_time = drain_time
        self._clock = clock
        self._seen: dict[int, float] = {}
        self._busy_keys: dict[int, set[str]] = {}
        self._looked: dict[int, float] = {}
        self._looking = asyncio.Lock()

    async def wait(self, epoch: int) -> None:
        """Returns when keyed records of the epoch may be relayed, but for its busy keys."""
        seen = self._seen.setdefault(epoch, self._clock.monotonic())
        while epoch not in self._busy_keys:
            async with self._looking:
                if epoch not in self._busy_keys:
                    await self._look(epoch, seen)
            if epoch not in self._busy_keys:
                self.waiting.add(epoch)
                self.on_wait()
                await self._clock.sleep(_LOOK)
        self.waiting.discard(epoch)

    async def refresh(self, epoch: int) -> None:
        """Looks again at which keys are busy, where some are, every few seconds at most."""
        if not self._busy_keys.get(epoch):
            return
        async with self._looking:
            if self._clock.monotonic() - self._looked.get(epoch, 0.0) >= _LOOK:
                await self._look(epoch, self._seen.get(epoch, 0.0))

    def is_busy(self, epoch: int, key: str | None) -> bool:
        """Whether a key still has records in an older layout."""
        return key in self._busy_keys.get(epoch, ())

    def problems(self) -> list[str]:
        """What waits, in words."""
        found = [f"layout {epoch} waits for what is left in older ones" for epoch in sorted(self.waiting)]
        for epoch, keys in sorted(self._busy_keys.items()):
            if keys:
                some = ", ".join(sorted(keys)[:3])
                found.append(f"{len(keys)} keys of layout {epoch} wait for records in older ones: {some}")
        return found

    async def _look(self, epoch: int, seen: float) -> None:
        try:
            layout = await self._store.read_layout()
            if layout is None:
                return
            older = [bucket for bucket in layout.buckets if bucket.epoch < epoch]
            if not older:
                self._busy_keys[epoch] = set()
            elif self._clock.monotonic() - seen >= self._drain_time:
                keys = await self._keys_of(older)
                if keys is not None:
                    self._busy_keys[epoch] = keys
            self._looked[epoch] = self._clock.monotonic()
        except StorageError:
            # The next look may tell; until then what is known holds.
            return

    async def _keys_of(self, buckets: Iterable[Bucket]) -> set[str] | None:
        keys: set[str] = set()
        for bucket in buckets:
            after: str | None = None
            for _ in range(_PAGES):
                page = await self._store.read(Partition(bucket, keyed=True), after=after)
                keys.update(record.key for record in page.records if record.key is not None)
                if page.next is None:
                    break
                after = page.next
            else:
                return None
        return keys


async def are_empty(store: OutboxStore, buckets: Iterable[Bucket]) -> bool:
    """Whether no record is in these buckets."""
    partitions = [Partition(bucket, keyed) for bucket in buckets for keyed in (True, False)]
    for start in range(0, len(partitions), _AT_ONCE):
        some = partitions[start : start + _AT_ONCE]
        counts = await asyncio.gather(*(store.count(partition, limit=1) for partition in some))
        if any(count.pending for count in counts):
            return False
    return True
