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
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import Bucket, Coordination, Lease
from oms_events.outbox.schema import parse_partition
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import PlanPublisher

_RESERVE: Final = 2.0
"""Seconds of a function's time that are left for giving the leases up."""

OpenRelay = Callable[[], AbstractAsyncContextManager[tuple[Outbox, PlanPublisher]]]
Handler = Callable[[Mapping[str, Any], Any], dict[str, Any]]


def create_streams_handler(
    open_relay: OpenRelay, *, config: ProcessorConfig | None = None, hooks: Iterable[Hook] = ()
) -> Handler:
    """Makes a Lambda handler for the table's stream (with new images or keys) and for scheduled sweeps.

    `open_relay` gives the outbox and an open router; it is entered at the first invocation and stays open for the
    life of the execution environment. The handler raises what the storage raises, so that Lambda invokes it again;
    events that a platform does not take stay in the table for the next sweep. Its answer suits
    ReportBatchItemFailures.
    """
    runner: asyncio.Runner | None = None
    stack = AsyncExitStack()
    guest: GuestRelay | None = None

    async def open_once() -> GuestRelay:
        nonlocal guest
        if guest is None:
            outbox, router = await stack.enter_async_context(open_relay())
            await outbox.open()
            guest = GuestRelay(outbox.store, router, config=config, hooks=hooks)
        return guest

    async def handle(event: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        relay = await open_once()
        buckets = buckets_of(event)
        done = await (relay.sweep(seconds) if buckets is None else relay.relay(buckets, seconds))
        return {"batchItemFailures": [], "delivered": done}

    def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        nonlocal runner
        if runner is None:
            runner = asyncio.Runner()
        remaining = getattr(context, "get_remaining_time_in_millis", lambda: 60_000)() / 1000
        return runner.run(handle(event, max(0.0, remaining - _RESERVE)))

    return handler


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

    async def relay(self, buckets: Iterable[Bucket], seconds: float) -> int:
        """Relays these buckets for `seconds` at most; gives how many records were settled.

        A bucket that another holds is left to it: it is asked to look again.
        """
        deadline = self._clock.monotonic() + seconds
        coordination = await self._store.read_coordination()
        done = 0
        todo = [coordination.leases.get(bucket, Lease(bucket)) for bucket in sorted(buckets)]
        for lease in todo:
            done += await self._relay_one(lease, None, coordination, deadline)
        return done

    async def sweep(self, seconds: float) -> int:
        """Relays all that is left in the table, also in buckets whose owner shows no sign of life for a lease."""
        deadline = self._clock.monotonic() + seconds
        layout = await ensure_layout(self._store)
        before = await self._store.read_coordination()
        started = self._clock.monotonic()
        done = 0
        for bucket in layout.buckets:
            lease = before.leases.get(bucket, Lease(bucket))
            if lease.owner is None:
                done += await self._relay_one(lease, None, before, deadline)
        owned = [lease for lease in before.leases.values() if lease.owner is not None]
        lease_left = started + self._config.lease - self._clock.monotonic()
        if owned and self._clock.monotonic() + max(0.0, lease_left) < deadline:
            await self._clock.sleep(max(0.0, lease_left))
            after = await self._store.read_coordination()
            for lease in owned:
                if self._is_silent(lease, before, after):
                    done += await self._relay_one(lease, lease.owner, after, deadline)
        return done

    @staticmethod
    def _is_silent(lease: Lease, before: Coordination, after: Coordination) -> bool:
        now = after.leases.get(lease.bucket)
        owner = lease.owner or ""
        same_beat = before.members.get(owner) == after.members.get(owner) or owner not in after.members
        return now is not None and (now.owner, now.version) == (lease.owner, lease.version) and same_beat

    async def _relay_one(
        self, lease: Lease, silent: str | None, coordination: Coordination, deadline: float
    ) -> int:
        bucket, done = lease.bucket, 0
        if lease.owner is not None and silent is None:
            await self._store.wake(bucket)
            return 0
        member = None if silent is None else coordination.members.get(silent)
        while self._clock.monotonic() < deadline:
            started = self._clock.monotonic()
            taken = await self._store.take(lease, self._id, silent=member)
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
            member = None
            if lease.owner not in (None, self._id):
                return done
        if lease.owner == self._id:
            await self._store.release(lease, low=lease.low)
        return done

    async def _run(self, lease: Lease, until: float) -> tuple[int, int, bool]:
        engine = Engine(
            self._store, self._router, self._config, clock=self._clock, draw=self._draw, hooks=self._hooks
        )
        engine.start()
        left = max(0.0, until - self._clock.monotonic())
        engine.hold(lease.bucket, low=lease.low, lease_left=lambda: max(0.0, until - self._clock.monotonic()))
        idle = asyncio.create_task(engine.until_idle(), name="oms-events-outbox-guest")
        timer = asyncio.create_task(self._clock.sleep(left), name="oms-events-outbox-guest-timer")
        try:
            await asyncio.wait((idle, timer), return_when=asyncio.FIRST_COMPLETED)
            is_done = idle.done()
            low = await engine.release(lease.bucket)
        finally:
            await cancel_and_wait(idle, timer)
            await engine.close(timeout=self._config.stop_timeout)
        return low, engine.totals.delivered, is_done
