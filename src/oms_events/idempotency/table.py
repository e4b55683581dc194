"""The DynamoDB table of idempotency records: making one, and looking at one's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events._aws.tables import TableShape, create_request, described_keys
from oms_events.errors import (
    ConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.idempotency.schema import table_shape

if TYPE_CHECKING:
    import aioboto3

_LOOK_EVERY: Final = 0.5
_WAIT: Final = 120.0
_NO_TABLE: Final = "ResourceNotFoundException"


async def create_idempotency_table(
    config: IdempotencyConfig,
    *,
    session: aioboto3.Session | None = None,
    client: Any = None,
    clock: Clock | None = None,
) -> bool:
    """Makes the table, on demand, waits until it is ready, and switches TTL on; false when the table was there.

    For development and tests; needs `dynamodb:CreateTable`, `DescribeTable`, `DescribeTimeToLive` and
    `UpdateTimeToLive`. Waits at most two minutes. Raises what `DynamoDBIdempotencyStore.open` raises. Cancelled,
    the table may be there without TTL: call it again.
    """
    clock = clock or SystemClock()
    name = {"TableName": config.table_name}
    dynamo = await open_dynamo(config, connections=1, session=session, client=client)
    try:
        is_new = True
        try:
            request = create_request(config.table_name, _shape(config))
            await dynamo.call("CreateTable", request, table=config.table_name)
        except StorageOutcomeUnknownError:
            # Whether it was made shows in a moment.
            pass
        except StorageError as error:
            if error.code != "ResourceInUseException":
                raise
            is_new = False
        await _until_ready(dynamo, config, clock)
        answer = await dynamo.call("DescribeTimeToLive", name, table=config.table_name)
        if answer["TimeToLiveDescription"]["TimeToLiveStatus"] not in ("ENABLED", "ENABLING"):
            ttl = {"AttributeName": config.ttl_attribute, "Enabled": True}
            request = {**name, "TimeToLiveSpecification": ttl}
            await dynamo.call("UpdateTimeToLive", request, table=config.table_name)
        return is_new
    finally:
        await dynamo.close()


async def _until_ready(dynamo: DynamoClient, config: IdempotencyConfig, clock: Clock) -> None:
    """Waits for the table; right after its creation DescribeTable may not know it yet."""
    deadline = clock.monotonic() + _WAIT
    while True:
        try:
            if await check_table(dynamo, config) == "ACTIVE":
                return
        except StorageDeniedError as error:
            if error.code != _NO_TABLE:
                raise
        if clock.monotonic() >= deadline:
            raise StorageUnavailableError(
                f"table {config.table_name!r} is not ready after {_WAIT:g} s; call it again"
            )
        await clock.sleep(_LOOK_EVERY)


def missing_table(error: StorageError) -> StorageDeniedError | None:
    """The error of a table that is not there, with how to make one; None for any other error."""
    if error.code != _NO_TABLE:
        return None
    return StorageDeniedError(f"{error}; `create_idempotency_table(config)` makes one", code=error.code)


async def check_table(dynamo: DynamoClient, config: IdempotencyConfig) -> str:
    """The table's status. Raises `ConfigurationError` for a table with other keys, and a `StorageError`."""
    try:
        answer = await dynamo.call("DescribeTable", {"TableName": config.table_name}, table=config.table_name)
    except StorageError as error:
        raise missing_table(error) or error from error.__cause__
    table = answer["Table"]
    keys = described_keys(table)
    if keys != _shape(config).keys:
        found = ", ".join(f"{role} {name!r} of type {kind}" for name, kind, role in keys)
        raise ConfigurationError(
            type(config).__name__,
            [
                f"table {config.table_name!r} has the keys {found}; it needs the hash key {config.hash_key!r} of "
                "type S and no other: set hash_key, or use another table"
            ],
        )
    return str(table["TableStatus"])


def _shape(config: IdempotencyConfig) -> TableShape:
    return table_shape(config.hash_key, config.ttl_attribute)
