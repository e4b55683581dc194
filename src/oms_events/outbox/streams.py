"""The relay as an AWS Lambda function on the table's stream, for those who outgrow embedded processors.

    def open_relay():                     # an async context manager of (outbox, router)
        ...

    handler = create_streams_handler(open_relay)

An INSERT in the stream is a wake-up: the function takes the lease of the record's bucket, relays what is there,
and gives the lease up. Where a processor holds the bucket, that one is asked to look again, so that both may run
together. A scheduled invocation, about each minute, relays what is left: retries, orphans, dead owners' buckets.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

from oms_events._aio import Clock, SystemClock, cancel_and_wait
from oms_events.instrumentation.hooks import Hook, Hooks
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.engine import Engine
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.layering import EpochGate
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import Bucket, Coordination, Lease, Member
from oms_events.outbox.schema import parse_partition
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import PlanPublisher

_DEFAULT_MS: Final = 60_000
_RESERVE: Final = 3.0
"""Seconds of a function's time that are left for giving the leases up."""

OpenRelay = Callable[[], AbstractAsyncContextManager[tuple[Outbox, PlanPublisher]]]


class StreamsHandler:
    """A Lambda handler for the table's stream, and for scheduled sweeps; made by `create_streams_handler`.

    Called with an event and Lambda's context, one call at a time. `close` is for tests and for other hosts: Lambda
    ends an execution environment without a word, and what was in flight then is relayed by the next.
    """

    def __init__(self, open_relay: OpenRelay, *, config: ProcessorConfig | None, hooks: Iterable[Hook]) -> None:
        self._open_relay = open_relay
        self._config = config
        self._hooks = tuple(hooks)
        self._runner: asyncio.Runner | None = None
        self._stack = AsyncExitStack()
        self._guest: GuestRelay | None = None

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        remaining = getattr(context, "get_remaining_time_in_millis", lambda: _DEFAULT_MS)() / 1000
        return self._runner.run(self._handle(event, max(0.0, remaining - _RESERVE)))

    def close(self) -> None:
        """Closes the outbox and the router, and the loop that they lived on. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._stack.aclose())
            self._guest = None

    async def _handle(self, event: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        if self._guest is None:
            outbox, router = await self._stack.enter_async_context(self._open_relay())
            await outbox.open()
            self._guest = GuestRelay(outbox.store, router, config=self._config, hooks=self._hooks)
        buckets = buckets_of(event)
        guest = self._guest
        done = await (guest.sweep(seconds) if buckets is None else guest.relay(buckets, seconds))
        return {"batchItemFailures": [], "delivered": done}


def create_streams_handler(
    open_relay: OpenRelay, *, config: ProcessorConfig | None = None, hooks: Iterable[Hook] = ()
) -> StreamsHandler:
    """Makes a Lambda handler for the table's stream (with new images or keys) and for scheduled sweeps.

    `open_relay` gives the outbox and an open router; it is entered at the first invocation and stays open for the
    life of the execution environment. The handler raises what the storage raises, so that Lambda invokes it again;
    events that a platform does not take stay in the table for the next sweep. Its answer suits
    ReportBatchItemFailures.
    """
    return StreamsHandler(open_relay, config=config, hooks=hooks)


def buckets_of(event: Mapping[str, Any]) -> set[Bucket] | None:
    """The buckets whose records a stream batch inserted; None for an event that is no stream batch: a sweep."""
    records = event.get("Records")
    if not isinstance(records, list):
        return None
    found = set()
    for record in records:
        if record.get("eventName") != "INSERT":
            continue
        key = record.get("dynamodb", {}).get("Keys", {}).get("pk", {}).get("S", "")
        # Counters, leases and dead letters are in the same stream.
        with contextlib.suppress(ValueError):
            found.add(parse_partition(key).bucket)
    return found


class GuestRelay:
    """Relays buckets that are free now, for a short time, without joining the processors that share them."""

    def __init__(
        self,
        store: OutboxStore,
        router: PlanPublisher,
        *,
        config: ProcessorConfig | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._router = router
        self._config = config or ProcessorConfig()
        self._hooks = Hooks(hooks)
        self._clock = clock or SystemClock()
        self._draw = (rng or random.Random()).random  # noqa: S311
        # Not a member: processors that see it wait for it to finish, or for a whole lease.
        self._id = f"guest-{uuid.uuid4().hex}"
        # Both go on from one invocation to the next.
        self._epochs = EpochGate(store, drain_time=self._config.drain_time, clock=self._clock)
        self._seen: dict[Bucket, tuple[object, float]] = {}

    async def relay(self, buckets: Iterable[Bucket], seconds: float) -> int:
        """Relays these buckets for `seconds` at most; gives how many records were delivered.

        A bucket that another holds is left to it: it is asked to look again.
        """
        deadline = self._clock.monotonic() + seconds
        coordination = await self._store.read_coordination()
        done = 0
        for bucket in sorted(buckets):
            lease = coordination.leases.get(bucket, Lease(bucket))
            if lease.owner not in (None, self._id):
                await self._store.wake(bucket)
                # It may have been given up just before it was woken: then nobody would look.
                lease = (await self._store.read_coordination()).leases.get(bucket, lease)
            if lease.owner in (None, self._id):
                done += await self._relay_one(lease, None, deadline)
        return done

    async def sweep(self, seconds: float) -> int:
        """Relays all that is left in the table, also in buckets whose owner shows no sign of life for a lease.

        What it has seen of owners counts for the next sweep: the same object need not wait for a lease in each.
        """
        deadline = self._clock.monotonic() + seconds
        layout = await ensure_layout(self._store)
        coordination = await self._store.read_coordination()
        orphans = self._observe(coordination)
        done = 0
        for bucket in layout.buckets:
            lease = coordination.leases.get(bucket, Lease(bucket))
            if lease.owner in (None, self._id):
                done += await self._relay_one(lease, None, deadline)
        if self._seen and not orphans:
            wait = self._config.lease - (self._clock.monotonic() - min(since for _, since in self._seen.values()))
            if self._clock.monotonic() + wait < deadline:
                await self._clock.sleep(max(0.0, wait))
                coordination = await self._store.read_coordination()
                orphans = self._observe(coordination)
        for lease in orphans:
            silent = coordination.members.get(lease.owner or "")
            done += await self._relay_one(lease, silent, deadline)
        return done

    def _observe(self, coordination: Coordination) -> list[Lease]:
        """Notes since when each owner's lease and heartbeat are as they are; gives those unchanged for a lease."""
        now, seen = self._clock.monotonic(), {}
        for bucket, lease in coordination.leases.items():
            if lease.owner not in (None, self._id):
                life = (lease.owner, lease.version, coordination.members.get(lease.owner or ""))
                before = self._seen.get(bucket)
                seen[bucket] = before if before is not None and before[0] == life else (life, now)
        self._seen = seen
        return [coordination.leases[b] for b, (_, since) in seen.items() if now - since >= self._config.lease]

    async def _relay_one(self, lease: Lease, silent: Member | None, deadline: float) -> int:
        bucket, done, low = lease.bucket, 0, lease.low
        while self._clock.monotonic() < deadline:
            started = self._clock.monotonic()
            taken = await self._store.take(lease, self._id, silent=silent)
            if taken is None:
                # Whoever has it now was first, and may have looked before our record was there.
                await self._store.wake(bucket)
                return done
            until = min(deadline, started + self._config.lease - self._config.lease_margin)
            low, found, is_done = await self._run(taken, until)
            done += found
            if await self._store.release(taken, low=low) and is_done:
                return done
            # Asked to look again meanwhile, or out of time for one lease: take it anew, which starts another.
            lease = (await self._store.read_coordination()).leases.get(bucket, Lease(bucket))
            silent = None
            if lease.owner not in (None, self._id):
                return done
        if lease.owner == self._id:
            await self._store.release(lease, low=low)
        return done

    async def _run(self, lease: Lease, until: float) -> tuple[int, int, bool]:
        engine = Engine(
            self._store,
            self._router,
            self._config,
            clock=self._clock,
            draw=self._draw,
            hooks=self._hooks,
            epochs=self._epochs,
        )

        def left() -> float:
            return max(0.0, until - self._clock.monotonic())

        engine.start()
        engine.hold(lease.bucket, low=lease.low, lease_left=left)
        idle = asyncio.create_task(engine.until_idle(), name="oms-events-outbox-guest")
        timer = asyncio.create_task(self._clock.sleep(left()), name="oms-events-outbox-guest-timer")
        patience = min(self._config.stop_timeout, _RESERVE / 3)
        try:
            await asyncio.wait((idle, timer), return_when=asyncio.FIRST_COMPLETED)
            is_done = idle.done()
            if is_done:
                idle.result()
            low = await engine.release(lease.bucket, timeout=patience)
        finally:
            await cancel_and_wait(idle, timer)
            await engine.close(timeout=patience / 2)
        return low, engine.totals.delivered, is_done
