"""What holds of triggers when no extra is installed: pipelines in memory, schedules, and nothing more loaded."""

from __future__ import annotations

import subprocess
import sys

from oms_events import triggers

OPTIONAL = ("nats", "aioboto3", "botocore", "prometheus_client", "yaml", "click", "rich")

PROGRAM = f"""
import asyncio
import sys
from oms_events.idempotency import MemoryIdempotencyStore
from oms_events.triggers import *

async def handler(start):
    return len(start.request.symbols)

async def main():
    pipeline = TriggerPipeline(
        handler, idempotency=MemoryIdempotencyStore(), rate=MemoryRateLimiter(), breaker=MemoryBreakers(),
        leases=MemoryLeases(), delay=MemoryDelayQueue(), dead_letters=MemoryDeadLetters(),
    )
    async with pipeline:
        response = await pipeline.handle({{"symbols": ["AAPL"]}})
    assert response.result == 1, response

asyncio.run(main())
assert explain_schedule(parse_schedule("cron(0 22 * * ? *)"))
print([name for name in {OPTIONAL!r} if name in sys.modules])
"""


def test_a_pipeline_in_memory_loads_no_optional_dependency() -> None:
    # The star loads every public name.
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert set(triggers.__all__) <= set(dir(triggers))
    assert all(hasattr(triggers, name) for name in triggers.__all__)
    assert not hasattr(triggers, "cronjob")
