"""Takes commands: a Lambda function, and what one process uses as well.

Without the variable OMS_OUTBOX_TABLE the events are stored, and the table's stream feeds the projections, but
nothing goes to the event bus: a PutEvents call after the transaction may be lost, and one before it may tell what
never happened. With the outbox they are stored and owed to the bus in one transaction; a relay delivers them.
"""

# [start:imports]
from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from domain import ACCOUNT, SOURCE, CloseAccount, CreateAccount, ProcessTransaction

from oms_events import DynamoDBOutbox, Outbox, OutboxConfig
from oms_events.eventstore import (
    CommandDispatcher,
    DynamoDBEventStore,
    DynamoDBSnapshotStore,
    EventStoreConfig,
    Repository,
    SnapshotConfig,
    create_request_handler,
)

# [end:imports]


# [start:commands]
@asynccontextmanager
async def open_commands(outbox: Outbox | None = None) -> AsyncIterator[CommandDispatcher]:
    async with AsyncExitStack() as stack:
        if outbox is None and (table := os.environ.get("OMS_OUTBOX_TABLE")):
            outbox = await stack.enter_async_context(DynamoDBOutbox(OutboxConfig(table_name=table)))
        config = EventStoreConfig(table_name=os.environ["EVENT_STORE_TABLE"], source=SOURCE)
        store = await stack.enter_async_context(DynamoDBEventStore(config, outbox=outbox))
        snapshots = DynamoDBSnapshotStore(SnapshotConfig(table_name=os.environ["SNAPSHOT_TABLE"]))
        accounts = Repository(store, ACCOUNT, snapshots=await stack.enter_async_context(snapshots))
        dispatcher = CommandDispatcher()
        for command in (CreateAccount, ProcessTransaction, CloseAccount):
            dispatcher.register(command, accounts)
        yield dispatcher


handler = create_request_handler(open_commands)
# [end:commands]
