"""Services that append to the same aggregates; a table whose commits take time and whose answers get lost.

The reference is a plain dict: what each transaction put, written down where it was done. Each append has numbers
of its own in its events, so that whatever it was told can be compared with what is there.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from oms_events.errors import (
    CommitOutcomeUnknownError,
    ConcurrencyError,
    DuplicateCommandError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
    TransactionConflictError,
)
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.items import COMMAND_PREFIX, sequence_of
from oms_events.eventstore.memory import MemoryEventTable
from oms_events.eventstore.records import CommandMarker
from oms_events.eventstore.store import EventStore
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.store import Action
from oms_events.testing.event_store_contract.support import Changed, in_outbox, registry
from tests.outbox.model.virtual import HostClock, VirtualLoop

FAULTS = ("not sent", "conflict", "silence", "lost answer")
AGGREGATES = ("a", "b")
_NAME = "model"
_MANY = 100
_CONFIG = EventStoreConfig(table_name=_NAME, commit_timeout=3, conflict_attempts=3)
_WRITER = WriterConfig(buckets=2, commit_timeout=3, conflict_attempts=3)


@dataclass(slots=True)
class Attempt:
    """One call of `append`: the numbers of its events, and what came of it."""

    aggregate: str
    numbers: Sequence[int]
    command: str | None
    expected: int
    outcome: str = "running"
    begun_at: int = 0
    """How long a history anybody could see then."""
    told: dict[str, Any] = field(default_factory=dict)


class Transactions(MemoryOutboxStore):
    """All tables. Its commits take time, and meet the faults that are due."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._done: set[str] = set()

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        world = self._world
        await world.hop()
        fault = world.next_fault()
        if fault == "not sent":
            raise StorageUnavailableError("not sent")
        if fault == "conflict":
            raise TransactionConflictError(
                "conflict", reasons=["TransactionConflict", *["None"] * (len(actions) - 1)]
            )
        if fault == "silence":
            raise StorageOutcomeUnknownError("silence")
        # Whoever dies now, DynamoDB goes on.
        doing = world.loop.create_task(self._do(actions, token))
        world.doing.add(doing)
        doing.add_done_callback(world.doing.discard)
        await asyncio.shield(doing)
        if fault == "lost answer":
            raise StorageOutcomeUnknownError("lost answer")

    async def _do(self, actions: Sequence[Action], token: str) -> None:
        world = self._world
        keys = _keys(actions)
        if token in self._done and keys & world.busy:
            raise StorageOutcomeUnknownError("in progress")
        if keys & world.busy:
            world.counts["real conflict"] += 1
            raise TransactionConflictError(
                "conflict", reasons=["TransactionConflict", *["None"] * (len(actions) - 1)]
            )
        await super().commit(actions, token)
        if token in self._done:
            world.counts["token again"] += 1
            return
        self._done.add(token)
        world.write_down(actions)
        world.busy |= keys
        world.hidden |= (put := {_key(item) for _, item in _puts(actions)})
        await world.hop()
        world.busy -= keys
        world.hidden -= put


class Table(MemoryEventTable):
    """While a commit is under way, reads show some of its events and not the others."""

    def __init__(self, world: World, transactions: Transactions) -> None:
        super().__init__(_NAME, transactions)
        self._world = world

    async def read(self, aggregate_id: str, *, limit: int | None = None, **options: Any) -> ItemPage:
        world = self._world
        await world.hop()
        if world.faults and world.faults[0] == "not sent":
            world.next_fault()
            raise StorageUnavailableError("not sent")
        page = await super().read(aggregate_id, **options)
        shown = [item for item in page.items if _key(item) not in world.hidden or world.rng.random() < 0.5]
        world.counts["not shown"] += len(page.items) - len(shown)
        found = shown[:limit]
        # Seen once, an item stays.
        world.hidden -= {_key(item) for item in found}
        return ItemPage(found, None if len(found) == len(shown) else found[-1])


class World:
    def __init__(self, loop: VirtualLoop, seed: int, *, with_outbox: bool) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.faults: deque[str] = deque()
        self.history: defaultdict[str, list[int]] = defaultdict(list)
        self.markers: dict[tuple[str, str], CommandMarker] = {}
        self.busy: set[tuple[str, int]] = set()
        """Items of a transaction that is being done: others that want them are refused."""
        self.hidden: set[tuple[str, int]] = set()
        """Those that need not show yet."""
        self.attempts: list[Attempt] = []
        self.guessed: set[str] = set()
        """Aggregates of which expectations were guessed ahead: that breaks the order of the outbox."""
        self.running: set[asyncio.Task[None]] = set()
        self.doing: set[asyncio.Task[None]] = set()
        self._numbers = 0
        transactions = Transactions(self)
        table = Table(self, transactions)
        self.stores = [self._store(table, transactions if with_outbox else None) for _ in range(2)]

    def _store(self, table: Table, transactions: Transactions | None) -> EventStore:
        clock = HostClock(self.loop, wall_offset=self.rng.choice((0.0, 60.0)), gate=_at_once)
        rng = random.Random(self.rng.random())
        outbox = None if transactions is None else Outbox(transactions, _WRITER, clock=clock, rng=rng)
        return EventStore(table, _CONFIG, outbox=outbox, registry=registry, clock=clock, rng=rng)

    # ------------------------------------------------------------------ the table's side

    async def hop(self) -> None:
        await asyncio.sleep(self.rng.choice((0.0, 0.001, 0.01, 0.05)))

    def next_fault(self) -> str | None:
        fault = self.faults.popleft() if self.faults else None
        self.counts[f"fault: {fault}"] += 1
        return fault

    def write_down(self, actions: Iterable[Action]) -> None:
        """The reference."""
        for name, item in _puts(actions):
            if name.startswith(COMMAND_PREFIX):
                _, length, rest = name.split("#", 2)
                key = (rest[: int(length)], rest[int(length) + 1 :])
                if key in self.markers:
                    self.violations.append(f"{key} was carried out twice")
                first, events = int(item["FirstSequence"]["N"]), int(item["EventCount"]["N"])
                self.markers[key] = CommandMarker(first, events, item["Fingerprint"]["S"])
                continue
            self.history[name].append(orjson.loads(item["Data"]["S"])["number"])
            if sequence_of(item) != len(self.history[name]):
                self.violations.append(f"{name}@{sequence_of(item)} was put as number {len(self.history[name])}")

    # ------------------------------------------------------------------ the services' side

    def spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violations.append(f"not expected: {error!r}")

    def kill(self, number: int) -> None:
        """A process ends where it is."""
        running = sorted(self.running, key=lambda task: int(task.get_name().rpartition("-")[2]))
        if running:
            running[number % len(running)].cancel()
            self.counts["killed"] += 1

    async def carry_out(
        self, store: EventStore, aggregate: str, count: int, command: str | None, tries: int
    ) -> None:
        """What a service does: reads, decides, appends, and again when another was first or nobody answered."""
        for _ in range(tries):
            try:
                seen = await self.read(store, aggregate)
            except StorageUnavailableError:
                self.counts["unreadable"] += 1
                continue
            attempt = await self.append(store, aggregate, count, command, expected=seen)
            if attempt.outcome in ("done", "duplicate"):
                return

    async def append(
        self, store: EventStore, aggregate: str, count: int, command: str | None, *, expected: int
    ) -> Attempt:
        numbers = range(self._numbers, self._numbers + count)
        self._numbers += count
        attempt = Attempt(aggregate, numbers, command, expected, begun_at=self._shown(aggregate))
        self.attempts.append(attempt)
        events = [Changed(number=number) for number in numbers]
        try:
            found = await store.append(
                aggregate, events, expected_sequence=expected, command_id=command, fingerprint=f"{count}"
            )
        except ConcurrencyError as error:
            attempt.outcome, attempt.told["actual"] = "overtaken", error.actual
        except DuplicateCommandError as error:
            attempt.outcome = "duplicate"
            attempt.told["marker"] = CommandMarker(error.first_sequence, error.events, error.fingerprint)
        except CommitOutcomeUnknownError:
            attempt.outcome = "unknown"
        except StorageError as error:
            attempt.outcome = f"refused: {type(error).__name__}"
        except asyncio.CancelledError:
            attempt.outcome = "killed"
            raise
        else:
            attempt.outcome = "done"
            attempt.told["places"] = [event.sequence for event in found]
        self.counts[attempt.outcome] += 1
        self._check(attempt)
        return attempt

    async def read(self, store: EventStore, aggregate: str) -> int:
        """Reads a history, which has all that had been answered before, and no gap."""
        there = self._shown(aggregate)
        found = [event.data["number"] async for event in store.read(aggregate)]
        if found != self.history[aggregate][: len(found)] or len(found) < there:
            self.violations.append(f"{aggregate}: {found} was read of {self.history[aggregate]}, {there} shown")
        return len(found)

    def _shown(self, aggregate: str) -> int:
        hidden = [sequence for name, sequence in self.hidden if name == aggregate]
        return min(hidden, default=len(self.history[aggregate]) + 1) - 1

    # ------------------------------------------------------------------ what must be true

    def _check(self, attempt: Attempt) -> None:
        history = self.history[attempt.aggregate]
        there = [number for number in attempt.numbers if number in history]
        place = attempt.expected
        all_there = list(attempt.numbers) == history[place : place + len(attempt.numbers)]
        wrong: list[str] = []
        if attempt.outcome in ("done", "refused: TransactionConflictError") and place < attempt.begun_at:
            wrong.append("was not told that it was late")
        if attempt.outcome == "done":
            wanted = list(range(place + 1, place + len(attempt.numbers) + 1))
            if not all_there or attempt.told["places"] != wanted:
                wrong.append("is not where it was said to be")
        elif attempt.outcome in ("unknown", "killed"):
            if there and not all_there:
                wrong.append("is there in part")
        elif there:
            wrong.append("was refused, but is there")
        actual = attempt.told.get("actual")
        if actual is not None and not attempt.begun_at <= actual <= len(history):
            wrong.append(f"was told that the history is at {actual}")
        marker = self.markers.get((attempt.aggregate, attempt.command or ""))
        if attempt.outcome == "done" and attempt.command is not None:
            attempt.told["marker"] = CommandMarker(place + 1, len(attempt.numbers), f"{len(attempt.numbers)}")
        if "marker" in attempt.told and attempt.told["marker"] != marker:
            wrong.append(f"says {attempt.told['marker']}, but it is {marker}")
        self.violations += [f"{attempt} {problem}; {history}" for problem in wrong]

    async def end(self) -> None:
        """Everything goes well from now on; then what is stored is compared with the reference."""
        self.faults.clear()
        while tasks := self.running | self.doing:
            await asyncio.wait(tasks)
        for attempt in self.attempts:
            self._check(attempt)
        store = self.stores[0]
        for aggregate in AGGREGATES:
            await self._compare(store, aggregate)
        done = Counter((a.aggregate, a.command) for a in self.attempts if a.command and a.outcome == "done")
        self.violations += [f"{command} was carried out twice" for command, times in done.items() if times > 1]
        for (aggregate, command), marker in self.markers.items():
            if await store.marker(aggregate, command) != marker:
                self.violations.append(f"the marker of {command} on {aggregate} is not {marker}")
        # Also what was never answered can be asked for again.
        for attempt in [attempt for attempt in self.attempts if attempt.command is not None][-2:]:
            wanted = "duplicate" if (attempt.aggregate, attempt.command) in self.markers else "done"
            end = len(self.history[attempt.aggregate])
            again = await self.append(store, attempt.aggregate, 1, attempt.command, expected=end)
            if again.outcome != wanted:
                self.violations.append(f"{again}: should be {wanted}")

    async def _compare(self, store: EventStore, aggregate: str) -> None:
        history = self.history[aggregate]
        if await self.read(store, aggregate) != len(history):
            self.violations.append(f"{aggregate} is not whole")
        by_type = sorted(
            [event async for event in store.events_by_type("contract.Changed") if event.aggregate_id == aggregate],
            key=lambda event: event.sequence,
        )
        if [event.data["number"] for event in by_type] != history:
            self.violations.append(f"{aggregate} is not whole by type")
        if store.outbox is not None:
            delivered = [orjson.loads(event.payload)["number"] for event in await in_outbox(store, aggregate)]
            in_order = sorted if aggregate in self.guessed else list
            if in_order(delivered) != in_order(history):
                self.violations.append(f"{aggregate}: the outbox has {delivered}, the history {history}")
        if len(history) != len(set(history)):
            self.violations.append(f"{aggregate} has an event twice: {history}")


async def _at_once() -> None:
    pass


def _key(item: Any) -> tuple[str, int]:
    return item["AggregateId"]["S"], sequence_of(item)


def _keys(actions: Iterable[Action]) -> set[tuple[str, int]]:
    bodies = [body for action in actions for body in action.values() if body["TableName"] == _NAME]
    return {_key(body.get("Item") or body["Key"]) for body in bodies}


def _puts(actions: Iterable[Action]) -> list[tuple[str, Any]]:
    items = [action["Put"]["Item"] for action in actions if action.get("Put", {}).get("TableName") == _NAME]
    return [(item["AggregateId"]["S"], item) for item in items]
