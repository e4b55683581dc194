"""Answers queries: a Lambda function, and what one process uses as well."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domain import ACCOUNT, SOURCE
from projections import ACCOUNT_SUMMARY

from oms_events.eventstore import (
    DynamoDBEventStore,
    DynamoDBReadModels,
    DynamoDBSnapshotStore,
    EventStoreConfig,
    ProjectionTables,
    QueryDispatcher,
    Repository,
    RepositoryConfig,
    SnapshotConfig,
    create_request_handler,
)


# [start:queries]
@asynccontextmanager
async def open_queries() -> AsyncIterator[QueryDispatcher]:
    config = EventStoreConfig(table_name=os.environ["EVENT_STORE_TABLE"], source=SOURCE)
    tables = ProjectionTables(
        read_model_table=os.environ["READ_MODEL_TABLE"], checkpoint_table=os.environ["CHECKPOINT_TABLE"]
    )
    async with (
        DynamoDBEventStore(config) as store,
        DynamoDBReadModels(tables) as read_models,
        DynamoDBSnapshotStore(SnapshotConfig(table_name=os.environ["SNAPSHOT_TABLE"])) as snapshots,
    ):
        dispatcher = QueryDispatcher(store, read_models=read_models)
        dispatcher.row("getAccountSummary", ACCOUNT_SUMMARY, key="accountId")
        # It reads snapshots, and writes none: the function's role may not.
        reading = RepositoryConfig(snapshot_every=None)
        dispatcher.repository(Repository(store, ACCOUNT, snapshots=snapshots, config=reading))
        yield dispatcher


handler = create_request_handler(open_queries)
# [end:queries]
