from __future__ import annotations

import asyncio

import pytest

from oms_events.errors import (
    InvalidEventError,
    OutboxClosedError,
    OutboxLimitError,
    PreparedActionsError,
    StorageUnavailableError,
)
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.signals import Committed, Voided
from oms_events.testing import ManualClock
from tests.outbox.writing import FaultyStore, event, ids_of, listen, numbers_of


async def test_prepared_actions_put_the_events_when_somebody_commits_them() -> None:
    store = FaultyStore()
    outbox = Outbox(store, WriterConfig())
    events = [event(), event()]
    prepared = await outbox.prepare(events)
    assert prepared.count == 2
    assert await ids_of(outbox) == []
    await store.commit(prepared.actions, "mine")
    assert await ids_of(outbox) == [one.get_id() for one in events]


async def test_actions_are_given_once() -> None:
    prepared = await Outbox(FaultyStore(), WriterConfig()).prepare([event()])
    assert len(prepared.actions) == 1
    with pytest.raises(PreparedActionsError, match="prepare the events again"):
        _ = prepared.actions
    assert prepared.count == 1


async def test_each_preparation_has_numbers_of_its_own() -> None:
    outbox = Outbox(FaultyStore(), WriterConfig())
    one, other = event(), event()
    first = await outbox.prepare([one, other])
    again = await outbox.prepare([one, other])
    assert numbers_of(first.actions) == [f"{1:020d}", f"{2:020d}"]
    assert numbers_of(again.actions) == [f"{3:020d}", f"{4:020d}"]


async def test_actions_older_than_prepared_for_are_not_given() -> None:
    clock = ManualClock()
    outbox = Outbox(FaultyStore(), WriterConfig(prepared_for=25), clock=clock)
    heard = listen(outbox)
    young, old = await outbox.prepare([event()]), await outbox.prepare([event()])
    await clock.advance(25)
    assert len(young.actions) == 1
    await clock.advance(0.1)
    with pytest.raises(PreparedActionsError, match="older than prepared_for"):
        _ = old.actions
    (voided,) = heard
    assert isinstance(voided, Voided)
    assert list(voided.numbers) == [2]


async def test_committed_tells_the_processor_of_this_process_once() -> None:
    outbox = Outbox(FaultyStore(), WriterConfig())
    heard = listen(outbox)
    prepared = await outbox.prepare([event(), event(None)])
    assert len(prepared.actions) == 2
    prepared.committed()
    prepared.committed()
    (committed,) = heard
    assert isinstance(committed, Committed)
    assert [record.key for record in committed.records] == ["order-1", None]


async def test_committed_without_ever_taking_the_actions_is_an_error() -> None:
    prepared = await Outbox(FaultyStore(), WriterConfig()).prepare([event()])
    with pytest.raises(PreparedActionsError, match="never taken"):
        prepared.committed()


async def test_refused_tells_that_the_numbers_are_void_and_takes_the_actions_back() -> None:
    outbox = Outbox(FaultyStore(), WriterConfig())
    heard = listen(outbox)
    prepared = await outbox.prepare([event(), event()])
    prepared.refused()
    prepared.refused()
    (voided,) = heard
    assert isinstance(voided, Voided)
    assert list(voided.numbers) == [1, 2]
    with pytest.raises(PreparedActionsError):
        _ = prepared.actions


async def test_more_than_a_transaction_takes_is_refused_before_anything_is_reserved() -> None:
    store = FaultyStore()
    with pytest.raises(OutboxLimitError, match="101 actions"):
        await Outbox(store, WriterConfig()).prepare([event() for _ in range(101)])
    assert store.reserved == []


async def test_nothing_to_prepare_gives_no_actions() -> None:
    store = FaultyStore()
    prepared = await Outbox(store, WriterConfig()).prepare([])
    assert prepared.count == 0
    assert prepared.actions == []
    assert store.reserved == []


async def test_a_throttled_reservation_is_tried_again() -> None:
    store = FaultyStore()
    store.reserve_faults.append(StorageUnavailableError("throttled"))
    prepared = await Outbox(store, WriterConfig()).prepare([event()])
    assert prepared.count == 1
    assert len(store.reserved) == 2


async def test_preparing_and_closing_do_not_meet() -> None:
    store = FaultyStore()
    outbox = Outbox(store, WriterConfig())
    store.gate.clear()
    preparing = asyncio.create_task(outbox.prepare([event()]))
    await store.reserving.wait()
    await outbox.close()
    async with asyncio.timeout(5):
        with pytest.raises(OutboxClosedError, match="nothing was written"):
            await preparing


async def test_an_event_that_key_of_fails_on_is_told_before_anything_is_reserved() -> None:
    store = FaultyStore()
    outbox = Outbox(store, WriterConfig(key_of=lambda found: found.get_data()["order"]))
    with pytest.raises(InvalidEventError, match="key_of failed"):
        await outbox.prepare([event(), event(None, {"no": "order"})])
    assert store.reserved == []
