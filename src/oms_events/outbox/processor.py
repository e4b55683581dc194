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
from oms_events.errors import (
    ConfigurationError,
    OmsEventsError,
    RouterClosedError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.instrumentation.hooks import Hook, Hooks, OutboxAlert
from oms_events.instrumentation.logs import LoggingHook
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.engine import Engine
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.layering import are_empty
from oms_events.outbox.leases import LeaseKeeper
from oms_events.outbox.measure import Backlog
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import Lease
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
    open for as long as the processor runs. Any number of processors may share a table. Without `hooks` it logs
    through a `LoggingHook`. Leaving the context finishes what is in flight, for `stop_timeout` seconds at most,
    and gives the leases up at once. When it is killed, its buckets are taken over after a lease, and what it had
    in flight may be delivered again.
    """

    def __init__(
        self,
        outbox: Outbox,
        router: PlanPublisher,
        *,
        config: ProcessorConfig | None = None,
        hooks: Iterable[Hook] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        processor_id: str | None = None,
    ) -> None:
        self.config = ProcessorConfig() if config is None else config
        if not isinstance(outbox, Outbox):
            raise ConfigurationError(
                "OutboxProcessor", [f"outbox = {outbox!r} is no Outbox; make a DynamoDBOutbox"]
            )
        if not callable(getattr(router, "publish_planned", None)):
            raise ConfigurationError("OutboxProcessor", [f"router = {router!r} is no EventRouter; make one"])
        if not isinstance(self.config, ProcessorConfig):
            raise ConfigurationError("OutboxProcessor", [f"config = {config!r} is no ProcessorConfig; make one"])
        self.id = processor_id or uuid.uuid4().hex
        self._outbox = outbox
        self._clock = clock or SystemClock()
        # Jitter needs no secrecy, only spread.
        self._draw = (rng or random.Random()).random  # noqa: S311
        self._hooks = Hooks((LoggingHook(),) if hooks is None else hooks)
        self._router = router
        self._stopped = asyncio.Event()
        self._beginning: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._is_running = False
        self._joined = False
        self._make_parts()

    def _make_parts(self) -> None:
        store, clock, hooks, config = self._outbox.store, self._clock, self._hooks, self.config
        self._engine = engine = Engine(store, self._router, config, clock=clock, draw=self._draw, hooks=hooks)
        self._keeper = LeaseKeeper(
            store,
            member_id=self.id,
            config=config,
            clock=clock,
            hooks=hooks,
            on_taken=self._taken,
            on_wake=engine.wake,
            on_lost=engine.lose,
            release=engine.release,
            info=lambda: {"in_flight": engine.in_flight},
            draw=self._draw,
        )
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
        if not self._router.is_open:
            raise RouterClosedError("the router is not open: enter it before the processor, `async with router:`")
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
            self._unsubscribe = self._outbox.subscribe(self._engine.heard)
        self._engine.start()
        self._measuring.start()
        # Before the call: cancelled in it, what it took is given up all the same.
        self._joined = True
        await self._keeper.join()

    async def _insist(self) -> None:
        attempt = 0
        while not self._joined:
            attempt += 1
            await self._clock.sleep(_OPEN_BACKOFF.delay(attempt, self._draw))
            try:
                await self._begin()
            except OmsEventsError as error:
                _log.warning("the outbox cannot be opened yet, and nothing is relayed: %s", error)
                self._hooks(OutboxAlert("storage", f"the outbox cannot be opened: {error}"))

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
            await self._engine.close(timeout=max(0.0, deadline - self._clock.monotonic()))
            self._is_running = False
            self._stopped.set()
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
        lease. Raises `StorageError` when the table cannot be used.
        """
        # Before it begins: the first records are on their way while the last lease is being taken.
        engine = self._engine
        delivered, dead = engine.totals.delivered, engine.totals.dead_lettered
        async with self._running():
            if not self._keeper.seconds_left():
                raise StorageUnavailableError(
                    f"table {self._outbox.store.table} cannot be reached: try again later"
                )
            await engine.until_idle()
            totals = engine.totals
            return RelaySummary(totals.delivered - delivered, totals.dead_lettered - dead, engine.waiting)

    async def drain(self, timeout: float) -> bool:
        """Relays until the whole table has no pending record, for `timeout` seconds at most; says if it has none.

        Other processors may do their part. Raises what the store raises.
        """
        deadline = self._clock.monotonic() + timeout
        async with self._running():
            while True:
                layout = await self._outbox.store.read_layout()
                buckets = () if layout is None else layout.buckets
                if await are_empty(self._outbox.store, buckets):
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

    # ------------------------------------------------------------------ status

    def status(self) -> dict[str, Any]:
        """What this processor holds and does, as plain values, fit for JSON, without events or secrets."""
        return {
            "id": self.id,
            "running": self._is_running,
            "lease_seconds_left": round(self._keeper.seconds_left(), 3) if self._joined else 0.0,
            **self._engine.describe(),
            "backlog": self._backlog.latest(),
        }

    async def _measure(self) -> None:
        await self._backlog.measure(list(self._engine.relays), self._engine.in_flight)

    def _taken(self, lease: Lease) -> None:
        self._engine.hold(lease.bucket, low=lease.low, lease_left=self._keeper.seconds_left)
