"""Reading events back: from a JetStream consumer, an SQS queue or a Lambda function; both EventBridge mappings."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats

from oms_events import (
    EventBridgeConfig,
    JetStreamOptions,
    NatsConfig,
    StreamPolicy,
    StreamSpec,
    create_oms_multi_platform_router,
)
from oms_events.devstack import NatsServer
from oms_events.oms import OmsContext, SchemaChangeData, create_schema_change_event
from oms_events.publishers.eventbridge import from_eventbridge_event
from oms_events.publishers.jetstream import from_nats_message


# [start:nats]
async def read(url: str) -> None:
    client = await nats.connect(url)
    try:
        consumer = await client.jetstream().pull_subscribe("oms.>", durable="reader")
        for message in await consumer.fetch(batch=10, timeout=1):
            event = from_nats_message(message.headers, message.data)
            change = SchemaChangeData.model_validate(event.get_data())
            context = OmsContext.model_validate(event.get_attributes())
            print(event.get_id(), change.operation, change.resource_id, context.branch)
            await message.ack()
    finally:
        await client.close()


# [end:nats]


# [start:lambda]
def handler(delivered: dict[str, Any], context: object) -> str:
    """A Lambda function that is the target of an EventBridge rule."""
    event = from_eventbridge_event(delivered)
    return f"{event.get_source()} {event.get_id()}"


# [end:lambda]


# [start:sqs]
def read_body(body: str) -> str:
    """The body of an SQS message behind an EventBridge rule."""
    return from_eventbridge_event(body).get_type()


# [end:sqs]

# [start:plain]
plain = EventBridgeConfig(
    event_bus_name="business",
    mapping="plain",
    detail_types={"ticket.service.TicketOpened": "Ticket opened"},
)
# [end:plain]


async def main() -> None:
    async with NatsServer() as server:
        options = JetStreamOptions(stream=StreamSpec(name="OMS", subjects=("oms.>",)), policy=StreamPolicy.CREATE)
        nats_config = NatsConfig(servers=(server.url,))
        async with create_oms_multi_platform_router(nats_config, jetstream_options=options) as router:
            event = create_schema_change_event(
                operation="create", resource_type="object_type", resource_id="User", branch="main"
            )
            await router.publish_event(event)
        await read(server.url)
    attributes = {"specversion": "1.0", "type": "shop.order.placed", "source": "/shop/web", "id": "A-1"}
    delivered = {"detail": {"total": 12, "cloudEvents": attributes}}
    print(handler(delivered, None), read_body(json.dumps(delivered)), plain.mapping)


if __name__ == "__main__":
    asyncio.run(main())
