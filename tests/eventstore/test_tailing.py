"""Following a store by looking again: one history, or the events of some types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError, InvalidEventError
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.inspection import tailing as tailing_module
from oms_events.eventstore.inspection.tailing import tail
from oms_events.eventstore.items import sequence_of
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.store import EventStore
from oms_events.testing.clock import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Tail:
    """A tail that runs beside the test; `seen` are the positions that it gave."""

    def __init__(self, events: AsyncGenerator[RecordedEvent], clock: ManualClock) -> None:
        self._events = events
        self._clock = clock
        self.seen: list[str] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for event in self._events:
            self.seen.append(event.position)

    async def idle(self) -> None:
        """Waits until it has seen what is there."""
        while not self._clock.sleeping:
            await asyncio.wait([self.task], timeout=0.002)
            if self.task.done():
                self.task.result()

    async def look(self, seconds: float = 1.0) -> list[str]:
        """Lets it look again, and takes what it saw."""
        await self.idle()
        await self._clock.advance(seconds)
        await self.idle()
        seen, self.seen = self.seen, []
        return seen


@asynccontextmanager
async def tailing(store: EventStore, clock: ManualClock, **options: Any) -> AsyncIterator[Tail]:
    events = tail(store, clock=clock, **options)
    running = Tail(events, clock)
    try:
        await running.idle()
        yield running
    finally:
        running.task.cancel()
        await asyncio.wait([running.task])
        await events.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(params=["memory", "dynamodb"])
async def store(
    request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient, clock: ManualClock
) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryEventStore(registry=registry, clock=clock)
    else:
        async with dynamodb_event_store(aws, dynamo, clock=clock) as found:
            yield found


async def test_a_history_is_followed_from_its_end(store: EventStore, clock: ManualClock) -> None:
    await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
    async with tailing(store, clock, aggregate_id="account-1") as running:
        assert await running.look() == []
        await store.append("account-1", [deposit(), deposit()], expected_sequence=1)
        await store.append("account-2", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["account-1@2", "account-1@3"]
        await store.append("account-1", [AccountClosed()], expected_sequence=3)
        assert await running.look() == ["account-1@4"]
        assert await running.look() == []


async def test_a_history_is_followed_from_a_time_on_and_by_type(store: EventStore, clock: ManualClock) -> None:
    await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
    await clock.advance(60)
    await store.append("account-1", [deposit(), AccountClosed(), deposit()], expected_sequence=1)
    since = START + timedelta(seconds=60)
    async with tailing(store, clock, aggregate_id="account-1", since=since) as running:
        assert await running.look() == ["account-1@2", "account-1@3", "account-1@4"]
    types = ["TransactionProcessed"]
    async with tailing(store, clock, aggregate_id="account-1", since=START, event_types=types) as running:
        assert await running.look() == ["account-1@2", "account-1@4"]


async def test_an_aggregate_that_is_not_there_yet_can_be_followed(store: EventStore, clock: ManualClock) -> None:
    async with tailing(store, clock, aggregate_id="account-9") as running:
        await store.append("account-9", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["account-9@1"]


async def test_types_are_followed_across_aggregates_by_time(store: EventStore, clock: ManualClock) -> None:
    await store.append("account-0", [AccountCreated(customer_id="c")], expected_sequence=0)
    await clock.advance(60)
    async with tailing(store, clock, event_types=["AccountCreated", "AccountClosed"]) as running:
        for number in range(5):
            events = [AccountCreated(customer_id="c"), deposit(), AccountClosed()]
            await store.append(f"account-{4 - number}x", events, expected_sequence=0)
            await clock.advance(0.1)
        expected = [f"account-{4 - number}x@{sequence}" for number in range(5) for sequence in (1, 3)]
        assert await running.look() == expected
        # They are read again for some seconds, and told once.
        assert await running.look() == []
        await store.append("account-9", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["account-9@1"]
        assert await running.look(60) == []


async def test_all_types_of_the_registry_are_followed_from_a_time_on(
    store: EventStore, clock: ManualClock
) -> None:
    await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
    await clock.advance(60)
    await store.append("account-1", [deposit(), AccountClosed()], expected_sequence=1)
    async with tailing(store, clock, since=START + timedelta(seconds=1)) as running:
        assert await running.look() == ["account-1@2", "account-1@3"]


async def test_events_of_a_writer_whose_clock_is_slow_or_fast_are_seen(clock: ManualClock) -> None:
    store = MemoryEventStore(registry=registry, clock=clock)
    fast, slow = ManualClock(START + timedelta(minutes=10)), ManualClock(START - timedelta(seconds=8))
    # Other writers of the same table.
    stores = [MemoryEventStore(registry=registry, clock=other) for other in (fast, slow)]
    for other in stores:
        other.table._aggregates = store.table._aggregates
        other.table._shards = store.table._shards
    async with tailing(
        store, clock, event_types=["AccountCreated"], since=START - timedelta(minutes=1)
    ) as running:
        await stores[0].append("fast", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["fast@1"]
        await stores[1].append("slow", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["slow@1"]
        await store.append("right", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["right@1"]
        assert await running.look(5) == []


async def test_of_a_long_past_only_the_keys_of_the_last_seconds_are_held(clock: ManualClock) -> None:
    store = MemoryEventStore(registry=registry, clock=clock)
    for number in range(30):
        await store.append(f"old-{number}", [AccountCreated(customer_id="c")], expected_sequence=0)
    await clock.advance(60)
    await store.append("new", [AccountCreated(customer_id="c")], expected_sequence=0)
    held = []
    async with aclosing(tailing_module._types(store.table, ["AccountCreated"], START, 1.0, clock)) as batches:
        for _ in range(31):
            await anext(batches)
            held.append(len(batches.ag_frame.f_locals["told"]))
    assert held == [*[0] * 30, 1]


async def test_a_transaction_that_shows_in_part_is_not_told_out_of_order(clock: ManualClock) -> None:
    store = MemoryEventStore(registry=registry, clock=clock)
    hidden = {2}
    read = store.table.read

    async def read_in_part(*arguments: Any, **options: Any) -> ItemPage:
        page = await read(*arguments, **options)
        return page._replace(items=[item for item in page.items if sequence_of(item) not in hidden])

    async with tailing(store, clock, aggregate_id="account-1") as running:
        store.table.read = read_in_part  # type: ignore[method-assign]
        await store.append("account-1", [AccountCreated(customer_id="c"), deposit()], expected_sequence=0)
        await store.append("account-1", [deposit()], expected_sequence=2)
        assert await running.look() == ["account-1@1"]
        hidden.clear()
        assert await running.look() == ["account-1@2", "account-1@3"]


@pytest.mark.parametrize(
    ("start", "error", "text"),
    [
        (lambda store: tail(store, event_types=[]), ConfigurationError, "give aggregate_id or event_types"),
        (lambda store: tail(store), ConfigurationError, "use tail_stream"),
        (lambda store: tail(store, aggregate_id=""), InvalidEventError, "aggregate_id"),
        (lambda store: tail(store, event_types=["A"], since=datetime(2026, 1, 1)), ValueError, "zone"),  # noqa: DTZ001
    ],
)
async def test_what_cannot_be_followed_is_said(
    start: Callable[[EventStore], AsyncGenerator[RecordedEvent]], error: type[Exception], text: str
) -> None:
    store = MemoryEventStore(registry=EventRegistry())
    with pytest.raises(error, match=text):
        await anext(start(store))
