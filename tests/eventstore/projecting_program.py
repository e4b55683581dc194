"""A processor whose platform is a projector: `python -m tests.eventstore.projecting_program <settings as JSON>`.

Works until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from oms_events import DynamoDBOutbox, EventRouter, OutboxConfig, OutboxProcessor
from oms_events.eventstore.config import EventStoreConfig, ProjectionTables
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.platform import ProjectionPublisher
from oms_events.eventstore.projections.projector import Projector
from tests.eventstore.accounts import registry
from tests.eventstore.summaries import summaries
from tests.outbox.relaying import PATIENT, quick, rule


async def main(settings: dict[str, Any]) -> None:
    async with (
        DynamoDBOutbox(OutboxConfig(**settings["outbox"])) as outbox,
        DynamoDBEventStore(EventStoreConfig(**settings["store"]), registry=registry) as store,
        DynamoDBReadModels(ProjectionTables(**settings["tables"])) as read_models,
    ):
        platform = ProjectionPublisher(Projector([summaries()], store, read_models))
        async with EventRouter({"projections": platform}, [rule("projections")], config=PATIENT) as router:
            config = quick(publish_timeout=0.5, max_batch=4)
            async with OutboxProcessor(outbox, router, config=config):
                await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
