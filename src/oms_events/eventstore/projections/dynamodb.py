"""Read models and checkpoints in their two DynamoDB tables."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from oms_events._aio import Clock, SystemClock
from oms_events._aws.table import DynamoTable
from oms_events.errors import (
    ConditionFailedError,
    StorageRejectedError,
    StorageUnavailableError,
    TransactionCanceledError,
    TransactionConflictError,
)
from oms_events.eventstore.config import ProjectionTables
from oms_events.eventstore.history import Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections.items import KEY_NAMES, ItemKey, TableRole, Write
from oms_events.eventstore.projections.read_models import ReadModels, TablePage
from oms_events.eventstore.schema import CHECKPOINT, CHECKPOINTS, PROJECTION_NAME, READ_MODEL
from oms_events.outbox.store import Action

if TYPE_CHECKING:
    import aioboto3

_GET: Final = 100
_DELETE: Final = 25
"""Keys in one BatchGetItem, and in one BatchWriteItem."""
_REJECTED: Final = frozenset(("ValidationError", "ItemCollectionSizeLimitExceeded", "AccessDenied"))
_FINE: Final = "None"


class DynamoReadModelTables:
    """The `ReadModelTables` on DynamoDB."""

    def __init__(
        self,
        config: ProjectionTables,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        options: dict[str, Any] = {"session": session, "client": client, "clock": clock, "rng": rng}
        self._config = config
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._tables: Mapping[TableRole, DynamoTable] = {
            "rows": DynamoTable(config, config.read_model_table, READ_MODEL, **options),
            "checkpoints": DynamoTable(config, config.checkpoint_table, CHECKPOINTS, **options),
        }

    async def open(self, *, checkpoints: bool = False) -> None:
        await self._tables["rows"].open()
        if checkpoints:
            await self._tables["checkpoints"].open()
        else:
            self._tables["checkpoints"].open_later()

    async def close(self) -> None:
        for table in self._tables.values():
            await table.close()

    async def create(self) -> bool:
        """Makes the tables; false when both were there. See `DynamoTable.create`."""
        made = [await table.create() for table in self._tables.values()]
        return any(made)

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        found: dict[ItemKey, Item] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _GET):
            await self._get(wanted[start : start + _GET], found)
        return [found.get(key) for key in keys]

    async def _get(self, keys: Sequence[ItemKey], found: dict[ItemKey, Item]) -> None:
        request: Mapping[str, Any] = {
            self._name(role): {"Keys": [_key(key) for key in keys if key.table == role], "ConsistentRead": True}
            for role in self._tables
            if any(key.table == role for key in keys)
        }
        attempt = 1
        while request:
            answer = await self._tables["rows"].repeat("BatchGetItem", RequestItems=request)
            for role in self._tables:
                hash_name, range_name = KEY_NAMES[role]
                for item in answer["Responses"].get(self._name(role), ()):
                    found[ItemKey(role, item[hash_name]["S"], item[range_name]["S"])] = item
            request = answer.get("UnprocessedKeys") or {}
            if request:
                await self._pause(attempt, "BatchGetItem")
                attempt += 1

    async def commit(self, writes: Sequence[Write]) -> bool:
        actions = [self._action(write) for write in writes]
        # Kept over all attempts: what one of them did whose answer was lost is done, and not refused by itself.
        token = str(UUID(int=self._rng.getrandbits(128), version=4))
        attempt = 1
        while True:
            try:
                await self._tables["rows"].repeat(
                    "TransactWriteItems", TransactItems=actions, ClientRequestToken=token
                )
                return True
            except (ConditionFailedError, TransactionConflictError):
                return False
            except TransactionCanceledError as error:
                if _REJECTED & set(error.reasons):
                    raise StorageRejectedError(str(error), code=error.code) from error
                await self._pause(attempt, f"TransactWriteItems ({', '.join(set(error.reasons) - {_FINE})})")
                attempt += 1

    async def query(
        self, hash_key: str, *, prefix: str, start: Token | None = None, limit: int | None = None
    ) -> TablePage:
        condition, values = f"{CHECKPOINT} = :hash", {":hash": {"S": hash_key}}
        if prefix:
            condition += f" AND begins_with({PROJECTION_NAME}, :prefix)"
            values[":prefix"] = {"S": prefix}
        answer = await self._tables["checkpoints"].repeat(
            "Query",
            TableName=self._name("checkpoints"),
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
            **_paging(start, limit),
        )
        return TablePage(answer["Items"], answer.get("LastEvaluatedKey"))

    async def scan(
        self, table: TableRole, *, range_key: str, start: Token | None = None, limit: int | None = None
    ) -> TablePage:
        answer = await self._tables[table].repeat(
            "Scan",
            TableName=self._name(table),
            FilterExpression=f"{KEY_NAMES[table][1]} = :range",
            ExpressionAttributeValues={":range": {"S": range_key}},
            ConsistentRead=True,
            **_paging(start, limit),
        )
        return TablePage(answer["Items"], answer.get("LastEvaluatedKey"))

    async def delete(self, keys: Sequence[ItemKey]) -> None:
        for start in range(0, len(keys), _DELETE):
            request: dict[str, list[Any]] = {}
            for key in keys[start : start + _DELETE]:
                request.setdefault(self._name(key.table), []).append({"DeleteRequest": {"Key": _key(key)}})
            attempt = 1
            while request:
                answer = await self._tables["rows"].repeat("BatchWriteItem", RequestItems=request)
                request = answer.get("UnprocessedItems") or {}
                if request:
                    await self._pause(attempt, "BatchWriteItem")
                    attempt += 1

    async def _pause(self, attempt: int, operation: str) -> None:
        """Before the rest of what a table took only in part is sent again."""
        retry = self._config.retry
        if attempt >= retry.max_attempts:
            raise StorageUnavailableError(f"{operation}: DynamoDB throttles, still after {attempt} attempts")
        await self._clock.sleep(retry.delay(attempt, self._rng.random))

    def _name(self, role: TableRole) -> str:
        return self._tables[role].name

    def _action(self, write: Write) -> Action:
        table = {"TableName": self._name(write.key.table)}
        condition = _condition(write)
        if write.keep:
            return {"ConditionCheck": {**table, "Key": _key(write.key), **condition}}
        if write.item is None:
            return {"Delete": {**table, "Key": _key(write.key), **condition}}
        return {"Put": {**table, "Item": write.item, **condition}}


def _condition(write: Write) -> dict[str, Any]:
    if write.expected is None:
        return {}
    hash_name, _ = KEY_NAMES[write.key.table]
    if not write.expected:
        return {"ConditionExpression": f"attribute_not_exists({hash_name})"}
    # Without the first, what lacks all that it should lack would be taken for what is not there at all.
    parts, names, values = [f"attribute_exists({hash_name})"], {}, {}
    for number, (name, value) in enumerate(write.expected.items()):
        # Some of the names are words of the expressions' own.
        names[f"#{number}"] = name
        if value is None:
            parts.append(f"attribute_not_exists(#{number})")
        else:
            parts.append(f"#{number} = :{number}")
            values[f":{number}"] = value
    said: dict[str, Any] = {"ConditionExpression": " AND ".join(parts), "ExpressionAttributeNames": names}
    return {**said, "ExpressionAttributeValues": values} if values else said


def _key(key: ItemKey) -> dict[str, dict[str, str]]:
    hash_name, range_name = KEY_NAMES[key.table]
    return {hash_name: {"S": key.hash}, range_name: {"S": key.range}}


def _paging(start: Token | None, limit: int | None) -> dict[str, Any]:
    paging: dict[str, Any] = {} if start is None else {"ExclusiveStartKey": start}
    return paging if limit is None else {**paging, "Limit": limit}


class DynamoDBReadModels(ReadModels):
    """Read models and checkpoints in DynamoDB tables, as the preset `event-sourcing` has them.

    Give a `session` (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed.
    Both tables are in one account and region. Readers need `dynamodb:BatchGetItem` and `DescribeTable` on the
    read models, and nothing on the checkpoints, which are not looked at before they are used; projectors, on both
    tables, `PutItem`, `DeleteItem`, `ConditionCheckItem` and `Query` too; removing a version `Scan` and
    `BatchWriteItem`.
    """

    tables: DynamoReadModelTables

    def __init__(
        self,
        config: ProjectionTables,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        tables = DynamoReadModelTables(config, session=session, client=client, clock=clock, rng=rng)
        super().__init__(tables, clock=clock, rng=rng)
