"""The projections of these tests: a row per account that shows each of its events once, and their order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel

from oms_events._aws.dynamodb import DynamoClient
from oms_events.eventstore.config import EventStoreConfig, ProjectionTables
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.read_models import ReadModels
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.schema import CHECKPOINTS, EVENT_STORE, READ_MODEL
from oms_events.eventstore.store import EventStore
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, registry
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings


class Summary(BaseModel, frozen=True):
    customer: str | None = None
    balance: int = 0
    events: int = 0
    trail: int = 0
    """Another number for each run of events, in each order."""
    version: int = 1


def summary_after(row: Summary | None, event: BaseModel, recorded: RecordedEvent, *, version: int = 1) -> Summary:
    row = row or Summary(version=version)
    trail = (row.trail * 31 + recorded.sequence) % 1_000_003
    changes: dict[str, Any] = {"events": row.events + 1, "trail": trail}
    match event:
        case AccountCreated():
            changes["customer"] = event.customer_id
        case TransactionProcessed():
            sign = 1 if event.kind == "deposit" else -1
            changes["balance"] = row.balance + sign * int(event.amount)
    return row.model_copy(update=changes)


def summaries(version: int = 1, *, poison: int | None = None) -> Projection[Summary]:
    """The projection of all events of accounts but closings; it refuses deposits of `poison`."""
    projection = Projection("AccountSummary", Summary, version=version, registry=registry)

    @projection.on(AccountCreated, TransactionProcessed)
    def change(row: Summary | None, event: BaseModel, recorded: RecordedEvent) -> Summary:
        if poison is not None and isinstance(event, TransactionProcessed) and event.amount == poison:
            raise ValueError("poison")
        return summary_after(row, event, recorded, version=version)

    return projection


async def expected_row(store: EventStore, account_id: str, *, version: int = 1) -> dict[str, Any] | None:
    """What the row of an account should be: a fold over the store."""
    row: Summary | None = None
    async for recorded in store.read(account_id):
        if not isinstance(event := recorded.domain_event, AccountClosed):
            row = summary_after(row, event, recorded, version=version)
    return None if row is None else row.model_dump(mode="json")


async def assert_rows_are_as_the_store(
    store: EventStore, read_models: ReadModels, account_ids: list[str], *, version: int = 1
) -> None:
    found = await read_models.rows("AccountSummary", account_ids, version=version)
    expected: dict[str, Mapping[str, Any] | None] = {
        account_id: await expected_row(store, account_id, version=version) for account_id in account_ids
    }
    assert found == expected


@asynccontextmanager
async def configured(
    aws: Settings, dynamo: DynamoClient
) -> AsyncIterator[tuple[EventStoreConfig, ProjectionTables]]:
    """How to reach a store, read models and checkpoints of this test's own, all empty."""
    async with (
        fresh_table(dynamo, EVENT_STORE, "event-store") as store,
        fresh_table(dynamo, READ_MODEL, "read-model") as rows,
        fresh_table(dynamo, CHECKPOINTS, "checkpoints") as checkpoints,
    ):
        tables = ProjectionTables(read_model_table=rows, checkpoint_table=checkpoints, **aws)
        yield EventStoreConfig(table_name=store, **aws), tables
