"""Following a store by its stream: on the emulator, and where shards split and iterators expire on a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.tables import TableShape
from oms_events.errors import ConfigurationError, StorageDeniedError, StorageUnavailableError
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.inspection.stream_tailing import tail_stream
from oms_events.eventstore.items import event_key
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.schema import AGGREGATE_ID, EVENT_SEQUENCE
from oms_events.testing.clock import ManualClock
from tests.eventstore.accounts import AccountCreated, deposit, registry
from tests.eventstore.support import dynamodb_event_store, fresh_table
from tests.eventstore.test_tailing import START, Tail
from tests.outbox.support import Settings, session_of


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
async def store(aws: Settings, dynamo: DynamoClient, clock: ManualClock) -> AsyncIterator[DynamoDBEventStore]:
    async with dynamodb_event_store(aws, dynamo, clock=clock) as found:
        yield found


@asynccontextmanager
async def tailing(store: DynamoDBEventStore, clock: ManualClock, **options: Any) -> AsyncIterator[Tail]:
    events = tail_stream(store, clock=clock, **options)
    running = Tail(events, clock)
    try:
        await running.idle()
        yield running
    finally:
        running.task.cancel()
        await asyncio.wait([running.task])
        await events.aclose()


# ---------------------------------------------------------------------- on the emulator


async def test_new_events_of_all_types_are_seen_and_command_markers_are_not(
    store: DynamoDBEventStore, clock: ManualClock
) -> None:
    await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
    async with tailing(store, clock) as running:
        assert await running.look() == []
        await store.append("account-1", [deposit(), deposit()], expected_sequence=1, command_id="twice")
        await store.append("account-2", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["account-1@2", "account-1@3", "account-2@1"]
        assert await running.look() == []
        await store.append("account-2", [deposit()], expected_sequence=1)
        assert await running.look() == ["account-2@2"]


async def test_events_from_a_time_on_are_seen_first(store: DynamoDBEventStore, clock: ManualClock) -> None:
    await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
    await clock.advance(60)
    await store.append("account-1", [deposit()], expected_sequence=1)
    async with tailing(store, clock, since=START + timedelta(seconds=60)) as running:
        await store.append("account-1", [deposit()], expected_sequence=2)
        assert await running.look() == ["account-1@2", "account-1@3"]


async def test_what_is_changed_or_deleted_by_hand_is_no_event(
    store: DynamoDBEventStore, dynamo: DynamoClient, clock: ManualClock
) -> None:
    async with tailing(store, clock) as running:
        await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
        name = store.table.name
        item = dict(await store.table.get(event_key("account-1", 1)) or {})
        await dynamo.call("PutItem", {"TableName": name, "Item": {**item, "More": {"S": "x"}}}, table=name)
        await dynamo.call("DeleteItem", {"TableName": name, "Key": event_key("account-1", 1)}, table=name)
        assert await running.look() == ["account-1@1"]


async def test_a_session_of_your_own_is_used(store: DynamoDBEventStore, aws: Settings, clock: ManualClock) -> None:
    async with tailing(store, clock, session=session_of(aws), endpoint_url=aws["endpoint_url"]) as running:
        await store.append("account-1", [AccountCreated(customer_id="c")], expected_sequence=0)
        assert await running.look() == ["account-1@1"]


async def test_a_table_without_a_stream_is_refused(aws: Settings, dynamo: DynamoClient) -> None:
    shape = TableShape(hash_key=AGGREGATE_ID, range_key=EVENT_SEQUENCE, types={EVENT_SEQUENCE: "N"})
    async with fresh_table(dynamo, shape, "bare") as name:
        config = EventStoreConfig(table_name=name, **aws, verify_table=False)
        async with DynamoDBEventStore(config) as store:
            with pytest.raises(ConfigurationError, match="no stream of new images; switch it on, or follow"):
                await anext(tail_stream(store))


# ---------------------------------------------------------------------- on a script


class Streams:
    """The `dynamodbstreams` client of a stream whose shards, and their errors, a test makes."""

    def __init__(self) -> None:
        self.shards: dict[str, dict[str, Any]] = {}
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.errors: list[tuple[str, str]] = []
        self.calls: list[tuple[str, ...]] = []
        self.trimmed = 0
        self._count = 0

    def split(self, parent: str | None, *children: str) -> None:
        if parent is not None:
            self.shards[parent]["SequenceNumberRange"] = {"EndingSequenceNumber": "9"}
        for child in children:
            self.shards[child] = {"ShardId": child, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
            if parent is not None:
                self.shards[child]["ParentShardId"] = parent
            self.records[child] = []

    async def put(self, shard: str, *places: str, time: datetime = START) -> None:
        """Events at `<aggregate>@<sequence>`, as an append puts them."""
        for place in places:
            aggregate_id, _, sequence = place.partition("@")
            store = MemoryEventStore(registry=registry, clock=ManualClock(time))
            events = [deposit() for _ in range(int(sequence))]
            await store.append(aggregate_id, events, expected_sequence=0)
            image = await store.table.get(event_key(aggregate_id, int(sequence)))
            self._count += 1
            number = f"{self._count:010d}"
            change = {"NewImage": image, "SequenceNumber": number}
            self.records[shard].append({"eventName": "INSERT", "dynamodb": change})

    def _call(self, operation: str, *details: str) -> None:
        self.calls.append((operation, *details))
        if self.errors and self.errors[0][0] == operation:
            _, code = self.errors.pop(0)
            status = {"ResponseMetadata": {"HTTPStatusCode": 400}}
            raise ClientError({"Error": {"Code": code, "Message": "no"}, **status}, operation)

    async def describe_stream(self, **parameters: str) -> dict[str, Any]:
        self._call("DescribeStream")
        start = parameters.get("ExclusiveStartShardId", "")
        ids = [shard for shard in sorted(self.shards) if shard > start]
        described: dict[str, Any] = {"Shards": [self.shards[shard] for shard in ids[:2]]}
        if len(ids) > 2:
            described["LastEvaluatedShardId"] = ids[1]
        return {"StreamDescription": described}

    async def get_shard_iterator(self, **parameters: str) -> dict[str, Any]:
        shard, kind = parameters["ShardId"], parameters["ShardIteratorType"]
        self._call("GetShardIterator", shard, kind)
        records = self.records[shard]
        start = {"LATEST": len(records), "TRIM_HORIZON": self.trimmed}.get(kind)
        if start is None:
            numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
            start = numbers.index(parameters["SequenceNumber"]) + 1
        return {"ShardIterator": f"{shard}|{start}"}

    async def get_records(self, **parameters: str) -> dict[str, Any]:
        shard, _, text = parameters["ShardIterator"].partition("|")
        self._call("GetRecords", shard)
        start = int(text)
        records = self.records[shard][start : start + 2]
        closed = "EndingSequenceNumber" in self.shards[shard]["SequenceNumberRange"]
        at_end = start + len(records) == len(self.records[shard])
        following = {} if closed and at_end else {"NextShardIterator": f"{shard}|{start + len(records)}"}
        return {"Records": records, **following}


@pytest.fixture
async def streams() -> Streams:
    found = Streams()
    found.split(None, "a")
    return found


async def look_twice(running: Tail) -> list[str]:
    return [*await running.look(), *await running.look()]


async def test_a_shard_that_splits_is_read_to_its_end_before_its_children(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    async with tailing(store, clock, client=streams) as running:
        await streams.put("a", "x@1", "x@2", "x@3")
        streams.split("a", "b", "c", "d")
        await streams.put("b", "x@4")
        await streams.put("d", "y@1")
        assert await look_twice(running) == ["x@1", "x@2", "x@3", "x@4", "y@1"]
        await streams.put("d", "y@2")
        streams.split("c", "e")
        await streams.put("e", "z@1")
        assert sorted(await look_twice(running)) == ["y@2", "z@1"]
        # Not all shards are listed at each look.
        assert streams.calls.count(("DescribeStream",)) < 10


async def test_it_begins_with_the_open_shards_at_their_ends(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    await streams.put("a", "x@1")
    streams.split("a", "b")
    await streams.put("b", "x@2")
    async with tailing(store, clock, client=streams) as running:
        await streams.put("b", "x@3")
        assert await running.look() == ["x@3"]
    assert ("GetRecords", "a") not in streams.calls


async def test_from_a_time_on_it_begins_with_the_oldest_shards(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    await streams.put("a", "x@1", time=START - timedelta(hours=2))
    await streams.put("a", "x@2", "x@3", "x@4", "x@5")
    streams.split("a", "b")
    await streams.put("b", "x@6")
    async with tailing(store, clock, client=streams, since=START - timedelta(hours=1)) as running:
        seen = [position for _ in range(4) for position in await running.look()]
        assert seen == ["x@2", "x@3", "x@4", "x@5", "x@6"]


async def test_an_iterator_that_expired_goes_on_after_the_last_record(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    async with tailing(store, clock, client=streams) as running:
        await streams.put("a", "x@1")
        assert await running.look() == ["x@1"]
        await streams.put("a", "x@2")
        streams.errors.append(("GetRecords", "ExpiredIteratorException"))
        assert await look_twice(running) == ["x@2"]
    assert ("GetShardIterator", "a", "AFTER_SEQUENCE_NUMBER") in streams.calls


async def test_an_iterator_that_expired_before_any_record_misses_none_of_ours(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    await streams.put("a", "x@1", time=START - timedelta(hours=2))
    async with tailing(store, clock, client=streams) as running:
        await streams.put("a", "x@2", time=START + timedelta(seconds=1))
        streams.errors.append(("GetRecords", "ExpiredIteratorException"))
        assert await look_twice(running) == ["x@2"]


async def test_what_the_stream_has_dropped_is_passed_over(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    async with tailing(store, clock, client=streams) as running:
        await streams.put("a", "x@1")
        assert await running.look() == ["x@1"]
        await streams.put("a", "x@2", "x@3")
        streams.trimmed = 2
        streams.errors.append(("GetRecords", "TrimmedDataAccessException"))
        assert await look_twice(running) == ["x@3"]


async def test_throttled_reads_are_sent_again_and_at_last_given_up(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    attempts = store.config.retry.max_attempts
    async with tailing(store, clock, client=streams) as running:
        await streams.put("a", "x@1")
        streams.errors += [("GetRecords", "LimitExceededException")] * (attempts - 1)
        assert await running.look(60) == ["x@1"]
        streams.errors += [("GetRecords", "LimitExceededException")] * attempts
        await clock.advance(60)
        await asyncio.wait([running.task])
        with pytest.raises(StorageUnavailableError, match="GetRecords"):
            running.task.result()


async def test_a_missing_permission_is_named(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    streams.errors.append(("DescribeStream", "AccessDeniedException"))
    with pytest.raises(StorageDeniedError, match="dynamodb:DescribeStream"):
        await anext(tail_stream(store, client=streams, clock=clock))


async def test_a_busy_shard_is_read_four_times_a_second_at_most(
    store: DynamoDBEventStore, clock: ManualClock, streams: Streams
) -> None:
    async with tailing(store, clock, client=streams, since=datetime(2020, 1, 1, tzinfo=UTC)) as running:
        await streams.put("a", *[f"x{number}@1" for number in range(8)])
        assert len(await running.look()) == 2
        assert clock.sleeping == [pytest.approx(clock.monotonic() + 0.25)]
        assert len(await running.look(0.2)) == 0
        assert len(await running.look(0.05)) == 2
