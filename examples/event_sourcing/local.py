"""The example in one process, on the embedded stack:

    python examples/event_sourcing/local.py

What the Lambda functions use is used here as well. Appends put their events into the outbox too; a processor
delivers them to the event bus, and to the read models.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aioboto3
from command_handler import open_commands
from event_queue import EventQueue
from projection_handler import open_projector
from query_handler import open_queries
from relay_handler import create_router

from oms_events import DynamoDBOutbox, OutboxConfig, OutboxProcessor, create_table
from oms_events.devstack import AwsEmulator
from oms_events.eventstore import (
    CommandDispatcher,
    DynamoDBEventStore,
    DynamoDBReadModels,
    DynamoDBSnapshotStore,
    EventStoreConfig,
    ProjectionPublisher,
    ProjectionTables,
    QueryDispatcher,
    SnapshotConfig,
)

PAYLOADS: Final = Path(__file__).parent / "payloads"

# [start:names]
NAMES: Final = {
    "EVENT_STORE_TABLE": "event-store-dev",
    "READ_MODEL_TABLE": "read-model-dev",
    "SNAPSHOT_TABLE": "snapshots-dev",
    "CHECKPOINT_TABLE": "checkpoints-dev",
    "OMS_OUTBOX_TABLE": "event-outbox-dev",
    "EVENT_BUS_NAME": "event-sourcing-bus-dev",
}
"""What the functions of the preset have in their environment."""


async def create_tables() -> None:
    event_store = EventStoreConfig(table_name=NAMES["EVENT_STORE_TABLE"])
    snapshots = SnapshotConfig(table_name=NAMES["SNAPSHOT_TABLE"])
    projections = ProjectionTables(
        read_model_table=NAMES["READ_MODEL_TABLE"], checkpoint_table=NAMES["CHECKPOINT_TABLE"]
    )
    await asyncio.gather(
        DynamoDBEventStore(event_store).table.create(),
        DynamoDBSnapshotStore(snapshots).create(),
        DynamoDBReadModels(projections).tables.create(),
        # Processors share the buckets; here is one.
        create_table(OutboxConfig(table_name=NAMES["OMS_OUTBOX_TABLE"]), buckets=4),
    )


# [end:names]


@dataclass(frozen=True)
class LocalSystem:
    """The whole system in this process."""

    commands: CommandDispatcher
    queries: QueryDispatcher
    processor: OutboxProcessor
    queue: EventQueue

    async def command(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return await self.commands.answer(request)

    async def query(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return await self.queries.answer(request)


# [start:system]
@asynccontextmanager
async def open_system() -> AsyncIterator[LocalSystem]:
    async with AwsEmulator() as emulator:
        os.environ.update({**emulator.environment(), **NAMES})
        await create_tables()
        async with (
            open_queue() as queue,
            open_queries() as queries,
            open_projector() as projector,
            DynamoDBOutbox(OutboxConfig(table_name=NAMES["OMS_OUTBOX_TABLE"])) as outbox,
            open_commands(outbox) as commands,
            create_router(NAMES["EVENT_BUS_NAME"], projections=ProjectionPublisher(projector)) as router,
            OutboxProcessor(outbox, router) as processor,
        ):
            yield LocalSystem(commands, queries, processor, queue)


# [end:system]


@asynccontextmanager
async def open_queue() -> AsyncIterator[EventQueue]:
    """Makes the bus, and the rule with its queue."""
    session = aioboto3.Session()
    bus, rule = NAMES["EVENT_BUS_NAME"], "financial-events-rule"
    pattern = {
        "source": ["event-sourcing.financial"],
        "detail-type": ["AccountCreated", "TransactionProcessed", "AccountClosed"],
    }
    async with session.client("events") as events, session.client("sqs") as sqs:
        await events.create_event_bus(Name=bus)
        url = (await sqs.create_queue(QueueName="financial-events-dev"))["QueueUrl"]
        answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        await events.put_rule(Name=rule, EventBusName=bus, EventPattern=json.dumps(pattern))
        target = {"Id": "financial-events", "Arn": answer["Attributes"]["QueueArn"]}
        await events.put_targets(Rule=rule, EventBusName=bus, Targets=[target])
        yield EventQueue(sqs, url)


def payload(name: str) -> dict[str, Any]:
    """A request of the folder `payloads`."""
    document: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text(encoding="utf-8"))
    return document


# [start:main]
async def main() -> None:
    async with open_system() as system:
        ids = []
        for name in ("1-create-account", "2-deposit", "3-withdraw", "3-withdraw", "4-withdraw-too-much"):
            answer = await system.command(payload(name))
            if answer["ok"]:
                types = [event["type"] for event in answer["events"]]
                print(f"{name}: {types}, sequence {answer['sequence']}, replayed: {answer['replayed']}")
                ids += [event["id"] for event in answer["events"]]
            else:
                print(f"{name}: {answer['error']['code']}: {answer['error']['message']}")

        print("the outbox is empty:", await system.processor.drain(timeout=10))
        delivered = await system.queue.receive(ids)
        print("the bus has delivered:", sorted(event.detail_type for event in delivered.values()))

        answer = await system.query(payload("query-account-summary"))
        print("summary:", {name: answer["row"][name] for name in ("balance", "transactions", "sequence")})
        answer = await system.query(payload("query-state-at-2"))
        print("state after event", answer["sequence"], "was", answer["state"])
        answer = await system.query(payload("query-account-events"))
        print("history:", [(event["sequence"], event["eventType"]) for event in answer["events"]])
        answer = await system.query(payload("query-transactions"))
        print("amounts in the last hour:", [event["data"]["amount"] for event in answer["events"]])
        answer = await system.query({"queryType": "getAccountSummary", "acountId": "account-123"})
        print("error:", answer["error"]["message"])


if __name__ == "__main__":
    asyncio.run(main())
# [end:main]
