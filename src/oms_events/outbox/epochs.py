"""Changes the layout of an outbox: makes the first one, changes the number of buckets, drops what is empty."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from oms_events._aio import Clock
from oms_events.errors import ConfigurationError
from oms_events.outbox.config import DEFAULT_BUCKETS
from oms_events.outbox.records import Bucket, Epoch, Layout, Partition
from oms_events.outbox.store import OutboxStore

MAX_BUCKETS: Final = 1024
_CALLS_AT_ONCE: Final = 16


async def ensure_layout(store: OutboxStore, buckets: int | None = None) -> Layout:
    """The layout of a table; made with `buckets` (32 when None) where there is none.

    Raises `ConfigurationError` when the open epoch has another number than `buckets`, and what the store raises.
    """
    _check(buckets)
    # Two rounds at most: who cannot write the first layout was second, and finds the other's.
    while (layout := await store.read_layout()) is None:
        first = Layout(1, (Epoch(1, buckets or DEFAULT_BUCKETS, is_open=True),))
        if await store.write_layout(first):
            return first
    epoch = layout.open_epoch
    if buckets is not None and epoch is not None and epoch.buckets != buckets:
        problem = (
            f"buckets = {buckets}, but the table {store.table!r} has {epoch.buckets}; leave `buckets` out or set "
            f"it to {epoch.buckets}, or change the table's bucket count first (`oms-events outbox buckets "
            f"{buckets}`)"
        )
        raise ConfigurationError("outbox layout", [problem])
    return layout


async def change_buckets(store: OutboxStore, buckets: int) -> Layout:
    """Gives an outbox another number of buckets in a new epoch, while writers and processors go on.

    Old records stay where they are and are relayed first. Ended halfway, by a crash, an error or a cancellation,
    writers wait, until it is called again and finishes. Of several at once, each sees its own number open for a
    time. Raises `ConfigurationError` for a number out of range, and what the store raises.
    """
    _check(buckets)
    while True:
        layout = await ensure_layout(store)
        epoch = layout.open_epoch
        if epoch is None:
            # Nobody may get a number of the old epoch once the new one is open: its order would be lost.
            await _close_counters(store, layout.epochs[-1])
            opened = Epoch(layout.epochs[-1].number + 1, buckets, is_open=True)
            layout = Layout(layout.revision + 1, (*layout.epochs, opened))
            if await store.write_layout(layout):
                return layout
        elif epoch.buckets == buckets:
            return layout
        else:
            closed = tuple(Epoch(each.number, each.buckets, is_open=False) for each in layout.epochs)
            # Whether we or another did it: the next round sees it.
            await store.write_layout(Layout(layout.revision + 1, closed))


async def retire_epochs(store: OutboxStore, *, clock: Clock, drain_time: float = 600.0) -> Layout:
    """Drops closed epochs that are empty, after `drain_time` seconds in which they stayed closed and empty.

    `drain_time` must be longer than a writer's `layout_ttl`, `prepared_for` and `commit_timeout` together: until
    then it may still write to an epoch that it believes open. The newest epoch always stays. Raises what the store
    raises; cancelled, nothing is dropped.
    """
    while True:
        layout = await ensure_layout(store)
        empty = await _empty_epochs(store, layout.epochs[:-1])
        if not empty:
            return layout
        await clock.sleep(drain_time)
        empty = await _empty_epochs(store, empty)
        kept = tuple(epoch for epoch in layout.epochs if epoch not in empty)
        if not empty:
            return layout
        # Takes only if the layout is still the one that was read before the wait.
        layout = Layout(layout.revision + 1, kept)
        if await store.write_layout(layout):
            return layout


async def count_pending(store: OutboxStore, epoch: Epoch, *, limit: int = 1000) -> tuple[int, bool]:
    """The records of an epoch, counted up to `limit` per partition, and whether there are more; held ones too."""
    partitions = [Partition(bucket, keyed) for bucket in _buckets(epoch) for keyed in (True, False)]
    pending, bounded = 0, False
    for start in range(0, len(partitions), _CALLS_AT_ONCE):
        counting = (
            store.count(partition, limit=limit) for partition in partitions[start : start + _CALLS_AT_ONCE]
        )
        for count in await asyncio.gather(*counting):
            pending, bounded = pending + count.pending, bounded or count.bounded
    return pending, bounded


def _check(buckets: int | None) -> None:
    if buckets is not None and not 1 <= buckets <= MAX_BUCKETS:
        raise ConfigurationError("outbox layout", [f"buckets = {buckets}: give a number from 1 to {MAX_BUCKETS}"])


def _buckets(epoch: Epoch) -> Sequence[Bucket]:
    return [Bucket(epoch.number, number) for number in range(epoch.buckets)]


async def _close_counters(store: OutboxStore, epoch: Epoch) -> None:
    buckets = _buckets(epoch)
    for start in range(0, len(buckets), _CALLS_AT_ONCE):
        calls = [store.close_counter(bucket) for bucket in buckets[start : start + _CALLS_AT_ONCE]]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result


async def _empty_epochs(store: OutboxStore, epochs: Sequence[Epoch]) -> Sequence[Epoch]:
    return [epoch for epoch in epochs if not epoch.is_open and await _is_empty(store, epoch)]


async def _is_empty(store: OutboxStore, epoch: Epoch) -> bool:
    for bucket in _buckets(epoch):
        for keyed in (True, False):
            if (await store.count(Partition(bucket, keyed), limit=1)).pending:
                return False
    return True
