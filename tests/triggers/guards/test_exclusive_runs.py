"""Runs that hold a lease: they keep it, lose it, and give it back on every exit."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from oms_events.errors import LeaseHeldError, LeaseLostError, StorageUnavailableError
from oms_events.testing import ManualClock
from oms_events.triggers.guards.exclusion import Exclusive, Lease, Leases, MemoryLeases


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
        await self.answers.wait()
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
    # So does the release, which ends with its own patience, or with who does not want to wait for it.
    for _ in range(2):
        run.task.cancel()
        await asyncio.sleep(0)
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


async def test_a_body_that_blocked_the_loop_goes_on_as_held_when_nobody_took_the_lease(
    leases: Shaky, clock: ManualClock
) -> None:
    before = asyncio.all_tasks()
    async with Exclusive(leases, "a", seconds=60, clock=clock):
        # Time passes, and no task gets to run.
        clock._elapsed += 100
    assert asyncio.all_tasks() == before
    assert isinstance(await leases.take("a", seconds=1), Lease)


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_body_that_blocked_the_loop_while_another_took_the_lease_is_told(
    leases: Shaky, clock: ManualClock, is_known: bool
) -> None:
    before = asyncio.all_tasks()

    async def blocks(error: Exception | None = None) -> None:
        async with Exclusive(leases, "a", seconds=60, clock=clock):
            clock._elapsed += 55
            if is_known:
                leases._held["a"] = ("another", leases._held["a"][1] + 60_000_000)
            else:
                leases.error = StorageUnavailableError("down")
            if error is not None:
                raise error

    with pytest.raises(LeaseLostError, match="'a' was lost, while its run blocked the event loop: "):
        await blocks()
    assert asyncio.all_tasks() == before
    leases.error = None
    assert await leases.take("a", seconds=1) == (65.0 if is_known else 5.0)
    await clock.advance(65)
    with pytest.raises(LookupError, match="its own"):
        await blocks(LookupError("its own"))


async def test_a_lease_is_released_although_its_run_is_cancelled_meanwhile(
    leases: Shaky, clock: ManualClock
) -> None:
    run = Run(leases, clock)
    await run.began.wait()
    leases.answers.clear()
    run.end.set()
    await asyncio.sleep(0.01)
    run.task.cancel()
    await asyncio.sleep(0)
    leases.answers.set()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert isinstance(await leases.take("a", seconds=1), Lease)


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
