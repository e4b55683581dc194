"""Breakers: in memory, on DynamoDB, and when DynamoDB fails."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item, to_item
from oms_events.devstack import Fault, FaultProxy, Forward, LoseAnswer, Reset, ServerError, Throttle
from oms_events.errors import StorageOutcomeUnknownError, StorageRejectedError, StorageUnavailableError
from oms_events.instrumentation.hooks import Detail, Hooks, TriggerBreakerChanged
from oms_events.resilience.breaker import BreakerState
from oms_events.testing import ManualClock
from oms_events.testing.trigger_breaker_contract import TriggerBreakerContract
from oms_events.triggers.config import BreakerOptions
from oms_events.triggers.guards.breaker import MemoryBreakers, Permit, TriggerBreakers
from oms_events.triggers.guards.breaker_dynamodb import DynamoDBBreakers
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.guards.exclusion import Lease
from oms_events.triggers.guards.exclusion_dynamodb import DynamoDBLeases
from oms_events.triggers.schema import breaker_key
from tests.triggers.guards.conftest import Hurried, Tables

UPDATE = "UpdateItem"
OPTIONS = BreakerOptions(failure_threshold=3, failure_window=60, recovery_time=30, trial_time=20)


class TestMemory(TriggerBreakerContract):
    @pytest.fixture
    def breakers(self, options: BreakerOptions, clock: ManualClock, changes: list[Detail]) -> TriggerBreakers:
        return MemoryBreakers(options, clock=clock, hooks=[changes.append])


@pytest.fixture(scope="module")
async def pair(tables: Tables) -> AsyncIterator[tuple[DynamoDBBreakers, DynamoDBBreakers]]:
    """Two instances: opening them takes longer than a test."""
    async with DynamoDBBreakers(tables.breaker, OPTIONS) as one, DynamoDBBreakers(tables.breaker, OPTIONS) as two:
        yield one, two


class TestDynamoDB(TriggerBreakerContract):
    @pytest.fixture
    def breakers(
        self, pair: tuple[DynamoDBBreakers, DynamoDBBreakers], clock: ManualClock, changes: list[Detail]
    ) -> TriggerBreakers:
        for one in pair:
            one._clock, one._hooks = clock, Hooks([changes.append])
        return pair[0]

    @pytest.fixture
    def other(self, pair: tuple[TriggerBreakers, TriggerBreakers]) -> TriggerBreakers:
        return pair[1]


@pytest.fixture(params=["memory", "dynamodb"])
async def at_once(request: pytest.FixtureRequest, tables: Tables) -> AsyncIterator[TriggerBreakers]:
    """Breakers that one failure opens."""
    options = OPTIONS.model_copy(update={"failure_threshold": 1})
    if request.param == "memory":
        yield MemoryBreakers(options)
    else:
        async with DynamoDBBreakers(tables.breaker, options) as breakers:
            yield breakers


@pytest.fixture
def domain() -> str:
    return f"domain-{uuid.uuid4()}"


async def admitted(breakers: TriggerBreakers, domain: str) -> Permit:
    permit = await breakers.admit(domain, "prices")
    assert isinstance(permit, Permit)
    return permit


async def item_of(dynamo: DynamoClient, tables: Tables, domain: str) -> dict[str, Any]:
    table = tables.breaker.table_name
    key = to_item(breaker_key(domain, "prices"))
    answer = await dynamo.call("GetItem", {"TableName": table, "Key": key, "ConsistentRead": True}, table=table)
    return from_item(answer.get("Item", {}))


async def test_one_failure_may_be_enough(at_once: TriggerBreakers, domain: str) -> None:
    permits = [await admitted(at_once, domain) for _ in range(2)]
    for permit in permits:
        await at_once.failed(permit)
    (view,) = [view for view in await at_once.views() if view.domain == domain]
    assert (view.state, view.failures) == (BreakerState.OPEN, 1)


# ---------------------------------------------------------------------- what is stored


async def test_a_start_that_goes_well_writes_nothing(
    tables: Tables, dynamo: DynamoClient, proxy: FaultProxy, domain: str
) -> None:
    async with DynamoDBBreakers(tables.behind(proxy).breaker) as breakers:
        proxy.forget_calls()
        await breakers.succeeded(await admitted(breakers, domain))
        assert [call.operation for call in proxy.calls] == ["GetItem"]
    assert await item_of(dynamo, tables, domain) == {}


async def test_an_item_is_short_and_expires(tables: Tables, dynamo: DynamoClient, domain: str) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with DynamoDBBreakers(tables.breaker, OPTIONS, clock=clock) as breakers:
        for _ in range(30):
            await breakers.failed(await admitted(breakers, domain))
            await clock.advance(31)
        item = await item_of(dynamo, tables, domain)
        assert len(item["failures"]) == len(item["permits"]) < 24
        assert item["failures"] == sorted(item["failures"], reverse=True)
        expires = datetime.fromtimestamp(item["ttl"], UTC) - clock.now()
        assert timedelta(hours=23) < expires < timedelta(hours=25)


async def test_after_ttl_an_old_permit_counts_as_any(tables: Tables, dynamo: DynamoClient, domain: str) -> None:
    clock, table = ManualClock(datetime.now(UTC)), tables.breaker.table_name
    async with DynamoDBBreakers(tables.breaker, OPTIONS, clock=clock) as breakers:
        permits = [await admitted(breakers, domain) for _ in range(6)]
        for permit in permits[:3]:
            await breakers.failed(permit)
        key = to_item(breaker_key(domain, "prices"))
        await dynamo.call("DeleteItem", {"TableName": table, "Key": key}, table=table)
        for permit in permits[3:]:
            assert await breakers.look(domain, "prices") == 0.0
            await breakers.failed(replace(permit, epoch=7))
        assert await breakers.look(domain, "prices") == 30.0


async def test_leases_in_the_same_table_are_no_breakers(tables: Tables, domain: str) -> None:
    async with (
        DynamoDBBreakers(tables.breaker, OPTIONS) as breakers,
        DynamoDBLeases(tables.breaker) as leases,
    ):
        assert isinstance(await leases.take(f"{domain}#prices", seconds=60), Lease)
        await breakers.failed(await admitted(breakers, domain))
        assert [view.failures for view in await breakers.views() if domain in view.domain] == [1]
        assert await breakers.reset(domain, "prices")


async def test_an_item_that_is_none_of_ours_is_refused_and_stays(
    tables: Tables, dynamo: DynamoClient, domain: str
) -> None:
    table, foreign = tables.breaker.table_name, {**breaker_key(domain, "prices"), "opened_at": "yesterday"}
    await dynamo.call("PutItem", {"TableName": table, "Item": to_item(foreign)}, table=table)
    try:
        async with DynamoDBBreakers(tables.breaker) as breakers:
            for call in (breakers.admit, breakers.look, breakers.reset):
                with pytest.raises(StorageRejectedError, match="give breakers a table of their own"):
                    await call(domain, "prices")
        assert await item_of(dynamo, tables, domain) == foreign
    finally:
        key = to_item(breaker_key(domain, "prices"))
        await dynamo.call("DeleteItem", {"TableName": table, "Key": key}, table=table)


# ---------------------------------------------------------------------- faults


@dataclass(frozen=True, slots=True)
class Bench:
    """Breakers behind the proxy, and what their hook was told."""

    breakers: DynamoDBBreakers
    config: GuardTableConfig
    proxy: FaultProxy
    clock: Hurried
    changes: list[Detail]

    @property
    def told(self) -> list[str]:
        return [change.new for change in self.changes if isinstance(change, TriggerBreakerChanged)]

    async def fail(self, domain: str, *faults: Fault) -> None:
        permit = await admitted(self.breakers, domain)
        self.proxy.script(*faults, operation=UPDATE)
        await self.breakers.failed(permit)


@pytest.fixture
async def bench(tables: Tables, proxy: FaultProxy) -> AsyncIterator[Bench]:
    clock, changes = Hurried(datetime.now(UTC)), list[Detail]()
    config = tables.behind(proxy).breaker
    async with DynamoDBBreakers(config, OPTIONS, clock=clock, hooks=[changes.append]) as breakers:
        yield Bench(breakers, config, proxy, clock, changes)


FAULTS = [
    (LoseAnswer(), LoseAnswer(orderly=True)),
    (Throttle("ProvisionedThroughputExceededException"), LoseAnswer()),
    (Reset(), ServerError()),
]


@pytest.mark.parametrize("faults", FAULTS, ids=lambda faults: "-".join(type(fault).__name__ for fault in faults))
async def test_whatever_becomes_of_answers_everything_is_done_and_told_once(
    bench: Bench, domain: str, faults: tuple[Fault, ...]
) -> None:
    breakers, clock = bench.breakers, bench.clock
    for failures in (1, 2):
        await bench.fail(domain, *faults)
        (view,) = [view for view in await breakers.views() if view.domain == domain]
        assert (view.state, view.failures) == (BreakerState.CLOSED, failures)
    # The first attempt of the last one is refused: it is the one that opens.
    await bench.fail(domain, Forward(), *faults)
    assert await breakers.look(domain, "prices") == 30.0
    await clock.advance(30)

    bench.proxy.script(*faults, operation=UPDATE)
    trial = await admitted(breakers, domain)
    assert trial.trial is not None
    bench.proxy.script(*faults, operation=UPDATE)
    await breakers.failed(trial)
    assert await breakers.look(domain, "prices") == 30.0
    await clock.advance(30)

    trial = await admitted(breakers, domain)
    bench.proxy.script(*faults, operation=UPDATE)
    await breakers.released(trial)
    trial = await admitted(breakers, domain)
    bench.proxy.script(*faults, operation=UPDATE)
    await breakers.succeeded(trial)
    assert bench.told == ["open", "half_open", "open", "half_open", "half_open", "closed"]

    await bench.fail(domain)
    bench.proxy.script(*faults, operation=UPDATE)
    assert await breakers.reset(domain, "prices")
    assert [view for view in await breakers.views() if view.domain == domain] == []


async def test_when_the_state_is_not_known_nothing_is_admitted(bench: Bench, domain: str) -> None:
    bench.proxy.always(Throttle("ProvisionedThroughputExceededException"))
    with pytest.raises(StorageUnavailableError):
        await bench.breakers.admit(domain, "prices")
    with pytest.raises(StorageUnavailableError):
        await bench.breakers.views()


async def test_a_trial_that_may_have_been_taken_is_replaced_after_its_time(bench: Bench, domain: str) -> None:
    for _ in range(3):
        await bench.fail(domain)
    await bench.clock.advance(30)
    bench.proxy.always(LoseAnswer(), operation=UPDATE)
    with pytest.raises(StorageOutcomeUnknownError):
        await bench.breakers.admit(domain, "prices")
    bench.proxy.clear()
    assert await bench.breakers.admit(domain, "prices") == 20.0
    await bench.clock.advance(20)
    assert (await admitted(bench.breakers, domain)).trial is not None


class Slow(DynamoDBBreakers):
    """What it changed it tells later."""

    changed, answers = asyncio.Event(), asyncio.Event()

    async def _update(self, *args: Any, **options: Any) -> Any:
        answer = await super()._update(*args, **options)
        self.changed.set()
        await self.answers.wait()
        return answer


async def test_cancelled_while_it_is_admitted_a_trial_is_given_back(bench: Bench, domain: str) -> None:
    for _ in range(3):
        await bench.fail(domain)
    await bench.clock.advance(30)
    before = asyncio.all_tasks()
    async with Slow(bench.config, OPTIONS, clock=bench.clock) as slow:
        admitting = asyncio.create_task(slow.admit(domain, "prices"))
        await slow.changed.wait()
        assert await bench.breakers.look(domain, "prices") == 20.0
        admitting.cancel()
        slow.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await admitting
    assert asyncio.all_tasks() == before
    assert (await admitted(bench.breakers, domain)).trial is not None


async def test_views_come_from_all_pages(tables: Tables, domain: str) -> None:
    """A page of a scan has at most 1 MB, and so has none of all of them."""
    async with DynamoDBBreakers(tables.breaker, OPTIONS) as breakers:
        names = [f"{domain}-{number:02}" for number in range(4)]
        for name in names:
            permit = await admitted(breakers, name)
            await breakers.failed(replace(permit, token="t" * 300_000))
        assert [view.domain for view in await breakers.views() if view.domain in names] == names
        for name in names:
            assert await breakers.reset(name, "prices")
