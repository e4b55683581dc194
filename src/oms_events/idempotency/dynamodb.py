"""A store in a DynamoDB table: one item per key, changed by single conditional writes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from oms_events._aio import Clock, LoopBound, SystemClock
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events._aws.marshal import from_item, to_item
from oms_events.errors import (
    ConditionFailedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.idempotency.records import RunRecord, RunState
from oms_events.idempotency.table import check_table, missing_table

if TYPE_CHECKING:
    import aioboto3

# The fragments say in DynamoDB's words what `RunRecord.yields_to` says in Python:
#
#     in progress              expired                       completed                expired
#   |--- OURS_RUNNING: ---|--- EXPIRED: anyone ---> or     |--- OURS: its own ---|--- EXPIRED: anyone --->
#        its own run                                            completion again

ABSENT: Final = "attribute_not_exists(#key)"
"""The first run; or the one before failed and was removed; or TTL deleted it: nobody holds the key."""

EXPIRED: Final = "#ttl <= :now"
"""A crashed run, or an old result that TTL has not deleted yet (it may take days)."""

OURS_RUNNING: Final = "(#token = :token AND #state = :in_progress)"
"""A start sent again because its answer was lost; not over our completion, if the first one arrives after it."""

OURS: Final = "#token = :token"
"""A run that completes or is removed, the first time or again; refused when another has taken the key over."""

MAY_START: Final = f"{ABSENT} OR {EXPIRED} OR {OURS_RUNNING}"
MAY_COMPLETE: Final = f"{ABSENT} OR {EXPIRED} OR {OURS}"
MAY_REMOVE: Final = OURS

# An item takes 400 KB (409,600 bytes); key, names and the other attributes take less than what is left.
_MAX_RESULT: Final = 400_000


class DynamoDBIdempotencyStore:
    """Keeps records in a table; open it with `async with` (or `open`, `close`) before the first run.

    Needs `dynamodb:PutItem`, `GetItem`, `DeleteItem` and, with `verify_table`, `DescribeTable`. Give a `session`
    (aioboto3) or a `client` (its `dynamodb` client) to use your own; neither is ever closed. A start, a
    completion and a replay (a refused start) cost one write each, of the record's size.
    """

    max_result_bytes = _MAX_RESULT

    def __init__(
        self,
        config: IdempotencyConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._draw = draw
        self._opening = LoopBound(asyncio.Lock)
        self._dynamo: DynamoClient | None = None

    async def open(self) -> None:
        """Connects and looks at the table; idempotent.

        Raises `ConfigurationError` for a table of another shape or a region, profile or file that is missing,
        `MissingExtraError` without aioboto3, and a `StorageError`.
        """
        async with self._opening():
            if self._dynamo is not None:
                return
            config = self._config
            dynamo = await open_dynamo(
                config, connections=config.connections, session=self._session, client=self._borrowed
            )
            try:
                if config.verify_table:
                    await check_table(dynamo, config)
            except BaseException:
                await dynamo.close()
                raise
            self._dynamo = dynamo

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        dynamo, self._dynamo = self._dynamo, None
        if dynamo is not None:
            await dynamo.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        values: dict[str, Any] = {":token": record.token, ":now": now}
        names = {"#key": self._config.hash_key, "#ttl": self._config.ttl_attribute, "#token": "token"}
        condition = MAY_COMPLETE
        if record.state is RunState.IN_PROGRESS:
            condition = MAY_START
            names["#state"], values[":in_progress"] = "state", RunState.IN_PROGRESS.value
        put = {
            "Item": self._item(record),
            "ConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": to_item(values),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        while True:
            try:
                await self._call("PutItem", put)
                return None
            except ConditionFailedError as error:
                standing = await self._standing(error, record.key)
            if standing is not None:
                return standing
            # It was removed between the two calls.

    async def read(self, key: str) -> RunRecord | None:
        answer = await self._call("GetItem", {"Key": self._key(key), "ConsistentRead": True})
        return self._record(answer["Item"]) if answer.get("Item") else None

    async def remove(self, key: str, token: str) -> None:
        delete = {
            "Key": self._key(key),
            "ConditionExpression": MAY_REMOVE,
            "ExpressionAttributeNames": {"#token": "token"},
            "ExpressionAttributeValues": to_item({":token": token}),
        }
        try:
            await self._call("DeleteItem", delete)
        except ConditionFailedError:
            return

    async def _standing(self, error: ConditionFailedError, key: str) -> RunRecord | None:
        # Endpoints and clients that do not know ReturnValuesOnConditionCheckFailure leave it out.
        item = getattr(error.__cause__, "response", {}).get("Item")
        return self._record(item) if item else await self.read(key)

    async def _call(self, operation: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Every call may be made twice: its condition names the run, or it changes nothing.

        Once an answer was lost it may be done, whatever becomes of the tries after that.
        """
        table, retry = self._config.table_name, self._config.retry
        lost: StorageOutcomeUnknownError | None = None
        attempt = 1
        while True:
            if self._dynamo is None:
                raise StorageUnavailableError(
                    f"the idempotency store of table {table!r} is not open: use `async with store:`"
                )
            try:
                return await self._dynamo.call(operation, {"TableName": table, **parameters}, table=table)
            except ConditionFailedError:
                raise
            except StorageError as error:
                if lost is None and isinstance(error, StorageOutcomeUnknownError):
                    lost = error
                is_passing = isinstance(error, StorageUnavailableError | StorageOutcomeUnknownError)
                if not is_passing or attempt >= retry.max_attempts:
                    if lost is not None and lost is not error:
                        raise lost from error
                    raise missing_table(error) or error from error.__cause__
                delay = max(retry.delay(attempt, self._draw), error.retry_after or 0.0)
            attempt += 1
            await self._clock.sleep(delay)

    def _key(self, key: str) -> dict[str, dict[str, Any]]:
        return to_item({self._config.hash_key: key})

    def _item(self, record: RunRecord) -> dict[str, dict[str, Any]]:
        return to_item(
            {
                self._config.hash_key: record.key,
                self._config.ttl_attribute: record.expires_at,
                "token": record.token,
                "state": record.state.value,
                "fingerprint": record.fingerprint,
                "result": record.result,
                "problem": record.problem,
            }
        )

    def _record(self, item: Mapping[str, Any]) -> RunRecord:
        try:
            values = from_item(item)
            return RunRecord(
                key=values[self._config.hash_key],
                token=values["token"],
                state=RunState(values["state"]),
                expires_at=int(values[self._config.ttl_attribute]),
                fingerprint=values["fingerprint"],
                result=values["result"],
                problem=values["problem"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise StorageRejectedError(
                f"an item of table {self._config.table_name!r} is no record of a run ({error!r}): give "
                "idempotency a table, or a prefix, of its own"
            ) from error
