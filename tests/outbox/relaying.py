"""What the tests of the relay share: platforms that answer as told, and ways to put records where a test wants."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from oms_events import EventRouter, RouterConfig, RoutingRule, build_event, encode
from oms_events.errors import EventRejectedError, PublishError, StorageUnavailableError, TransientError
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import Detail
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import MemoryOutbox, Outbox
from oms_events.outbox.processor import OutboxProcessor
from oms_events.outbox.records import Bucket, NewRecord, Partition, StoredRecord, partition_key, sequence_key
from oms_events.outbox.relay import PartitionRelay
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import PublisherTraits, Receipt
from oms_events.resilience.breaker import BreakerConfig
from oms_events.routing.config import DestinationConfig

Answer = Receipt | PublishError
BUCKET = Bucket(1, 0)
KEYED = Partition(BUCKET, keyed=True)
UNKEYED = Partition(BUCKET, keyed=False)


class Told:
    """A platform that answers each event as it is told, and remembers what it was asked and what it took."""

    traits = PublisherTraits(max_batch=10)

    def __init__(self, answer: Callable[[EncodedEvent], Answer] = lambda _: Receipt()) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []
        self.accepted: list[str] = []
        self.asked = asyncio.Condition()
        self.free = asyncio.Event()
        self.free.set()

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def check(self) -> None:
        return

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Answer]:
        self.calls.append([event.id for event in events])
        async with self.asked:
            self.asked.notify_all()
        await self.free.wait()
        answers = [self.answer(event) for event in events]
        for event, answer in zip(events, answers, strict=True):
            if isinstance(answer, Receipt):
                self.accepted.append(event.id)
        async with self.asked:
            self.asked.notify_all()
        return answers

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.asked:
            await self.asked.wait_for(condition)


class Script:
    """Answers the named events with these errors first, one each time; all else is taken."""

    def __init__(self, **errors: Sequence[PublishError]) -> None:
        self._errors = {name: list(given) for name, given in errors.items()}

    def __call__(self, event: EncodedEvent) -> Answer:
        waiting = self._errors.get(event.id)
        return waiting.pop(0) if waiting else Receipt()


def refused() -> PublishError:
    return EventRejectedError("too large", code="TooLarge")


def failed() -> PublishError:
    return TransientError("try again")


def quick(**fields: Any) -> ProcessorConfig:
    """A configuration whose pauses are short."""
    given = {
        "lease": 1.0, "heartbeat": 0.1, "lease_margin": 0.1, "poll_floor": 0.01, "poll_ceiling": 0.05,
        "sweep_interval": 0.2, "retry_initial": 0.01, "retry_maximum": 0.05, "drain_time": 0.0,
        "publish_timeout": 0.5, **fields,
    }  # fmt: skip
    return ProcessorConfig(**given)


def rule(*platforms: str, strategy: str = "all", name: str = "rule") -> RoutingRule:
    return RoutingRule(name=name, event_type_pattern=".*", platforms=list(platforms), strategy=strategy)


PATIENT = RouterConfig(
    destination=DestinationConfig(breaker=BreakerConfig(failure_threshold=1000, failure_rate=None))
)
"""A router whose breakers stay closed."""


@asynccontextmanager
async def routing(
    rules: Iterable[RoutingRule], config: RouterConfig = PATIENT, **platforms: Told
) -> AsyncIterator[EventRouter]:
    async with EventRouter(platforms, rules, config=config) as router:
        yield router


def event(name: str, *, key: str | None = "k", **attributes: Any) -> CloudEvent:
    return build_event("order.changed", "/orders", {"name": name}, id=name, partitionkey=key, **attributes)


def record(
    name: str, number: int, *, key: str | None = "k", partition: Partition = KEYED, added: int = 0
) -> NewRecord:
    """A record for a place of the test's choice."""
    sk = sequence_key(number) if partition.keyed else f"{added:013d}-{number:016x}"
    return NewRecord(partition, sk, key, encode(event(name, key=key)), added)


async def put(store: OutboxStore, *records: NewRecord) -> None:
    """Commits records, whatever was reserved."""
    token = "-".join(f"{partition_key(made.partition)}{made.sk}" for made in records)
    await store.commit([store.put_action(made) for made in records], token)


async def pending(store: OutboxStore, partition: Partition = KEYED) -> list[StoredRecord]:
    return list((await store.read(partition)).records)


async def outbox_on(store: OutboxStore, buckets: int = 1) -> Outbox:
    await ensure_layout(store, buckets)
    return Outbox(store, MemoryOutbox().config)


def relay_of(processor: OutboxProcessor) -> PartitionRelay:
    """The relay of the keyed records of the first bucket that it holds."""
    return next(iter(processor._engine.relays))


async def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Waits for what no part tells."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class Slowest(random.Random):
    """Draws so that every pause is its longest."""

    def random(self) -> float:
        return 0.999


class Details(list[Detail]):
    """A hook that remembers."""

    def __call__(self, detail: Detail) -> None:
        self.append(detail)

    def of(self, kind: type) -> list[Any]:
        return [detail for detail in self if isinstance(detail, kind)]


class TornReads(MemoryOutboxStore):
    """A store whose next queries do not show some records yet, as a read-committed query may; probes do."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[str] = set()

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Any:
        page = await super().read(partition, after=after, limit=limit)
        shown = [found for found in page.records if found.sk not in self.hidden]
        return page._replace(records=shown)


class Faulty(MemoryOutboxStore):
    """A store whose calls a test holds or lets fail: `before` has what runs before the calls of a name.

    `calls` counts them; `keyed_reads` counts those of keyed partitions; `down` fails them all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Callable[..., Awaitable[None]]] = {}
        self.calls: Counter[str] = Counter()
        self.keyed_reads = 0
        self.down = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not iscoroutinefunction(found) or name == "looked":
            return found

        async def call(*args: Any, **named: Any) -> Any:
            self.calls[name] += 1
            if self.down:
                raise StorageUnavailableError("down")
            if name in self.before:
                await self.before[name](*args, **named)
            answer = await found(*args, **named)
            self.keyed_reads += name == "read" and args[0].keyed
            return answer

        return call

    async def looked(self, times: int = 3) -> None:
        """Waits until keyed records were read so often again: what could have happened then has happened."""
        enough = self.keyed_reads + times
        await until(lambda: self.keyed_reads >= enough)


class Fails:
    """Fails the first calls, or all."""

    def __init__(self, times: int | None = None, error: Exception | None = None) -> None:
        self._left = times
        self._error = error or StorageUnavailableError("throttled")

    async def __call__(self, *_: Any, **__: Any) -> None:
        if self._left is None:
            raise self._error
        if self._left:
            self._left -= 1
            raise self._error


class Holds:
    """Holds the calls until the test lets them `go`; `reached` once the first has come."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, *_: Any, **__: Any) -> None:
        self.reached.set()
        await self.go.wait()
