"""Leases: in memory, on DynamoDB, and when DynamoDB fails."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item, to_item
from oms_events.devstack import Fault, FaultProxy, LoseAnswer, Reset, ServerError, Throttle
from oms_events.errors import (
    StorageOutcomeUnknownError,
    StorageRejectedError,
)
from oms_events.testing import ManualClock
from oms_events.testing.leases_contract import LeasesContract
from oms_events.triggers.guards.exclusion import Lease, Leases, MemoryLeases
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
