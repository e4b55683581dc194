"""A stack as typed Python: synthesized, deployed, used, changed and destroyed, on the embedded AWS emulator."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aioboto3

from oms_events import (
    DataLossRefusedError,
    DynamoDBOutbox,
    EventBridgeConfig,
    OutboxConfig,
    build_event,
    create_oms_multi_platform_router,
)
from oms_events.devstack import AwsEmulator
from oms_events.outbox.schema import TABLE
from oms_events.provisioning import (
    AwsConfig,
    EventBusSpec,
    Plan,
    QueueSpec,
    RuleSpec,
    StackEvent,
    StackSpec,
    TableSpec,
    TargetSpec,
    apply,
    deploy,
    destroy,
    discard,
    look,
    outputs,
    plan,
    synthesize,
)
from oms_events.publishers.eventbridge import from_eventbridge_event


# [start:specs]
def describe(queue_name: str = "orders", *, retention_days: int = 4) -> StackSpec:
    dead_letters = QueueSpec(name="orders-dlq", retention_seconds=14 * 86_400)
    queue = QueueSpec(name=queue_name, key="orders", retention_seconds=retention_days * 86_400)
    bus = EventBusSpec(name="shop", description="What happens in the shop")
    rule = RuleSpec(
        name="order-placed",
        bus=bus.reference("name"),
        pattern={"source": ["shop.orders"], "detail": {"cloudEvents": {"type": ["shop.order.placed"]}}},
        targets=(TargetSpec(id="queue", arn=queue.arn, dead_letter=dead_letters.arn),),
    )
    outbox = TableSpec.from_shape("shop-outbox", TABLE)
    return StackSpec(
        name="shop",
        tags={"team": "orders"},
        queues=(dead_letters, queue),
        tables=(outbox,),
        buses=(bus,),
        rules=(rule,),
        outputs={
            "event_bus_name": bus.reference("name"),
            "outbox_table_name": outbox.reference("name"),
            "queue_urls": {"orders": queue.reference("url"), "dead_letters": dead_letters.reference("url")},
        },
    )


# [end:specs]


# [start:deploy]
def show(event: StackEvent) -> None:
    if event.failed or event.of_stack:
        print(event.status, event.logical_id, event.reason)


async def make(config: AwsConfig) -> dict[str, Any]:
    template = synthesize(describe())
    state = await deploy(template, config, on_event=show)
    print(f"{state.name}: {state.status}, {len(template.resources)} resources")
    found = await outputs(state.name, config)
    print(json.dumps(sorted(found)), "queues:", sorted(found["queue_urls"]))
    return found


# [end:deploy]


# [start:use]
async def use(aws: AwsEmulator, bus_name: str, queue_url: str) -> None:
    config = EventBridgeConfig(event_bus_name=bus_name, **connection(aws))
    async with create_oms_multi_platform_router(eventbridge_config=config) as router:
        await router.publish_event(build_event("shop.order.placed", "/shop/orders", {"number": "A-1"}))
    async with session(aws).client("sqs", endpoint_url=aws.endpoint_url) as sqs:
        answer = await sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=5)
    event = from_eventbridge_event(json.loads(answer["Messages"][0]["Body"]))
    print("the queue has", event.get_type(), event.get_data())


# [end:use]


# [start:change]
def tell(made: Plan) -> None:
    for change in made.changes:
        word = f"may {change.action}" if change.conditional else change.action
        print(f"{word} {change.logical_id}:", ", ".join(one.path for one in change.properties))


async def change(config: AwsConfig) -> None:
    made = await plan(synthesize(describe(retention_days=7)), config)
    tell(made)
    print("loses data:", made.data_loss or "nothing")
    print((await apply(made, config)).status)
    again = await plan(synthesize(describe(retention_days=7)), config)
    print("once more, nothing to do:", again.is_empty)


# [end:change]


# [start:loss]
async def rename_the_queue(config: AwsConfig) -> None:
    made = await plan(synthesize(describe("new-orders", retention_days=7)), config)
    try:
        await apply(made, config)
    except DataLossRefusedError as error:
        print("refused:", *error.reasons)
    await discard(made, config)


# [end:loss]


# [start:destroy]
async def remove(config: AwsConfig) -> None:
    found = await look("shop", config)
    print(f"{len(found.resources)} resources would go; against it:", *found.reasons)
    try:
        await destroy("shop", config)
    except DataLossRefusedError as error:
        print("not deleted:", *error.reasons)
    print((await destroy("shop", config, force=True, shown=found)).status)


# [end:destroy]


async def fill_the_outbox(aws: AwsEmulator, table_name: str) -> None:
    async with DynamoDBOutbox(OutboxConfig(table_name=table_name, **connection(aws))) as outbox:
        await outbox.add(build_event("shop.order.placed", "/shop/orders", {"number": "A-2"}))


def connection(aws: AwsEmulator) -> dict[str, str]:
    return {
        "aws_region": aws.region,
        "endpoint_url": aws.endpoint_url,
        "aws_access_key_id": aws.access_key,
        "aws_secret_access_key": aws.secret_key,
    }


def session(aws: AwsEmulator) -> aioboto3.Session:
    return aioboto3.Session(
        region_name=aws.region, aws_access_key_id=aws.access_key, aws_secret_access_key=aws.secret_key
    )


async def main() -> None:
    async with AwsEmulator() as aws:
        config = AwsConfig(**connection(aws))
        found = await make(config)
        await use(aws, found["event_bus_name"], found["queue_urls"]["orders"])
        await change(config)
        await rename_the_queue(config)
        await fill_the_outbox(aws, found["outbox_table_name"])
        await remove(config)


if __name__ == "__main__":
    asyncio.run(main())
