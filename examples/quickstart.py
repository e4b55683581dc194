"""Publishes one event to NATS JetStream and EventBridge on the embedded stack: the example of the README."""

# [start:all]
from __future__ import annotations

import asyncio

from oms_events import (
    EnhancedEventService,
    EventBridgeConfig,
    JetStreamOptions,
    NatsConfig,
    StreamPolicy,
    StreamSpec,
    create_oms_multi_platform_router,
)
from oms_events.devstack import DevStack


async def main() -> None:
    async with DevStack() as stack:  # a real NATS server and an AWS emulator, in place of your own
        aws = {"aws_region": stack.aws.region, "endpoint_url": stack.aws.endpoint_url}
        keys = {"aws_access_key_id": stack.aws.access_key, "aws_secret_access_key": stack.aws.secret_key}
        stream = StreamSpec(name="OMS", subjects=("oms.>",))
        router = create_oms_multi_platform_router(
            nats_publisher=NatsConfig(servers=(stack.nats.url,)),
            eventbridge_config=EventBridgeConfig(event_bus_name="default", **aws, **keys),
            jetstream_options=JetStreamOptions(stream=stream, policy=StreamPolicy.CREATE),
        )
        async with router:
            event = EnhancedEventService.create_schema_change_event(
                operation="create", resource_type="object_type", resource_id="User", branch="main"
            )
            results = await router.publish_event(event, timeout=5)
            for platform, result in results.items():
                print(platform, result.outcome, result.error)
            print("delivered:", results.delivered, "by rule:", results.rule)


asyncio.run(main())
# [end:all]
