"""What the contract says of layouts, reservations and transactions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from oms_events.errors import ConditionFailedError, EpochClosedError, OutboxLimitError, StorageRejectedError
from oms_events.outbox.records import (
    FORMAT,
    Bucket,
    Epoch,
    Layout,
    RecordState,
    sequence_key,
)
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import Plan
from oms_events.testing.outbox_contract.support import (
    BUCKET,
    DELIVERED,
    FAILOVER,
    KEYED,
    PLAN,
    REJECTED,
    UNKEYED,
    facts_of,
    make_record,
    put,
    read_all,
    sks,
)


class WritingContract:
    """What the contract says of layouts, reservations and transactions."""

    # ------------------------------------------------------------------ life and layout

    async def test_opening_and_closing_again_is_harmless(self, store: OutboxStore) -> None:
        await store.open()
        await put(store, make_record(1))
        assert len(await read_all(store)) == 1
        await store.close()
        await store.close()

    async def test_a_layout_replaces_only_the_revision_before_it(self, store: OutboxStore) -> None:
        assert await store.read_layout() is None
        first = Layout(1, (Epoch(1, 32, is_open=True),))
        assert not await store.write_layout(replace(first, revision=2))
        assert await store.write_layout(first)
        assert not await store.write_layout(Layout(1, (Epoch(1, 8, is_open=True),)))
        assert not await store.write_layout(replace(first, revision=3))
        assert await store.read_layout() == first
        second = Layout(2, (Epoch(1, 32, is_open=False), Epoch(2, 64, is_open=True)))
        assert await store.write_layout(second)
        assert not await store.write_layout(first)
        assert await store.read_layout() == second

    async def test_of_layouts_written_at_once_one_wins(self, store: OutboxStore) -> None:
        layouts = [Layout(1, (Epoch(1, buckets, is_open=True),)) for buckets in range(1, 9)]
        won = await asyncio.gather(*(store.write_layout(layout) for layout in layouts))
        assert won.count(True) == 1
        assert await store.read_layout() == layouts[won.index(True)]

    # ------------------------------------------------------------------ reserving

    async def test_reservations_at_once_never_overlap(self, store: OutboxStore) -> None:
        sizes = [1, 5, 2, 100, 1, 7] * 4
        firsts = await asyncio.gather(*(store.reserve(BUCKET, size) for size in sizes))
        numbers = [first + index for first, size in zip(firsts, sizes, strict=True) for index in range(size)]
        assert len(set(numbers)) == sum(sizes)
        assert await store.reserve(BUCKET, 1) > max(numbers)

    async def test_reservations_begin_above_zero_in_every_bucket(self, store: OutboxStore) -> None:
        assert await store.reserve(BUCKET, 1) >= 1
        assert await store.reserve(Bucket(1, 4), 1) == await store.reserve(Bucket(2, 3), 1)

    async def test_a_closed_counter_reserves_no_more(self, store: OutboxStore) -> None:
        await store.reserve(BUCKET, 1)
        await store.close_counter(BUCKET)
        await store.close_counter(BUCKET)
        with pytest.raises(EpochClosedError):
            await store.reserve(BUCKET, 1)
        await store.reserve(Bucket(1, 4), 1)
        await store.reserve(Bucket(2, 3), 1)

    async def test_a_counter_can_be_closed_before_its_first_reservation(self, store: OutboxStore) -> None:
        await store.close_counter(BUCKET)
        with pytest.raises(EpochClosedError):
            await store.reserve(BUCKET, 1)

    # ------------------------------------------------------------------ committing

    async def test_a_record_comes_back_as_it_was_put(self, store: OutboxStore) -> None:
        state = RecordState(PLAN, {"web-hook_2": DELIVERED, "nats": REJECTED}, 4, 1.25, 2)
        history = [{"platform": "nats", "attempts": 2, "error": "none 'at all'", "when": None}]
        records = [
            make_record(1),
            make_record(2, subject="a/ü", partitionkey="k", yes=True, count=-7),
            make_record(3, data=b"\x00\xff", datacontenttype="application/octet-stream"),
            make_record(4, data="text ü", datacontenttype="text/plain"),
            make_record(5, state=state)._replace(history=history),
            make_record(6, state=replace(state, plan=FAILOVER)),
            make_record(7, state=RecordState(Plan(None, "PRIMARY_ONLY", ("nats",), first_that_works=True))),
            make_record(8)._replace(key="ключ #1"),
        ]
        unkeyed = make_record(9, partition=UNKEYED)
        await put(store, *records, unkeyed)
        found = await read_all(store)
        assert [facts_of(record) for record in found] == [facts_of(record) for record in records]
        assert [facts_of(record) for record in await read_all(store, UNKEYED)] == [facts_of(unkeyed)]
        assert {(record.format, record.problem) for record in found} == {(FORMAT, None)}
        assert all(record.size > len(record.event.payload) for record in found if record.event is not None)

    async def test_a_put_never_overwrites(self, store: OutboxStore) -> None:
        first, second = make_record(1), make_record(1, data="another")
        await put(store, first)
        with pytest.raises(ConditionFailedError) as refused:
            await put(store, second)
        assert list(refused.value.reasons) == ["ConditionalCheckFailed"]
        assert [facts_of(record) for record in await read_all(store)] == [facts_of(first)]

    async def test_a_transaction_is_committed_as_a_whole_or_not_at_all(self, store: OutboxStore) -> None:
        await put(store, make_record(2), make_record(4))
        with pytest.raises(ConditionFailedError) as refused:
            await put(store, *(make_record(number) for number in range(1, 6)))
        expected = ["None", "ConditionalCheckFailed", "None", "ConditionalCheckFailed", "None"]
        assert list(refused.value.reasons) == expected
        assert sks(await read_all(store)) == [sequence_key(2), sequence_key(4)]

    async def test_of_transactions_at_once_that_put_one_record_one_wins(self, store: OutboxStore) -> None:
        rivals = [[make_record(1, data=f"rival {rival}"), make_record(10 + rival)] for rival in range(4)]
        answers = await asyncio.gather(*(put(store, *records) for records in rivals), return_exceptions=True)
        (winner,) = [rival for rival, answer in enumerate(answers) if answer is None]
        expected = [facts_of(record) for record in rivals[winner]]
        assert [facts_of(record) for record in await read_all(store)] == expected

    async def test_the_same_call_with_the_same_token_is_done_once(self, store: OutboxStore) -> None:
        token = uuid4().hex
        record = make_record(1)
        actions = [store.put_action(record)]
        await store.commit(actions, token)
        await store.commit(actions, token)
        assert sks(await read_all(store)) == [record.sk]
        with pytest.raises(ConditionFailedError):
            await store.commit(actions, uuid4().hex)

    async def test_the_same_token_does_not_bring_a_relayed_record_back(self, store: OutboxStore) -> None:
        token = uuid4().hex
        record = make_record(1)
        actions = [store.put_action(record)]
        await store.commit(actions, token)
        await store.remove(KEYED, [record.sk])
        await store.commit(actions, token)
        assert await read_all(store) == []

    async def test_a_token_is_for_one_transaction_only(self, store: OutboxStore) -> None:
        token = uuid4().hex
        await store.commit([store.put_action(make_record(1))], token)
        with pytest.raises(StorageRejectedError):
            await store.commit([store.put_action(make_record(2))], token)
        assert sks(await read_all(store)) == [sequence_key(1)]

    async def test_a_refused_transaction_does_not_use_up_its_token(self, store: OutboxStore) -> None:
        token = uuid4().hex
        obstacle = make_record(1)
        actions = [store.put_action(make_record(1)), store.put_action(make_record(2))]
        await put(store, obstacle)
        with pytest.raises(ConditionFailedError):
            await store.commit(actions, token)
        await store.remove(KEYED, [obstacle.sk])
        await store.commit(actions, token)
        assert sks(await read_all(store)) == [sequence_key(1), sequence_key(2)]

    async def test_a_transaction_takes_100_actions_and_no_more(self, store: OutboxStore) -> None:
        actions = [store.put_action(make_record(number)) for number in range(101)]
        with pytest.raises(StorageRejectedError):
            await store.commit(actions, uuid4().hex)
        assert await read_all(store) == []
        await store.commit(actions[:100], uuid4().hex)
        assert len(await read_all(store)) == 100

    async def test_a_record_may_be_large_but_not_too_large(self, store: OutboxStore) -> None:
        await put(store, make_record(1, data="x" * 390_000))
        with pytest.raises(OutboxLimitError) as refused:
            store.put_action(make_record(2, data="x" * 410_000))
        assert refused.value.limit < refused.value.actual
        assert sks(await read_all(store)) == [sequence_key(1)]
