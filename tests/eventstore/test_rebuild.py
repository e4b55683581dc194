"""Rebuilding a projection: all of it, once, whatever ends it, within bounded memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import (
    ConfigurationError,
    ProjectionError,
    StorageDeniedError,
    StorageUnavailableError,
)
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.items import Item, event_item
from oms_events.eventstore.memory import MemoryEventStore, MemoryEventTable
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModelTables, ReadModels, TablePage
from oms_events.eventstore.projections.rebuilding import RebuildConfig, RebuildProgress, Rebuilt, rebuild
from oms_events.eventstore.store import EventStore
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.summaries import assert_rows_are_as_the_store, configured, summaries
from tests.outbox.support import Settings

SMALL = RebuildConfig(segments=2, page_size=5, retry=RetryConfig(max_attempts=3, initial=0.001, maximum=0.002))


async def fill(store: EventStore, *, accounts: int = 8) -> list[str]:
    """Accounts with histories of 1 to so many events, the last of some of no interest; commands have markers."""
    names = [f"account-{number}" for number in range(accounts)]
    for number, name in enumerate(names):
        events: list[Any] = [AccountCreated(customer_id=f"c{number}"), *map(deposit, range(1, number + 1))]
        if number % 3 == 0:
            events.append(AccountClosed())
        await store.append(name, events, expected_sequence=0, command_id="open")
    return names


class TracedTable(MemoryEventTable):
    """Counts the pages of scans, and lets a test do something before each."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.pages = 0
        self.before: Callable[[int], None] = lambda page: None

    async def scan(self, **options: Any) -> ItemPage:
        self.pages += 1
        self.before(self.pages)
        return await super().scan(**options)


class Rig:
    def __init__(self, *, tables: MemoryReadModelTables | None = None, name: str = "event-store") -> None:
        self.config = EventStoreConfig(table_name=name)
        self.table = TracedTable(name)
        self.store = EventStore(self.table, self.config, registry=registry)
        self.tables = tables or MemoryReadModelTables()
        self.read_models = ReadModels(self.tables)

    def projector(self, *versions: int, **options: Any) -> Projector:
        return Projector(
            [summaries(version, **options) for version in versions or (1,)], self.store, self.read_models
        )

    async def check(self, names: list[str], *, version: int = 1) -> None:
        await assert_rows_are_as_the_store(self.store, self.read_models, names, version=version)

    async def positions(self) -> list[Mapping[str, Any]]:
        return [
            item
            for key, item in self.tables._items.items()
            if key.table == "checkpoints" and key.hash.startswith("rebuild#")
        ]


@pytest.fixture(params=["memory", "dynamodb"])
async def system(
    request: pytest.FixtureRequest, aws: Settings, dynamo: DynamoClient
) -> AsyncIterator[tuple[EventStore, ReadModels]]:
    if request.param == "memory":
        yield MemoryEventStore(registry=registry), ReadModels(MemoryReadModelTables())
        return
    async with (
        configured(aws, dynamo) as (config, tables),
        DynamoDBEventStore(config, registry=registry) as store,
        DynamoDBReadModels(tables) as read_models,
    ):
        yield store, read_models


async def test_a_rebuild_makes_all_rows_of_the_store(system: tuple[EventStore, ReadModels]) -> None:
    store, read_models = system
    names = await fill(store)
    projector = Projector([summaries()], store, read_models)
    seen: list[RebuildProgress] = []
    config = RebuildConfig(segments=3, page_size=4)
    done = await rebuild(projector, config=config, on_progress=seen.append)
    assert done == Rebuilt(aggregates=8, events=sum(range(1, 9)) + 3, parked=0)
    assert seen[-1] == RebuildProgress(aggregates=8, events=39, segments_done=3, segments=3)
    assert [one.events for one in seen] == sorted(one.events for one in seen)
    await assert_rows_are_as_the_store(store, read_models, names)
    # Once more, with more events: only those change something.
    await store.append(names[1], [deposit(100)], expected_sequence=2)
    assert (await rebuild(projector, config=config)).events == 40
    await assert_rows_are_as_the_store(store, read_models, names)


async def test_several_projections_are_rebuilt_by_one_reading() -> None:
    rig = Rig()
    names = await fill(rig.store)
    await rebuild(rig.projector(1, 2), config=SMALL)
    pages = rig.table.pages
    await rig.check(names, version=1)
    await rig.check(names, version=2)
    await rebuild(rig.projector(3), config=SMALL)
    assert rig.table.pages == 2 * pages


@pytest.mark.parametrize("page", [1, 3, 7])
async def test_a_rebuild_goes_on_where_it_was_ended(page: int) -> None:
    rig = Rig()
    names = await fill(rig.store)
    config = SMALL.model_copy(update={"segments": 1})
    whole = Rig()
    await fill(whole.store)
    expected = await rebuild(whole.projector(), config=config)

    def end(number: int) -> None:
        if number == page + 1:
            raise StorageDeniedError("no permission any more")

    rig.table.before = end
    with pytest.raises(StorageDeniedError):
        await rebuild(rig.projector(), config=config)
    assert len(await rig.positions()) == 1
    rig.table.before = lambda number: None
    assert await rebuild(rig.projector(), config=config) == expected
    # The page at which it was ended is the only one that was asked for twice.
    assert rig.table.pages == whole.table.pages + 1
    assert await rig.positions() == []
    await rig.check(names)


async def test_without_resuming_or_with_other_segments_it_begins_anew_and_is_right() -> None:
    for changes, resume in (({}, False), ({"segments": 3}, True)):
        rig = Rig()
        names = await fill(rig.store)
        rig.table.before = _denied_at(4)
        with pytest.raises(StorageDeniedError):
            await rebuild(rig.projector(), config=SMALL)
        rig.table.before = lambda number: None
        done = await rebuild(rig.projector(), config=SMALL.model_copy(update=changes), resume=resume)
        assert done == Rebuilt(8, 39, 0)
        await rig.check(names)


async def test_positions_of_another_store_or_of_fewer_projections_do_not_count() -> None:
    rig = Rig()
    names = await fill(rig.store)
    rig.table.before = _denied_at(4)
    with pytest.raises(StorageDeniedError):
        await rebuild(rig.projector(1), config=SMALL)
    rig.table.before = lambda number: None
    # The second projection was never begun: with it, all is read.
    assert await rebuild(rig.projector(1, 2), config=SMALL) == Rebuilt(8, 39, 0)
    await rig.check(names, version=2)

    rig.table.before = _denied_at(rig.table.pages + 4)
    with pytest.raises(StorageDeniedError):
        await rebuild(rig.projector(3), config=SMALL)
    other = Rig(tables=rig.tables, name="another-store")
    await fill(other.store, accounts=2)
    assert await rebuild(other.projector(3), config=SMALL) == Rebuilt(2, 4, 0)


def _denied_at(page: int) -> Callable[[int], None]:
    def end(number: int) -> None:
        if number == page:
            raise StorageDeniedError("no permission any more")

    return end


class MortalTables(MemoryReadModelTables):
    """Tables whose user is ended at the call with number `end`: before it is done, or right after."""

    def __init__(self, end: int, *, after: bool) -> None:
        super().__init__()
        self.calls = 0
        self.end: int | None = end
        self.after = after
        self.user: asyncio.Task[Any] | None = None

    async def get(self, keys: Any) -> Any:
        return await self._mortal(super().get, keys)

    async def commit(self, writes: Any) -> Any:
        return await self._mortal(super().commit, writes)

    async def _mortal(self, call: Any, *arguments: Any) -> Any:
        self.calls += 1
        is_last = self.calls == self.end
        if is_last and not self.after:
            await self._end()
        answer = await call(*arguments)
        if is_last:
            await self._end()
        return answer

    async def _end(self) -> None:
        assert self.user is not None
        self.user.cancel()
        await asyncio.Event().wait()


async def test_whatever_it_is_ended_at_the_next_one_makes_it_right() -> None:
    """At each call of the tables, before and after it was done."""
    counting = MortalTables(-1, after=False)
    rig = Rig(tables=counting)
    await fill(rig.store, accounts=5)
    await rebuild(rig.projector(), config=SMALL)
    assert counting.calls > 20
    for end in range(1, counting.calls + 1):
        for after in (False, True):
            tables = MortalTables(end, after=after)
            rig = Rig(tables=tables)
            names = await fill(rig.store, accounts=5)
            tables.user = asyncio.create_task(rebuild(rig.projector(), config=SMALL))
            await asyncio.wait({tables.user})
            assert tables.user.cancelled(), (end, after)
            tables.end = None
            done = await rebuild(rig.projector(), config=SMALL)
            assert done == Rebuilt(5, 17, 0), (end, after)
            await rig.check(names)


class FailingTables(MemoryReadModelTables):
    """Tables that refuse to change an aggregate so many times."""

    def __init__(self, aggregate_id: str, failures: int) -> None:
        super().__init__()
        self._aggregate_id = aggregate_id
        self.failures = failures

    async def commit(self, writes: Any) -> bool:
        if self.failures and any(write.key.hash == self._aggregate_id for write in writes):
            self.failures -= 1
            raise StorageUnavailableError("throttled")
        return await super().commit(writes)


async def test_what_fails_is_tried_again_and_told_when_it_goes_on_failing() -> None:
    tables = FailingTables("account-5", 2)
    rig = Rig(tables=tables)
    names = await fill(rig.store)
    assert await rebuild(rig.projector(), config=SMALL) == Rebuilt(8, 39, 0)
    await rig.check(names)

    tables = FailingTables("account-5", 1000)
    rig = Rig(tables=tables)
    await fill(rig.store)
    with pytest.raises(StorageUnavailableError, match="throttled"):
        await rebuild(rig.projector(), config=SMALL)
    assert tables.failures <= 1000 - 3
    tables.failures = 0
    assert await rebuild(rig.projector(), config=SMALL) == Rebuilt(8, 39, 0)
    await rig.check(names)


async def test_poison_and_damaged_items_are_parked_and_counted() -> None:
    rig = Rig()
    names = await fill(rig.store)
    damaged = rig.table._aggregates["account-3"]
    damaged[2] = {**damaged[2], "CloudEvent": {"S": "{"}, "Data": {"S": "{"}}
    unknown = rig.table._aggregates["account-4"]
    unknown[1] = {name: value for name, value in unknown[1].items() if name != "EventType"}
    # Deposits of 6 are in account-6 and account-7.
    assert await rebuild(rig.projector(poison=6), config=SMALL) == Rebuilt(8, 39, 4)
    page = await rig.read_models.parked_page("AccountSummary@1")
    assert [event.position for event in page.events] == [
        "account-3@2", "account-4@1", "account-6@7", "account-7@7",
    ]  # fmt: skip
    await rig.check([name for name in names if name[-1] in "0125"])


async def test_the_rate_is_kept() -> None:
    rig, clock = Rig(), ManualClock()
    names = await fill(rig.store)
    config = SMALL.model_copy(update={"rate": 10.0, "segments": 1})
    task = asyncio.create_task(rebuild(rig.projector(), config=config, clock=clock))
    seconds = 0
    while not task.done():
        await clock.advance(0.25)
        seconds += 1
    # 39 events, the first page of 5 items at once.
    assert 3.0 <= seconds / 4 <= 5.0
    assert await task == Rebuilt(8, 39, 0)
    await rig.check(names)


async def test_one_of_several_segments_that_fails_ends_all() -> None:
    rig = Rig()
    await fill(rig.store)
    rig.table.before = _denied_at(2)
    with pytest.raises(StorageDeniedError):
        await rebuild(rig.projector(), config=SMALL.model_copy(update={"segments": 4}))
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("oms-events-segment")]


async def test_a_history_that_lacks_an_event_is_told() -> None:
    rig = Rig()
    await fill(rig.store)
    del rig.table._aggregates["account-6"][3]
    with pytest.raises(ProjectionError, match="account-6@3"):
        await rebuild(rig.projector(), config=SMALL)


@pytest.mark.parametrize("changes", [{"segments": 0}, {"page_size": 0}, {"rate": 0}, {"lag": -1}])
def test_settings_that_cannot_work_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(changes))):
        RebuildConfig(**changes)


# ---------------------------------------------------------------------- memory


class CannedTable(MemoryEventTable):
    """A store of many aggregates with ten events each, which are made when they are asked for."""

    EVENTS = 10

    def __init__(self, template: Sequence[Item], aggregates: int) -> None:
        super().__init__("event-store")
        self._template = template
        self._count = aggregates

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        await asyncio.sleep(0)
        first = segment if start is None else int(start["AggregateId"]["S"])
        numbers = range(first, self._count, segments)[: (limit or 100) // self.EVENTS]
        items = [{**item, "AggregateId": {"S": f"a-{number}"}} for number in numbers for item in self._template]
        following = numbers[-1] + segments
        return ItemPage(items, {"AggregateId": {"S": str(following)}} if following < self._count else None)


class ForgetfulTables(MemoryReadModelTables):
    """Read models that keep nothing but the pointer and positions: what they keep is not the rebuild's memory."""

    async def commit(self, writes: Any) -> bool:
        return await super().commit([write for write in writes if not write.key.hash.startswith("a-")])

    async def query(self, *arguments: Any, **options: Any) -> TablePage:
        return await super().query(*arguments, **options)


async def peak_of_a_rebuild(aggregates: int) -> float:
    """MB at most that a rebuild of ten events per aggregate held."""
    store = MemoryEventStore(registry=registry)
    events: list[Any] = [AccountCreated(customer_id="c" * 200), *(deposit(number) for number in range(1, 10))]
    template = [event_item(event) for event in await store.append("a", events, expected_sequence=0)]
    canned = EventStore(CannedTable(template, aggregates), store.config, registry=registry)
    projector = Projector([summaries()], canned, ReadModels(ForgetfulTables()))
    tracemalloc.start()
    try:
        done = await rebuild(projector, config=RebuildConfig(segments=4, page_size=100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (done.aggregates, done.events) == (aggregates, aggregates * 10)
    return peak / 1e6


async def test_memory_does_not_grow_with_the_store() -> None:
    await peak_of_a_rebuild(20)
    some, many = await peak_of_a_rebuild(60), await peak_of_a_rebuild(300)
    # What is remembered of each aggregate is a bounded number of positions.
    assert many < some * 1.2 + 0.3, (some, many)
