"""A projection: rows made of events by way of the outbox, and a new version that is built beside the old one."""

# [start:imports]
from __future__ import annotations

import asyncio
from decimal import Decimal

from pydantic import BaseModel

from oms_events import EventRouter, MemoryOutbox, OutboxProcessor, ProjectionError, RoutingRule
from oms_events.eventstore import (
    MemoryEventStore,
    MemoryReadModels,
    Projection,
    ProjectionPublisher,
    Projector,
    RebuildConfig,
    RecordedEvent,
    domain_event,
    rebuild,
    retire,
    switch,
)

# [end:imports]


# [start:projection]
@domain_event
class AccountOpened(BaseModel):
    customer_id: str


@domain_event
class MoneyMoved(BaseModel):
    amount: Decimal


class Summary(BaseModel):
    customer_id: str
    balance: Decimal = Decimal(0)


summary = Projection("AccountSummary", Summary)


@summary.on(AccountOpened)
def opened(row: Summary | None, event: AccountOpened, recorded: RecordedEvent) -> Summary:
    return Summary(customer_id=event.customer_id)


@summary.on(MoneyMoved)
def moved(row: Summary, event: MoneyMoved, recorded: RecordedEvent) -> Summary:
    return row.model_copy(update={"balance": row.balance + event.amount})


# [end:projection]


# [start:next]
class NextSummary(Summary):
    movements: int = 0


next_summary = Projection("AccountSummary", NextSummary, version=2)


@next_summary.on(AccountOpened)
def opened_next(row: NextSummary | None, event: AccountOpened, recorded: RecordedEvent) -> NextSummary:
    return NextSummary(customer_id=event.customer_id)


@next_summary.on(MoneyMoved)
def moved_next(row: NextSummary, event: MoneyMoved, recorded: RecordedEvent) -> NextSummary:
    changes = {"balance": row.balance + event.amount, "movements": row.movements + 1}
    return row.model_copy(update=changes)


# [end:next]


async def main() -> None:
    outbox, read_models = MemoryOutbox(), MemoryReadModels()
    store = MemoryEventStore(outbox=outbox)

    # [start:platform]
    projector = Projector([summary], store, read_models)
    rule = RoutingRule(
        name="accounts", event_type_pattern="AccountOpened|MoneyMoved", platforms=["projections"], strategy="all"
    )
    async with EventRouter({"projections": ProjectionPublisher(projector)}, [rule]) as router:
        events = [AccountOpened(customer_id="c-1"), MoneyMoved(amount=10)]
        await store.append("account-1", events, expected_sequence=0)
        await OutboxProcessor(outbox, router).run_once()
        print("version 1:", await read_models.row(summary, "account-1"))
    # [end:platform]

    both = Projector([summary, next_summary], store, read_models)
    async with EventRouter({"projections": ProjectionPublisher(both)}, [rule]) as router:
        # [start:rebuild]
        new = Projector([next_summary], store, read_models)
        done = await rebuild(new, on_progress=lambda progress: print("so far:", progress.events, "events"))
        print(f"rebuilt {done.events} events of {done.aggregates} aggregates, {done.parked} are parked")
        # [end:rebuild]
        await store.append("account-1", [MoneyMoved(amount=5)], expected_sequence=2)
        # [start:switch]
        try:
            await switch(new, "AccountSummary", config=RebuildConfig(lag=0))
        except ProjectionError as error:
            print(error)
        await OutboxProcessor(outbox, router).run_once()
        print(await switch(new, "AccountSummary"))
        print("version 2:", await read_models.row("AccountSummary", "account-1"))
        # [end:switch]

    # [start:retire]
    # Deployed anew, without version 1: nothing writes its rows any more.
    async with EventRouter({"projections": ProjectionPublisher(new)}, [rule]):
        print(await retire(read_models, "AccountSummary", 1))
    # [end:retire]


if __name__ == "__main__":
    asyncio.run(main())
