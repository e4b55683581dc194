"""Makes read models of events: a Lambda function on the event store's stream, and what one process uses too."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domain import SOURCE
from projections import ACCOUNT_SUMMARY

from oms_events.eventstore import (
    DynamoDBEventStore,
    DynamoDBReadModels,
    EventStoreConfig,
    ProjectionTables,
    Projector,
    create_projection_handler,
)


# [start:projector]
@asynccontextmanager
async def open_projector() -> AsyncIterator[Projector]:
    config = EventStoreConfig(table_name=os.environ["EVENT_STORE_TABLE"], source=SOURCE)
    tables = ProjectionTables(
        read_model_table=os.environ["READ_MODEL_TABLE"], checkpoint_table=os.environ["CHECKPOINT_TABLE"]
    )
    async with (
        DynamoDBEventStore(config) as store,
        DynamoDBReadModels(tables) as read_models,
        Projector([ACCOUNT_SUMMARY], store, read_models) as projector,
    ):
        yield projector


handler = create_projection_handler(open_projector)
# [end:projector]
