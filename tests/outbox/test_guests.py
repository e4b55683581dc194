"""Guests relay a bucket for a short time, and lose nothing to what happens around it."""

from __future__ import annotations

import asyncio

import pytest

from oms_events.errors import StorageUnavailableError
from oms_events.outbox.epochs import change_buckets, ensure_layout
from oms_events.outbox.records import Bucket, Lease, Partition
from oms_events.outbox.streams import GuestRelay
from tests.outbox.relaying import BUCKET, Fails, Faulty, Told, put, quick, record, routing, rule


async def test_guests_relay_a_new_layout_from_one_invocation_to_the_next() -> None:
    store = Faulty()
    await ensure_layout(store, 1)
    await change_buckets(store, 2)
    await put(store, record("new", 1, partition=Partition(Bucket(2, 0), keyed=True)))
    nats = Told()
    async with routing([rule("nats")], nats=nats) as router:
        guest = GuestRelay(store, router, config=quick(drain_time=0.1))
        async with asyncio.timeout(8):
            while not nats.accepted:
                await guest.sweep(3)
    assert nats.accepted == ["new"]


async def test_a_wake_that_comes_after_the_lease_was_given_up_is_not_lost() -> None:
    store = Faulty()
    await ensure_layout(store, 1)
    held = await store.take(Lease(BUCKET), "another guest")
    assert held is not None
    await put(store, record("a", 1))
    store.before["wake"] = lambda *_: _given_up(store, held)
    nats = Told()
    async with routing([rule("nats")], nats=nats) as router:
        await GuestRelay(store, router, config=quick()).relay({BUCKET}, 2)
    assert nats.accepted == ["a"]


async def _given_up(store: Faulty, held: Lease) -> None:
    await store.release(held)


async def test_a_guest_goes_on_with_a_lease_that_it_could_not_give_up() -> None:
    store = Faulty()
    await ensure_layout(store, 1)
    store.before["release"] = Fails(1)
    nats = Told()
    async with routing([rule("nats")], nats=nats) as router:
        guest = GuestRelay(store, router, config=quick())
        with pytest.raises(StorageUnavailableError):
            await guest.relay({BUCKET}, 2)
        await put(store, record("a", 1))
        await guest.relay({BUCKET}, 2)
    assert nats.accepted == ["a"]
