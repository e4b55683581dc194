"""The two relays of a bucket that this processor holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from oms_events.outbox.layering import EpochGate
from oms_events.outbox.records import Bucket, Partition
from oms_events.outbox.relay import PartitionRelay
from oms_events.outbox.shared import Shared


class BucketRelay:
    """Relays the keyed and the unkeyed records of a bucket, for as long as its lease is held."""

    def __init__(
        self,
        bucket: Bucket,
        shared: Shared,
        *,
        low: int,
        lease_left: Callable[[], float],
        epochs: EpochGate,
    ) -> None:
        self.bucket = bucket
        self._shared = shared
        # Records without a key have no order to keep across layouts.
        self.keyed = PartitionRelay(
            Partition(bucket, keyed=True), shared, low=low, lease_left=lease_left, epochs=epochs
        )
        self.unkeyed = PartitionRelay(
            Partition(bucket, keyed=False), shared, low=0, lease_left=lease_left, epochs=None
        )

    @property
    def relays(self) -> Iterable[PartitionRelay]:
        return (self.keyed, self.unkeyed)

    def start(self) -> None:
        for relay in self.relays:
            relay.start()

    def wake(self) -> None:
        for relay in self.relays:
            relay.wake()

    async def stop(self, *, timeout: float) -> int:
        """Stops both, waits until what they settled is written, and gives the keyed one's `low`."""
        low, _ = await asyncio.gather(self.keyed.stop(timeout=timeout), self.unkeyed.stop(timeout=timeout))
        await self._shared.settler.flush(timeout=timeout)
        return low
