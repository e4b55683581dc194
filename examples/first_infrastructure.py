"""The program of the tutorial: the AWS side of the OMS, deployed on the emulator, used, changed, destroyed."""

# [start:imports]
from __future__ import annotations

import asyncio
from typing import Any

import aioboto3

from oms_events import EnhancedEventService, EventBridgeConfig, EventType, create_oms_multi_platform_router
from oms_events.devstack import AwsEmulator
from oms_events.provisioning import (
    AwsConfig,
    OmsPreset,
    QueueSpec,
    TargetSpec,
    apply,
    destroy,
    outputs,
    plan,
    synthesize,
)
from oms_events.publishers.eventbridge import from_eventbridge_event

# [end:imports]


# [start:preset]
INBOX = QueueSpec(name="oms-inbox")
TO_INBOX = TargetSpec(id="inbox", arn=INBOX.arn)


def make_preset(**more: Any) -> OmsPreset:
    return OmsPreset(
        queues=(INBOX,),
        default_targets=(TO_INBOX,),
        enable_archive=False,  # the emulator's CloudFormation has neither archives
        enable_alarms=False,  # nor alarms on expressions; leave both lines out on AWS
        **more,
    )


# [end:preset]


# [start:deploy]
async def deploy_all(aws: AwsConfig) -> dict[str, Any]:
    template = synthesize(make_preset().stack())
    shown = await plan(template, aws)
    print(f"stack {shown.stack_name}, new: {shown.creates}, resources to add: {len(shown.changes)}")
    done = await apply(shown, aws)
    print(f"stack {done.name}: {done.status}")
    return await outputs(done.name, aws)


# [end:deploy]


# [start:publish]
async def publish(aws: AwsConfig, bus: str) -> None:
    config = EventBridgeConfig(event_bus_name=bus, **dict(aws))
    event = EnhancedEventService.create_schema_change_event(
        operation="create", resource_type="object_type", resource_id="User", branch="main"
    )
    async with create_oms_multi_platform_router(eventbridge_config=config, add_default_rules=False) as router:
        results = await router.publish_event(event, timeout=5)
    print("delivered:", results.delivered)


# [end:publish]


# [start:read]
async def read_inbox(session: aioboto3.Session, endpoint_url: str) -> None:
    async with session.client("sqs", endpoint_url=endpoint_url) as sqs:
        url = (await sqs.get_queue_url(QueueName=INBOX.name))["QueueUrl"]
        answer: Any = await sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
        messages = answer.get("Messages", [])
        print("events in the inbox:", len(messages))
        for message in messages:
            event = from_eventbridge_event(message["Body"])
            print(event.get_type(), event.get_subject())
            await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


# [end:read]


# [start:change]
async def change(aws: AwsConfig) -> None:
    template = synthesize(make_preset(targets={EventType.SCHEMA_CREATED: ()}).stack())
    shown = await plan(template, aws)
    for one in shown.changes:
        print(one.logical_id, "changes", *(what.path for what in one.properties))
    await apply(shown, aws)
    print("another deployment has something to do:", not (await plan(template, aws)).is_empty)


# [end:change]


# [start:main]
async def main() -> None:
    async with AwsEmulator() as emulator:
        aws = AwsConfig(
            endpoint_url=emulator.endpoint_url,
            aws_region=emulator.region,
            aws_access_key_id=emulator.access_key,
            aws_secret_access_key=emulator.secret_key,
        )
        session = aioboto3.Session(
            region_name=emulator.region,
            aws_access_key_id=emulator.access_key,
            aws_secret_access_key=emulator.secret_key,
        )
        made = await deploy_all(aws)
        print(made["rule_names"][EventType.SCHEMA_CREATED], "on", made["event_bus_name"])
        await publish(aws, made["event_bus_name"])
        await read_inbox(session, emulator.endpoint_url)

        await change(aws)
        await publish(aws, made["event_bus_name"])
        await read_inbox(session, emulator.endpoint_url)

        await destroy("oms-events", aws)
        print("destroyed")


if __name__ == "__main__":
    asyncio.run(main())
# [end:main]
