"""Quotas: in memory, on DynamoDB, against a naive count, and when DynamoDB fails."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item, to_item
from oms_events.devstack import Denied, Fault, FaultProxy, Forward, Hang, LoseAnswer, Reset, ServerError, Throttle
from oms_events.errors import (
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.instrumentation.hooks import Detail, QuotaUsedUp
from oms_events.testing import ManualClock
from oms_events.testing.rate_limiter_contract import THREE_A_MINUTE, RateLimiterContract
from oms_events.triggers.config import Quota
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.rate import SPARE, Behind, MemoryRateLimiter, RateLimiter
from oms_events.triggers.guards.rate_dynamodb import DynamoDBRateLimiter
from oms_events.triggers.schema import rate_key
from tests.triggers.guards.conftest import Tables

UPDATE = "UpdateItem"
ONE_AN_HOUR = Quota(limit=1, window=3600)


class TestMemory(RateLimiterContract):
    @pytest.fixture
    def limiter(self, clock: ManualClock) -> RateLimiter:
        return MemoryRateLimiter(clock=clock)


@pytest.fixture(scope="module")
async def pair(tables: Tables) -> AsyncIterator[tuple[DynamoDBRateLimiter, DynamoDBRateLimiter]]:
    """Two instances: opening them takes longer than a test."""
    async with DynamoDBRateLimiter(tables.rate) as one, DynamoDBRateLimiter(tables.rate) as other:
        yield one, other


class TestDynamoDB(RateLimiterContract):
    @pytest.fixture
    def limiter(self, pair: tuple[DynamoDBRateLimiter, DynamoDBRateLimiter], clock: ManualClock) -> RateLimiter:
        for one in pair:
            one._clock = clock
        return pair[0]

    @pytest.fixture
    def other(self, pair: tuple[RateLimiter, RateLimiter]) -> RateLimiter:
        return pair[1]


# ---------------------------------------------------------------------- against a naive count

STEPS = st.lists(
    st.tuples(st.floats(0, 12, allow_subnormal=False), st.integers(1, 4), st.sampled_from([7.5, 10.0])),
    min_size=5,
    max_size=60,
)


async def check_against_a_naive_count(steps: list[tuple[float, int, float]], limit: int) -> None:
    clock = ManualClock()
    limiter, started = MemoryRateLimiter(clock=clock), list[datetime]()
    for pause, count, window in steps:
        await clock.advance(pause)
        count = min(count, limit)
        quota = Quota(limit=limit, window=window)
        since = clock.now() - timedelta(seconds=window)
        has_room = sum(start > since for start in started) + count <= limit
        looked = await limiter.look("a", quota)
        wait = await limiter.take("a", quota, count=count)
        assert (wait == 0.0) is has_room
        if count == 1:
            assert looked == wait
        if has_room:
            started += [clock.now()] * count
        else:
            since += timedelta(seconds=wait)
            assert sum(start > since for start in started) + count <= limit
            since -= timedelta(microseconds=1)
            assert sum(start > since for start in started) + count > limit


@given(STEPS, st.integers(1, 6))
@settings(max_examples=40)
async def test_it_counts_as_one_who_remembers_every_start(
    steps: list[tuple[float, int, float]], limit: int
) -> None:
    await check_against_a_naive_count(steps, limit)


@pytest.mark.nightly
@given(STEPS, st.integers(1, 6))
@settings(max_examples=2000)
async def test_it_counts_so_for_long(steps: list[tuple[float, int, float]], limit: int) -> None:
    await check_against_a_naive_count(steps, limit)


# ---------------------------------------------------------------------- those that wait


async def test_marked_by_refusals_of_the_quota_those_that_wait_are_not_overtaken_and_marks_end() -> None:
    """Twelve a minute come where ten may start; each second the first that waits tries again."""
    clock, quota = ManualClock(), Quota(limit=10, window=60)
    limiter, ran, waiting = MemoryRateLimiter(clock=clock), list[int](), list[int]()

    async def start(number: int, *, waited: bool) -> bool:
        wait = await limiter.take("event", quota, waited=waited)
        if wait and not isinstance(wait, Behind):
            await limiter.mark_waiting("event", wait + 5)
        return wait == 0.0

    for second in range(1800):
        if second < 1200 and second % 5 == 0:
            number = second // 5
            (ran if await start(number, waited=False) else waiting).append(number)
        if waiting and await start(waiting[0], waited=True):
            ran.append(waiting.pop(0))
        await clock.advance(1)
    assert ran == list(range(240))
    assert await limiter.take("event", quota) == 0.0


# ---------------------------------------------------------------------- what is stored


@pytest.fixture
def name() -> str:
    return f"quota-{uuid.uuid4()}"


async def item_of(dynamo: DynamoClient, tables: Tables, name: str) -> dict[str, object]:
    table = tables.rate.table_name
    answer = await dynamo.call(
        "GetItem", {"TableName": table, "Key": to_item(rate_key(name)), "ConsistentRead": True}, table=table
    )
    return from_item(answer.get("Item", {}))


async def test_an_item_is_short_and_expires(dynamo: DynamoClient, tables: Tables, name: str) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with DynamoDBRateLimiter(tables.rate, clock=clock) as limiter:
        quota = Quota(limit=30, window=1)
        sizes = []
        for _ in range(5):
            assert await limiter.take(name, quota, count=30) == 0.0
            item = await item_of(dynamo, tables, name)
            starts = item["starts"]
            assert isinstance(starts, list)
            assert starts == sorted(starts, reverse=True)
            sizes.append(len(starts))
            await clock.advance(1)
        assert max(sizes) < 110
        expires = datetime.fromtimestamp(int(str(item["ttl"])), UTC) - clock.now()
        assert timedelta(hours=23) < expires < timedelta(hours=25)
        await limiter.mark_waiting(name, 1)
        item = await item_of(dynamo, tables, name)
        assert item["starts"] == starts
        expires = datetime.fromtimestamp(int(str(item["ttl"])), UTC) - clock.now()
        assert timedelta(hours=47) < expires < timedelta(hours=49)
    memory = MemoryRateLimiter(clock=clock)
    for _ in range(5):
        assert await memory.take(name, quota, count=30) == 0.0
        assert len(memory._starts[name]) < quota.limit + SPARE
        await clock.advance(1)


async def test_a_limit_that_is_much_lower_now_has_its_item_shortened_step_by_step(
    dynamo: DynamoClient, tables: Tables, name: str
) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with DynamoDBRateLimiter(tables.rate, clock=clock) as limiter:
        assert await limiter.take(name, Quota(limit=300, window=1), count=300) == 0.0
        sizes = []
        for _ in range(4):
            await clock.advance(1)
            assert await limiter.take(name, Quota(limit=1, window=1)) == 0.0
            starts = (await item_of(dynamo, tables, name))["starts"]
            assert isinstance(starts, list)
            sizes.append(len(starts))
        assert sizes == [201, 102, 3, 4]


async def test_clocks_that_differ_shorten_the_window_by_as_much(tables: Tables, name: str) -> None:
    clocks = [ManualClock(datetime.now(UTC)), ManualClock(datetime.now(UTC) + timedelta(seconds=2))]
    started, now = [], 0
    async with (
        DynamoDBRateLimiter(tables.rate, clock=clocks[0]) as slow,
        DynamoDBRateLimiter(tables.rate, clock=clocks[1]) as fast,
    ):
        quota, drawn = Quota(limit=3, window=8), random.Random(7)
        for _ in range(30):
            now += 1
            for clock in clocks:
                await clock.advance(1)
            if await drawn.choice((slow, fast)).take(name, quota) == 0.0:
                started.append(now)
    counts = [sum(start <= other < start + 6 for other in started) for start in started]
    assert max(counts) == 3
    assert len(started) > 6


async def test_a_hook_is_told_when_a_quota_is_used_up(tables: Tables, name: str) -> None:
    clock, told = ManualClock(), list[Detail]()
    for limiter in (
        MemoryRateLimiter(clock=clock, hooks=[told.append]),
        DynamoDBRateLimiter(tables.rate, clock=clock, hooks=[told.append]),
    ):
        await limiter.take(name, THREE_A_MINUTE, count=3)
        await limiter.look(name, THREE_A_MINUTE)
        assert told == []
        await limiter.take(name, THREE_A_MINUTE)
        assert told == [QuotaUsedUp(name, 60.0)]
        # For who waits already that is no news.
        await limiter.take(name, THREE_A_MINUTE, waited=True)
        assert told == [QuotaUsedUp(name, 60.0)]
        told.clear()
        await limiter.close()


async def test_an_item_that_is_none_of_ours_is_refused_and_stays(
    dynamo: DynamoClient, tables: Tables, name: str
) -> None:
    table, foreign = tables.rate.table_name, to_item({**rate_key(name), "starts": ["yesterday"]})
    await dynamo.call("PutItem", {"TableName": table, "Item": foreign}, table=table)
    async with DynamoDBRateLimiter(tables.rate) as limiter:
        with pytest.raises(StorageRejectedError, match="give quotas a table of their own"):
            await limiter.take(name, ONE_AN_HOUR)
        with pytest.raises(StorageRejectedError, match="give quotas a table of their own"):
            await limiter.look(name, ONE_AN_HOUR)
    assert await item_of(dynamo, tables, name) == from_item(foreign)


# ---------------------------------------------------------------------- faults


@pytest.fixture
async def shaken(tables: Tables, proxy: FaultProxy) -> AsyncIterator[DynamoDBRateLimiter]:
    """A limiter behind the proxy."""
    async with DynamoDBRateLimiter(tables.behind(proxy).rate) as limiter:
        yield limiter


@pytest.mark.parametrize(
    "faults",
    [
        (Throttle("ProvisionedThroughputExceededException"),) * 2,
        (LoseAnswer(), LoseAnswer(orderly=True)),
        (LoseAnswer(), Throttle()),
        (Hang(), ServerError()),
        (Reset(),),
    ],
    ids=lambda faults: "-".join(type(fault).__name__ for fault in faults),
)
async def test_a_start_is_counted_once_whatever_becomes_of_the_answers(
    shaken: DynamoDBRateLimiter,
    dynamo: DynamoClient,
    tables: Tables,
    proxy: FaultProxy,
    name: str,
    faults: tuple[Fault, ...],
) -> None:
    proxy.script(*faults, operation=UPDATE)
    assert await shaken.take(name, ONE_AN_HOUR) == 0.0
    starts = (await item_of(dynamo, tables, name))["starts"]
    assert isinstance(starts, list)
    assert len(starts) == 1
    assert await shaken.take(name, ONE_AN_HOUR) == pytest.approx(3600, abs=10)


async def test_a_start_that_is_never_answered_may_be_counted_and_does_not_start(
    shaken: DynamoDBRateLimiter, proxy: FaultProxy, name: str
) -> None:
    proxy.always(LoseAnswer(), operation=UPDATE)
    with pytest.raises(StorageOutcomeUnknownError):
        await shaken.take(name, ONE_AN_HOUR)
    proxy.clear()
    assert await shaken.take(name, ONE_AN_HOUR) > 0


class Slow(DynamoDBRateLimiter):
    """Each answer takes the next of `times`, and each pause before a retry `pause` seconds, by its own clock."""

    def __init__(self, config: GuardTableConfig, *times: float, pause: float = 0.0) -> None:
        self.time = Passing(datetime.now(UTC), pause)
        super().__init__(config, clock=self.time)
        self.times = list(times)

    async def call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        try:
            return await super().call(operation, **parameters)
        finally:
            await self.time.advance(self.times.pop(0) if self.times else 0.0)


class Passing(ManualClock):
    def __init__(self, start: datetime, pause: float) -> None:
        super().__init__(start)
        self._pause = pause

    async def sleep(self, seconds: float) -> None:
        await self.advance(self._pause)


@pytest.mark.parametrize(
    ("faults", "pause", "counted"),
    [
        # Nothing was counted: it is now.
        ((Throttle(), ServerError()), 3.0, 1),
        # It may be counted, and it is not late yet.
        ((LoseAnswer(), Throttle()), 0.1, 1),
        ((LoseAnswer(),), 3.0, 2),
    ],
    ids=["refused", "unknown", "unknown for long"],
)
async def test_a_start_that_is_let_through_late_is_counted_as_of_then(
    tables: Tables,
    dynamo: DynamoClient,
    proxy: FaultProxy,
    name: str,
    faults: tuple[Fault, ...],
    pause: float,
    counted: int,
) -> None:
    quota = Quota(limit=2, window=1)
    async with Slow(tables.behind(proxy).rate, pause=pause) as limiter:
        proxy.script(*faults, operation=UPDATE)
        assert await limiter.take(name, quota) == 0.0
        starts = (await item_of(dynamo, tables, name))["starts"]
        assert isinstance(starts, list)
        assert len(starts) == counted
        age = limiter.time.now() - datetime.fromtimestamp(int(starts[0]) / 1e12, UTC)
        assert age < timedelta(seconds=0.25)


async def test_an_answer_that_comes_late_lets_no_start_through(
    tables: Tables, dynamo: DynamoClient, proxy: FaultProxy, name: str
) -> None:
    quota = Quota(limit=4, window=1)
    async with Slow(tables.behind(proxy).rate) as limiter:
        limiter.times = [0.3, 0.2]
        assert await limiter.take(name, quota) == 0.0
        assert len(proxy.calls_of(UPDATE)) == 2
        # The one that came late takes room all the same: fewer start, never more.
        assert await limiter.take(name, quota, count=3) > 0
        await limiter.time.advance(2)
        proxy.forget_calls()
        limiter.times = [0.3] * 9
        with pytest.raises(StorageUnavailableError, match=r"answers too late .* within 1 s: nothing may start"):
            await limiter.take(name, quota)
        assert len(proxy.calls_of(UPDATE)) == 3


async def test_a_mark_whose_answer_is_lost_stands(
    shaken: DynamoDBRateLimiter, proxy: FaultProxy, name: str
) -> None:
    proxy.script(LoseAnswer(), Throttle(), operation=UPDATE)
    await shaken.mark_waiting(name, 600)
    assert await shaken.take(name, ONE_AN_HOUR) == pytest.approx(600, abs=10)
    assert await shaken.take(name, ONE_AN_HOUR, waited=True) == 0.0


async def test_without_the_permission_it_says_which(
    shaken: DynamoDBRateLimiter, proxy: FaultProxy, name: str
) -> None:
    proxy.always(Denied(), operation=UPDATE)
    with pytest.raises(StorageDeniedError, match="dynamodb:UpdateItem"):
        await shaken.take(name, ONE_AN_HOUR)


async def test_a_trim_that_fails_harms_nothing(
    dynamo: DynamoClient, tables: Tables, proxy: FaultProxy, name: str
) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with DynamoDBRateLimiter(tables.behind(proxy).rate, clock=clock) as shaken:
        quota = Quota(limit=40, window=1)
        for faults in ((), (), (Throttle(),), (LoseAnswer(),), ()):
            if faults:
                # After the write that counts.
                proxy.script(Forward(), *faults, operation=UPDATE)
            assert await shaken.take(name, quota, count=40) == 0.0
            assert await shaken.take(name, quota) == 1.0
            await clock.advance(1)
        starts = (await item_of(dynamo, tables, name))["starts"]
        assert isinstance(starts, list)
        assert len(starts) == 40
