"""New events of all types and aggregates, from the table's stream (DynamoDB Streams)."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events.errors import ConfigurationError, StorageUnavailableError
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.items import Item, is_event
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.schema import EVENT_TIME, time_bound

if TYPE_CHECKING:
    import aioboto3

_VIEWS: Final = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
_REFRESH: Final = 30.0
"""Seconds after which the stream's shards are listed again; one that ended has it listed at once."""
_PACE: Final = 0.25
"""Seconds between reads while there is more: a shard takes 5 reads per second, and others read it too."""
_EXPIRED: Final = "ExpiredIteratorException"
"""Who consumes our events was busy elsewhere for a quarter of an hour."""
_TRIMMED: Final = "TrimmedDataAccessException"
"""What was to be read next is older than the stream."""


async def tail_stream(
    store: DynamoDBEventStore,
    *,
    since: datetime | None = None,
    endpoint_url: str | None = None,
    session: aioboto3.Session | None = None,
    client: Any = None,
    interval: float = 1.0,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> AsyncGenerator[RecordedEvent]:
    """New events of all aggregates as they are appended, without an end, those of an aggregate in their order.

    With `since` (an aware time) also those from then on that the stream still has: it keeps 24 hours. Asks each
    shard of the stream every `interval` seconds; a shard bears two readers (developer guide, "Change data capture
    for DynamoDB Streams"), and a function that projects is one of them: use it for looking, for a while.

    Streams have an endpoint of their own: give `endpoint_url` where the store's is a VPC endpoint. Give a
    `session` (aioboto3) or a `client` (its `dynamodbstreams` client) to use your own; neither is ever closed.
    Needs `dynamodb:DescribeTable` on the table, and `DescribeStream`, `GetShardIterator`, `GetRecords` on its
    stream. Raises `ConfigurationError` for a table without a stream of new images, a `StorageError`,
    `EventUnreadableError` and `PersonalDataError`.
    """
    items = stream_items(
        store,
        since=since,
        endpoint_url=endpoint_url,
        session=session,
        client=client,
        interval=interval,
        clock=clock,
        rng=rng,
    )
    async with aclosing(items) as batches:
        async for batch in batches:
            for event in await store.revealed(batch):
                yield event


async def stream_items(
    store: DynamoDBEventStore,
    *,
    since: datetime | None = None,
    endpoint_url: str | None = None,
    session: aioboto3.Session | None = None,
    client: Any = None,
    interval: float = 1.0,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> AsyncGenerator[Sequence[Item]]:
    """As `tail_stream`, the items as they are stored."""
    config = store.config
    arn = await _stream_of(store)
    if endpoint_url is not None:
        config = config.model_copy(update={"endpoint_url": endpoint_url})
    dynamo = await open_dynamo(config, connections=1, service="dynamodbstreams", session=session, client=client)
    try:
        reader = _Reader(
            dynamo,
            arn,
            store.table.name,
            config,
            since=since,
            clock=clock or SystemClock(),
            rng=rng or random.SystemRandom(),
        )
        async with aclosing(reader.batches(interval)) as batches:
            async for batch in batches:
                yield batch
    finally:
        await dynamo.close()


async def _stream_of(store: DynamoDBEventStore) -> str:
    name = store.table.name
    described = (await store.table.repeat("DescribeTable", TableName=name))["Table"]
    stream = described.get("StreamSpecification") or {}
    arn = described.get("LatestStreamArn")
    if not arn or not stream.get("StreamEnabled") or stream.get("StreamViewType") not in _VIEWS:
        problem = "it has no stream of new images; switch it on, or follow an aggregate or event types (`tail`)"
        raise ConfigurationError(f"table {name!r}", [problem])
    return str(arn)


class _Shard:
    """How far a shard of the stream was read: from `start` on, up to the record with sequence number `last`."""

    def __init__(self, id: str, start: str) -> None:  # noqa: A002 - as the stream has it
        self.id = id
        self.start = start
        self.iterator: str | None = None
        self.last: str | None = None


class _Reader:
    """Reads a stream's shards in turn: a parent to its end, then its children."""

    def __init__(
        self,
        dynamo: DynamoClient,
        arn: str,
        table: str,
        config: EventStoreConfig,
        *,
        since: datetime | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._dynamo = dynamo
        self._arn = arn
        self._table = table
        self._retry = config.retry
        self._clock = clock
        self._rng = rng
        self._has_past = since is not None
        self._first = time_bound(since or clock.now())
        self._shards: dict[str, _Shard] = {}
        self._ended: set[str] = set()

    async def batches(self, interval: float) -> AsyncGenerator[Sequence[Item]]:
        await self._list_shards(at_first=True)
        listed = self._clock.monotonic()
        while True:
            read = ended = 0
            for shard in list(self._shards.values()):
                records = await self._read(shard)
                read += len(records)
                if items := self._items(shard, records):
                    yield items
                if shard.iterator is None:
                    del self._shards[shard.id]
                    self._ended.add(shard.id)
                    ended += 1
            if ended or self._clock.monotonic() - listed >= _REFRESH:
                await self._list_shards()
                listed = self._clock.monotonic()
            await self._clock.sleep(min(interval, _PACE) if read else interval)

    async def _read(self, shard: _Shard) -> Sequence[Mapping[str, Any]]:
        """The next records of a shard, and where to go on; no iterator when it has ended."""
        try:
            if shard.iterator is None:
                shard.iterator = await self._iterator(shard)
            answer = await self._call("GetRecords", ShardIterator=shard.iterator)
        except StorageUnavailableError as error:
            if error.code not in (_EXPIRED, _TRIMMED):
                raise
            self._lose_place(shard, error.code)
            shard.iterator = await self._iterator(shard)
            return ()
        records: Sequence[Mapping[str, Any]] = answer["Records"]
        shard.iterator = answer.get("NextShardIterator")
        if records:
            shard.last = records[-1]["dynamodb"]["SequenceNumber"]
        return records

    def _lose_place(self, shard: _Shard, code: str) -> None:
        if code == _TRIMMED:
            shard.last = None
        if shard.last is None:
            # What was "the latest" is not known any more: all there is, from our beginning on.
            shard.start = "TRIM_HORIZON"

    async def _iterator(self, shard: _Shard) -> str:
        place = {"ShardIteratorType": shard.start}
        if shard.last is not None:
            place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": shard.last}
        answer = await self._call("GetShardIterator", StreamArn=self._arn, ShardId=shard.id, **place)
        return str(answer["ShardIterator"])

    def _items(self, shard: _Shard, records: Sequence[Mapping[str, Any]]) -> list[Item]:
        images = (record["dynamodb"].get("NewImage") for record in records if record["eventName"] == "INSERT")
        found = [image for image in images if image is not None and is_event(image)]
        if shard.start == "LATEST":
            return found
        return [item for item in found if item.get(EVENT_TIME, {}).get("S", self._first) >= self._first]

    async def _list_shards(self, *, at_first: bool = False) -> None:
        """Takes up shards that are new: those whose parent was read to its end, or is there no more."""
        shards = await self._described_shards()
        listed = {shard["ShardId"] for shard in shards}
        is_new = at_first and not self._has_past
        if is_new:
            self._ended = {
                one["ShardId"] for one in shards if "EndingSequenceNumber" in one["SequenceNumberRange"]
            }
        self._ended &= listed
        for shard in shards:
            id, parent = shard["ShardId"], shard.get("ParentShardId")  # noqa: A001
            if id in self._shards or id in self._ended or (parent in listed and parent not in self._ended):
                continue
            self._shards[id] = _Shard(id, "LATEST" if is_new else "TRIM_HORIZON")

    async def _described_shards(self) -> list[Mapping[str, Any]]:
        shards: list[Mapping[str, Any]] = []
        start: dict[str, str] = {}
        while True:
            answer = await self._call("DescribeStream", StreamArn=self._arn, **start)
            described = answer["StreamDescription"]
            shards += described["Shards"]
            last = described.get("LastEvaluatedShardId")
            if not last:
                return shards
            start = {"ExclusiveStartShardId": last}

    async def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """A read, sent again while DynamoDB throttles or cannot be reached."""
        attempt = 1
        while True:
            try:
                return await self._dynamo.call(operation, parameters, table=self._table)
            except StorageUnavailableError as error:
                if error.code in (_EXPIRED, _TRIMMED) or attempt >= self._retry.max_attempts:
                    raise
                pause = max(self._retry.delay(attempt, self._rng.random), error.retry_after or 0.0)
            await self._clock.sleep(pause)
            attempt += 1
