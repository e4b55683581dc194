"""Stores with some history, and routers over platforms that may fail, for the tests of replay."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from oms_events._aio import Clock
from oms_events.errors import PublishError
from oms_events.events import EncodedEvent
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.replay.checkpoints import MemoryReplayCheckpoint, ReplayState
from oms_events.eventstore.replay.config import ReplayConfig
from oms_events.eventstore.store import EventStore
from oms_events.publishers.memory import MemoryPublisher
from oms_events.publishing import Publisher, PublisherTraits, Receipt
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.breaker import BreakerConfig
from oms_events.routing.config import DestinationConfig, RouterConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rules import RoutingRule
from oms_events.testing import FlakyPublisher
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit

CREATED, DEPOSIT, CLOSED = "AccountCreated", "TransactionProcessed", "AccountClosed"
EVERYTHING = RoutingRule(event_type_pattern=".*", platforms=["nats"], name="everything")
QUICK = RetryConfig(max_attempts=50, initial=0.0001, maximum=0.0002)
# Its own breaker would make the replay wait, which other tests are about.
PATIENT = DestinationConfig(
    breaker=BreakerConfig(failure_threshold=100_000, failure_rate=None, recovery_time=0.001), check_interval=1000
)


def quick(**fields: Any) -> ReplayConfig:
    """A configuration that wastes no time between attempts."""
    return ReplayConfig(**{"retry": QUICK, "save_interval": 0.001, **fields})


class WatchedPublisher:
    """Stores all it is given, also twice; sees whether two events of an aggregate are ever under way at once."""

    def __init__(self, inner: Publisher | None = None) -> None:
        self.memory = MemoryPublisher(traits=PublisherTraits())
        self._inner = inner or self.memory
        self._under_way: Counter[str] = Counter()
        self.overtaken: list[str] = []
        self.most_at_once = 0
        self.sent = 0

    @property
    def traits(self) -> PublisherTraits:
        return PublisherTraits(max_batch=1000)

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def check(self) -> None:
        await self._inner.check()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        keys = [str(event.attributes["subject"]) for event in events]
        self._under_way.update(keys)
        self.overtaken += [key for key, count in self._under_way.items() if count > 1]
        self.most_at_once = max(self.most_at_once, len(events))
        self.sent += len(events)
        try:
            await asyncio.sleep(0)
            return await self._inner.publish(events, timeout=timeout)
        finally:
            self._under_way.subtract(keys)


class EveryCheckpoint(MemoryReplayCheckpoint):
    """A checkpoint that remembers all it ever was, as a file would show it to those who come after a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[ReplayState] = []

    async def save(self, state: ReplayState) -> None:
        # Through JSON and back, as in a file.
        self.all.append(ReplayState.model_validate_json(state.model_dump_json()))
        await super().save(self.all[-1])


async def fill(store: EventStore, aggregates: Mapping[str, int] | Iterable[str], *, events: int = 4) -> None:
    """Gives each aggregate so many events: it is created, gets deposits, and is closed."""
    counts = aggregates if isinstance(aggregates, Mapping) else dict.fromkeys(aggregates, events)
    for name, count in counts.items():
        middle = [deposit(number) for number in range(1, count - 1)]
        history = [AccountCreated(customer_id=name), *middle, AccountClosed()]
        for start in range(0, count, 100):
            await store.append(name, history[:count][start : start + 100], expected_sequence=start)


def router_of(
    publishers: Mapping[str, Publisher] | Publisher,
    rules: Iterable[RoutingRule] = (EVERYTHING,),
    *,
    clock: Clock | None = None,
    **config: Any,
) -> EventRouter:
    named = publishers if isinstance(publishers, Mapping) else {"nats": publishers}
    router_config = RouterConfig(**{"destination": PATIENT, **config})
    return EventRouter(named, rules, config=router_config, clock=clock, rng=random.Random(1))


def flaky_router() -> tuple[EventRouter, FlakyPublisher, MemoryPublisher]:
    """A router over one platform, what makes it fail, and what it has stored."""
    memory = MemoryPublisher()
    flaky = FlakyPublisher(memory)
    return router_of(flaky), flaky, memory


def positions(events: Iterable[CloudEvent]) -> list[str]:
    """Where events are in the history."""
    return [f"{event.get_subject()}@{int(event.get_extension('sequence'))}" for event in events]


def first_deliveries(events: Iterable[CloudEvent]) -> dict[str, list[int]]:
    """The sequences of each aggregate in the order in which they were first there."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        sequence = int(event.get_extension("sequence"))
        if sequence not in found[str(event.get_subject())]:
            found[str(event.get_subject())].append(sequence)
    return dict(found)


async def until(holds: Callable[[], bool]) -> None:
    """Lets others run until it holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait for
            await asyncio.sleep(0)


class TextOrderTable:
    """An event table whose scan gives an aggregate's items in the order of their numbers as text."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    async def scan(
        self, *, start: Any = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        page = await self._table.scan(segment=segment, segments=segments, limit=10**6)
        names = list(dict.fromkeys(item["AggregateId"]["S"] for item in page.items))
        items = sorted(
            page.items, key=lambda item: (names.index(item["AggregateId"]["S"]), item["EventSequence"]["N"])
        )
        keys = [{name: item[name] for name in ("AggregateId", "EventSequence")} for item in items]
        first = 0 if start is None else keys.index(start) + 1
        last = first + (limit or len(items))
        return ItemPage(items[first:last], keys[last - 1] if last < len(items) else None)
