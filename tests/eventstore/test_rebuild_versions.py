"""A new version beside the old one: whether it is complete, the switch, and deleting what nobody reads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import ConfigurationError, ProjectionError, StorageUnavailableError
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.projecting import ProjectorConfig
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModelTables, ReadModels
from oms_events.eventstore.projections.rebuild_positions import retiring_write
from oms_events.eventstore.projections.rebuilding import RebuildConfig, rebuild
from oms_events.eventstore.projections.versions import (
    Retired,
    Switched,
    VerifiedProjection,
    retire,
    switch,
    verify_projection,
)
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.store import EventStore
from oms_events.testing import ManualClock
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.summaries import assert_rows_are_as_the_store, configured, summaries
from tests.eventstore.support import Hurried
from tests.eventstore.test_rebuild import Rig, fill
from tests.outbox.support import Settings

AT_ONCE = RebuildConfig(segments=2, page_size=5, lag=0)
NAME = "AccountSummary"


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


# ---------------------------------------------------------------------- while life goes on


class Life:
    """Writers whose events go to the projectors of both versions, and readers who never miss a row."""

    def __init__(self, store: EventStore, read_models: ReadModels, seed: int) -> None:
        self.store = store
        self.clock = ManualClock()
        # A reader of its own: it learns of a switch when its time is over.
        self.reading = ReadModels(read_models.tables, clock=self.clock)
        self.projectors = [Projector([summaries(1)], store, read_models)]
        self.sequences: dict[str, int] = {}
        self.known: list[str] = []
        self.versions: list[int] = []
        self.rng = random.Random(seed)
        self.is_over = False
        self.changed = asyncio.Condition()

    async def write(self) -> None:
        late: list[RecordedEvent] = []
        while not self.is_over or late:
            is_new = self.rng.random() < 0.3 or not self.sequences
            account = f"account-{len(self.sequences)}" if is_new else self.rng.choice(list(self.sequences))
            before = self.sequences.get(account, 0)
            events: list[Any] = [deposit(self.rng.randint(1, 9)) for _ in range(self.rng.randint(1, 3))]
            if is_new:
                events.insert(0, AccountCreated(customer_id=account))
            recorded = await self.store.append(account, events, expected_sequence=before)
            self.sequences[account] = recorded[-1].sequence
            # The sources of both versions bring it in no order, some of it late and some of it twice.
            in_time = [one for one in recorded if self.rng.random() < 0.8] or recorded[-1:]
            brought = [*late, *in_time, *self.rng.sample(recorded, 1)]
            late = [one for one in recorded if one not in in_time]
            for projector in self.rng.sample(self.projectors, len(self.projectors)):
                await self._bring(projector, brought)
            if account not in self.known:
                self.known.append(account)
            async with self.changed:
                self.changed.notify_all()

    async def _bring(self, projector: Projector, events: Sequence[RecordedEvent]) -> None:
        while any(await projector.handle(events)):
            continue

    async def read(self) -> None:
        while not self.is_over:
            if self.known:
                account = self.rng.choice(self.known)
                row = await self.reading.row(NAME, account)
                assert row is not None, f"{account} has no row"
                self.versions.append(row["version"])
            await asyncio.sleep(0)

    async def until_written(self, accounts: int) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: len(self.known) >= accounts)


async def test_a_new_version_takes_over_while_life_goes_on(system: tuple[EventStore, ReadModels]) -> None:
    store, read_models = system
    small = isinstance(store, DynamoDBEventStore)
    life = Life(store, read_models, seed=small)
    first, more = (6, 2) if small else (25, 10)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(life.write(), name="writer")
        tasks.create_task(life.read(), name="reader")
        await life.until_written(first)
        # The new version is deployed: its projector has the live events from here on, and the rebuild the others.
        life.projectors.append(Projector([summaries(2)], store, read_models))
        new = Projector([summaries(2)], store, read_models)
        done = await rebuild(new, config=RebuildConfig(segments=2, page_size=20))
        assert done.aggregates >= first
        await life.until_written(len(life.known) + more)
        assert set(life.versions) == {1}
        switched = await switch(new, NAME, config=RebuildConfig(segments=2, page_size=20, lag=5))
        assert switched == Switched(NAME, 1, 2)
        await life.until_written(len(life.known) + more)
        assert set(life.versions) == {1}
        await life.clock.advance(6)
        seen = len(life.versions)
        await life.until_written(len(life.known) + more)
        # A row that was being read while the time went by may still be of the old version.
        assert set(life.versions[seen + 1 :]) == {2}
        life.is_over = True
    await assert_rows_are_as_the_store(store, read_models, list(life.sequences), version=2)
    await assert_rows_are_as_the_store(store, read_models, list(life.sequences), version=1)
    retired = await retire(read_models, NAME, 1, clock=Hurried())
    assert (retired.rows, retired.checkpoints) == (len(life.sequences), len(life.sequences))
    assert all(row is None for row in (await read_models.rows(NAME, list(life.sequences), version=1)).values())
    await assert_rows_are_as_the_store(store, read_models, list(life.sequences), version=2)


# ---------------------------------------------------------------------- complete or not


async def test_a_version_that_is_not_complete_is_not_switched_to(system: tuple[EventStore, ReadModels]) -> None:
    store, read_models = system
    names = await fill(store)
    await rebuild(Projector([summaries(1)], store, read_models))
    new = Projector([summaries(2)], store, read_models)
    assert await verify_projection(new, NAME, config=AT_ONCE) == VerifiedProjection(8, behind=8, parked=0)
    with pytest.raises(ProjectionError, match=r"AccountSummary@2 is not complete: of 8 aggregates 8 are behind"):
        await switch(new, NAME, config=AT_ONCE)
    assert await read_models.active_version(NAME) == 1
    await rebuild(new)
    # Events of no interest at the end of a history leave no checkpoint.
    assert await verify_projection(new, NAME, config=AT_ONCE) == VerifiedProjection(8, behind=0, parked=0)
    await store.append(names[2], [deposit(1)], expected_sequence=3)
    await store.append(names[1], [AccountClosed()], expected_sequence=2)
    assert await verify_projection(new, NAME, config=AT_ONCE) == VerifiedProjection(8, behind=1, parked=0)
    with pytest.raises(ProjectionError, match="1 are behind"):
        await switch(new, NAME, config=AT_ONCE)
    await new.catch_up(names[2])
    assert await switch(new, NAME, config=AT_ONCE) == Switched(NAME, 1, 2)
    assert await read_models.active_version(NAME) == 2
    # What is so already is no error.
    assert await switch(new, NAME, config=AT_ONCE) == Switched(NAME, 2, 2)


async def test_force_switches_all_the_same() -> None:
    rig = Rig()
    await fill(rig.store)
    await rig.projector(1).open()
    assert await switch(rig.projector(2), NAME, force=True) == Switched(NAME, 1, 2)


async def test_live_projectors_get_time_to_bring_an_aggregate_up() -> None:
    rig, clock = Rig(), ManualClock()
    names = await fill(rig.store)
    await rig.projector(1).open()
    live, new = rig.projector(2), rig.projector(2)
    await rebuild(new)
    recorded = await rig.store.append(names[4], [deposit(1)], expected_sequence=5)
    config = AT_ONCE.model_copy(update={"lag": 3.0})
    switching = asyncio.create_task(switch(new, NAME, config=config, clock=clock))
    await clock.someone_sleeps()
    await clock.advance(2)
    assert not switching.done()
    await live.handle(recorded)
    await clock.advance(1)
    assert await switching == Switched(NAME, 1, 2)

    # Nobody has the live events: it is told after that time.
    third = rig.projector(3)
    await rebuild(third)
    await rig.store.append(names[4], [deposit(1)], expected_sequence=6)
    verifying = asyncio.create_task(verify_projection(third, NAME, config=config, clock=clock))
    while not verifying.done():
        await clock.advance(0.5)
    assert clock.monotonic() >= 6
    assert (await verifying).behind == 1


@pytest.mark.parametrize("after_poison", ["hold", "continue"])
async def test_parked_events_make_a_version_incomplete(after_poison: Any) -> None:
    rig = Rig()
    await fill(rig.store)
    await rig.projector(1).open()
    config = ProjectorConfig(after_poison=after_poison)
    poisoned = Projector([summaries(2, poison=6)], rig.store, rig.read_models, config=config)
    assert (await rebuild(poisoned)).parked == 2
    assert await verify_projection(poisoned, NAME, config=AT_ONCE) == VerifiedProjection(8, behind=0, parked=2)
    with pytest.raises(ProjectionError, match="2 events are parked"):
        await switch(poisoned, NAME, config=AT_ONCE)
    mended = Projector([summaries(2)], rig.store, rig.read_models, config=config)
    await mended.retry_parked(NAME)
    assert await switch(mended, NAME, config=AT_ONCE) == Switched(NAME, 1, 2)


async def test_going_back_is_asked_for() -> None:
    rig = Rig()
    names = await fill(rig.store)
    both = rig.projector(1, 2)
    await rebuild(both)
    assert await switch(both, "AccountSummary@2", config=AT_ONCE) == Switched(NAME, 1, 2)
    with pytest.raises(ProjectionError, match=r"version 2 is active, and 1 is older; give back=True"):
        await switch(both, "AccountSummary@1", config=AT_ONCE)
    # The old one was left alone meanwhile: it is no place to go back to before it has caught up.
    recorded = await rig.store.append(names[0], [deposit(1)], expected_sequence=2)
    await rig.projector(2).handle(recorded)
    with pytest.raises(ProjectionError, match="1 are behind"):
        await switch(both, "AccountSummary@1", back=True, config=AT_ONCE)
    await rig.projector(1).handle(recorded)
    assert await switch(both, "AccountSummary@1", back=True, config=AT_ONCE) == Switched(NAME, 2, 1)


async def test_of_two_that_switch_at_once_one_is_told() -> None:
    rig = Rig()
    await fill(rig.store)
    await rig.projector(1).open()
    new = rig.projector(2)
    await rebuild(new)
    other = ReadModels(rig.tables)
    pages = rig.table.pages

    def meanwhile(page: int) -> None:
        if page == pages + 1:
            asyncio.get_running_loop().create_task(other.set_active_version(NAME, 3, expected=1))

    rig.table.before = meanwhile
    with pytest.raises(ProjectionError, match=r"version 3 has become active meanwhile, after 1; nothing was done"):
        await switch(new, NAME, config=AT_ONCE)
    assert await rig.read_models.active_version(NAME) == 3


async def test_it_must_be_clear_which_projection_is_meant() -> None:
    rig = Rig()
    with pytest.raises(ConfigurationError, match=r"none of this projector's; they are AccountSummary@1"):
        await switch(rig.projector(1), "Balances")
    with pytest.raises(ConfigurationError, match="several of this projector's: give one's full name"):
        await verify_projection(rig.projector(1, 2), NAME)
    assert (await verify_projection(rig.projector(1, 2), "AccountSummary@2")).is_complete


# ---------------------------------------------------------------------- deleting a version


async def test_only_what_is_of_the_version_is_deleted(system: tuple[EventStore, ReadModels]) -> None:
    store, read_models = system
    names = await fill(store)
    await rebuild(Projector([summaries(1, poison=6)], store, read_models))
    await rebuild(Projector([summaries(2), summaries(12)], store, read_models))
    with pytest.raises(ProjectionError, match="AccountSummary@1 is what readers get; switch"):
        await retire(read_models, NAME, 1)
    await switch(Projector([summaries(2)], store, read_models), NAME, config=AT_ONCE)
    assert await retire(read_models, NAME, 1, page_size=3, clock=Hurried()) == Retired(
        rows=8, checkpoints=8, parked=2
    )
    assert await retire(read_models, NAME, 1, clock=Hurried()) == Retired(0, 0, 0)
    await assert_rows_are_as_the_store(store, read_models, names, version=2)
    await assert_rows_are_as_the_store(store, read_models, names, version=12)
    found = await verify_projection(Projector([summaries(1)], store, read_models), NAME, config=AT_ONCE)
    assert found == VerifiedProjection(8, behind=8, parked=0)
    # It can be built anew.
    await rebuild(Projector([summaries(1)], store, read_models))
    await assert_rows_are_as_the_store(store, read_models, names, version=1)


async def test_a_projection_that_is_given_up_leaves_nothing(system: tuple[EventStore, ReadModels]) -> None:
    store, read_models = system
    names = await fill(store)
    await rebuild(Projector([summaries(1)], store, read_models))
    clock = ManualClock()
    retiring = asyncio.create_task(retire(read_models, NAME, 1, active=True, clock=clock))
    async with asyncio.timeout(10):
        await clock.someone_sleeps()
    # Readers who know the version have its rows until they look anew.
    assert None not in (await read_models.rows(NAME, names, version=1)).values()
    assert await read_models.active_version(NAME) is None
    await clock.advance(5)
    assert await retiring == Retired(rows=8, checkpoints=8, parked=0)
    assert await retire(read_models, NAME, 1, active=True, clock=Hurried()) == Retired(0, 0, 0)
    assert await read_models.row(NAME, names[0]) is None
    # It can be begun anew.
    await rebuild(Projector([summaries(1)], store, read_models))
    assert await read_models.active_version(NAME) == 1
    await assert_rows_are_as_the_store(store, read_models, names, version=1)


async def test_giving_a_projection_up_leaves_the_version_that_was_switched_to_meanwhile() -> None:
    tables = Overtaken()
    rig = Rig(tables=tables)
    names = await fill(rig.store)
    await rebuild(rig.projector(1, 2))
    other = ReadModels(tables)
    tables.before["commit"] = lambda: other.set_active_version(NAME, 2, expected=1)
    await retire(rig.read_models, NAME, 1, active=True, clock=Hurried())
    assert await rig.read_models.active_version(NAME) == 2
    await rig.check(names, version=2)


class Overtaken(MemoryReadModelTables):
    """Tables whose next call of a method comes after what somebody else does."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}

    async def commit(self, *arguments: Any, **options: Any) -> bool:
        await self._overtaken("commit")
        return await super().commit(*arguments, **options)

    async def scan(self, table: Any, **options: Any) -> Any:
        await self._overtaken(table)
        return await super().scan(table, **options)

    async def _overtaken(self, name: str) -> None:
        if other := self.before.pop(name, None):
            await other()


async def test_a_version_that_is_switched_to_meanwhile_is_not_deleted() -> None:
    tables = Overtaken()
    rig = Rig(tables=tables)
    names = await fill(rig.store)
    await rebuild(rig.projector(1, 2))
    # Between the look at what is active and the mark.
    tables.before["commit"] = lambda: switch(rig.projector(2), NAME, config=AT_ONCE)
    with pytest.raises(ProjectionError, match="AccountSummary@2 is what readers get"):
        await retire(rig.read_models, NAME, 2, clock=Hurried())
    await rig.check(names, version=2)
    # And it is not marked: it can be rebuilt.
    await rebuild(rig.projector(2))


async def test_a_version_is_not_switched_to_while_it_is_deleted() -> None:
    tables = Overtaken()
    rig = Rig(tables=tables)
    names = await fill(rig.store)
    await rebuild(rig.projector(1, 2))

    async def retiring() -> None:
        tables.before["rows"] = stopped
        with pytest.raises(StorageUnavailableError):
            await retire(rig.read_models, NAME, 2)

    async def stopped() -> None:
        raise StorageUnavailableError("gone")

    # Between the look at the mark and the switch.
    tables.before["commit"] = retiring
    with pytest.raises(ProjectionError, match="AccountSummary@2 is being retired"):
        await switch(rig.projector(2), NAME, config=AT_ONCE)
    assert await rig.read_models.active_version(NAME) == 1
    await retire(rig.read_models, NAME, 2)
    await rig.check(names, version=1)


async def test_a_projector_does_not_make_a_version_active_while_it_is_deleted() -> None:
    rig = Rig()
    recorded = await rig.store.append("a", [deposit(1)], expected_sequence=0)
    await rig.tables.commit([retiring_write(f"{NAME}@1", ManualClock().now())])
    [error] = await rig.projector(1).handle(recorded)
    assert isinstance(error, ProjectionError)
    assert await rig.read_models.active_version(NAME) is None
    await retire(rig.read_models, NAME, 1)
    assert await rig.projector(1).handle(recorded) == [None]


async def test_a_rebuild_ends_when_its_version_is_retired_meanwhile() -> None:
    rig = Rig()
    await fill(rig.store)
    await rebuild(rig.projector(1))
    pages = rig.table.pages

    def meanwhile(page: int) -> None:
        if page == pages + 2:
            asyncio.get_running_loop().create_task(retire(rig.read_models, NAME, 2))

    rig.table.before = meanwhile
    config = RebuildConfig(segments=1, page_size=5)
    with pytest.raises(ProjectionError, match="AccountSummary@2 is being retired"):
        await rebuild(rig.projector(2), config=config)


@pytest.mark.parametrize("table", ["rows", "checkpoints"])
async def test_what_is_written_while_it_is_deleted_is_deleted_too(table: str) -> None:
    tables = Overtaken()
    rig = Rig(tables=tables)
    names = await fill(rig.store)
    await rebuild(rig.projector(1, 2))
    late = rig.projector(2)
    recorded = await rig.store.append(names[1], [deposit(1)], expected_sequence=2)

    async def write() -> None:
        assert await late.handle(recorded) == [None]

    tables.before[table] = write
    await retire(rig.read_models, NAME, 2)
    assert not [key for key in tables._items if key.range == f"{NAME}@2"]
    await rebuild(rig.projector(2))
    await rig.check(names, version=2)


async def test_a_version_that_is_still_written_is_told() -> None:
    tables = Overtaken()
    rig = Rig(tables=tables)
    await fill(rig.store, accounts=1)
    await rebuild(rig.projector(1, 2))

    async def write() -> None:
        tables.before["rows"] = write
        await rig.projector(2).catch_up("account-0")

    tables.before["rows"] = write
    with pytest.raises(ProjectionError, match="a projector still writes it; stop that, and retire it again"):
        await retire(rig.read_models, NAME, 2)
    tables.before.clear()
    await retire(rig.read_models, NAME, 2)
    assert await rig.read_models.checkpoint(summaries(2), "account-0") is None


async def test_readers_know_of_a_switch_before_the_old_version_is_deleted() -> None:
    clock = ManualClock()
    rig = Rig()
    rig.read_models = ReadModels(rig.tables, clock=clock)
    readers = ReadModels(rig.tables, clock=clock)
    names = await fill(rig.store)
    await rebuild(rig.projector(1, 2))
    assert await readers.row(NAME, names[0]) is not None
    await switch(rig.projector(2), NAME, config=AT_ONCE)
    await clock.advance(1)
    retiring = asyncio.create_task(retire(rig.read_models, NAME, 1, clock=clock))
    for _ in range(4):
        for _ in range(100):
            await asyncio.sleep(0)
        assert not retiring.done()
        row = await readers.row(NAME, names[0])
        assert row is not None
        assert row["version"] == 1
        await clock.advance(1)
    assert (await retiring).rows == len(names)
    row = await readers.row(NAME, names[0])
    assert row is not None
    assert row["version"] == 2
    # Nobody waits any more, nor where there was no switch.
    await rebuild(rig.projector(1))
    assert (await retire(rig.read_models, NAME, 1, clock=clock)).rows == len(names)


class Stopping(MemoryReadModelTables):
    """Tables that fail from the call with number `end` on, until they are mended."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.end: int | None = None

    async def scan(self, *arguments: Any, **options: Any) -> Any:
        self._count()
        return await super().scan(*arguments, **options)

    async def delete(self, keys: Any) -> None:
        self._count()
        await super().delete(keys)

    def _count(self) -> None:
        self.calls += 1
        if self.end is not None and self.calls >= self.end:
            raise StorageUnavailableError("gone")


async def test_what_is_half_deleted_is_neither_rebuilt_nor_switched_to() -> None:
    ends = 0
    for end in range(1, 100):
        tables = Stopping()
        rig = Rig(tables=tables)
        names = await fill(rig.store)
        await rebuild(rig.projector(1))
        await rebuild(rig.projector(2))
        tables.calls, tables.end = 0, end
        try:
            await retire(rig.read_models, NAME, 2, page_size=3)
        except StorageUnavailableError:
            ends += 1
        else:
            assert ends > 10
            break
        tables.end = None
        with pytest.raises(ProjectionError, match=r"AccountSummary@2 is being retired"):
            await rebuild(rig.projector(2))
        with pytest.raises(ProjectionError, match="is being retired"):
            await switch(rig.projector(2), NAME, force=True)
        with pytest.raises(ProjectionError, match="is being retired"):
            await verify_projection(rig.projector(2), NAME)
        await retire(rig.read_models, NAME, 2)
        assert await rig.positions() == []
        await rebuild(rig.projector(2))
        await rig.check(names, version=2)
        await rig.check(names, version=1)
