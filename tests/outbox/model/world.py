"""Hosts with writers and processors, one table, two platforms; and what must be true of them at the end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from oms_events.errors import OmsEventsError
from oms_events.events import build_event, encode
from oms_events.outbox.config import ProcessorConfig, WriterConfig
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import (
    Bucket,
    DeadLetter,
    NewRecord,
    Partition,
    RecordState,
    StoredRecord,
    rest_of,
    sequence_key,
)
from oms_events.publishing import Plan
from tests.outbox.model.platforms import PLATFORMS, FakePlatform, FakeRouter
from tests.outbox.model.table import HostStore, Table
from tests.outbox.model.virtual import START, HostClock, VirtualLoop

_TIME = datetime(2026, 1, 1, tzinfo=UTC)
HORIZON = 40.0
WRITER = WriterConfig(commit_timeout=4.0, prepared_for=2.0, layout_ttl=2.0, conflict_attempts=4)
PROCESSOR = ProcessorConfig(
    lease=4.0, heartbeat=1.0, lease_margin=0.5, poll_floor=0.1, poll_ceiling=2.0, sweep_interval=5.0,
    gap_horizon=HORIZON, drain_time=12.0, publish_timeout=1.0, max_batch=3, max_calls=2, window=12, page_size=4,
    retry_initial=0.1, retry_maximum=1.0, dedup_window=30.0, measure_interval=1000.0, stop_timeout=3.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    """An event to be written."""

    key: str | None
    kind: str
    rejected_by: frozenset[str] = frozenset()


@dataclass(slots=True)
class Written:
    """An event that somebody tried to write, and what became of it."""

    id: str
    transaction: int
    place: int
    key: str | None
    kind: str
    json: bytes
    rejected_by: set[str]
    begun: int
    begun_at: float
    applied: int | None = None
    applied_at: float = 0.0
    plan: Plan | None = None
    dead: set[str] = field(default_factory=set)
    cured_of: set[str] = field(default_factory=set)
    requeued_behind: bool = False


class Host:
    """A process: a writer, and a processor when one was started. It can be paused, and killed."""

    def __init__(self, world: World, name: str, *, wall_offset: float) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.faults: deque[str] = deque()
        self.running = asyncio.Event()
        self.running.set()
        self.clock = HostClock(world.loop, wall_offset=wall_offset, gate=self.running.wait)
        self.router = FakeRouter(world, self)
        self.outbox = self._outbox()
        self.processor: OutboxProcessor | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    def _outbox(self) -> Outbox:
        store: Any = HostStore(self.world.table, self)
        return Outbox(store, WRITER, clock=self.clock, rng=random.Random(self.world.rng.random()))

    async def hop(self) -> None:
        """A way through the network: it takes time, and nothing gets through while the host is stopped."""
        await asyncio.sleep(self.world.some_time())
        await self.running.wait()

    def next_fault(self, call: str) -> str | None:
        if not self.faults or call in ("open", "close"):
            return None
        self.world.count(f"fault: {self.faults[0]}")
        return self.faults.popleft()

    def start_processor(self, *, config: ProcessorConfig) -> None:
        number = self.world.next_step()
        self.processor = OutboxProcessor(
            self.outbox, self.router, config=config, clock=self.clock,
            rng=random.Random(self.world.rng.random()), processor_id=f"{self.name}-{number}",
        )  # fmt: skip
        self.spawn(self.processor.run())

    def stop_processor(self) -> None:
        if self.processor is not None:
            self.spawn(self.processor.stop())
            self.processor = None

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.violations.append(f"{self.name}: {error!r}")


class World:
    """All that there is. Steps count what happened, so that "before" has a meaning."""

    def __init__(self, loop: VirtualLoop, seed: int, config: ProcessorConfig) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self.config = config
        self.steps = 0
        self.rules = 0
        self.pace = 1.0
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.history: dict[str, list[str]] = {}
        self.written: dict[str, Written] = {}
        self.transactions = 0
        self.table = Table(self)
        self.platforms = {name: FakePlatform(name) for name in PLATFORMS}
        self.hosts: list[Host] = []

    # ------------------------------------------------------------------ small things

    def next_step(self) -> int:
        self.steps += 1
        return self.steps

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def note(self, event_id: str, text: str) -> None:
        self.history.setdefault(event_id, []).append(f"{self.loop.now - START:8.3f} step {self.steps}: {text}")

    def some_time(self) -> float:
        """Seconds that a way takes: mostly next to nothing, sometimes long."""
        draw = self.rng.random()
        if draw < 0.5:
            return 0.0
        return self.pace * (0.3 * self.rng.random() if draw > 0.9 else 0.01 * draw)

    def applied(self, event_id: str, step: int) -> None:
        written = self.written[event_id]
        if written.applied is not None:
            self.violations.append(f"{event_id} was committed twice")
        written.applied, written.applied_at = step, self.loop.now

    # ------------------------------------------------------------------ what happens

    def add_host(self, *, wall_offset: float = 0.0) -> Host:
        host = Host(self, f"host{len(self.hosts)}", wall_offset=wall_offset)
        self.hosts.append(host)
        return host

    def write(self, host: Host, specs: Sequence[Spec], *, refused: bool = False) -> None:
        host.spawn(self._write(host, specs, refused=refused))

    async def _write(self, host: Host, specs: Sequence[Spec], *, refused: bool) -> None:
        self.transactions += 1
        number = self.transactions
        events = []
        for place, spec in enumerate(specs):
            name = f"t{number}.{place}"
            keys = {} if spec.key is None else {"partitionkey": spec.key}
            event = build_event(
                f"com.foundry.oms.model.{spec.kind}", "/model", {"n": number}, id=name, time=_TIME, **keys
            )
            events.append(event)
            self.written[name] = Written(
                name, number, place, spec.key, spec.kind, encode(event).json, set(spec.rejected_by), 0, 0.0
            )
        try:
            async with host.outbox.transaction() as transaction:
                transaction.put("orders", {"pk": f"t{number}", **({"refused": True} if refused else {})})
                for event in events:
                    transaction.add(event)
                step = self.next_step()
                for place in range(len(specs)):
                    written = self.written[f"t{number}.{place}"]
                    written.begun, written.begun_at = step, self.loop.now
            self.count("writes answered")
        except OmsEventsError as error:
            self.count(f"writes ended by {type(error).__name__}")

    def pause(self, host: Host) -> None:
        host.running.clear()

    def resume(self, host: Host) -> None:
        if not host.is_dead:
            host.running.set()

    def kill(self, host: Host) -> None:
        """From now on nothing of this host reaches anybody; what was under way may have been done."""
        host.is_dead = True
        host.running.clear()

    async def requeue(self, letter: DeadLetter, *, cure: bool) -> None:
        """As an operator does it: a held record is freed, another one becomes a new record."""
        if letter.event is None:
            return
        written = self.written[letter.event.id]
        if cure:
            written.cured_of |= written.rejected_by
            written.rejected_by.clear()
        if letter.held:
            done = await self.table.requeue(letter, None)
        elif letter.plan is None:
            return
        else:
            written.requeued_behind = True
            partition = Partition(letter.origin.bucket, letter.origin.keyed)
            sk = letter.origin_sk
            if partition.keyed:
                layout = await self.table.read_layout()
                if layout is None or not any(
                    epoch.is_open and epoch.number == partition.bucket.epoch for epoch in layout.epochs
                ):
                    return
                sk = sequence_key(await self.table.reserve(Bucket(*partition.bucket), 1))
            else:
                sk = f"{sk[:14]}{self.rng.getrandbits(64):016x}"
            state = RecordState(rest_of(letter.plan, letter.platforms))
            record = NewRecord(partition, sk, letter.key, letter.event, letter.added, state, letter.history)
            self.table.note_requeued(letter, partition, sk)
            done = await self.table.requeue(letter, record)
        self.count("requeued" if done else "requeued too late")

    async def replan(self, record: StoredRecord) -> None:
        """As an operator does it: the plan is decided anew by the rules of now."""
        if await self.table.forget_plan(record.partition, record.sk, generation=record.state.generation):
            self.count("replanned")
            if record.event is not None:
                self.written[record.event.id].plan = None
                self.note(record.event.id, "replanned")

    # ------------------------------------------------------------------ the end

    async def heal(self) -> None:
        """Everything works again; the paused wake up only after others have done their work."""
        for platform in self.platforms.values():
            platform.mode = "up"
        for host in self.hosts:
            host.faults.clear()
        if not any(host.processor is not None and host.running.is_set() for host in self.hosts):
            self.add_host().start_processor(config=self.config)
        await self._drain(required=False)
        for host in self.hosts:
            self.resume(host)
        await asyncio.sleep(PROCESSOR.drain_time + PROCESSOR.lease)
        await self._drain(required=True)

    async def _drain(self, *, required: bool) -> None:
        until = self.loop.now + 120.0
        while self.loop.now < until:
            await asyncio.sleep(1.0)
            for letter in self.table.letters:
                if letter.held:
                    await self._decide(letter)
            if not self.table.pending:
                return
        if required:
            left = [
                (partition_text(record.partition), record.sk, record.event and record.event.id, record.state)
                for record in self.table.pending
            ]
            doing = [(host.name, host.processor.status()) for host in self.hosts if host.processor is not None]
            self.violations.append(
                f"not drained: {left[:3]} and more, {await self.table.read_layout()}, {doing}, "
                f"{await self.table.read_coordination()}"
            )

    async def _decide(self, letter: DeadLetter) -> None:
        if letter.event is not None and self.rng.random() < 0.5:
            await self.requeue(letter, cure=True)
        elif await self.table.purge(letter):
            self.count("purged")


def partition_text(partition: Partition) -> str:
    (epoch, number), keyed = partition
    return f"{'keyed' if keyed else 'unkeyed'} {epoch}/{number}"
