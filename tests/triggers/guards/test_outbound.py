"""How fast upstream APIs are asked."""

from __future__ import annotations

import asyncio

import pytest

from oms_events.errors import ConfigurationError
from oms_events.instrumentation.hooks import ApiRequested, Detail
from oms_events.testing import ManualClock
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.outbound import OutboundLimiter
from oms_events.triggers.guards.rate import MemoryRateLimiter

SYMBOLS = [f"S{number}" for number in range(12)]


class CountingLimiter(MemoryRateLimiter):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.asked = 0

    async def take(self, name: str, quota: Quota, *, count: int = 1, waited: bool = False) -> float:
        self.asked += 1
        return await super().take(name, quota, count=count, waited=waited)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_batches_come_as_the_quota_has_room(clock: ManualClock) -> None:
    """A request for each symbol; and that some wait is told by nobody as a quota that is used up."""
    told: list[Detail] = []
    limiter = OutboundLimiter(
        MemoryRateLimiter(clock=clock, hooks=[told.append]),
        "quotes",
        quota=Quota(limit=10, window=60),
        hooks=[told.append],
        clock=clock,
    )
    came: list[tuple[float, int]] = []

    async def ask() -> None:
        async for batch in limiter.batches(SYMBOLS):
            came.append((clock.monotonic(), len(batch)))

    task = asyncio.create_task(ask())
    await clock.someone_sleeps()
    await clock.advance(60)
    await task
    assert came == [(0, 5), (0, 5), (60, 2)]
    assert told == [
        ApiRequested("quotes", 5, 0.0),
        ApiRequested("quotes", 5, 0.0),
        ApiRequested("quotes", 2, 60.0),
    ]


async def test_a_request_may_be_for_a_whole_batch(clock: ManualClock) -> None:
    limiter = OutboundLimiter(
        MemoryRateLimiter(clock=clock),
        "quotes",
        quota=Quota(limit=3, window=60),
        request_per="batch",
        clock=clock,
    )
    assert [batch async for batch in limiter.batches(SYMBOLS)] == [
        tuple(SYMBOLS[:5]),
        tuple(SYMBOLS[5:10]),
        tuple(SYMBOLS[10:]),
    ]
    assert [batch async for batch in limiter.batches([])] == []


async def test_unless_told_otherwise_a_hundred_a_minute(clock: ManualClock) -> None:
    rate = MemoryRateLimiter(clock=clock)
    one, other = (OutboundLimiter(rate, "quotes", clock=clock) for _ in range(2))
    assert await one.acquire(60) == await other.acquire(40) == 0.0
    task = asyncio.create_task(one.acquire())
    await clock.someone_sleeps()
    assert await OutboundLimiter(rate, "news", clock=clock).acquire() == 0.0
    await clock.advance(60)
    assert await task == 60.0


async def test_it_is_first_come_first_served_and_a_waiter_may_leave(clock: ManualClock) -> None:
    quota = Quota(limit=2, window=60)
    limiter = OutboundLimiter(MemoryRateLimiter(clock=clock), "quotes", quota=quota, batch_size=2, clock=clock)
    await limiter.acquire(2)
    served: list[int] = []

    async def ask(number: int, count: int) -> None:
        await limiter.acquire(count)
        served.append(number)

    tasks = [asyncio.create_task(ask(number, count)) for number, count in enumerate((2, 2, 1, 1))]
    await clock.someone_sleeps()
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    await clock.advance(60)
    assert served == [1]
    await clock.advance(60)
    assert served == [1, 2, 3]


async def test_who_asks_for_little_does_not_pass_by_who_asks_for_much(clock: ManualClock) -> None:
    rate = CountingLimiter(clock)
    limiter = OutboundLimiter(rate, "quotes", quota=Quota(limit=2, window=60), batch_size=2, clock=clock)
    await limiter.acquire()
    waiters = [asyncio.create_task(limiter.acquire(count)) for count in (2, 1, 1)]
    await clock.someone_sleeps()
    await clock.advance(59)
    # One asks for all of them: a refusal is a write.
    assert rate.asked == 2
    await clock.advance(1)
    assert [waiter.done() for waiter in waiters] == [True, False, False]
    await clock.advance(60)
    assert [await waiter for waiter in waiters] == [60.0, 120.0, 120.0]


async def test_what_never_has_room_is_refused(clock: ManualClock) -> None:
    rate, quota = MemoryRateLimiter(clock=clock), Quota(limit=4, window=60)
    with pytest.raises(ConfigurationError, match="make batches smaller, or give request_per='batch'"):
        OutboundLimiter(rate, "quotes", quota=quota)
    with pytest.raises(ConfigurationError, match="batch_size = 0: give 1 or more"):
        OutboundLimiter(rate, "quotes", batch_size=0)
    with pytest.raises(ValueError, match="take 1 to 4"):
        await OutboundLimiter(rate, "quotes", quota=quota, batch_size=4).acquire(5)
