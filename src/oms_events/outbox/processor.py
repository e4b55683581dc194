"""The outbox's processor: runs inside a service, shares the buckets with others, and relays what it holds."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from oms_events._aio import Clock, PeriodicTask, SystemClock, cancel_and_wait
from oms_events.errors import ConfigurationError, StorageError, StorageOutcomeUnknownError, StorageUnavailableError
from oms_events.instrumentation.hooks import Hook, Hooks
from oms_events.outbox.alarm import Alarm
from oms_events.outbox.bucket import BucketRelay
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.dispatch import Dispatcher
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.gates import Gates
from oms_events.outbox.leases import LeaseKeeper
from oms_events.outbox.measure import Backlog, EpochGate
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import Bucket, Lease
from oms_events.outbox.relay import PartitionRelay
from oms_events.outbox.settlement import Settler
from oms_events.outbox.shared import Shared
from oms_events.outbox.signals import Committed, Voided
from oms_events.publishing import PlanPublisher
from oms_events.resilience.backoff import RetryConfig

_log = logging.getLogger("oms_events")
_OPEN_BACKOFF: Final = RetryConfig(initial=0.5, maximum=15.0)
_LOOK: Final = 0.5
"""Seconds between two looks at whether the whole table is empty, while draining."""


@dataclass(frozen=True, slots=True)
class RelaySummary:
    """What one run did: records settled, dead letters made, and records that wait for another attempt."""

    delivered: int
    dead_lettered: int
    waiting: int


class OutboxProcessor:
    """Delivers what is in the outbox through a router; an async context manager, or a coroutine to run.

    `outbox` and `router` are borrowed: the outbox is opened if it was not, neither is closed. The router must be
    open for as long as the processor runs. Any number of processors may share a table. Leaving the context finishes
    what is in flight, for `stop_timeout` seconds at most, and gives the leases up at once. When it is killed, its
    buckets are taken over after a lease, and what it had in flight may be delivered again.
    """

    def __init__(
        self,
        outbox: Outbox,
        router: PlanPublisher,
        *,
        config: ProcessorConfig | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
        processor_id: str | None = None,
    ) -> None:
        self.config = ProcessorConfig() if config is None else config
        if not isinstance(self.config, ProcessorConfig):
            raise ConfigurationError("OutboxProcessor", [f"config = {config!r} is no ProcessorConfig; make one"])
        self.id = processor_id or uuid.uuid4().hex
        self._outbox = outbox
        self._clock = clock or SystemClock()
        # Jitter needs no secrecy, only spread.
        self._draw = (rng or random.Random()).random  # noqa: S311
        self._hooks = Hooks(hooks)
        self._router = router
        self._buckets: dict[Bucket, BucketRelay] = {}
        self._progress = asyncio.Event()
        self._stopped = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._losing: set[asyncio.Task[int]] = set()
        self._is_running = False
        self._joined = False
        self._make_parts()

    def _make_parts(self) -> None:
        store, clock, hooks, config = self._outbox.store, self._clock, self._hooks, self.config
        self._alarm = Alarm(clock, name="oms-events-outbox-alarm")
        self._shared = Shared(
            store=store,
            router=self._router,
            config=config,
            clock=clock,
            draw=self._draw,
            hooks=hooks,
            dispatcher=Dispatcher(self._router, config, clock=clock),
            settler=Settler(store, clock=clock, draw=self._draw, hooks=hooks),
            alarm=self._alarm,
            progress=self._progress.set,
            bytes_in_memory=lambda: sum(relay.window.bytes for relay in self._relays()),
        )
        self._shared.gates = Gates(
            is_available=self._router.is_available,
            alarm=self._alarm,
            clock=clock,
            on_shut=self._shut,
            on_open=self._opened,
        )
        self._keeper = LeaseKeeper(
            store,
            member_id=self.id,
            config=config,
            clock=clock,
            hooks=hooks,
            on_taken=self._taken,
            on_wake=self._wake,
            on_lost=self._lost,
            release=self._release,
            info=lambda: {"in_flight": self._in_flight(), "held": len(self._buckets)},
            draw=self._draw,
        )
        self._epochs = EpochGate(store, drain_time=config.drain_time, clock=clock, progress=self._progress.set)
        self._backlog = Backlog(store, config=config, clock=clock, hooks=hooks)
        self._measuring = PeriodicTask(
            self._measure, interval=config.measure_interval, name="oms-events-outbox-measure", clock=clock
        )

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Opens the outbox, joins the other processors, and begins to relay.

        A table that cannot be reached now does not keep the service from starting: it is tried until it can.
        Raises `ConfigurationError` for a table that cannot be an outbox, `StorageDeniedError` without permission.
        """
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self) -> None:
        if self._is_running:
            raise ConfigurationError("OutboxProcessor", ["runs already; give each service its own processor"])
        self._is_running = True
        self._stopped.clear()
        try:
            try:
                await self._begin()
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                _log.warning("the outbox cannot be opened now, and is tried again: %s", error)
                self._beginning = asyncio.create_task(self._insist(), name="oms-events-outbox-begin")
        except BaseException:
            await self.stop(timeout=0)
            raise

    async def _begin(self) -> None:
        await self._outbox.open()
        await ensure_layout(self._outbox.store, self._outbox.config.buckets)
        if self._unsubscribe is None:
            self._unsubscribe = self._outbox.subscribe(self._heard)
        self._alarm.start()
        self._measuring.start()
        await self._keeper.join()
        self._joined = True

    async def _insist(self) -> None:
        attempt = 0
        while not self._joined:
            attempt += 1
            await self._clock.sleep(_OPEN_BACKOFF.delay(attempt, self._draw))
            try:
                await self._begin()
            except StorageError as error:
                _log.warning("the outbox cannot be opened yet: %s", error)

    async def stop(self, timeout: float | None = None) -> None:
        """Ends it cleanly: reads no more, lets what is in flight finish, gives all leases up. Idempotent.

        What is not finished after `timeout` seconds (`stop_timeout` by default) is ended, and delivered again by
        whoever comes next.
        """
        if not self._is_running:
            return
        patience = self.config.stop_timeout if timeout is None else timeout
        deadline = self._clock.monotonic() + patience
        try:
            if self._unsubscribe is not None:
                self._unsubscribe()
                self._unsubscribe = None
            await cancel_and_wait(self._beginning)
            await self._measuring.stop()
            if self._joined:
                await self._keeper.leave(patience)
        finally:
            self._joined = False
            left = max(0.0, deadline - self._clock.monotonic())
            await asyncio.gather(*(relay.stop(timeout=0) for relay in self._buckets.values()))
            self._buckets.clear()
            await self._shared.dispatcher.close(timeout=left)
            await self._shared.settler.close(timeout=max(0.0, deadline - self._clock.monotonic()))
            await cancel_and_wait(*self._losing)
            await self._alarm.stop()
            self._is_running = False
            self._stopped.set()
            self._progress.set()
            # A processor may be started again: what was under way is over.
            self._make_parts()

    # ------------------------------------------------------------------ ways to run

    async def run(self) -> None:
        """Relays until `stop` is called, or until it is cancelled, which ends it as cleanly as `stop` does."""
        async with self._running():
            await self._stopped.wait()

    async def run_once(self) -> RelaySummary:
        """Relays what is there now, in the buckets that it can have, and says what it did.

        Events that fail are left for another time; so are the buckets of a processor that died within the last
        lease.
        """
        # Before it begins: the first records are on their way while the last lease is being taken.
        totals = self._shared.totals
        delivered, dead = totals.delivered, totals.dead_lettered
        async with self._running():
            await self._until(self._is_idle)
            waiting = sum(len(relay.window.entries) + relay.window.left for relay in self._relays())
            return RelaySummary(totals.delivered - delivered, totals.dead_lettered - dead, waiting)

    async def drain(self, timeout: float) -> bool:
        """Relays until the whole table has no pending record, for `timeout` seconds at most; says whether it is so.

        Other processors may do their part. Raises what the store raises.
        """
        deadline = self._clock.monotonic() + timeout
        async with self._running():
            while True:
                layout = await self._outbox.store.read_layout()
                buckets = () if layout is None else layout.buckets
                if await self._epochs.are_empty(buckets, unkeyed_too=True):
                    return True
                if self._clock.monotonic() >= deadline:
                    return False
                await self._clock.sleep(min(_LOOK, max(0.01, deadline - self._clock.monotonic())))

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        if self._is_running:
            yield
            return
        async with self:
            yield

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._progress.clear()
            await self._progress.wait()

    def _is_idle(self) -> bool:
        if not self._is_running:
            return True
        # Only what is settled in the table is done: a run that ends before would leave it to be delivered again.
        return self._joined and self._shared.settler.is_idle and all(map(self._is_done, self._relays()))

    def _is_done(self, relay: PartitionRelay) -> bool:
        bucket, keyed = relay.partition
        return relay.is_idle or (keyed and bucket.epoch in self._epochs.waiting)

    # ------------------------------------------------------------------ status

    def status(self) -> dict[str, Any]:
        """What this processor holds and does, as plain values, fit for JSON, without events or secrets."""
        relays = list(self._relays())
        problems = sorted({relay.problem for relay in relays if relay.problem is not None})
        totals = self._shared.totals
        return {
            "id": self.id,
            "running": self._is_running,
            "buckets_held": len(self._buckets),
            "lease_seconds_left": round(self._keeper.seconds_left(), 3) if self._joined else 0.0,
            "in_flight": self._in_flight(),
            "in_memory": sum(len(relay.window.entries) for relay in relays),
            "left_in_table": sum(relay.window.left for relay in relays),
            "platforms_shut": sorted(self._shared.gates.shut_platforms),
            "delivered": totals.delivered,
            "dead_lettered": totals.dead_lettered,
            "retried": totals.retried,
            "backlog": self._backlog.latest(),
            "problems": problems,
        }

    def _in_flight(self) -> int:
        return sum(relay.in_flight for relay in self._relays())

    async def _measure(self) -> None:
        await self._backlog.measure(list(self._relays()), self._in_flight())

    def _relays(self) -> Iterable[PartitionRelay]:
        return (relay for bucket in self._buckets.values() for relay in bucket.relays)

    # ------------------------------------------------------------------ what the parts tell

    def _taken(self, lease: Lease) -> None:
        bucket = lease.bucket
        if bucket in self._buckets:
            self._buckets[bucket].wake()
            return
        relay = self._buckets[bucket] = BucketRelay(
            bucket, self._shared, low=lease.low, lease_left=self._keeper.seconds_left, may_begin=self._epochs.wait
        )
        relay.start()

    def _wake(self, bucket: Bucket) -> None:
        if bucket in self._buckets:
            self._buckets[bucket].wake()

    def _lost(self, bucket: Bucket) -> None:
        relay = self._buckets.pop(bucket, None)
        if relay is not None:
            task = asyncio.create_task(relay.stop(timeout=0), name="oms-events-outbox-lost")
            self._losing.add(task)
            task.add_done_callback(self._losing.discard)

    async def _release(self, bucket: Bucket) -> int:
        relay = self._buckets.pop(bucket, None)
        return 0 if relay is None else await relay.stop(timeout=self.config.stop_timeout)

    def _shut(self, platform: str) -> None:
        for relay in self._relays():
            relay.close_platform(platform)

    def _opened(self, platform: str) -> None:
        for relay in self._relays():
            relay.rescan()

    def _heard(self, signal: Committed | Voided) -> None:
        if isinstance(signal, Voided):
            if signal.bucket in self._buckets:
                self._buckets[signal.bucket].keyed.void(signal.numbers)
            return
        for record in signal.records:
            bucket = self._buckets.get(record.partition.bucket)
            if bucket is not None:
                (bucket.keyed if record.partition.keyed else bucket.unkeyed).offer(record)
