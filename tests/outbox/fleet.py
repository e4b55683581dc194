"""Processors that only keep leases, each on a clock of its own, in one process on one memory store."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from oms_events._aio import cancel_and_wait
from oms_events.errors import StorageOutcomeUnknownError, StorageUnavailableError
from oms_events.instrumentation.hooks import Detail, Hooks, LeaseChanged, OutboxAlert
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.leases import LeaseKeeper
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.records import Bucket, Epoch, Layout, Lease
from oms_events.outbox.store import OutboxStore
from oms_events.testing import ManualClock

LEASE, HEARTBEAT = 15.0, 3.0
STEP = 0.25


async def settle(turns: int = 150) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


class JumpingClock(ManualClock):
    """A clock that may also jump, as it does for a process that was stopped."""

    async def jump(self, seconds: float) -> None:
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, waiter = heapq.heappop(self._sleepers)
            if not waiter.done():
                waiter.set_result(None)
        await settle()


class Line:
    """One processor's line to the shared store: it counts calls and refusals, and can be cut or slow."""

    def __init__(self, store: MemoryOutboxStore, clock: ManualClock) -> None:
        self._store = store
        self._clock = clock
        self.table = store.table
        self.calls: Counter[str] = Counter()
        self.refused: list[str] = []
        self.down = False
        self.fails: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.loses_answers_of: set[str] = set()
        self.late_requests: dict[str, asyncio.Event] = {}
        self.late_answers: dict[str, asyncio.Event] = {}

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            if self.down or name in self.fails:
                raise StorageUnavailableError("no connection")
            await self._clock.sleep(self.seconds.get(name, 0))
            if (event := self.late_requests.get(name)) is not None:
                await event.wait()
            answer = await method(*args, **options)
            if name in ("take", "release", "forget") and not answer:
                self.refused.append(name)
            if (event := self.late_answers.get(name)) is not None:
                await event.wait()
            if name in self.loses_answers_of:
                raise StorageOutcomeUnknownError("no answer")
            return answer

        return call


class Processor:
    """A lease keeper, and what its relays would be doing."""

    def __init__(self, fleet: Fleet, name: str, start: datetime) -> None:
        self.name = name
        self.clock = JumpingClock(start)
        self.line = Line(fleet.store, self.clock)
        self.relaying: set[Bucket] = set()
        self.looks: Counter[Bucket] = Counter()
        self.details: list[Detail] = []
        self.in_flight: Callable[[Bucket], Awaitable[None]] | None = None
        self.is_running = True
        self.keeper = LeaseKeeper(
            cast("OutboxStore", self.line),
            member_id=name,
            config=ProcessorConfig(lease=LEASE, heartbeat=HEARTBEAT),
            clock=self.clock,
            hooks=Hooks([self.details.append]),
            on_taken=self._taken,
            on_wake=self._woken,
            on_lost=self._lost,
            release=self._release,
            info=lambda: {"pending": 1},
        )

    def _taken(self, lease: Lease) -> None:
        assert lease.owner == self.name
        assert lease.bucket not in self.relaying
        self.relaying.add(lease.bucket)
        self.looks[lease.bucket] += 1

    def _woken(self, bucket: Bucket) -> None:
        assert bucket in self.relaying
        self.looks[bucket] += 1

    def _lost(self, bucket: Bucket) -> None:
        self.relaying.remove(bucket)

    async def _release(self, bucket: Bucket) -> int:
        self.relaying.discard(bucket)
        if self.in_flight is not None:
            await self.in_flight(bucket)
        return 100 + bucket.number

    @property
    def publishing(self) -> set[Bucket]:
        """The buckets whose relay runs and may publish now."""
        return {bucket for bucket in self.relaying if self.keeper.holds(bucket)}

    @property
    def changes(self) -> Counter[str]:
        return Counter(detail.change for detail in self.details if isinstance(detail, LeaseChanged))

    @property
    def alerts(self) -> list[str]:
        return [detail.kind for detail in self.details if isinstance(detail, OutboxAlert)]

    async def die(self) -> None:
        """Ends everything without a word, as SIGKILL does."""
        self.is_running = False
        self.relaying.clear()
        await cancel_and_wait(*self.keeper._tasks, *self.keeper._giving.values())


class Fleet:
    """Processors that share the buckets of one table; `advance` moves the time of all that run."""

    def __init__(self, buckets: int = 8) -> None:
        self.store = MemoryOutboxStore()
        self.buckets = buckets
        self.processors: list[Processor] = []
        self.publishes_twice = False
        """Whether two processors ever held one bucket at once."""

    async def join(self, name: str, *, wall: timedelta = timedelta(), monotonic: float = 0.0) -> Processor:
        processor = self.add(name, wall=wall)
        await processor.clock.jump(monotonic)
        await processor.keeper.join()
        await settle()
        return processor

    def add(self, name: str, *, wall: timedelta = timedelta()) -> Processor:
        processor = Processor(self, name, datetime(2026, 1, 1, tzinfo=UTC) + wall)
        self.processors.append(processor)
        return processor

    async def open(self) -> None:
        await self.store.write_layout(Layout(1, (Epoch(1, self.buckets, is_open=True),)))

    async def close(self) -> None:
        for processor in self.processors:
            await processor.die()

    async def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            for processor in self.processors:
                if processor.is_running:
                    await processor.clock.advance(STEP)
            await settle()
            self.look()

    async def until(self, condition: Callable[[], bool], *, within: float) -> float:
        """Advances until the condition holds; gives the seconds that took."""
        passed = 0.0
        while not condition():
            assert passed < within, f"not within {within} s"
            await self.advance(STEP)
            passed += STEP
        return passed

    def look(self) -> None:
        holders = Counter(
            bucket for processor in self.processors if processor.is_running for bucket in processor.publishing
        )
        self.publishes_twice |= any(count > 1 for count in holders.values())

    def sizes(self) -> list[int]:
        """How many buckets each running processor publishes from."""
        return [len(processor.publishing) for processor in self.processors if processor.is_running]

    async def owners(self) -> dict[Bucket, str | None]:
        return {bucket: lease.owner for bucket, lease in (await self.store.read_coordination()).leases.items()}
