"""The local cache: what it remembers, for how long, and how much."""

from __future__ import annotations

import pytest

from oms_events import ConfigurationError
from oms_events.errors import PayloadMismatchError
from oms_events.idempotency import CachedIdempotencyStore, IdempotentRun, MemoryIdempotencyStore, RunRecord
from oms_events.testing import ManualClock
from oms_events.testing.idempotency_contract import completed, started


class CountingStore(MemoryIdempotencyStore):
    """Counts writes and reads."""

    calls = 0

    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        self.calls += 1
        return await super().write(record, now=now)

    async def read(self, key: str) -> RunRecord | None:
        self.calls += 1
        return await super().read(key)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


async def test_a_replay_that_was_seen_here_costs_no_call(store: CountingStore) -> None:
    cache = CachedIdempotencyStore(store)
    clock = ManualClock()

    def run(payload: int) -> IdempotentRun:
        return IdempotentRun(cache, "A-1", prefix="test", payload=payload, clock=clock)

    async with run(1) as first:
        first.result = "done"
    calls = store.calls
    for _ in range(3):
        async with run(1) as again:
            assert (again.replayed, again.result) == (True, "done")
    with pytest.raises(PayloadMismatchError):
        await run(2).__aenter__()
    assert store.calls == calls
    await clock.advance(86_401)
    async with run(2) as later:
        assert not later.replayed


async def test_a_result_of_elsewhere_is_remembered(store: CountingStore) -> None:
    cache = CachedIdempotencyStore(store)
    await store.write(completed("a", "elsewhere", 100), now=0)
    await store.write(completed("b", "elsewhere", 100), now=0)
    await cache.write(started("a", "here", 60), now=0)
    await cache.read("b")
    calls = store.calls
    assert await cache.write(started("a", "here", 60), now=99) == completed("a", "elsewhere", 100)
    assert await cache.write(started("b", "here", 60), now=99) == completed("b", "elsewhere", 100)
    assert store.calls == calls


async def test_a_run_in_progress_is_never_remembered(store: CountingStore) -> None:
    cache = CachedIdempotencyStore(store)
    await store.write(started("a", "elsewhere", 100), now=0)
    await cache.write(started("a", "here", 60), now=0)
    await cache.read("a")
    assert len(cache) == 0
    await store.remove("a", "elsewhere")
    assert await cache.write(started("a", "here", 60), now=0) is None


async def test_the_least_recently_used_goes_first(store: CountingStore) -> None:
    cache = CachedIdempotencyStore(store, max_items=2)
    for key in ("a", "b"):
        await cache.write(completed(key, "one", 100), now=0)
    await cache.write(started("a", "two", 60), now=0)
    await cache.write(completed("c", "one", 100), now=0)
    assert len(cache) == 2
    calls = store.calls
    for key in ("a", "c"):
        await cache.write(started(key, "two", 60), now=0)
    assert store.calls == calls
    await cache.write(started("b", "two", 60), now=0)
    assert store.calls == calls + 1


async def test_what_has_expired_is_dropped(store: CountingStore) -> None:
    cache = CachedIdempotencyStore(store)
    await cache.write(completed("a", "one", 100), now=0)
    assert await cache.write(started("a", "two", 160), now=100) is None
    assert len(cache) == 0


def test_a_cache_without_room_is_refused(store: CountingStore) -> None:
    with pytest.raises(ConfigurationError, match="max_items = 0"):
        CachedIdempotencyStore(store, max_items=0)


async def test_memory_forgets_what_has_expired() -> None:
    store = MemoryIdempotencyStore()
    for number in range(5000):
        await store.write(completed(str(number), "one", number + 10), now=number)
    assert len(store) <= 1024
