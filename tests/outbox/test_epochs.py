from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast
from uuid import uuid4

import pytest

from oms_events.errors import ConfigurationError, EpochClosedError, StorageUnavailableError
from oms_events.outbox.epochs import change_buckets, count_pending, ensure_layout, retire_epochs
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.records import Bucket, Epoch, Layout, Partition
from oms_events.outbox.store import OutboxStore
from oms_events.testing import ManualClock
from oms_events.testing.outbox_contract.support import make_record

CHANGES = ("write_layout", "close_counter")


class CrashingStore:
    """A store whose user dies at one of its writes: before it, or right after."""

    def __init__(self, store: MemoryOutboxStore, *, after: int, is_done: bool) -> None:
        self._store = store
        self._left = after
        self._is_done = is_done
        self.table = store.table

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._store, name)

        async def call(*args: Any) -> Any:
            if name in CHANGES:
                self._left -= 1
                if self._left < 0:
                    if self._is_done and self._left == -1:
                        await method(*args)
                    raise StorageUnavailableError("gone")
            return await method(*args)

        return call


async def put(store: MemoryOutboxStore, partition: Partition) -> str:
    record = make_record(1, partition=partition)
    await store.commit([store.put_action(record)], uuid4().hex)
    return record.sk


# ------------------------------------------------------------------ the first layout


async def test_a_table_without_layout_gets_one() -> None:
    store = MemoryOutboxStore()
    assert await ensure_layout(store) == Layout(1, (Epoch(1, 32, is_open=True),))
    assert await ensure_layout(store, 32) == await store.read_layout()


async def test_all_that_make_the_first_layout_at_once_get_the_same() -> None:
    store = MemoryOutboxStore()
    layouts = await asyncio.gather(*(ensure_layout(store, 8) for _ in range(5)))
    assert set(layouts) == {Layout(1, (Epoch(1, 8, is_open=True),))}


async def test_another_number_than_the_tables_is_named_with_the_remedy() -> None:
    store = MemoryOutboxStore(table="orders-outbox")
    await ensure_layout(store, 8)
    with pytest.raises(ConfigurationError, match=r"buckets = 16.*'orders-outbox' has 8.*set it to 8"):
        await ensure_layout(store, 16)


async def test_while_the_number_is_being_changed_no_number_is_wrong() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 8)
    closed = Layout(2, (Epoch(1, 8, is_open=False),))
    await store.write_layout(closed)
    assert await ensure_layout(store, 16) == closed


@pytest.mark.parametrize("buckets", [0, -1, 1025])
async def test_a_number_out_of_range_is_refused(buckets: int) -> None:
    store = MemoryOutboxStore()
    for change in (ensure_layout, change_buckets):
        with pytest.raises(ConfigurationError, match=f"buckets = {buckets}: give a number from 1 to 1024"):
            await change(store, buckets)
    assert await store.read_layout() is None


# ------------------------------------------------------------------ another number


async def test_changing_the_number_closes_the_old_epoch_for_good_and_opens_a_new_one() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    await store.reserve(Bucket(1, 0), 1)
    layout = await change_buckets(store, 8)
    assert layout == Layout(3, (Epoch(1, 4, is_open=False), Epoch(2, 8, is_open=True)))
    assert await store.read_layout() == layout
    for number in range(4):
        with pytest.raises(EpochClosedError):
            await store.reserve(Bucket(1, number), 1)
    assert await store.reserve(Bucket(2, 7), 1) == 1


async def test_the_number_that_the_table_has_changes_nothing() -> None:
    store = MemoryOutboxStore()
    before = await ensure_layout(store, 4)
    assert await change_buckets(store, 4) == before
    assert await store.reserve(Bucket(1, 0), 1) == 1


async def test_a_table_without_layout_gets_the_number_at_last() -> None:
    layout = await change_buckets(MemoryOutboxStore(), 8)
    assert layout.open_epoch is not None
    assert layout.open_epoch.buckets == 8


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("after", range(6))
async def test_it_finishes_when_it_is_called_again_after_a_crash_at_any_step(after: int, is_done: bool) -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    crashing = cast("OutboxStore", CrashingStore(store, after=after, is_done=is_done))
    with pytest.raises(StorageUnavailableError):
        await change_buckets(crashing, 8)
    half = await store.read_layout()
    assert half is not None
    if half.open_epoch is not None and half.open_epoch.number == 2:
        assert (after, is_done) == (5, True)
    layout = await change_buckets(store, 8)
    assert layout == Layout(3, (Epoch(1, 4, is_open=False), Epoch(2, 8, is_open=True)))
    for number in range(4):
        with pytest.raises(EpochClosedError):
            await store.reserve(Bucket(1, number), 1)


async def test_the_new_epoch_is_open_only_after_every_counter_of_the_old_one_is_closed() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    for closed in range(4):
        crashing = cast("OutboxStore", CrashingStore(store, after=1 + closed, is_done=False))
        with pytest.raises(StorageUnavailableError):
            await change_buckets(crashing, 8)
        layout = await store.read_layout()
        assert layout is not None
        assert layout.open_epoch is None


async def test_two_operators_at_once_with_one_number_make_one_epoch() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    layouts = await asyncio.gather(*(change_buckets(store, 8) for _ in range(4)))
    assert {layout.epochs for layout in layouts} == {(Epoch(1, 4, is_open=False), Epoch(2, 8, is_open=True))}


async def test_two_operators_at_once_with_two_numbers_leave_one_open_epoch() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    await asyncio.gather(change_buckets(store, 8), change_buckets(store, 16))
    layout = await store.read_layout()
    assert layout is not None
    assert layout.open_epoch == layout.epochs[-1]
    assert layout.open_epoch.buckets in (8, 16)
    for epoch in layout.epochs[:-1]:
        with pytest.raises(EpochClosedError):
            await store.reserve(Bucket(epoch.number, epoch.buckets - 1), 1)


# ------------------------------------------------------------------ dropping what is empty


async def test_an_epoch_is_dropped_when_it_stayed_empty_for_the_drain_time() -> None:
    store, clock = MemoryOutboxStore(), ManualClock()
    await ensure_layout(store, 4)
    await change_buckets(store, 8)
    retiring = asyncio.create_task(retire_epochs(store, clock=clock, drain_time=600))
    await clock.someone_sleeps()
    await clock.advance(599)
    assert not retiring.done()
    await clock.advance(1)
    assert await retiring == Layout(4, (Epoch(2, 8, is_open=True),))
    assert await store.read_layout() == await retiring


@pytest.mark.parametrize("keyed", [True, False])
async def test_an_epoch_that_holds_a_record_stays(keyed: bool) -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    await put(store, Partition(Bucket(1, 3), keyed))
    layout = await change_buckets(store, 8)
    assert await retire_epochs(store, clock=ManualClock()) == layout


async def test_the_records_of_an_epoch_are_counted() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 40)
    epoch = Epoch(1, 40, is_open=True)
    assert await count_pending(store, epoch) == (0, False)
    for number, keyed in ((0, True), (39, True), (39, False)):
        await put(store, Partition(Bucket(1, number), keyed))
    await put(store, Partition(Bucket(2, 0), keyed=True))
    assert await count_pending(store, epoch) == (3, False)


async def test_an_epoch_to_which_a_late_writer_wrote_meanwhile_stays() -> None:
    store, clock = MemoryOutboxStore(), ManualClock()
    await ensure_layout(store, 4)
    layout = await change_buckets(store, 8)
    retiring = asyncio.create_task(retire_epochs(store, clock=clock, drain_time=600))
    await clock.someone_sleeps()
    await put(store, Partition(Bucket(1, 3), keyed=False))
    await clock.advance(600)
    assert await retiring == layout


async def test_an_epoch_closed_during_the_wait_is_waited_for_anew() -> None:
    store, clock = MemoryOutboxStore(), ManualClock()
    await ensure_layout(store, 4)
    await change_buckets(store, 8)
    retiring = asyncio.create_task(retire_epochs(store, clock=clock, drain_time=600))
    await clock.someone_sleeps()
    await clock.advance(300)
    await change_buckets(store, 16)
    await clock.advance(300)
    await clock.advance(599)
    assert not retiring.done()
    await clock.advance(1)
    assert (await retiring).epochs == (Epoch(3, 16, is_open=True),)


async def test_the_newest_epoch_stays_even_when_it_is_closed_so_that_no_number_is_used_again() -> None:
    store = MemoryOutboxStore()
    await ensure_layout(store, 4)
    closed = Layout(2, (Epoch(1, 4, is_open=False),))
    await store.write_layout(closed)
    assert await retire_epochs(store, clock=ManualClock()) == closed
