"""The DynamoDB table of idempotency records: making one, and looking at one's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oms_events._aio import Clock, SystemClock
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events.errors import ConfigurationError, StorageError
from oms_events.idempotency.config import IdempotencyConfig

if TYPE_CHECKING:
    import aioboto3

_LOOK_EVERY = 0.5


async def create_idempotency_table(
    config: IdempotencyConfig,
    *,
    session: aioboto3.Session | None = None,
    client: Any = None,
    clock: Clock | None = None,
) -> bool:
    """Makes the table, on demand, with TTL, and waits until it is ready; false when it was there.

    For development and tests; needs `dynamodb:CreateTable`, `DescribeTable` and `UpdateTimeToLive`. Raises what
    `DynamoDBIdempotencyStore.open` raises. Cancelled, the table may be there without TTL.
    """
    clock = clock or SystemClock()
    name = {"TableName": config.table_name}
    dynamo = await open_dynamo(config, connections=1, session=session, client=client)
    try:
        shape = {
            "AttributeDefinitions": [{"AttributeName": config.hash_key, "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": config.hash_key, "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
        }
        try:
            await dynamo.call("CreateTable", {**name, **shape}, table=config.table_name)
        except StorageError as error:
            if error.code != "ResourceInUseException":
                raise
            await check_table(dynamo, config)
            return False
        while await check_table(dynamo, config) != "ACTIVE":
            await clock.sleep(_LOOK_EVERY)
        ttl = {"AttributeName": config.ttl_attribute, "Enabled": True}
        await dynamo.call("UpdateTimeToLive", {**name, "TimeToLiveSpecification": ttl}, table=config.table_name)
        return True
    finally:
        await dynamo.close()


async def check_table(dynamo: DynamoClient, config: IdempotencyConfig) -> str:
    """The table's status. Raises `ConfigurationError` for a table with other keys, and a `StorageError`."""
    answer = await dynamo.call("DescribeTable", {"TableName": config.table_name}, table=config.table_name)
    table = answer["Table"]
    types = {column["AttributeName"]: column["AttributeType"] for column in table["AttributeDefinitions"]}
    keys = [(key["KeyType"], key["AttributeName"], types[key["AttributeName"]]) for key in table["KeySchema"]]
    if keys != [("HASH", config.hash_key, "S")]:
        found = ", ".join(f"{role} {name!r} of type {kind}" for role, name, kind in keys)
        raise ConfigurationError(
            type(config).__name__,
            [
                f"table {config.table_name!r} has the keys {found}; it needs the hash key {config.hash_key!r} of "
                "type S and no other: set hash_key, or use another table"
            ],
        )
    return str(table["TableStatus"])
