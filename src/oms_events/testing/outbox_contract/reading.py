"""What the contract says of reading, probing and counting."""

from __future__ import annotations

import pytest

from oms_events.outbox.records import (
    Bucket,
    Partition,
    sequence_key,
)
from oms_events.outbox.store import OutboxStore
from oms_events.testing.outbox_contract.support import (
    ADDED,
    KEYED,
    LARGE,
    UNKEYED,
    facts_of,
    make_record,
    put,
    read_all,
    sks,
)


class ReadingContract:
    """What the contract says of reading, probing and counting."""

    @pytest.mark.parametrize("limit", [1, 7, 100])
    async def test_reads_in_order_and_in_pages(self, store: OutboxStore, limit: int) -> None:
        numbers = [*range(95, 120, 2), *range(1, 95), *range(96, 120, 2)]
        await put(store, *(make_record(number) for number in numbers))
        assert sks(await read_all(store, limit=limit)) == [sequence_key(number) for number in range(1, 120)]

    async def test_reads_large_records_in_order(self, store: OutboxStore) -> None:
        records = [make_record(number, data="x" * LARGE) for number in range(12)]
        for record in records:
            await put(store, record)
        assert sks(await read_all(store)) == sks(records)

    async def test_reads_from_any_place(self, store: OutboxStore) -> None:
        await put(store, *(make_record(number) for number in (2, 4, 6)))
        for after, expected in ((0, [2, 4, 6]), (2, [4, 6]), (3, [4, 6]), (6, []), (7, [])):
            page = await store.read(KEYED, after=sequence_key(after))
            assert (sks(page.records), page.next) == ([sequence_key(number) for number in expected], None)

    async def test_partitions_are_apart(self, store: OutboxStore) -> None:
        others = [Partition(Bucket(epoch, number), keyed=True) for epoch, number in ((1, 30), (2, 3), (13, 3))]
        records = [make_record(1, partition=partition) for partition in (KEYED, UNKEYED, *others)]
        await put(store, *records)
        for record in records:
            assert [facts_of(found) for found in await read_all(store, record.partition)] == [facts_of(record)]
        assert await read_all(store, Partition(Bucket(3, 3), keyed=True)) == []

    async def test_a_probe_finds_those_that_are_there(self, store: OutboxStore) -> None:
        records = [make_record(number) for number in range(0, 200, 4)]
        await put(store, *records)
        wanted = [sequence_key(number) for number in range(199, 99, -1)]
        found = await store.probe(KEYED, wanted)
        assert [facts_of(record) for record in found] == [facts_of(record) for record in records[25:]]
        assert list(await store.probe(KEYED, [sequence_key(1)])) == []
        assert list(await store.probe(KEYED, [])) == []

    async def test_a_probe_may_find_more_than_a_call_carries(self, store: OutboxStore) -> None:
        records = [make_record(number, data="x" * LARGE) for number in range(25)]
        for record in records:
            await put(store, record)
        assert sks(await store.probe(KEYED, sks(records))) == sks(records)

    async def test_counts_up_to_a_limit(self, store: OutboxStore) -> None:
        assert await store.count(KEYED, limit=10) == (0, False, None)
        await put(store, *(make_record(number) for number in range(5, 35)))
        oldest = ADDED + 5
        assert await store.count(KEYED, limit=100) == (30, False, oldest)
        assert await store.count(KEYED, limit=30) == (30, False, oldest)
        assert await store.count(KEYED, limit=29) == (29, True, oldest)
        assert await store.count(KEYED, limit=1) == (1, True, oldest)
        assert await store.count(UNKEYED, limit=10) == (0, False, None)

    async def test_counts_large_records(self, store: OutboxStore) -> None:
        for number in range(12):
            await put(store, make_record(number, data="x" * LARGE))
        assert await store.count(KEYED, limit=100) == (12, False, ADDED)
