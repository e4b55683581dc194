"""Outbox tables that answer at once: DynamoDB in a process of its own, and a store in this one.

What is left is the cost of the processor. Both hold real items, and read no expression but those of leases.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import orjson

from benchmarks.harness import make_events
from benchmarks.stub import Stub, serve
from oms_events import encode
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.records import Bucket, Epoch, Layout, NewRecord, Page, Partition, sequence_key
from oms_events.outbox.schema import layout_item, read_record, record_item

TABLE = "bench"
BUCKETS = 8
PER_KEY = 4
"""Events of each key, far from one another."""

_DESCRIPTION = {
    "TableName": TABLE,
    "TableStatus": "ACTIVE",
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
}
Item = Mapping[str, Any]


def make_items(count: int, *, keyed: bool) -> Iterator[tuple[Partition, Item]]:
    """The items of pending 1 KB events, partition by partition as they are read, and without gaps."""
    added = int(time.time() * 1000)
    keys = max(1, count // PER_KEY // BUCKETS) * BUCKETS
    events = make_events(count)
    for bucket in range(BUCKETS):
        partition = Partition(Bucket(1, bucket), keyed)
        for number in range(bucket, count, BUCKETS):
            sk = sequence_key(number // BUCKETS + 1) if keyed else f"{added:013d}-{number:016x}"
            key = f"order-{number % keys}" if keyed else None
            yield partition, record_item(NewRecord(partition, sk, key, encode(events[number]), added))


class Table(Stub):
    """One table in memory. `Fill` is an operation of our own: it puts so many pending events into it."""

    rows: ClassVar[defaultdict[str, dict[str, Item]]] = defaultdict(dict)
    pages: ClassVar[defaultdict[str, dict[str, bytes]]] = defaultdict(dict)

    def answer(self, operation: str, request: bytes) -> bytes:
        asked = orjson.loads(request)
        if operation == "Query":
            return self._query(asked)
        return orjson.dumps(self._answer(operation, asked))

    def _answer(self, operation: str, asked: Any) -> Any:
        match operation:
            case "DescribeTable":
                return {"Table": _DESCRIPTION}
            case "GetItem":
                return {"Item": layout_item(Layout(1, (Epoch(1, BUCKETS, is_open=True),)))}
            case "PutItem":
                self.rows[asked["Item"]["pk"]["S"]][asked["Item"]["sk"]["S"]] = asked["Item"]
            case "DeleteItem":
                self.rows[asked["Key"]["pk"]["S"]].pop(asked["Key"]["sk"]["S"], None)
            case "UpdateItem" if asked["Key"]["sk"]["S"].startswith("l#"):
                return {"Attributes": self._lease(asked)}
            case "BatchWriteItem":
                for request in asked["RequestItems"][TABLE]:
                    key = request["DeleteRequest"]["Key"]
                    self.pages[key["pk"]["S"]].pop(key["sk"]["S"], None)
                return {"UnprocessedItems": {}}
            case "Fill":
                for _, item in make_items(asked["count"], keyed=asked["keyed"]):
                    self.pages[item["pk"]["S"]][item["sk"]["S"]] = orjson.dumps(item)
        return {}

    def _lease(self, asked: Any) -> Item:
        rows, sk = self.rows["coordination"], asked["Key"]["sk"]["S"]
        lease = {**asked["Key"], **rows.get(sk, {})}
        values = asked.get("ExpressionAttributeValues", {})
        if ":owner" in values:
            version = int(lease.get("n", {"N": "0"})["N"]) + 1
            lease |= {"o": values[":owner"], "n": {"N": str(version)}}
        else:
            lease.pop("o", None)
        rows[sk] = lease
        return lease

    def _query(self, asked: Any) -> bytes:
        values = asked["ExpressionAttributeValues"]
        pk = values[":pk"]["S"]
        if pk in self.rows:
            return orjson.dumps({"Items": list(self.rows[pk].values())})
        found = self.pages[pk]
        sks = list(found)
        start = bisect_right(sks, values[":after"]["S"]) if ":after" in values else 0
        end = start + asked.get("Limit", len(sks))
        last = b""
        if end < len(sks):
            last = b',"LastEvaluatedKey":' + orjson.dumps({"pk": {"S": pk}, "sk": {"S": sks[end - 1]}})
        shown = sks[start:end]
        return b'{"Count":%d,"Items":[' % len(shown) + b",".join(found[sk] for sk in shown) + b"]" + last + b"}"


def fill(endpoint_url: str, count: int, *, keyed: bool) -> None:
    """Puts pending events into a table that runs elsewhere."""
    body = orjson.dumps({"count": count, "keyed": keyed})
    request = urllib.request.Request(endpoint_url, body, {"X-Amz-Target": "Bench.Fill"})
    with urllib.request.urlopen(request) as answer:
        answer.read()


class ReadyStore(MemoryOutboxStore):
    """Gives records that it has as items, parsed when they are read as DynamoDB's are; removing is nothing."""

    def __init__(self, count: int, *, keyed: bool) -> None:
        super().__init__(table=TABLE)
        self._items: defaultdict[Partition, list[Item]] = defaultdict(list)
        for partition, item in make_items(count, keyed=keyed):
            self._items[partition].append(item)

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        await asyncio.sleep(0)
        items = self._items[partition]
        records = [read_record(partition, item) for item in items[:limit]]
        del items[:limit]
        return Page(records, records[-1].sk if items else None)

    async def remove(self, partition: Partition, sks: Sequence[str]) -> None:
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(serve(Table))
