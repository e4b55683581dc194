"""The memory of one processor, by the size of its backlog: it keeps a window of it, not all.

The table is in a process of its own, the processor in another, with all that it imports. JetStream is real, and
answers only after a while, so that the processor reads ahead as far as it ever does.
Run: python -m benchmarks.outbox_memory
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats

from benchmarks.outbox_relaying import KEYS, REGION
from benchmarks.outbox_stub import TABLE, fill
from benchmarks.stub import running_stub
from oms_events import DynamoDBOutbox, EventRouter, NatsConfig, OutboxConfig, OutboxProcessor
from oms_events.devstack import NatsServer
from oms_events.events import EncodedEvent
from oms_events.publishers.jetstream import JetStreamPublisher

BACKLOGS = (5_000, 20_000, 40_000)
"""The first fits into the windows of 16 partitions; the others fill them."""
LIMIT = 120
GROWTH = 1.05
_SILENCE = 2.0


class Late(JetStreamPublisher):
    """JetStream, from when it is awake."""

    def __init__(self, config: NatsConfig) -> None:
        super().__init__(config)
        self.awake = asyncio.Event()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Any:
        await self.awake.wait()
        return await super().publish(events, timeout=timeout)


async def relay(endpoint_url: str, nats_url: str) -> None:
    """What runs in the process that is measured."""
    config = OutboxConfig(table_name=TABLE, aws_region=REGION, endpoint_url=endpoint_url, **KEYS)
    publisher = Late(NatsConfig(servers=[nats_url]))
    asyncio.get_running_loop().call_later(_SILENCE, publisher.awake.set)
    async with DynamoDBOutbox(config) as outbox, EventRouter({"nats": publisher}) as router:
        summary = await OutboxProcessor(outbox, router).run_once()
    print(summary.delivered, peak())


def peak() -> float:
    """The most MB that this process had resident; `ru_maxrss` would count what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measure(nats_url: str) -> bool:
    print("\nMemory of one processor, 8 buckets\n\n| pending events | MB at most | target |\n|---|---|---|")
    peaks = []
    with running_stub("benchmarks.outbox_stub") as endpoint_url:
        for backlog in BACKLOGS:
            for keyed in (True, False):
                fill(endpoint_url, backlog // 2, keyed=keyed)
            command = [sys.executable, "-m", "benchmarks.outbox_memory", endpoint_url, nats_url]
            delivered, megabytes = subprocess.check_output(command, text=True).split()
            if int(delivered) != backlog:
                raise RuntimeError(f"{delivered} events of {backlog} were delivered")
            peaks.append(float(megabytes))
            print(f"| {backlog:,} | {peaks[-1]:.0f} | {LIMIT} {'met' if peaks[-1] <= LIMIT else 'MISSED'} |")
    growth = peaks[-1] / peaks[-2]
    verdict = "met" if growth <= GROWTH else "MISSED"
    print(f"\nTwice the backlog: {growth:.2f} x (target: at most {GROWTH} x, {verdict})")
    return max(peaks) <= LIMIT and growth <= GROWTH


async def alone() -> int:
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="OMS", subjects=["oms.>"], max_bytes=1 << 30)
        await client.close()
        return 0 if measure(server.url) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(relay(*sys.argv[1:]))
    else:
        sys.exit(asyncio.run(alone()))
