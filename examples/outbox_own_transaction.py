"""Events in a transaction of your own: `prepare` gives the actions, and your client writes them."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import aioboto3
from botocore.exceptions import ClientError

from oms_events import (
    DynamoDBOutbox,
    EventRouter,
    MemoryPublisher,
    OutboxConfig,
    OutboxProcessor,
    build_event,
    create_table,
)
from oms_events.devstack import AwsEmulator
from oms_events.instrumentation import LoggingHook


# [start:write]
async def place_order(dynamodb: Any, outbox: DynamoDBOutbox, number: str) -> None:
    put_order = {
        "Put": {
            "TableName": "orders",
            "Item": {"pk": {"S": number}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
    }
    event = build_event("shop.order.placed", "/shop/orders", {"number": number}, partitionkey=number)
    prepared = await outbox.prepare([event])  # after the last read of your transaction
    print(f"{prepared.count} of 100 actions are the outbox's")
    try:
        await dynamodb.transact_write_items(
            TransactItems=[put_order, *prepared.actions], ClientRequestToken=str(uuid.uuid4())
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "TransactionCanceledException":
            prepared.refused()  # nothing was written
        raise
    prepared.committed()  # the processor of this process need not wait for its next look


# [end:write]


async def main() -> None:
    memory, hooks = MemoryPublisher(), [LoggingHook()]
    async with AwsEmulator() as aws:
        session = aioboto3.Session(
            region_name=aws.region, aws_access_key_id=aws.access_key, aws_secret_access_key=aws.secret_key
        )
        config = OutboxConfig(table_name="orders-outbox", endpoint_url=aws.endpoint_url)
        await create_table(config, session=session)
        async with (
            session.client("dynamodb", endpoint_url=aws.endpoint_url) as dynamodb,
            DynamoDBOutbox(config, client=dynamodb) as outbox,
            EventRouter({"nats": memory}, hooks=hooks) as router,
            OutboxProcessor(outbox, router, hooks=hooks) as processor,
        ):
            await dynamodb.create_table(
                TableName="orders",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            await place_order(dynamodb, outbox, "A-1")
            try:
                await place_order(dynamodb, outbox, "A-1")
            except ClientError as error:
                print("refused:", error.response["CancellationReasons"][0]["Code"])
            print("the outbox is empty:", await processor.drain(timeout=10))
    print("delivered:", [event.get_data() for event in memory.events])


if __name__ == "__main__":
    asyncio.run(main())
