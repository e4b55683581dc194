"""Relays the outbox to the event bus: the Lambda function that the preset's variable `outbox_relay` makes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oms_events import (
    DynamoDBOutbox,
    EventBridgeConfig,
    EventRouter,
    OutboxConfig,
    Publisher,
    RoutingRule,
    create_oms_multi_platform_router,
    create_streams_handler,
)


# [start:router]
def create_router(bus: str, **publishers: Publisher) -> EventRouter:
    """Everything goes to the bus, and to the platforms beside it."""
    return create_oms_multi_platform_router(
        # Plain: the detail type is the event's type as it is, which the preset's rule matches.
        eventbridge_config=EventBridgeConfig(event_bus_name=bus, mapping="plain"),
        publishers=publishers,
        add_default_rules=False,
        rules=[
            RoutingRule(name="financial", event_type_pattern=".*", platforms=("eventbridge", *publishers)),
        ],
    )


# [end:router]


@asynccontextmanager
async def open_relay() -> AsyncIterator[tuple[DynamoDBOutbox, EventRouter]]:
    config = OutboxConfig(table_name=os.environ["OMS_OUTBOX_TABLE"])
    async with DynamoDBOutbox(config) as outbox, create_router(os.environ["OMS_EVENTBRIDGE_BUS_NAME"]) as router:
        yield outbox, router


handler = create_streams_handler(open_relay)
