"""Replays that something inside ends: told as errors, never as done, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Never

import pytest

from oms_events.errors import ReplayError, StorageUnavailableError
from oms_events.events import EncodedEvent
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.replay.checkpoints import MemoryReplayCheckpoint
from oms_events.eventstore.replay.config import ReplaySelection
from oms_events.eventstore.replay.store_replay import StoreReplay
from oms_events.publishers.memory import MemoryPublisher
from oms_events.publishing import Plan, PublishResults
from tests.eventstore.accounts import registry
from tests.eventstore.replaying import fill, router_of

SECONDS = 10.0


async def cancelled_inside() -> Never:
    """What a library does that cancels something of its own: nobody cancelled the caller."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future
    raise AssertionError("a cancelled future raises")


class CancellingRouter:
    """A router, not this package's, that lets such a cancellation out."""

    platforms = ("memory",)
    is_open = True
    routing_rules = ()

    def plan_event(self, event: EncodedEvent) -> Plan:
        return Plan(None, "ALL_PLATFORMS", ("memory",), first_that_works=False)

    async def publish_planned(self, deliveries: Sequence[Any], *, timeout: float) -> list[PublishResults]:
        await cancelled_inside()


@pytest.fixture
async def store() -> MemoryEventStore:
    store = MemoryEventStore(registry=registry)
    await fill(store, ["a"])
    return store


async def test_a_publish_call_that_is_cancelled_inside_stops_it(store: MemoryEventStore) -> None:
    router: Any = CancellingRouter()
    async with asyncio.timeout(SECONDS):
        with pytest.raises(ReplayError, match="publishing was cancelled from inside"):
            await StoreReplay(store, router, ReplaySelection()).run()


async def test_a_read_that_is_cancelled_inside_is_no_end(
    store: MemoryEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*arguments: object, **options: object) -> ItemPage:
        await cancelled_inside()

    monkeypatch.setattr(store.table, "read", read)
    async with router_of(MemoryPublisher()) as router, asyncio.timeout(SECONDS):
        with pytest.raises(ReplayError, match="reading the store was cancelled from inside"):
            await StoreReplay(store, router, ReplaySelection(aggregate_ids=("a",))).run()


async def test_a_store_that_was_closed_is_not_opened_again(store: MemoryEventStore) -> None:
    await store.close()
    async with router_of(MemoryPublisher()) as router:
        replay = StoreReplay(store, router, ReplaySelection(), checkpoint=MemoryReplayCheckpoint())
        with pytest.raises(StorageUnavailableError, match="was closed"):
            await replay.run()
    with pytest.raises(StorageUnavailableError, match="was closed"):
        await store.last_sequence("a")
