"""The contract of `Leases` as tests: subclass it beside your own implementation's tests."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from oms_events.errors import LeaseHeldError
from oms_events.testing.clock import ManualClock
from oms_events.triggers.guards.exclusion import Exclusive, Lease, Leases

_CROWD = 6
_TIMEOUT = 30.0


class LeasesContract:
    """Subclass as `class TestMine(LeasesContract)` and give it a fixture `leases`: they go by `clock`.

    `other` is a second one over the same storage, where there can be one.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The clock of the leases."""
        return ManualClock(datetime.now(UTC))

    @pytest.fixture
    def other(self, leases: Leases) -> Leases:
        return leases

    @pytest.fixture
    def key(self) -> str:
        """A key that nobody has used."""
        return f"contract-{uuid.uuid4()}"

    async def taken(self, leases: Leases, key: str, seconds: float = 60) -> Lease:
        lease = await leases.take(key, seconds=seconds)
        assert isinstance(lease, Lease)
        return lease

    async def test_one_holds_it_and_the_others_are_told_for_how_long(
        self, leases: Leases, other: Leases, key: str, clock: ManualClock
    ) -> None:
        lease = await self.taken(leases, key)
        assert lease.key == key
        await clock.advance(20)
        assert await other.take(key, seconds=5) == 40.0
        assert await leases.take(key, seconds=60) == 40.0
        await self.taken(other, f"{key} of another")

    async def test_once_released_the_next_one_takes_it(self, leases: Leases, other: Leases, key: str) -> None:
        for one in (leases, other, leases):
            await other.release(await self.taken(one, key))
        await self.taken(other, key)

    async def test_a_lease_that_is_over_is_taken_over(
        self, leases: Leases, other: Leases, key: str, clock: ManualClock
    ) -> None:
        lost = await self.taken(leases, key)
        await clock.advance(59.999)
        assert await other.take(key, seconds=60) == pytest.approx(0.001)
        await clock.advance(0.001)
        lease = await self.taken(other, key)
        assert not await leases.renew(lost, seconds=60)
        await leases.release(lost)
        assert await leases.take(key, seconds=60) == 60.0
        assert await other.renew(lease, seconds=60)

    async def test_the_fence_rises_for_ever(
        self, leases: Leases, other: Leases, key: str, clock: ManualClock
    ) -> None:
        fences = []
        for turn in range(3):
            lease = await self.taken((leases, other)[turn % 2], key)
            fences.append(lease.fence)
            await leases.release(lease)
            fences.append((await self.taken(leases, key)).fence)
            await clock.advance(10_000_000)
        assert fences == sorted(set(fences))
        assert fences[0] > 0

    async def test_renewed_it_stays(self, leases: Leases, other: Leases, key: str, clock: ManualClock) -> None:
        lease = await self.taken(leases, key)
        for _ in range(3):
            await clock.advance(50)
            assert await leases.renew(lease, seconds=60)
            assert await other.take(key, seconds=60) == 60.0

    async def test_a_renewal_never_makes_it_shorter(self, leases: Leases, key: str, clock: ManualClock) -> None:
        lease = await self.taken(leases, key)
        assert await leases.renew(lease, seconds=10)
        assert await leases.take(key, seconds=60) == 60.0

    async def test_a_lease_that_is_over_can_be_renewed_while_nobody_has_taken_it(
        self, leases: Leases, other: Leases, key: str, clock: ManualClock
    ) -> None:
        lease = await self.taken(leases, key)
        await clock.advance(100)
        assert await leases.renew(lease, seconds=60)
        assert await other.take(key, seconds=60) == 60.0

    async def test_what_was_released_cannot_be_renewed(self, leases: Leases, key: str) -> None:
        lease = await self.taken(leases, key)
        for _ in range(2):
            await leases.release(lease)
        assert not await leases.renew(lease, seconds=60)
        assert not await leases.renew(Lease(f"{key} of nobody", "token", 1), seconds=60)
        await leases.release(Lease(f"{key} of nobody", "token", 1))
        await self.taken(leases, key)

    async def test_of_a_crowd_one_gets_it(self, leases: Leases, other: Leases, key: str) -> None:
        async with asyncio.timeout(_TIMEOUT):
            answers = await asyncio.gather(
                *(one.take(key, seconds=60) for _ in range(_CROWD) for one in (leases, other))
            )
        assert len([answer for answer in answers if isinstance(answer, Lease)]) == 1
        assert answers.count(60.0) == 2 * _CROWD - 1

    async def test_an_exclusive_run_releases_it_on_every_exit(
        self, leases: Leases, other: Leases, key: str, clock: ManualClock
    ) -> None:
        before = asyncio.all_tasks()
        async with Exclusive(leases, key, clock=clock) as lease:
            with pytest.raises(LeaseHeldError) as refused:
                await Exclusive(other, key, clock=clock).__aenter__()
            assert (refused.value.key, refused.value.retry_after) == (key, 60.0)
        with pytest.raises(LookupError):
            async with Exclusive(other, key, clock=clock) as second:
                raise LookupError
        assert second.fence > lease.fence
        inside = asyncio.Event()

        async def wait_for_ever() -> None:
            async with Exclusive(leases, key, clock=clock):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(wait_for_ever())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before
        await self.taken(other, key)

    @pytest.mark.parametrize("wrong", ["", "x" * 1025, "\ud800"])
    async def test_what_is_no_key_is_refused(self, leases: Leases, wrong: str) -> None:
        with pytest.raises(ValueError, match="key = "):
            await leases.take(wrong, seconds=60)

    @pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan")])
    async def test_what_is_no_time_is_refused(self, leases: Leases, key: str, seconds: float) -> None:
        with pytest.raises(ValueError, match="seconds = "):
            await leases.take(key, seconds=seconds)
        with pytest.raises(ValueError, match="seconds = "):
            await leases.renew(await self.taken(leases, key), seconds=seconds)

    async def test_opens_and_closes_as_often_as_one_likes(self, leases: Leases, key: str) -> None:
        for _ in range(2):
            await leases.open()
        for _ in range(2):
            await leases.close()
        await leases.open()
        await self.taken(leases, key)
