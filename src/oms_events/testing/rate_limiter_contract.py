"""The contract of `RateLimiter` as tests: subclass it beside your own limiter's tests."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from oms_events.testing.clock import ManualClock
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.rate import Behind, RateLimiter

_CROWD = 10
_TIMEOUT = 30.0
THREE_A_MINUTE = Quota(limit=3, window=60)


class RateLimiterContract:
    """Subclass as `class TestMine(RateLimiterContract)` and give it a fixture `limiter`: it goes by `clock`.

    `other` is a second one over the same storage, where there can be one.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The clock of the limiters; it starts now, as stores may delete what is over."""
        return ManualClock(datetime.now(UTC))

    @pytest.fixture
    def other(self, limiter: RateLimiter) -> RateLimiter:
        return limiter

    @pytest.fixture
    def name(self) -> str:
        """A name that nobody has used."""
        return f"contract-{uuid.uuid4()}"

    async def test_lets_the_limit_through_and_then_says_when_to_try_again(
        self, limiter: RateLimiter, other: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        assert [await one.take(name, THREE_A_MINUTE) for one in (limiter, other, limiter)] == [0.0] * 3
        await clock.advance(20)
        assert await other.take(name, THREE_A_MINUTE) == 40.0
        await clock.advance(39.999)
        assert await limiter.take(name, THREE_A_MINUTE) == pytest.approx(0.001)
        await clock.advance(0.001)
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0

    async def test_the_window_slides(self, limiter: RateLimiter, name: str, clock: ManualClock) -> None:
        for pause in (0, 25, 25):
            await clock.advance(pause)
            assert await limiter.take(name, THREE_A_MINUTE) == 0.0
        await clock.advance(10)
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0
        assert await limiter.take(name, THREE_A_MINUTE) == 25.0

    async def test_what_is_refused_counts_for_nothing(
        self, limiter: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0
        for _ in range(5):
            await clock.advance(11)
            assert await limiter.take(name, THREE_A_MINUTE) > 0
        await clock.advance(5)
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0

    async def test_several_are_taken_together_or_not_at_all(
        self, limiter: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0
        await clock.advance(30)
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 30.0
        assert await limiter.take(name, THREE_A_MINUTE, count=2) == 0.0
        assert await limiter.take(name, THREE_A_MINUTE) == 30.0
        await clock.advance(30)
        assert await limiter.take(name, THREE_A_MINUTE, count=2) == 30.0
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0

    async def test_looking_takes_nothing(self, limiter: RateLimiter, name: str, clock: ManualClock) -> None:
        for taken in range(4):
            assert await limiter.look(name, THREE_A_MINUTE) == (60.0 if taken == 3 else 0.0)
            assert await limiter.look(name, THREE_A_MINUTE) == (60.0 if taken == 3 else 0.0)
            await limiter.take(name, THREE_A_MINUTE)
        await clock.advance(60)
        assert await limiter.look(name, THREE_A_MINUTE) == 0.0

    async def test_it_says_how_much_is_used(
        self, limiter: RateLimiter, other: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        assert await limiter.used(name, THREE_A_MINUTE) == 0
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0
        await clock.advance(30)
        assert await other.take(name, THREE_A_MINUTE, count=2) == 0.0
        assert [await one.used(name, THREE_A_MINUTE) for one in (limiter, other)] == [3, 3]
        await clock.advance(30)
        assert await limiter.used(name, THREE_A_MINUTE) == 2
        assert await limiter.used(name, Quota(limit=1, window=90)) == 3

    async def test_a_reset_forgets_starts_and_marks(
        self, limiter: RateLimiter, other: RateLimiter, name: str
    ) -> None:
        assert await limiter.reset(name) is False
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0
        await limiter.mark_waiting(name, 40)
        assert await other.reset(name) is True
        assert (await limiter.used(name, THREE_A_MINUTE), await limiter.reset(name)) == (0, False)
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0
        await other.mark_waiting(name + "2", 40)
        assert await limiter.reset(name + "2") is True
        assert await limiter.take(name + "2", THREE_A_MINUTE) == 0.0

    async def test_names_have_nothing_to_do_with_each_other(self, limiter: RateLimiter, name: str) -> None:
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0
        for more in ("ä#/ \n", "2", "x" * 900):
            assert await limiter.take(name + more, THREE_A_MINUTE, count=3) == 0.0

    async def test_another_limit_holds_at_once(
        self, limiter: RateLimiter, other: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        five, one = Quota(limit=5, window=60), Quota(limit=1, window=60)
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0
        await clock.advance(10)
        assert [await other.take(name, five) for _ in range(3)] == [0.0, 0.0, 50.0]
        await clock.advance(50)
        # The two of `five` are in the window.
        assert await limiter.take(name, one) == 10.0
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0

    async def test_another_window_holds_at_once(self, limiter: RateLimiter, name: str, clock: ManualClock) -> None:
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0
        await clock.advance(30)
        assert await limiter.take(name, Quota(limit=3, window=600)) == 570.0
        assert await limiter.take(name, Quota(limit=3, window=30)) == 0.0

    async def test_a_longer_window_knows_as_many_as_the_lowest_limit_since(
        self, limiter: RateLimiter, other: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        for limit in (60, 2):
            for _ in range(2):
                assert await limiter.take(name, Quota(limit=limit, window=1), count=limit) == 0.0
                await clock.advance(1)
            # They have left the window that they were counted in, and are of this one.
            assert await other.take(name, Quota(limit=limit, window=3600)) > 0

    async def test_fresh_starts_stay_behind_those_that_wait(
        self, limiter: RateLimiter, other: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        await limiter.mark_waiting(name, 40)
        assert await limiter.take(name, THREE_A_MINUTE, count=2, waited=True) == 0.0
        await clock.advance(10)
        for wait in (await other.take(name, THREE_A_MINUTE), await other.look(name, THREE_A_MINUTE)):
            assert (wait, type(wait)) == (30.0, Behind)
        assert await other.look(name, THREE_A_MINUTE, waited=True) == 0.0
        assert await other.take(f"{name} of others", THREE_A_MINUTE) == 0.0
        assert await other.take(name, THREE_A_MINUTE, waited=True) == 0.0
        # Without room the quota keeps them back, whether there is a mark or not.
        for waited in (False, True):
            wait = await limiter.take(name, THREE_A_MINUTE, waited=waited)
            assert (wait, type(wait)) == (50.0, float)
        await other.mark_waiting(name, 70)
        wait = await limiter.take(name, THREE_A_MINUTE)
        assert (wait, type(wait)) == (70.0, float)
        await clock.advance(69.999)
        assert await limiter.take(name, THREE_A_MINUTE) == pytest.approx(0.001)
        await clock.advance(0.001)
        assert await limiter.take(name, THREE_A_MINUTE, count=3) == 0.0

    async def test_a_mark_is_extended_only_by_a_later_one(
        self, limiter: RateLimiter, other: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        for seconds, marked in ((30, 30), (10, 30), (40, 40), (1e9, 86_400)):
            await limiter.mark_waiting(name, seconds)
            assert await other.take(name, THREE_A_MINUTE) == marked
        await clock.advance(15)
        assert await other.take(name, THREE_A_MINUTE) == 86_385

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    async def test_what_is_no_mark_is_refused(self, limiter: RateLimiter, name: str, seconds: float) -> None:
        with pytest.raises(ValueError, match="seconds = "):
            await limiter.mark_waiting(name, seconds)
        with pytest.raises(ValueError, match="name = "):
            await limiter.mark_waiting("", 1)
        assert await limiter.look(name, THREE_A_MINUTE) == 0.0

    async def test_it_stays_exact_over_many_windows(
        self, limiter: RateLimiter, name: str, clock: ManualClock
    ) -> None:
        quota = Quota(limit=20, window=1)
        for _ in range(6):
            assert await limiter.take(name, quota, count=15) == 0.0
            assert await limiter.take(name, quota, count=6) == 1.0
            assert await limiter.take(name, quota, count=5) == 0.0
            await clock.advance(1)

    async def test_of_a_crowd_exactly_the_limit_passes(
        self, limiter: RateLimiter, other: RateLimiter, name: str
    ) -> None:
        quota = Quota(limit=10, window=3600)
        async with asyncio.timeout(_TIMEOUT):
            waits = await asyncio.gather(
                *(one.take(name, quota) for _ in range(_CROWD) for one in (limiter, other))
            )
        assert waits.count(0.0) == 10
        assert all(0 < wait <= 3600 for wait in waits if wait)

    @pytest.mark.parametrize("wrong", ["", "x" * 1025, "\ud800"])
    async def test_what_is_no_name_is_refused(self, limiter: RateLimiter, wrong: str) -> None:
        for call in (limiter.take, limiter.look, limiter.used):
            with pytest.raises(ValueError, match="name = "):
                await call(wrong, THREE_A_MINUTE)
        with pytest.raises(ValueError, match="name = "):
            await limiter.reset(wrong)

    @pytest.mark.parametrize("count", [0, -1, 4])
    async def test_a_count_that_never_fits_is_refused(self, limiter: RateLimiter, name: str, count: int) -> None:
        with pytest.raises(ValueError, match="take 1 to 3"):
            await limiter.take(name, THREE_A_MINUTE, count=count)
        assert await limiter.look(name, Quota(limit=1, window=60)) == 0.0

    async def test_opens_and_closes_as_often_as_one_likes(self, limiter: RateLimiter, name: str) -> None:
        for _ in range(2):
            await limiter.open()
        for _ in range(2):
            await limiter.close()
        await limiter.open()
        assert await limiter.take(name, THREE_A_MINUTE) == 0.0
