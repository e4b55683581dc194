"""The relays of the buckets that are held here, and what they share; who holds what is decided elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from oms_events._aio import Clock, cancel_and_wait
from oms_events.instrumentation.hooks import Hooks
from oms_events.outbox.alarm import Alarm
from oms_events.outbox.bucket import BucketRelay
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.dispatch import Dispatcher
from oms_events.outbox.gates import Gates
from oms_events.outbox.layering import EpochGate
from oms_events.outbox.records import Bucket
from oms_events.outbox.relay import PartitionRelay
from oms_events.outbox.settlement import Settler
from oms_events.outbox.shared import Shared, Totals
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import PlanPublisher


class Engine:
    """Relays buckets from `hold` until `release` or `lose`; single use, from `start` until `close`."""

    def __init__(
        self,
        store: OutboxStore,
        router: PlanPublisher,
        config: ProcessorConfig,
        *,
        clock: Clock,
        draw: Callable[[], float],
        hooks: Hooks,
        epochs: EpochGate | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._buckets: dict[Bucket, BucketRelay] = {}
        self._progress = asyncio.Event()
        self._ending: set[asyncio.Task[int]] = set()
        self._alarm = Alarm(clock, name="oms-events-outbox-alarm")
        self._shared = Shared(
            store=store,
            router=router,
            config=config,
            clock=clock,
            draw=draw,
            hooks=hooks,
            dispatcher=Dispatcher(router, config, clock=clock),
            settler=Settler(store, clock=clock, draw=draw, hooks=hooks),
            alarm=self._alarm,
            progress=self._progress.set,
            bytes_in_memory=lambda: sum(relay.window.bytes for relay in self.relays),
            bytes_waiting=lambda: sum(relay.window.waiting_bytes for relay in self.relays),
        )
        self._shared.gates = Gates(
            is_available=router.is_available,
            alarm=self._alarm,
            clock=clock,
            on_shut=self._shut,
            on_open=self._opened,
        )
        self.epochs = epochs or EpochGate(store, drain_time=config.drain_time, clock=clock)
        self.epochs.on_wait = self._progress.set

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        self._alarm.start()

    async def close(self, *, timeout: float) -> None:
        """Reads no more, lets what is in flight finish for `timeout` seconds, and ends what does not."""
        deadline = self._clock.monotonic() + timeout
        await asyncio.gather(*(relay.stop(timeout=timeout) for relay in self._buckets.values()))
        self._buckets.clear()
        await self._shared.dispatcher.close(timeout=max(0.0, deadline - self._clock.monotonic()))
        await self._shared.settler.close(timeout=max(0.0, deadline - self._clock.monotonic()))
        await cancel_and_wait(*self._ending)
        await self._alarm.stop()
        self._progress.set()

    # ------------------------------------------------------------------ buckets

    def hold(self, bucket: Bucket, *, low: int, lease_left: Callable[[], float]) -> None:
        """Relays a bucket from now on; one that is relayed already is looked at again."""
        relay = self._buckets.get(bucket)
        if relay is not None:
            relay.wake()
            return
        relay = BucketRelay(bucket, self._shared, low=low, lease_left=lease_left, epochs=self.epochs)
        self._buckets[bucket] = relay
        relay.start()

    def wake(self, bucket: Bucket) -> None:
        """Something may be there to read."""
        if bucket in self._buckets:
            self._buckets[bucket].wake()

    def lose(self, bucket: Bucket) -> None:
        """The bucket is another's: nothing more is published, what was on its way is settled all the same."""
        relay = self._buckets.pop(bucket, None)
        self._shared.gave_room()
        if relay is not None:
            task = asyncio.create_task(relay.stop(timeout=0), name="oms-events-outbox-lost")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def release(self, bucket: Bucket, *, timeout: float | None = None) -> int:
        """Ends a bucket's relay in good order, within `stop_timeout` or `timeout`, and gives its `low`."""
        relay = self._buckets.pop(bucket, None)
        self._shared.gave_room()
        patience = self._config.stop_timeout if timeout is None else timeout
        return 0 if relay is None else await relay.stop(timeout=patience)

    def heard(self, signal: Committed | Voided) -> None:
        """What the outbox of this process has just done."""
        if isinstance(signal, Voided):
            if signal.bucket in self._buckets:
                self._buckets[signal.bucket].keyed.void(signal.numbers)
            return
        for record in signal.records:
            bucket = self._buckets.get(record.partition.bucket)
            if bucket is not None:
                (bucket.keyed if record.partition.keyed else bucket.unkeyed).offer(record)

    def _shut(self, platform: str) -> None:
        for relay in self.relays:
            relay.close_platform(platform)

    def _opened(self, platform: str) -> None:
        for relay in self.relays:
            relay.rescan()

    # ------------------------------------------------------------------ state

    @property
    def relays(self) -> Iterator[PartitionRelay]:
        return (relay for bucket in self._buckets.values() for relay in bucket.relays)

    @property
    def totals(self) -> Totals:
        return self._shared.totals

    @property
    def in_flight(self) -> int:
        return sum(relay.in_flight for relay in self.relays)

    @property
    def waiting(self) -> int:
        """Records that were found and wait: for another attempt, or for a platform."""
        return sum(len(relay.window.entries) + relay.window.left for relay in self.relays)

    async def until_idle(self) -> None:
        """Waits until all that was there is settled in the table or waits for another attempt.

        Raises what keeps a partition from being read, when it is not over after a few tries.
        """
        while not self._is_idle():
            for relay in self.relays:
                if relay.error is not None:
                    raise relay.error
            self._progress.clear()
            await self._progress.wait()

    def _is_idle(self) -> bool:
        # Only what is settled in the table is done: ended before, it would be delivered again.
        return self._shared.settler.is_idle and all(
            relay.is_idle or (relay.partition.keyed and relay.partition.bucket.epoch in self.epochs.waiting)
            for relay in self.relays
        )

    def describe(self) -> dict[str, Any]:
        """What is held and done, as plain values."""
        relays = list(self.relays)
        return {
            "buckets_held": len(self._buckets),
            "in_flight": self.in_flight,
            "in_memory": sum(len(relay.window.entries) for relay in relays),
            "left_in_table": sum(relay.window.left for relay in relays),
            "platforms_shut": sorted(self._shared.gates.shut_platforms),
            "delivered": self.totals.delivered,
            "dead_lettered": self.totals.dead_lettered,
            "retried": self.totals.retried,
            "problems": sorted(
                {
                    *(relay.problem for relay in relays if relay.problem is not None),
                    *self.epochs.problems(),
                    *self._shared.troubles.values(),
                }
            ),
        }
