"""What the tests of the outbox on DynamoDB share: tables of their own, and short ways to make records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import aioboto3

from oms_events._aws.config import AwsConfig
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events._aws.marshal import from_item
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.dynamodb_calls import describe_table

Settings = dict[str, Any]
"""The AWS fields of a configuration: endpoint, region, credentials."""

ENDPOINT_VARIABLE = "OMS_TEST_AWS_ENDPOINT"
SHAPE: Final = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
}
KEYS: Settings = {"aws_region": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}


def settings_of(endpoint_url: str) -> Settings:
    """The AWS fields for an endpoint; a region and keys of the environment count with an endpoint from there."""
    if endpoint_url != os.environ.get(ENDPOINT_VARIABLE):
        return {**KEYS, "endpoint_url": endpoint_url}
    fields = {
        "aws_region": os.environ.get("AWS_REGION", "us-east-1"),
        "aws_access_key_id": os.environ.get("AWS_ACCESS_KEY_ID", "test"),
        "aws_secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY", "test"),
        "aws_session_token": os.environ.get("AWS_SESSION_TOKEN"),
    }
    return {**{name: value for name, value in fields.items() if value}, "endpoint_url": endpoint_url}


def session_of(aws: Settings) -> aioboto3.Session:
    """A session of the test's own, to lend out: its clients go the ordinary way."""
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    keys = {name: aws[name] for name in names if name in aws}
    return aioboto3.Session(**keys, region_name=aws["aws_region"])


def unique_name(prefix: str = "outbox") -> str:
    return f"{prefix}-{uuid4().hex[:12]}"


def outbox_config(aws: Settings, table: str, **fields: Any) -> OutboxConfig:
    return OutboxConfig(**{**aws, "table_name": table, **fields})


@asynccontextmanager
async def fresh_table(
    aws: Settings, dynamo: DynamoClient, *, shape: Settings | None = None, **fields: Any
) -> AsyncIterator[OutboxConfig]:
    """The configuration of a new table, empty and without a layout, that is deleted in the end."""
    config = outbox_config(aws, unique_name(), **fields)
    name = {"TableName": config.table_name}
    await dynamo.call("CreateTable", {**name, **SHAPE, **(shape or {})}, table=config.table_name)
    async with asyncio.timeout(60):
        # An emulator has it at once; DynamoDB needs some seconds and tells nobody.
        while (await describe_table(dynamo, config.table_name) or {}).get("TableStatus") != "ACTIVE":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    try:
        yield config
    finally:
        await dynamo.call("DeleteTable", name, table=config.table_name)


@asynccontextmanager
async def open_store(config: OutboxConfig, **options: Any) -> AsyncIterator[DynamoDBOutboxStore]:
    store = DynamoDBOutboxStore(config, **options)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def dynamo_client(config: AwsConfig, **options: Any) -> AsyncIterator[DynamoClient]:
    dynamo = await open_dynamo(config, connections=4, **options)
    try:
        yield dynamo
    finally:
        await dynamo.close()


async def wipe(dynamo: DynamoClient, table: str) -> None:
    """Removes everything from a table."""
    while items := (await dynamo.call("Scan", {"TableName": table, "ConsistentRead": True}, table=table))["Items"]:
        for start in range(0, len(items), 25):
            keys = [{name: item[name] for name in ("pk", "sk")} for item in items[start : start + 25]]
            requests = {table: [{"DeleteRequest": {"Key": key}} for key in keys]}
            await dynamo.call("BatchWriteItem", {"RequestItems": requests}, table=table)


async def items_of(dynamo: DynamoClient, table: str) -> list[dict[str, Any]]:
    """Everything in a table, as Python values."""
    answer = await dynamo.call("Scan", {"TableName": table, "ConsistentRead": True}, table=table)
    return [from_item(item) for item in answer["Items"]]
