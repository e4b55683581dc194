from __future__ import annotations

import asyncio
import inspect
import re

import pytest

from oms_events.errors import (
    ConfigurationError,
    InvalidEventError,
    OutboxClosedError,
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.outbox.config import ProcessorConfig, WriterConfig
from oms_events.outbox.epochs import retire_epochs
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import Bucket, Epoch, Layout
from oms_events.outbox.schema import bucket_of
from oms_events.testing import ManualClock
from tests.outbox.writing import FaultyStore, event, ids_of, numbers_of, records_of


def _outbox(store: FaultyStore, clock: ManualClock | None = None, **settings: object) -> Outbox:
    return Outbox(store, WriterConfig(**settings), clock=clock)  # type: ignore[arg-type]


async def _until(store: FaultyStore, calls: int) -> None:
    async with asyncio.timeout(5):
        while len(store.reserved) < calls:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0)


def _other_key(buckets: int = 32) -> str:
    """A key in another bucket than order-1."""
    return next(f"k{n}" for n in range(99) if bucket_of(f"k{n}", buckets) != bucket_of("order-1", buckets))


# ---------------------------------------------------------------------- sharing calls


async def test_transactions_that_wait_at_the_same_moment_share_one_call() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    await outbox.add(event())
    store.reserved.clear()
    await asyncio.gather(*(outbox.add(event()) for _ in range(10)))
    assert [count for _, count in store.reserved] == [10]
    assert [int(record.sk) for record in await records_of(outbox)] == list(range(1, 12))


async def test_a_transaction_that_comes_while_a_call_is_on_the_wire_goes_into_the_next() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.gate.clear()
    early = event()
    first = asyncio.create_task(outbox.add(early))
    await _until(store, 1)
    late = [event(), event()]
    others = [asyncio.create_task(outbox.add(one)) for one in late]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [count for _, count in store.reserved] == [1]
    store.gate.set()
    await asyncio.gather(first, *others)
    assert [count for _, count in store.reserved] == [1, 2]
    assert (await ids_of(outbox))[0] == early.get_id()


async def test_nothing_is_reserved_ahead() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    for _ in range(3):
        await outbox.add(event())
    assert [count for _, count in store.reserved] == [1, 1, 1]


async def test_buckets_do_not_wait_for_each_other() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.add(event()))
        group.create_task(outbox.add(event(_other_key())))
        await _until(store, 2)
        store.gate.set()
    assert len({bucket for bucket, _ in store.reserved}) == 2


async def test_one_transaction_over_several_buckets_reserves_in_each_once() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    async with outbox.transaction() as tx:
        for key in ("order-1", _other_key(), "order-1"):
            tx.add(event(key))
    assert sorted(count for _, count in store.reserved) == [1, 2]
    assert [record.sk for record in await records_of(outbox)] == [f"{1:020d}", f"{2:020d}"]


async def test_who_gives_up_waiting_harms_no_other() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.gate.clear()
    stays, leaves = event(), event()
    first = asyncio.create_task(outbox.add(leaves))
    second = asyncio.create_task(outbox.add(stays))
    await _until(store, 1)
    first.cancel()
    await asyncio.wait({first})
    store.gate.set()
    await second
    assert await ids_of(outbox) == [stays.get_id()]


async def test_a_reservation_without_an_answer_is_a_gap_and_asked_for_again() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.reserve_faults.extend([StorageOutcomeUnknownError("no answer"), StorageUnavailableError("throttled")])
    await outbox.add(event())
    assert len(store.reserved) == 3
    assert len(await ids_of(outbox)) == 1


async def test_a_reservation_that_never_works_says_that_nothing_was_written() -> None:
    store = FaultyStore()
    outbox = _outbox(store, conflict_attempts=2)
    store.reserve_faults.extend([StorageOutcomeUnknownError("no answer")] * 2)
    with pytest.raises(StorageUnavailableError, match="nothing was written, after 2 attempts") as caught:
        await outbox.add(event())
    assert not isinstance(caught.value, StorageOutcomeUnknownError)
    assert not store.commits


async def test_those_who_share_a_call_do_not_share_its_error() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    await outbox.add(event())
    store.reserved.clear()
    cause = ValueError("the driver's")
    denied = StorageDeniedError("no", code="AccessDenied")
    denied.__cause__ = cause
    store.reserve_faults.append(denied)
    calls = [outbox.add_many([event()] * count) for count in (1, 2, 3)]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert len(store.reserved) == 1
    assert len({id(error) for error in errors}) == 3
    for count, error in enumerate(errors, 1):
        assert isinstance(error, StorageDeniedError)
        assert (str(error), error.code, error.__cause__) == ("no", "AccessDenied", cause)
        assert error.__notes__ == [f"0 of {count} events were added before"]


async def test_closing_tells_who_waits_for_a_number() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    store.gate.clear()
    waiting = asyncio.create_task(outbox.add(event()))
    await _until(store, 1)
    await outbox.close()
    with pytest.raises(OutboxClosedError, match="nothing was written"):
        await waiting


async def test_closing_tells_who_waits_for_a_call_that_has_not_begun() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    await outbox.add(event())
    waiting = asyncio.create_task(outbox.add(event()))
    await asyncio.sleep(0)
    assert len(store.reserved) == 1
    await outbox.close()
    async with asyncio.timeout(5):
        with pytest.raises(OutboxClosedError, match="nothing was written"):
            await waiting
    assert len(store.reserved) == 1


# ---------------------------------------------------------------------- keys


async def test_the_key_is_the_partitionkey_else_what_the_function_says_else_none() -> None:
    store = FaultyStore()
    outbox = _outbox(store, key_of=lambda found: found.get_subject())
    await outbox.add(event("order-1", subject="other"))
    await outbox.add(event(None, subject="order-2"))
    await outbox.add(event(None))
    assert [record.key for record in await records_of(outbox, "order-1")] == ["order-1"]
    assert [record.key for record in await records_of(outbox, "order-2")] == ["order-2"]
    assert [record.key for record in await records_of(outbox, None)] == [None]


async def test_an_event_without_a_key_needs_no_number() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    await asyncio.gather(*(outbox.add(event(None)) for _ in range(40)))
    records = await records_of(outbox, None)
    assert len(records) == 40
    assert all(re.fullmatch(r"\d{13}-[0-9a-f]{16}", record.sk) for record in records)
    assert len({record.partition for record in records}) > 1
    assert store.reserved == []


async def test_a_key_that_is_no_text_is_refused_by_name() -> None:
    outbox = _outbox(FaultyStore(), key_of=lambda _: 7)
    with pytest.raises(InvalidEventError, match="key_of gave 7") as caught:
        await outbox.add(event(None))
    assert caught.value.field == "partitionkey"


@pytest.mark.parametrize(
    ("key", "message"),
    [("\ud800", r"key_of gave '\\ud800' for event e-1@/orders: it has a lone surrogate"), (None, "key_of failed")],
)
async def test_what_key_of_cannot_give_is_told_where_the_event_is_added(key: str | None, message: str) -> None:
    store = FaultyStore()

    def key_of(_: object) -> str:
        if key is None:
            raise KeyError("order")
        return key

    outbox = _outbox(store, key_of=key_of)
    async with outbox.transaction() as tx:
        with pytest.raises(InvalidEventError, match=message) as caught:
            tx.add(event(None, id="e-1"))
    assert caught.value.field == "partitionkey"
    assert store.reserved == []


# ---------------------------------------------------------------------- layout


@pytest.mark.parametrize("field", ["layout_ttl", "prepared_for", "commit_timeout"])
def test_no_writer_is_slower_than_processors_and_changes_of_the_layout_wait(field: str) -> None:
    longest = {"layout_ttl": 240.0, "prepared_for": 25.0, "commit_timeout": 300.0}
    WriterConfig(**longest)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=field):
        WriterConfig(**{field: longest[field] + 1})  # type: ignore[arg-type]
    processor = ProcessorConfig()
    tried = longest["prepared_for"] + longest["commit_timeout"]
    assert tried < min(processor.drain_time, processor.gap_horizon)
    retiring = inspect.signature(retire_epochs).parameters["drain_time"].default
    assert longest["layout_ttl"] + tried < retiring


@pytest.mark.parametrize(("configured", "made"), [(None, 32), (4, 4)])
async def test_a_table_without_a_layout_gets_one(configured: int | None, made: int) -> None:
    store = FaultyStore()
    await _outbox(store, buckets=configured).add(event())
    assert await store.read_layout() == Layout(1, (Epoch(1, made, is_open=True),))


async def test_of_two_first_writers_one_makes_the_layout_and_the_other_goes_by_it() -> None:
    store = FaultyStore()
    small, large = _outbox(store, buckets=4), _outbox(store)
    await asyncio.gather(small.add(event()), large.add(event()))
    layout = await store.read_layout()
    assert layout == Layout(1, (Epoch(1, 4, is_open=True),))
    assert len(await ids_of(small)) == 2


async def test_another_number_of_buckets_than_the_tables_is_a_configuration_error() -> None:
    store = FaultyStore()
    await _outbox(store, buckets=4).add(event())
    with pytest.raises(
        ConfigurationError, match=r"buckets = 8, but the table 'outbox' has 4; leave `buckets` out"
    ):
        await _outbox(store, buckets=8).add(event())
    assert len(store.commits) == 1


async def test_the_layout_is_read_once_in_layout_ttl() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock, layout_ttl=60)
    await asyncio.gather(*(outbox.add(event()) for _ in range(5)))
    await clock.advance(59)
    await outbox.add(event())
    assert store.layouts_read == 1
    await clock.advance(2)
    await outbox.add(event())
    assert store.layouts_read == 2


async def _close_epoch(store: FaultyStore, *, then: tuple[Epoch, ...]) -> None:
    layout = await store.read_layout()
    assert layout is not None
    (epoch,) = layout.epochs
    for number in range(epoch.buckets):
        await store.close_counter(Bucket(epoch.number, number))
    assert await store.write_layout(Layout(2, (Epoch(epoch.number, epoch.buckets, is_open=False), *then)))


async def test_a_running_writer_follows_a_change_of_the_bucket_count() -> None:
    store = FaultyStore()
    outbox = _outbox(store, buckets=4)
    before, after = event(), event()
    await outbox.add(before)
    await _close_epoch(store, then=(Epoch(2, 8, is_open=True),))
    await outbox.add(after)
    assert [record.partition.bucket.epoch for record in await records_of(outbox)] == [1, 2]
    assert await ids_of(outbox) == [before.get_id(), after.get_id()]


async def test_while_no_epoch_is_open_a_commit_waits() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock, buckets=4)
    await outbox.add(event())
    await _close_epoch(store, then=())
    waiting = asyncio.create_task(outbox.add(event()))
    await clock.someone_sleeps()
    await clock.advance(5)
    assert not waiting.done()
    layout = await store.read_layout()
    assert layout is not None
    assert await store.write_layout(Layout(3, (*layout.epochs, Epoch(2, 8, is_open=True))))
    await clock.advance(2)
    await waiting
    assert len(store.commits) == 2


async def test_while_no_epoch_is_open_a_commit_waits_until_its_deadline() -> None:
    store, clock = FaultyStore(), ManualClock()
    outbox = _outbox(store, clock, buckets=4, commit_timeout=10, conflict_attempts=8)
    await outbox.add(event())
    await _close_epoch(store, then=())
    waiting = asyncio.create_task(outbox.add(event()))
    await clock.someone_sleeps()
    await clock.advance(9)
    assert not waiting.done()
    await clock.advance(3)
    with pytest.raises(StorageUnavailableError, match="no layout epoch of the table 'outbox' is open"):
        await waiting
    assert numbers_of([action for actions, _ in store.commits for action in actions]) == [f"{1:020d}"]
