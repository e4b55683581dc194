"""A processor with a backlog that takes no memory by itself, in a process of its own: prints what it used at most.

Its platform takes nothing until the processor has read ahead as far as it ever does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# What a service has in memory besides.
import aioboto3  # noqa: F401
import nats  # noqa: F401
import orjson

from oms_events import EventRouter, OutboxProcessor, ProcessorConfig, build_event, encode
from oms_events.events import EncodedEvent
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.epochs import ensure_layout
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.outbox import Outbox
from oms_events.outbox.records import NewRecord, Page, Partition, StoredRecord, partition_key, sequence_key
from oms_events.outbox.schema import read_record, record_item
from oms_events.publishing import PublisherTraits, Receipt

STATUS: Final = Path("/proc/self/status")
BUCKETS: Final = 8
_PARTITIONS: Final = 2 * BUCKETS
_FILLER: Final = "x" * 700


class Backlog(MemoryOutboxStore):
    """Records of 1 KB that are made when they are read; of those that are removed it keeps a byte each."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._size = count // _PARTITIONS
        self._is_gone: dict[Partition, bytearray] = {}

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        await asyncio.sleep(0)
        gone = self._is_gone.setdefault(partition, bytearray(self._size + 1))
        first = 1 if after is None else _number(after) + 1
        there = (number for number in range(first, self._size + 1) if not gone[number])
        records = [_record(partition, number) for number, _ in zip(there, range(limit), strict=False)]
        return Page(records, records[-1].sk if len(records) == limit else None)

    async def remove(self, partition: Partition, sks: Sequence[str]) -> None:
        await asyncio.sleep(0)
        for sk in sks:
            self._is_gone[partition][_number(sk)] = True


class Slow:
    """A platform that takes events once so many records are in the processor's memory."""

    traits = PublisherTraits()

    def __init__(self, full: int) -> None:
        self.processor: OutboxProcessor | None = None
        self._full = full

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def check(self) -> None:
        return

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt]:
        while self.processor is not None:
            if self.processor.status()["in_memory"] >= self._full:
                self.processor = None
            await asyncio.sleep(0)
        return [Receipt()] * len(events)


def _number(sk: str) -> int:
    return int(sk[-16:], 10)


def _record(partition: Partition, number: int) -> StoredRecord:
    name = f"{partition_key(partition)}-{number}"
    key = f"order-{number}" if partition.keyed else None
    event = encode(build_event("com.example.order.placed", "/orders", {"note": _FILLER}, id=name))
    sk = sequence_key(number) if partition.keyed else f"{1_700_000_000_000 + number:013d}-{number:016d}"
    item = record_item(NewRecord(partition, sk, key, event, 1_700_000_000_000))
    # Through the wire's form, as every record is that DynamoDB gives.
    return read_record(partition, orjson.loads(orjson.dumps(item)))


def _peak() -> float:
    """MB resident at most; `ru_maxrss` would count what the parent had."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


async def main(count: int, window: int) -> None:
    store = Backlog(count)
    await ensure_layout(store, BUCKETS)
    platform = Slow(min(count, _PARTITIONS * window))
    async with EventRouter({"nats": platform}) as router:
        config = ProcessorConfig(window=window)
        platform.processor = processor = OutboxProcessor(Outbox(store, WriterConfig()), router, config=config)
        summary = await processor.run_once()
    sys.stdout.write(f"{summary.delivered} {_peak()}\n")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
