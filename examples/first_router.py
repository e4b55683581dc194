"""The program of the tutorial: events to JetStream and EventBridge on the embedded stack, then a failover."""

# [start:imports]
from __future__ import annotations

import asyncio
import json
from typing import Any

import aioboto3
import nats

from oms_events import (
    BreakerConfig,
    DestinationConfig,
    EnhancedEventService,
    EventBridgeConfig,
    EventRouter,
    JetStreamOptions,
    NatsConfig,
    PublishResults,
    RouterConfig,
    StreamPolicy,
    StreamSpec,
    create_oms_multi_platform_router,
)
from oms_events.devstack import DevStack
from oms_events.publishers.eventbridge import from_eventbridge_event
from oms_events.publishers.jetstream import from_nats_message

# [end:imports]


# [start:bus]
async def create_bus(session: aioboto3.Session, endpoint_url: str) -> str:
    """Makes the bus, a queue, and a rule that puts every OMS event into the queue; gives the queue's URL."""
    async with (
        session.client("events", endpoint_url=endpoint_url) as events,
        session.client("sqs", endpoint_url=endpoint_url) as sqs,
    ):
        await events.create_event_bus(Name="oms-events")
        queue_url: str = (await sqs.create_queue(QueueName="oms"))["QueueUrl"]
        queue = await sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        pattern = {"detail": {"cloudEvents": {"type": [{"prefix": "com.foundry.oms."}]}}}
        await events.put_rule(Name="all", EventBusName="oms-events", EventPattern=json.dumps(pattern))
        target = {"Id": "queue", "Arn": queue["Attributes"]["QueueArn"]}
        await events.put_targets(Rule="all", EventBusName="oms-events", Targets=[target])
    return queue_url


# [end:bus]


# [start:router]
def make_router(stack: DevStack) -> EventRouter:
    return create_oms_multi_platform_router(
        nats_publisher=NatsConfig(servers=(stack.nats.url,), reconnect_wait=0.2),
        eventbridge_config=EventBridgeConfig(
            event_bus_name="oms-events",
            aws_region=stack.aws.region,
            endpoint_url=stack.aws.endpoint_url,
            aws_access_key_id=stack.aws.access_key,
            aws_secret_access_key=stack.aws.secret_key,
        ),
        jetstream_options=JetStreamOptions(
            stream=StreamSpec(name="OMS", subjects=("oms.>",)), policy=StreamPolicy.CREATE
        ),
        config=RouterConfig(
            destination=DestinationConfig(breaker=BreakerConfig(recovery_time=1.0), check_interval=0.5)
        ),
    )


# [end:router]


# [start:show]
def show(results: PublishResults) -> None:
    outcomes = ", ".join(f"{platform} {result.outcome}" for platform, result in results.items())
    print(f"rule {results.rule} ({results.strategy}): {outcomes}; delivered: {results.delivered}")


# [end:show]


# [start:publish]
async def publish(router: EventRouter) -> None:
    schema_change = EnhancedEventService.create_schema_change_event(
        operation="create", resource_type="object_type", resource_id="User", branch="main"
    )
    show(await router.publish_event(schema_change, timeout=5))
    branch = EnhancedEventService.create_branch_event(operation="create", branch_name="feature/login")
    show(await router.publish_event(branch, timeout=5))


# [end:publish]


# [start:read]
async def read_stream(url: str) -> None:
    client = await nats.connect(url)
    try:
        consumer = await client.jetstream().subscribe("oms.>", ordered_consumer=True)
        for _ in range(2):
            message = await consumer.next_msg(timeout=5)
            event = from_nats_message(message.headers, message.data)
            print(f"JetStream, {message.subject}: {event.get_type()} {event.get_subject()}")
    finally:
        await client.close()


async def read_queue(session: aioboto3.Session, endpoint_url: str, queue_url: str) -> None:
    async with session.client("sqs", endpoint_url=endpoint_url) as sqs:
        answer: Any = await sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=5)
        for message in answer["Messages"]:
            event = from_eventbridge_event(message["Body"])
            print(f"EventBridge, {json.loads(message['Body'])['detail-type']}: {event.get_subject()}")


# [end:read]


# [start:failover]
async def fail_over(stack: DevStack, router: EventRouter) -> None:
    await stack.nats.kill()
    branch = EnhancedEventService.create_branch_event(operation="delete", branch_name="feature/login")
    results = await router.publish_event(branch, timeout=5)
    show(results)
    print("why:", results["nats"].error)

    await stack.nats.start()
    async with asyncio.timeout(10):
        await router.check_platforms()
        while not router.get_platform_status()["health_summary"]["primary_platform_healthy"]:
            await asyncio.sleep(0.1)
            await router.check_platforms()
    branch = EnhancedEventService.create_branch_event(operation="create", branch_name="feature/logout")
    show(await router.publish_event(branch, timeout=5))


# [end:failover]


# [start:main]
async def main() -> None:
    async with DevStack() as stack:
        session = aioboto3.Session(
            region_name=stack.aws.region,
            aws_access_key_id=stack.aws.access_key,
            aws_secret_access_key=stack.aws.secret_key,
        )
        queue_url = await create_bus(session, stack.aws.endpoint_url)
        async with make_router(stack) as router:
            await publish(router)
            await read_stream(stack.nats.url)
            await read_queue(session, stack.aws.endpoint_url, queue_url)
            await fail_over(stack, router)


if __name__ == "__main__":
    asyncio.run(main())
# [end:main]
