"""What the contract says of heartbeats and leases."""

from __future__ import annotations

import asyncio

import pytest

from oms_events.outbox.records import (
    Bucket,
    Lease,
    Member,
)
from oms_events.outbox.store import OutboxStore
from oms_events.testing.outbox_contract.support import (
    BUCKET,
    taken_by,
)


class CoordinationContract:
    """What the contract says of heartbeats and leases."""

    async def test_heartbeats_are_seen_until_forgotten(self, store: OutboxStore) -> None:
        coordination = await store.read_coordination()
        assert (dict(coordination.members), dict(coordination.leases)) == ({}, {})
        one, two = Member("one", 1, {"pending": 7, "buckets": 3}), Member("two#2/ü", 5)
        await store.beat(one)
        await store.beat(two)
        assert (await store.read_coordination()).members == {"one": one, "two#2/ü": two}
        again = Member("one", 2, {"pending": 0})
        await store.beat(again)
        assert (await store.read_coordination()).members["one"] == again
        assert not await store.forget(one)
        assert await store.forget(again)
        assert not await store.forget(again)
        assert (await store.read_coordination()).members == {"two#2/ü": two}

    async def test_a_free_bucket_is_taken_by_one(self, store: OutboxStore) -> None:
        answers = await asyncio.gather(*(store.take(Lease(BUCKET), f"member {number}") for number in range(6)))
        (taken,) = [answer for answer in answers if answer is not None]
        assert taken.owner == f"member {answers.index(taken)}"
        assert (taken.bucket, taken.version) == (BUCKET, 1)
        assert (await store.read_coordination()).leases == {BUCKET: taken}

    async def test_a_lease_is_not_taken_with_an_old_reading(self, store: OutboxStore) -> None:
        first = await taken_by(store, Lease(BUCKET), "one")
        second = await taken_by(store, first, "two")
        assert second.version > first.version
        assert await store.take(first, "three") is None
        assert await store.take(Lease(BUCKET), "three") is None
        assert (await store.read_coordination()).leases == {BUCKET: second}

    async def test_a_lease_is_not_taken_from_an_owner_that_showed_life(self, store: OutboxStore) -> None:
        silent = Member("one", 1)
        lease = await taken_by(store, Lease(BUCKET), "one")
        await store.beat(Member("one", 2))
        assert await store.take(lease, "two", silent=silent) is None
        assert (await store.read_coordination()).leases == {BUCKET: lease}

    @pytest.mark.parametrize("is_there", [True, False])
    async def test_a_lease_is_taken_from_a_silent_owner(self, store: OutboxStore, is_there: bool) -> None:
        silent = Member("one", 1, {"buckets": 1})
        lease = await taken_by(store, Lease(BUCKET), "one")
        if is_there:
            await store.beat(silent)
        taken = await store.take(lease, "two", silent=silent)
        assert taken is not None
        assert taken.owner == "two"
        assert await store.take(lease, "three", silent=silent) is None
        assert (await store.read_coordination()).leases == {BUCKET: taken}

    async def test_a_released_lease_is_free_and_says_how_far_it_came(self, store: OutboxStore) -> None:
        lease = await taken_by(store, Lease(BUCKET), "one")
        assert await store.release(lease, low=17)
        found = (await store.read_coordination()).leases[BUCKET]
        assert (found.owner, found.low) == (None, 17)
        assert not await store.release(lease, low=3)
        again = await taken_by(store, found, "two")
        assert (again.low, again.version > lease.version) == (17, True)
        assert (await store.read_coordination()).leases[BUCKET] == again

    async def test_only_the_owner_releases(self, store: OutboxStore) -> None:
        old = await taken_by(store, Lease(BUCKET), "one")
        new = await taken_by(store, old, "two")
        assert not await store.release(old)
        assert (await store.read_coordination()).leases == {BUCKET: new}
        assert await store.release(new)

    async def test_a_lease_that_was_woken_is_not_released(self, store: OutboxStore) -> None:
        lease = await taken_by(store, Lease(BUCKET), "one")
        await store.wake(BUCKET)
        assert not await store.release(lease, low=3)
        found = (await store.read_coordination()).leases[BUCKET]
        assert (found.owner, found.version, found.low, found.wake > lease.wake) == ("one", lease.version, 0, True)
        assert await store.release(found)

    async def test_a_bucket_that_nobody_has_can_be_woken(self, store: OutboxStore) -> None:
        await store.wake(BUCKET)
        found = (await store.read_coordination()).leases[BUCKET]
        assert (found.owner, found.wake > 0) == (None, True)
        taken = await taken_by(store, found, "one")
        assert taken.wake == found.wake
        assert await store.release(taken)

    async def test_wakes_at_once_all_count(self, store: OutboxStore) -> None:
        lease = await taken_by(store, Lease(BUCKET), "one")
        await asyncio.gather(*(store.wake(BUCKET) for _ in range(8)))
        assert (await store.read_coordination()).leases[BUCKET].wake == lease.wake + 8

    async def test_many_leases_are_read(self, store: OutboxStore) -> None:
        buckets = [Bucket(epoch, number) for epoch in (1, 12) for number in range(60)]
        for bucket in buckets:
            await taken_by(store, Lease(bucket), f"member {bucket.number % 3}")
        leases = (await store.read_coordination()).leases
        assert {bucket: lease.owner for bucket, lease in leases.items()} == {
            bucket: f"member {bucket.number % 3}" for bucket in buckets
        }
