from __future__ import annotations

from datetime import UTC, datetime

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.inspection.store_stats import HistoryStats, StoreEstimate, StoreStats, estimate, stats
from oms_events.eventstore.items import event_key
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.store import EventStore
from oms_events.outbox.schema import item_size
from oms_events.testing.clock import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.support import dynamodb_event_store
from tests.outbox.support import Settings

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDDLE = datetime(2026, 3, 1, 13, tzinfo=UTC)
END = datetime(2026, 3, 1, 14, tzinfo=UTC)


async def fill(store: EventStore, clock: ManualClock) -> None:
    """At 12:00 four histories of 1, 2, 3 and 4 events; at 14:00 the shortest is closed."""
    for number in range(1, 5):
        events = [AccountCreated(customer_id="c"), *[deposit()] * (number - 1)]
        await store.append(f"account-{number}", events, expected_sequence=0, command_id="open")
    await clock.advance(7200)
    await store.append("account-1", [AccountClosed()], expected_sequence=1)


async def sizes(store: EventStore) -> dict[str, int]:
    """The bytes of each item, by its key."""
    found: dict[str, int] = {}
    page = await store.table.scan()
    for item in page.items:
        name = f"{item['AggregateId']['S']}@{item['EventSequence']['N']}"
        found[name] = item_size(item)
    assert page.next is None
    return found


async def check(store: EventStore, found: StoreStats) -> None:
    known = await sizes(store)
    events = {name: size for name, size in known.items() if not name.startswith("command#")}
    assert (found.events, found.bytes, found.aggregates) == (11, sum(events.values()), 4)
    assert (found.markers, found.marker_bytes) == (4, sum(known.values()) - sum(events.values()))
    assert {name: one.events for name, one in found.types.items()} == {
        "TransactionProcessed": 6,
        "AccountCreated": 4,
        "AccountClosed": 1,
    }
    assert list(found.types) == ["TransactionProcessed", "AccountCreated", "AccountClosed"]
    assert found.types["AccountClosed"].bytes == events["account-1@2"]
    assert [(one.aggregate_id, one.events) for one in found.longest] == [("account-4", 4), ("account-3", 3)]
    longest = sum(size for name, size in events.items() if name.startswith("account-4@"))
    assert found.longest[0] == HistoryStats("account-4", 4, longest)
    assert (found.oldest, found.newest) == (START, END)


@pytest.mark.parametrize("segments", [1, 3])
async def test_a_table_is_counted(aws: Settings, dynamo: DynamoClient, segments: int) -> None:
    clock = ManualClock(START)
    async with dynamodb_event_store(aws, dynamo, clock=clock) as store:
        await fill(store, clock)
        read: list[int] = []
        await check(store, await stats(store, top=2, segments=segments, page_size=2, on_items=read.append))
        assert sum(read) == 15


async def test_a_store_in_memory_is_counted_the_same() -> None:
    clock = ManualClock(START)
    store = MemoryEventStore(registry=registry, clock=clock)
    await fill(store, clock)
    await check(store, await stats(store, top=2, segments=2))
    assert (await stats(store, top=0)).longest == []


async def test_an_empty_store_has_no_times() -> None:
    found = await stats(MemoryEventStore())
    assert (found.events, found.aggregates, found.types, found.longest) == (0, 0, {}, [])
    assert (found.oldest, found.newest) == (None, None)


async def test_what_no_append_has_put_is_counted_apart(memory_store: MemoryEventStore) -> None:
    memory_store.table.apply({"Put": {"Item": {**event_key("settings", 1), "EventTime": {"S": "soon#"}}}})
    found = await stats(memory_store)
    assert (found.events, found.types["?"].events) == (1, 1)
    assert found.oldest is None


async def test_the_estimate_is_what_dynamodb_says(dynamodb_store: DynamoDBEventStore) -> None:
    await dynamodb_store.append("account-1", [AccountCreated(customer_id="c"), deposit()], expected_sequence=0)
    found = await estimate(dynamodb_store)
    assert isinstance(found, StoreEstimate)
    # AWS brings its numbers up to date about every six hours, the emulator at once.
    assert (found.table, found.items) == (dynamodb_store.table.name, 2)
    assert found.bytes > 0
