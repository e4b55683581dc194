"""The memory and the speed of a rebuild, by the number of stored events: it holds pages, not the store.

The store's pages are canned, and the read models keep nothing, so that what is measured is the rebuild's own. The
projector remembers the positions of 1,000 aggregates: 250 bytes each, of 100,000 unless configured otherwise. Each
size is rebuilt in a process of its own, with all that it imports.
Run: python -m benchmarks.eventstore_rebuild
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage, Token
from oms_events.eventstore.items import Item, event_item
from oms_events.eventstore.memory import MemoryEventStore, MemoryEventTable
from oms_events.eventstore.projections.projecting import ProjectorConfig
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModelTables, ReadModels
from oms_events.eventstore.projections.rebuilding import RebuildConfig, rebuild
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.store import EventStore

SIZES: Final = (20_000, 100_000)
PER_AGGREGATE: Final = 10
GROWTH: Final = 1.05
"""Five times the events may take so much more memory."""

registry = EventRegistry()


@registry.event
class Deposited(BaseModel):
    amount: int
    text: str


class Balance(BaseModel):
    amount: int = 0


BALANCES = Projection("Balances", Balance, registry=registry)


@BALANCES.on(Deposited)
def add(row: Balance | None, event: Deposited, recorded: RecordedEvent) -> Balance:
    return Balance(amount=(row.amount if row else 0) + event.amount)


class CannedTable(MemoryEventTable):
    """A store of many aggregates, whose pages are made when they are asked for."""

    def __init__(self, template: Sequence[Item], aggregates: int) -> None:
        super().__init__("event-store")
        self._template = template
        self._aggregate_count = aggregates

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        await asyncio.sleep(0)
        first = segment if start is None else int(start["AggregateId"]["S"])
        numbers = range(first, self._aggregate_count, segments)[: (limit or 1000) // PER_AGGREGATE]
        items = [
            {**item, "AggregateId": {"S": f"account-{number}"}} for number in numbers for item in self._template
        ]
        following = numbers[-1] + segments
        more = {"AggregateId": {"S": str(following)}} if following < self._aggregate_count else None
        return ItemPage(items, more)


class ForgetfulTables(MemoryReadModelTables):
    """Read models that keep no rows and no checkpoints of aggregates."""

    async def commit(self, writes: Any) -> bool:
        return await super().commit([write for write in writes if not write.key.hash.startswith("account-")])


async def measure(events: int) -> None:
    """What runs in the process that is measured."""
    store = MemoryEventStore(registry=registry)
    deposits = [Deposited(amount=number, text="x" * 500) for number in range(PER_AGGREGATE)]
    template = [event_item(event) for event in await store.append("a", deposits, expected_sequence=0)]
    table = CannedTable(template, events // PER_AGGREGATE)
    canned = EventStore(table, EventStoreConfig(table_name="event-store"), registry=registry)
    config = ProjectorConfig(remembered_positions=1_000)
    projector = Projector([BALANCES], canned, ReadModels(ForgetfulTables()), config=config)
    start = time.perf_counter()
    done = await rebuild(projector, config=RebuildConfig())
    print(done.events, time.perf_counter() - start, peak())


def peak() -> float:
    """The most MB that this process had resident; `ru_maxrss` would count what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> int:
    print("\nA rebuild, events of 700 bytes, ten of each aggregate, 4 segments, pages of 500\n")
    print("| events | events/s | MB at most |\n|---|---|---|")
    peaks = []
    for events in SIZES:
        command = [sys.executable, "-m", "benchmarks.eventstore_rebuild", str(events)]
        done, seconds, megabytes = subprocess.check_output(command, text=True).split()
        if int(done) != events:
            raise RuntimeError(f"{done} events of {events} were rebuilt")
        peaks.append(float(megabytes))
        print(f"| {events:,} | {events / float(seconds):,.0f} | {peaks[-1]:.0f} |")
    growth = peaks[-1] / peaks[0]
    verdict = "met" if growth <= GROWTH else "MISSED"
    print(f"\nFive times the events: {growth:.2f} x the memory (target: at most {GROWTH} x, {verdict})")
    return 0 if growth <= GROWTH else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(measure(int(sys.argv[1])))
    else:
        sys.exit(main())
