"""Who relays what when processors join, leave, die or sleep, and how soon: real processes, real signals."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from oms_events import build_event
from oms_events._aws.dynamodb import DynamoClient
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.outbox import DynamoDBOutbox
from oms_events.outbox.records import Coordination
from tests.outbox.processes.checker import check
from tests.outbox.processes.findings import find, overhearing
from tests.outbox.processes.fleet import Fleet, Worker
from tests.outbox.processes.gates import REMOVED, REMOVING
from tests.outbox.processes.ground import SOURCE, TYPE, Ground
from tests.outbox.processes.recorder import read_acceptances
from tests.outbox.processes.relaying import relaying
from tests.outbox.support import open_store

pytestmark = [pytest.mark.serial, pytest.mark.slow]

_LONG_LEASE = 12.0
_SLACK = 1.5
"""Seconds for a busy machine, besides what is promised."""


@pytest.fixture
async def store(ground: Ground) -> AsyncIterator[DynamoDBOutboxStore]:
    """For looking at who holds what."""
    async with open_store(ground.outbox) as store:
        yield store


@pytest.fixture
async def outbox(ground: Ground) -> AsyncIterator[DynamoDBOutbox]:
    """The writer of this test, in its own process."""
    async with DynamoDBOutbox(ground.outbox) as outbox:
        yield outbox


def held(coordination: Coordination) -> Counter[str]:
    """How many buckets each processor holds."""
    return Counter(lease.owner for lease in coordination.leases.values() if lease.owner is not None)


async def until(
    store: DynamoDBOutboxStore, holds: Callable[[Counter[str]], bool], *, within: float = 30.0
) -> float:
    """Waits until the buckets are held like this; gives how many seconds it took."""
    began = time.monotonic()
    while not holds(now := held(await store.read_coordination())):
        assert time.monotonic() - began < within, f"after {within} s: {now}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def beats(store: DynamoDBOutboxStore, worker: Worker) -> None:
    """Waits for the next heartbeat of a processor."""
    last = (await store.read_coordination()).members[worker.name].beat
    async with asyncio.timeout(30):
        while (await store.read_coordination()).members[worker.name].beat == last:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def shares(*counts: int) -> Callable[[Counter[str]], bool]:
    return lambda now: sorted(now.values(), reverse=True) == list(counts)


def all_of(worker: Worker, buckets: int) -> Callable[[Counter[str]], bool]:
    return lambda now: now == {worker.name: buckets}


async def add(outbox: DynamoDBOutbox, *ids: str) -> None:
    """Adds events of keys of their own, one transaction each."""
    for name in ids:
        await outbox.add(build_event(TYPE, SOURCE, {"id": name, "key": name}, id=name, partitionkey=name))


def items_of(*ids: str) -> list[dict[str, object]]:
    """The business items that would stand beside such events."""
    return [{"pk": name, "sk": name, "events": [name], "after": []} for name in ids]


def ids(prefix: str, count: int = 24) -> list[str]:
    """Enough names to have some in each bucket."""
    return [f"{prefix}-{number}" for number in range(count)]


async def emptied(ground: Ground, dynamo: DynamoClient, *, within: float) -> None:
    """Waits until the outbox holds no record."""
    async with asyncio.timeout(within):
        while (await find(ground, dynamo, [])).left:  # noqa: ASYNC110 - other processes empty it
            await asyncio.sleep(0.05)


def accepted(ground: Ground) -> set[str]:
    """The ids of what the recorder took."""
    return {one.identity.partition("@")[0] for one in read_acceptances(ground.acceptances)}


async def test_a_clean_stop_hands_the_buckets_over_at_once(
    ground: Ground, store: DynamoDBOutboxStore, outbox: DynamoDBOutbox, dynamo: DynamoClient
) -> None:
    ground = replace(ground, lease=_LONG_LEASE)
    async with Fleet(ground) as fleet:
        leaver, stayer = await fleet.start_ready("processor", "processor")
        await until(store, shares(4, 4))
        ending = asyncio.create_task(leaver.end())
        seconds = await until(store, all_of(stayer, ground.buckets))
        assert await ending == 0
        assert seconds < 2 * ground.heartbeat + _SLACK < _LONG_LEASE / 4
        assert leaver.name not in (await store.read_coordination()).members
        await add(outbox, *ids("after"))
        await emptied(ground, dynamo, within=_LONG_LEASE / 2)
        assert accepted(ground) == set(ids("after"))


async def test_a_dead_processor_is_replaced_within_a_lease_and_a_heartbeat(
    ground: Ground, store: DynamoDBOutboxStore, outbox: DynamoDBOutbox, dynamo: DynamoClient
) -> None:
    async with Fleet(ground) as fleet:
        victim, heir = await fleet.start_ready("processor", "processor")
        await until(store, shares(4, 4))
        # Long enough for the heir to have watched it: a newcomer knows nobody yet.
        await asyncio.sleep(ground.lease)
        # Its last heartbeat is this one, however late a busy machine lets it come.
        await beats(store, victim)
        began = time.monotonic()
        await victim.kill()
        adding = asyncio.create_task(add(outbox, *ids("orphan")))
        await until(store, all_of(heir, ground.buckets))
        seconds = time.monotonic() - began
        assert ground.lease - 2 * ground.heartbeat < seconds < ground.lease + ground.heartbeat + _SLACK
        await adding
        await emptied(ground, dynamo, within=10.0)
        assert accepted(ground) == set(ids("orphan"))


async def test_buckets_are_shared_fairly_soon_after_joining_and_leaving(
    ground: Ground, store: DynamoDBOutboxStore
) -> None:
    ground = replace(ground, lease=_LONG_LEASE)
    soon = 5 * ground.heartbeat + _SLACK
    async with Fleet(ground) as fleet:
        (first,) = await fleet.start_ready("processor")
        await until(store, all_of(first, ground.buckets), within=soon)
        await fleet.start_ready("processor")
        await until(store, shares(4, 4), within=soon)
        (third,) = await fleet.start_ready("processor")
        await until(store, shares(3, 3, 2), within=soon)
        assert await third.end() == 0
        await until(store, shares(4, 4), within=soon)
        assert await first.end() == 0
        await until(store, shares(8), within=soon)


async def test_a_processor_that_slept_through_its_lease_removes_only_what_it_saw_delivered(
    ground: Ground, store: DynamoDBOutboxStore, outbox: DynamoDBOutbox, dynamo: DynamoClient
) -> None:
    before, meanwhile, later = ids("before"), ids("meanwhile"), ids("later")
    async with overhearing(ground) as attempts, Fleet(ground) as fleet:
        sleeper, heir = await fleet.start_ready("processor", "processor")
        await until(store, shares(4, 4))
        coming = asyncio.create_task(sleeper.comes_to(REMOVING, within=20.0))
        await add(outbox, *before)
        assert await coming
        sleeper.pause()
        # The heir delivers again what the sleeper has accepted, and what comes meanwhile; then it sleeps as well.
        await add(outbox, *meanwhile)
        await until(store, all_of(heir, ground.buckets))
        await emptied(ground, dynamo, within=10.0)
        heir.pause()
        await add(outbox, *later)
        waking = asyncio.create_task(sleeper.comes_to(REMOVED, within=20.0))
        await asyncio.sleep(0)
        sleeper.go()
        sleeper.resume()
        assert await waking
        left = await find(ground, dynamo, attempts)
        assert len(left.left) == len(later), "it removed what it had not even seen"
        assert not check(replace(left, left=(), items=items_of(*before, *meanwhile))).problems
        sleeper.go()
        heir.resume()
        await fleet.kill_all("processor")
        async with relaying("last", ground, None) as processor:
            assert await processor.drain(30.0), processor.status()
        report = check(replace(await find(ground, dynamo, attempts), items=items_of(*before, *meanwhile, *later)))
        print(report)
        assert not report.problems, report
        assert report.counts["duplicates on recorder"] > 0
