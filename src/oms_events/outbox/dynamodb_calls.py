"""Calls of the outbox's table: opened and checked, counted, paged, and transactions that may lose an answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events._aws.dynamodb import READS, DynamoClient, open_dynamo
from oms_events._aws.tables import KeyColumn, described_keys
from oms_events.errors import (
    ConditionFailedError,
    ConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
)
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.schema import TABLE

if TYPE_CHECKING:
    import aioboto3

Capacity = Callable[[str, float, float], None]
"""Told of each call: the operation, and the read and the write units that it took."""

_SENDS: Final = 2
_USABLE: Final = ("ACTIVE", "UPDATING")
_VALIDATION: Final = "ValidationError"


class DynamoCalls:
    """The table and its connection. `on_capacity` may be set at any time, to count what calls cost."""

    def __init__(
        self,
        config: OutboxConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.table = config.table_name
        self.on_capacity: Capacity | None = None
        self._config = config
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._opening = asyncio.Lock()
        self._dynamo: DynamoClient | None = None

    async def open(self) -> None:
        """Connects, and makes sure that the table fits; idempotent.

        Raises `ConfigurationError` for a table that is missing, of another shape or not ready, and for a region,
        profile or file that is missing; `MissingExtraError` without aioboto3; a `StorageError`.
        """
        async with self._opening:
            if self._dynamo is not None:
                return
            opened = await open_config(self._config, self._session, self._borrowed)
            try:
                if problems := table_problems(await describe_table(opened, self.table)):
                    raise ConfigurationError(f"table {self.table!r}", problems)
            except BaseException:
                await opened.close()
                raise
            self._dynamo = opened

    async def close(self) -> None:
        """Closes what was opened here, never what was borrowed; idempotent."""
        async with self._opening:
            dynamo, self._dynamo = self._dynamo, None
            if dynamo is not None:
                await dynamo.close()

    async def describe(self, table: str) -> Mapping[str, Any] | None:
        """What DescribeTable says of a table, asked the way this one goes; None when there is none of that name.

        Raises a `StorageError`.
        """
        if self._dynamo is None:
            raise StorageUnavailableError(f"table {self.table!r} is not open: call open() first")
        return await describe_table(self._dynamo, table)

    async def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """An operation, sent once; raises a `StorageError`."""
        dynamo = self._dynamo
        if dynamo is None:
            raise StorageUnavailableError(f"table {self.table!r} is not open: call open() first")
        on_capacity = self.on_capacity
        if on_capacity is None:
            return await dynamo.call(operation, parameters, table=self.table)
        parameters["ReturnConsumedCapacity"] = "TOTAL"
        answer = await dynamo.call(operation, parameters, table=self.table)
        on_capacity(operation, *_units(operation, answer))
        return answer

    async def _get(self, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        answer = await self._call("GetItem", TableName=self.table, Key=key, ConsistentRead=True)
        return answer.get("Item")

    async def _page(
        self,
        condition: str,
        values: Mapping[str, Any],
        *,
        start: Mapping[str, Any] | None = None,
        limit: int | None = None,
        **parameters: Any,
    ) -> Mapping[str, Any]:
        """One page of a consistent query; `start` is the `LastEvaluatedKey` of the page before."""
        if start is not None:
            parameters["ExclusiveStartKey"] = start
        if limit is not None:
            parameters["Limit"] = limit
        return await self._call(
            "Query",
            TableName=self.table,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
            **parameters,
        )

    def _update(
        self,
        key: Mapping[str, Any],
        expression: str,
        values: Mapping[str, Any],
        *,
        condition: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The parameters of an UpdateItem, which an Update action has too."""
        parameters: dict[str, Any] = {"TableName": self.table, "Key": key, "UpdateExpression": expression}
        if condition is not None:
            parameters["ConditionExpression"] = condition
        if values:
            parameters["ExpressionAttributeValues"] = values
        if names:
            parameters["ExpressionAttributeNames"] = names
        return parameters

    async def _change(self, operation: str, **parameters: Any) -> bool:
        """A conditional write of one item: False when the condition did not hold."""
        try:
            await self._call(operation, **parameters)
        except ConditionFailedError:
            return False
        return True

    async def _transact(self, *actions: Mapping[str, Any]) -> None:
        """One transaction, sent once more with its token when the answer was lost.

        Raises `ConditionFailedError`, or what all methods raise. After a lost answer only success and a failed
        condition are believed: a conflict may be one with the unanswered request itself.
        """
        token = f"{self._rng.getrandbits(128):032x}"
        lost: StorageOutcomeUnknownError | None = None
        for _ in range(_SENDS):
            try:
                await self._call("TransactWriteItems", TransactItems=actions, ClientRequestToken=token)
            except StorageOutcomeUnknownError as error:
                lost = error
            except ConditionFailedError:
                raise
            except StorageError as error:
                if lost is not None:
                    raise lost from error
                if isinstance(error, TransactionCanceledError):
                    raise refusal(error) from error
                raise
            else:
                return
        if lost is not None:
            raise lost


async def open_config(config: OutboxConfig, session: aioboto3.Session | None, client: Any) -> DynamoClient:
    """The client that a configuration asks for."""
    return await open_dynamo(config, connections=config.connections, session=session, client=client)


async def describe_table(dynamo: DynamoClient, table: str) -> Mapping[str, Any] | None:
    """What DescribeTable says, or None when there is no such table. Raises a `StorageError`."""
    try:
        answer = await dynamo.call("DescribeTable", {"TableName": table}, table=table)
    except StorageDeniedError as error:
        if error.code == "ResourceNotFoundException":
            return None
        raise
    described: Mapping[str, Any] = answer["Table"]
    return described


def table_problems(described: Mapping[str, Any] | None) -> Sequence[str]:
    """Why a table cannot be an outbox, each with its remedy; nothing when it can."""
    return tuple(_problems(described))


def _problems(described: Mapping[str, Any] | None) -> Iterator[str]:
    if described is None:
        yield "it does not exist; create it (`oms-events outbox table create`), or check table_name and aws_region"
        return
    keys = described_keys(described)
    if keys != TABLE.keys:
        yield (
            f"its keys are {_said(keys, ', ')}; an outbox needs {_said(TABLE.keys, ' and ')}: choose another name "
            "(table_name, or OMS_OUTBOX_TABLE), and create that table (`oms-events outbox table create`)"
        )
    status = described["TableStatus"]
    if status not in _USABLE:
        yield f"its status is {status}; wait until it is ACTIVE"
    if replicas := described.get("Replicas"):
        regions = ", ".join(replica["RegionName"] for replica in replicas)
        yield (
            f"it has replicas in {regions}: a multi-Region table breaks counters and conditions, or takes no "
            "transactions; use a table of one Region"
        )


def _said(keys: Sequence[KeyColumn], between: str) -> str:
    return between.join(f"{name} ({kind}, {role})" for name, kind, role in keys)


def refusal(error: TransactionCanceledError) -> StorageError:
    """A canceled transaction of our own, whose conditions held, as what all methods raise."""
    codes = [reason for reason in error.reasons if reason != "None"]
    kind = StorageRejectedError if _VALIDATION in codes else StorageUnavailableError
    return kind(str(error), code=codes[0] if codes else error.code)


def next_sk(page: Mapping[str, Any]) -> str | None:
    """Where the page after this one starts; None when this was the last."""
    last = page.get("LastEvaluatedKey")
    return None if last is None else str(last["sk"]["S"])


def _units(operation: str, answer: Mapping[str, Any]) -> tuple[float, float]:
    consumed = answer.get("ConsumedCapacity") or ()
    entries = [consumed] if isinstance(consumed, Mapping) else consumed
    units = sum(float(entry["CapacityUnits"]) for entry in entries)
    return (units, 0.0) if operation in READS else (0.0, units)
