"""Leases and the runs that hold them: in memory, on DynamoDB, and when DynamoDB fails."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item, to_item
from oms_events.devstack import Fault, FaultProxy, LoseAnswer, Reset, ServerError, Throttle
from oms_events.errors import (
    LeaseHeldError,
    LeaseLostError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.testing import ManualClock
from oms_events.testing.leases_contract import LeasesContract
from oms_events.triggers.guards.exclusion import Exclusive, Lease, Leases, MemoryLeases
from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases
from oms_events.triggers.schema import lease_key
from tests.triggers.guards.conftest import Hurried, Tables

UPDATE = "UpdateItem"


class TestMemory(LeasesContract):
    @pytest.fixture
    def leases(self, clock: ManualClock) -> Leases:
        return MemoryLeases(clock=clock)


@pytest.fixture(scope="module")
async def pair(tables: Tables) -> AsyncIterator[tuple[DynamoDBLeases, DynamoDBLeases]]:
    """Two instances: opening them takes longer than a test."""
    async with DynamoDBLeases(tables.breaker) as one, DynamoDBLeases(tables.breaker) as other:
        yield one, other


class TestDynamoDB(LeasesContract):
    @pytest.fixture
    def leases(self, pair: tuple[DynamoDBLeases, DynamoDBLeases], clock: ManualClock) -> Leases:
        for one in pair:
            one._clock = clock
        return pair[0]

    @pytest.fixture
    def other(self, pair: tuple[Leases, Leases]) -> Leases:
        return pair[1]


# ---------------------------------------------------------------------- runs


class Shaky(MemoryLeases):
    """Leases that are slow to answer, and fail, or hang, while they are told to."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.error: Exception | None = None
        self.hangs = False
        self.taken, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def take(self, key: str, *, seconds: float) -> Lease | float:
        lease = await super().take(key, seconds=seconds)
        self.taken.set()
        await self.answers.wait()
        return lease

    async def renew(self, lease: Lease, *, seconds: float) -> bool:
        await self._shake()
        return await super().renew(lease, seconds=seconds)

    async def release(self, lease: Lease) -> None:
        await self._shake()
        await super().release(lease)

    async def _shake(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def leases(clock: ManualClock) -> Shaky:
    return Shaky(clock)


class Run:
    """A run that holds a key until it is told to end, in a task of its own."""

    def __init__(self, leases: Leases, clock: ManualClock, key: str = "a") -> None:
        self.began, self.end, self.was_cancelled = asyncio.Event(), asyncio.Event(), False
        self.task = asyncio.create_task(self._run(Exclusive(leases, key, seconds=60, clock=clock)))

    async def _run(self, exclusive: Exclusive) -> Lease:
        async with exclusive as lease:
            self.began.set()
            try:
                await self.end.wait()
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
        return lease


async def test_a_long_run_keeps_its_lease(leases: Shaky, clock: ManualClock) -> None:
    before = asyncio.all_tasks()
    run = Run(leases, clock)
    await run.began.wait()
    names = {task.get_name() for task in asyncio.all_tasks() - before - {run.task}}
    assert names == {"renew the lease of a", "watch the lease of a"}
    for _ in range(10):
        await clock.advance(20)
        assert await leases.take("a", seconds=1) == 60.0
    run.end.set()
    lease = await run.task
    assert asyncio.all_tasks() == before
    assert isinstance(later := await leases.take("a", seconds=1), Lease)
    assert later.fence == lease.fence + 1


async def test_a_run_that_lost_its_lease_is_cancelled(leases: Shaky, clock: ManualClock) -> None:
    before = asyncio.all_tasks()
    run = Run(leases, clock)
    await run.began.wait()
    leases._held["a"] = ("another", leases._held["a"][1] + 60_000_000)
    await clock.advance(19)
    assert not run.task.done()
    await clock.advance(1)
    with pytest.raises(LeaseLostError, match=r"'a' was lost.*another run has taken it") as lost:
        await run.task
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    assert run.was_cancelled
    assert asyncio.all_tasks() == before
    assert leases._held["a"][0] == "another"


@pytest.mark.parametrize("error", [StorageUnavailableError("down"), RuntimeError("a bug")], ids=repr)
async def test_a_run_that_cannot_renew_its_lease_ends_before_the_lease_does(
    leases: Shaky, clock: ManualClock, error: Exception
) -> None:
    before = asyncio.all_tasks()
    run = Run(leases, clock)
    await run.began.wait()
    await clock.advance(20)
    leases.error = error
    await clock.advance(53.9)
    assert not run.task.done()
    await clock.advance(0.2)
    with pytest.raises(LeaseLostError, match="could not be renewed in time"):
        await run.task
    assert run.was_cancelled
    assert await leases.take("a", seconds=1) == pytest.approx(5.9)
    assert asyncio.all_tasks() == before


async def test_renewals_that_hang_do_not_keep_a_run_alive(leases: Shaky, clock: ManualClock) -> None:
    before = asyncio.all_tasks()
    run = Run(leases, clock)
    await run.began.wait()
    leases.hangs = True
    await clock.advance(53.9)
    assert not run.was_cancelled
    await clock.advance(0.2)
    assert run.was_cancelled
    # So does the release, which ends with the caller's patience.
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert asyncio.all_tasks() == before


async def test_renewals_may_fail_for_a_while(leases: Shaky, clock: ManualClock) -> None:
    run = Run(leases, clock)
    await run.began.wait()
    leases.error = StorageUnavailableError("down")
    await clock.advance(48)
    leases.error = None
    await clock.advance(500)
    run.end.set()
    await run.task


async def test_a_lease_that_cannot_be_released_ends_by_itself(leases: Shaky, clock: ManualClock) -> None:
    async with Exclusive(leases, "a", seconds=60, clock=clock):
        leases.error = StorageUnavailableError("down")
    assert await leases.take("a", seconds=1) == 60.0
    await clock.advance(60)
    assert isinstance(await leases.take("a", seconds=1), Lease)


async def test_a_cancellation_from_outside_stays_one(leases: Shaky, clock: ManualClock) -> None:
    run = Run(leases, clock)
    await run.began.wait()
    leases._held["a"] = ("another", leases._held["a"][1])
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task

    async def tidies_up() -> None:
        async with Exclusive(leases, "b", seconds=60, clock=clock):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.Event().wait()

    task = asyncio.create_task(tidies_up())
    await clock.someone_sleeps()
    leases._held["b"] = ("another", leases._held["b"][1])
    await clock.advance(20)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_body_that_ends_in_spite_of_its_cancellation_is_told_all_the_same(
    leases: Shaky, clock: ManualClock
) -> None:
    async def stubborn() -> None:
        async with Exclusive(leases, "a", seconds=60, clock=clock):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        pytest.fail("went on")

    task = asyncio.create_task(stubborn())
    await clock.someone_sleeps()
    leases._held["a"] = ("another", leases._held["a"][1])
    await clock.advance(20)
    with pytest.raises(LeaseLostError):
        await task
    assert task.cancelling() == 0


async def test_an_error_of_the_body_goes_before(leases: Shaky, clock: ManualClock) -> None:
    async def failing() -> None:
        async with Exclusive(leases, "a", seconds=60, clock=clock):
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError("its own")

    task = asyncio.create_task(failing())
    await clock.someone_sleeps()
    leases._held["a"] = ("another", leases._held["a"][1])
    await clock.advance(20)
    with pytest.raises(LookupError, match="its own"):
        await task


async def test_cancelled_while_it_takes_the_lease_a_run_gives_it_back(leases: Shaky, clock: ManualClock) -> None:
    before = asyncio.all_tasks()
    leases.answers.clear()
    run = Run(leases, clock)
    await leases.taken.wait()
    run.task.cancel()
    await asyncio.sleep(0)
    assert not run.task.done()
    leases.answers.set()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert not run.began.is_set()
    assert asyncio.all_tasks() == before
    assert isinstance(await leases.take("a", seconds=60), Lease)

    leases.answers.clear()
    run = Run(leases, clock)
    await asyncio.sleep(0.01)
    for _ in range(2):
        # Somebody who does not want to wait for that.
        run.task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert asyncio.all_tasks() == before


async def test_a_run_is_for_one_use(leases: Shaky, clock: ManualClock) -> None:
    exclusive = Exclusive(leases, "a", clock=clock)
    async with exclusive:
        pass
    with pytest.raises(RuntimeError, match="make an Exclusive for each"):
        await exclusive.__aenter__()


async def test_two_runs_of_a_key_one_after_the_other_and_of_others_beside(
    leases: Shaky, clock: ManualClock
) -> None:
    async with Exclusive(leases, "a", clock=clock), Exclusive(leases, "b", clock=clock):
        with pytest.raises(LeaseHeldError):
            async with Exclusive(leases, "a", clock=clock):
                pytest.fail("two of them")
    async with Exclusive(leases, "a", clock=clock):
        pass


# ---------------------------------------------------------------------- DynamoDB


@pytest.fixture
def key() -> str:
    return f"key-{uuid.uuid4()}"


async def item_of(dynamo: DynamoClient, tables: Tables, key: str) -> dict[str, Any]:
    table, where = tables.breaker.table_name, to_item(lease_key(key))
    answer = await dynamo.call("GetItem", {"TableName": table, "Key": where, "ConsistentRead": True}, table=table)
    return from_item(answer.get("Item", {}))


async def test_an_item_stays_for_ever(tables: Tables, dynamo: DynamoClient, key: str) -> None:
    async with DynamoDBLeases(tables.breaker) as leases:
        lease = await leases.take(key, seconds=60)
        assert isinstance(lease, Lease)
        assert set(await item_of(dynamo, tables, key)) == {"pk", "holder", "held_until", "fence"}
        await leases.release(lease)
        assert await item_of(dynamo, tables, key) == {**lease_key(key), "fence": lease.fence}


async def test_a_clock_that_is_fast_takes_over_that_much_too_early(tables: Tables, key: str) -> None:
    clock = ManualClock(datetime.now(UTC))
    fast = ManualClock(clock.now() + timedelta(seconds=5))
    async with (
        DynamoDBLeases(tables.breaker, clock=clock) as leases,
        DynamoDBLeases(tables.breaker, clock=fast) as others,
    ):
        assert isinstance(lease := await leases.take(key, seconds=60), Lease)
        assert await others.take(key, seconds=60) == 55.0
        await fast.advance(55)
        assert isinstance(later := await others.take(key, seconds=60), Lease)
        assert later.fence > lease.fence
        assert not await leases.renew(lease, seconds=60)


async def test_an_item_that_is_none_of_ours_is_refused_and_stays(
    tables: Tables, dynamo: DynamoClient, key: str
) -> None:
    table, foreign = tables.breaker.table_name, {**lease_key(key), "holder": "me", "held_until": "tomorrow"}
    await dynamo.call("PutItem", {"TableName": table, "Item": to_item(foreign)}, table=table)
    async with DynamoDBLeases(tables.breaker) as leases:
        with pytest.raises(StorageRejectedError, match="give leases the breakers' table"):
            await leases.take(key, seconds=60)
    assert await item_of(dynamo, tables, key) == foreign


@pytest.fixture
async def shaken(tables: Tables, proxy: FaultProxy) -> AsyncIterator[DynamoDBLeases]:
    """Leases behind the proxy, by a clock that stands still."""
    async with DynamoDBLeases(tables.behind(proxy).breaker, clock=Hurried(datetime.now(UTC))) as leases:
        yield leases


@pytest.mark.parametrize(
    "faults",
    [
        (LoseAnswer(), LoseAnswer(orderly=True)),
        (Throttle("ProvisionedThroughputExceededException"), LoseAnswer()),
        (Reset(), ServerError()),
    ],
    ids=lambda faults: "-".join(type(fault).__name__ for fault in faults),
)
async def test_whatever_becomes_of_answers_one_holds_it(
    shaken: DynamoDBLeases,
    tables: Tables,
    dynamo: DynamoClient,
    proxy: FaultProxy,
    key: str,
    faults: tuple[Fault, ...],
) -> None:
    proxy.script(*faults, operation=UPDATE)
    lease = await shaken.take(key, seconds=60)
    assert isinstance(lease, Lease)
    stored = await item_of(dynamo, tables, key)
    assert (stored["holder"], stored["fence"]) == (lease.token, lease.fence)
    proxy.script(*faults, operation=UPDATE)
    assert await shaken.renew(lease, seconds=90)
    assert await shaken.take(key, seconds=60) == 90.0
    proxy.script(*faults, operation=UPDATE)
    await shaken.release(lease)
    assert isinstance(later := await shaken.take(key, seconds=60), Lease)
    assert later.fence > lease.fence


async def test_a_key_that_may_have_been_taken_is_free_after_its_time(
    shaken: DynamoDBLeases, proxy: FaultProxy, key: str
) -> None:
    proxy.always(LoseAnswer(), operation=UPDATE)
    with pytest.raises(StorageOutcomeUnknownError):
        await shaken.take(key, seconds=60)
    proxy.clear()
    assert await shaken.take(key, seconds=60) == 60.0
