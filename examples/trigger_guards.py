"""Each guard of the triggers by itself, in memory; time passes as fast as the example likes."""

# [start:imports]
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from oms_events import LeaseHeldError
from oms_events.idempotency import IdempotencyConfig, create_idempotency_table
from oms_events.testing import ManualClock
from oms_events.triggers import (
    BreakerOptions,
    DynamoDBBreakers,
    DynamoDBRateLimiter,
    Exclusive,
    GuardTableConfig,
    Leases,
    MemoryBreakers,
    MemoryLeases,
    MemoryRateLimiter,
    OutboundLimiter,
    Permit,
    Quota,
    RateLimiter,
    TriggerBreakers,
)

Work = Callable[[], Awaitable[None]]
# [end:imports]


# [start:rate]
async def start_by_hand(rate: RateLimiter, who: str) -> bool:
    wait = await rate.take("manual", Quota(limit=2, window=3_600))
    if wait:
        print(f"{who}: too many; try again in {wait:g} s")
        return False
    print(f"{who}: started")
    return True


# [end:rate]


# [start:dynamodb]
async def start_on_aws(who: str) -> bool:
    config = GuardTableConfig(table_name="dev-ingestion-rate", aws_region="eu-central-1")
    async with DynamoDBRateLimiter(config) as rate:
        return await start_by_hand(rate, who)


# [end:dynamodb]


# [start:tables]
async def make_tables() -> None:
    """For development; the preset has them for everything else."""
    rates = GuardTableConfig(table_name="dev-ingestion-rate", aws_region="eu-central-1")
    breakers = GuardTableConfig(table_name="dev-ingestion-breaker", aws_region="eu-central-1")
    starts = IdempotencyConfig(table_name="dev-ingestion-idempotency", aws_region="eu-central-1")
    await DynamoDBRateLimiter(rates).create()
    await DynamoDBBreakers(breakers).create()  # leases are in the same table
    await create_idempotency_table(starts)


# [end:tables]


# [start:breaker]
async def ingest(breakers: TriggerBreakers, work: Work) -> None:
    permit = await breakers.admit("market", "prices")
    if not isinstance(permit, Permit):
        print(f"stopped; ask again in {permit:g} s")
        return
    try:
        await work()
    except asyncio.CancelledError:
        # Says nothing of the domain and table.
        await breakers.released(permit)
        raise
    except Exception as error:
        await breakers.failed(permit)
        print(f"failed: {error}")
    else:
        await breakers.succeeded(permit)
        print("went well" + (", and closes the breaker" if permit.trial else ""))


# [end:breaker]


# [start:exclusive]
async def run_alone(leases: Leases, name: str, work: Work, clock: ManualClock) -> None:
    try:
        async with Exclusive(leases, "market:prices", seconds=60, clock=clock) as lease:
            print(f"{name}: runs, fence {lease.fence}")
            await work()
    except LeaseHeldError as held:
        print(f"{name}: another runs, for {held.retry_after:g} s or less")


# [end:exclusive]


# [start:outbound]
async def load(rate: RateLimiter, symbols: list[str], clock: ManualClock) -> None:
    api = OutboundLimiter(rate, "quotes-api", quota=Quota(limit=10, window=60), batch_size=5, clock=clock)
    async for batch in api.batches(symbols):
        print(f"at {clock.monotonic():g} s: ask for {len(batch)} symbols, {batch[0]} first")


# [end:outbound]


async def show_rate(clock: ManualClock) -> None:
    rate = MemoryRateLimiter(clock=clock)
    for who in ("Ada", "Bob", "Cleo"):
        await start_by_hand(rate, who)
        await clock.advance(600)
    await clock.advance(1_800)
    await start_by_hand(rate, "Cleo")


async def show_breaker(clock: ManualClock) -> None:
    async def down() -> None:
        raise TimeoutError("no answer from upstream")

    async def up() -> None:
        return

    options = BreakerOptions(failure_threshold=2, failure_window=3_600, recovery_time=300)
    breakers = MemoryBreakers(options, clock=clock)
    for work in (down, up, down, up):
        await ingest(breakers, work)
    for view in await breakers.views():
        print(f"{view.domain} {view.table_name}: {view.state.value}, {view.failures} failures")
    await clock.advance(300)
    await ingest(breakers, up)
    print(f"breakers that say something: {await breakers.views()}")


async def show_exclusive(clock: ManualClock) -> None:
    leases = MemoryLeases(clock=clock)
    done = asyncio.Event()

    async def work() -> None:
        await done.wait()

    long_run = asyncio.create_task(run_alone(leases, "first", work, clock))
    await clock.someone_sleeps()
    # Ten minutes: its lease of one minute is renewed each 20 s.
    await clock.advance(600)
    await run_alone(leases, "second", work, clock)
    done.set()
    await long_run
    await run_alone(leases, "third", work, clock)


async def show_outbound(clock: ManualClock) -> None:
    began = clock.monotonic()
    waiting = asyncio.create_task(load(MemoryRateLimiter(clock=clock), [f"S{n}" for n in range(12)], clock))
    await clock.someone_sleeps()
    await clock.advance(60)
    await waiting
    print(f"12 symbols took {clock.monotonic() - began:g} s")


async def main() -> None:
    for show in (show_rate, show_breaker, show_exclusive, show_outbound):
        print(f"-- {show.__name__.removeprefix('show_')}")
        await show(ManualClock())


if __name__ == "__main__":
    asyncio.run(main())
