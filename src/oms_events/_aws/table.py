"""A DynamoDB table: opened, checked, called, called again, made."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from oms_events._aio import Clock, LoopBound, SystemClock
from oms_events._aws.config import TableConfig
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events._aws.tables import KeyColumn, TableShape, create_request, described_keys, schema
from oms_events.errors import (
    ConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    import aioboto3

Answer = TypeVar("Answer")

_NO_TABLE: Final = "ResourceNotFoundException"
_USABLE: Final = ("ACTIVE", "UPDATING")
_LOOK_EVERY: Final = 0.5
_WAIT: Final = 120.0


class DynamoTable:
    """One table and a connection to it. Give a `session` or a `client` to use your own; neither is ever closed.

    `identity` is the table's id (or ARN), known once it was opened with `verify_table`: another for each table of
    that name in other Regions and accounts.
    """

    def __init__(
        self,
        config: TableConfig,
        name: str,
        shape: TableShape,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.identity: str | None = None
        self._config = config
        self._shape = shape
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._opening = LoopBound(asyncio.Lock)
        self._dynamo: DynamoClient | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Connects, and looks at the table's keys; idempotent, also after `close`.

        Raises `ConfigurationError` for a table that is missing or of another shape, and for a region, profile or
        file that is missing; `MissingExtraError` without aioboto3; a `StorageError`.
        """
        if self._dynamo is not None and not self._is_closed:
            return
        self._is_closed = False
        async with self._opening():
            if self._dynamo is None:
                self._dynamo = await self.retried(self._connect)

    def open_later(self) -> None:
        """Lets the first call open the table, also after `close`."""
        self._is_closed = False

    async def close(self) -> None:
        """Closes what was opened here; idempotent. Calls that are under way fail, and so do later ones."""
        self._is_closed = True
        async with self._opening():
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

    async def call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """An operation, sent once; opens the table before, if nobody has. Raises a `StorageError`.

        Cancelled, what was asked may or may not have been done.
        """
        dynamo = self._dynamo
        if dynamo is None:
            if self._is_closed:
                raise self._closed()
            await self.open()
            if (dynamo := self._dynamo) is None:
                raise self._closed()
        return await dynamo.call(operation, parameters, table=self.name)

    async def repeat(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """As `call`, sent again when it was not done, or may have been: for reads, and what twice is as once."""
        await self.ready()
        return await self.retried(lambda: self.call(operation, **parameters))

    async def ready(self) -> None:
        """Opens the table, if nobody has or closed it: with its own attempts and time, not those of a call."""
        if self._dynamo is None and not self._is_closed:
            await self.open()

    async def retried(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """What a call gives; made again when it failed with what may pass, as `config.retry` says."""
        attempt = 1
        while True:
            try:
                return await call()
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                await self.pause_after(error, attempt)
            attempt += 1

    async def pause_after(self, error: StorageError, attempt: int) -> None:
        """Waits before the next attempt, or raises the error when `attempt` was the last."""
        retry = self._config.retry
        if attempt >= retry.max_attempts or self._is_closed:
            raise error
        await self._clock.sleep(max(retry.delay(attempt, self._rng.random), error.retry_after or 0.0))

    async def create(self) -> bool:
        """Makes the table, on demand, and waits until it is ready; false when it was there.

        For development and tests: production's come from the preset. Needs `dynamodb:CreateTable` and
        `DescribeTable`, and for a table with TTL, which is switched on, `DescribeTimeToLive` and
        `UpdateTimeToLive`. Waits at most two minutes. Raises `ConfigurationError` for a table of another shape,
        and a `StorageError`. Cancelled, the table may be there, or be made yet: call it again.
        """
        config, is_new = self._config, True
        dynamo = await open_dynamo(config, connections=1, session=self._session, client=self._borrowed)
        try:
            try:
                await dynamo.call("CreateTable", create_request(self.name, self._shape), table=self.name)
            except StorageOutcomeUnknownError:
                # Whether it was made shows in a moment.
                pass
            except StorageError as error:
                if error.code != "ResourceInUseException":
                    raise
                is_new = False
            deadline = self._clock.monotonic() + _WAIT
            while await self._status(dynamo) != "ACTIVE":
                if self._clock.monotonic() >= deadline:
                    raise StorageUnavailableError(f"table {self.name!r} is not ready after {_WAIT:g} s; try again")
                await self._clock.sleep(_LOOK_EVERY)
            await self._check(dynamo)
            await self._switch_ttl_on(dynamo)
        finally:
            await dynamo.close()
        return is_new

    async def _switch_ttl_on(self, dynamo: DynamoClient) -> None:
        attribute, name = self._shape.ttl_attribute, {"TableName": self.name}
        if attribute is None:
            return
        answer = await dynamo.call("DescribeTimeToLive", name, table=self.name)
        if answer["TimeToLiveDescription"]["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
            return
        specification = {"AttributeName": attribute, "Enabled": True}
        await dynamo.call("UpdateTimeToLive", {**name, "TimeToLiveSpecification": specification}, table=self.name)

    async def _connect(self) -> DynamoClient:
        config = self._config
        dynamo = await open_dynamo(
            config, connections=config.connections, session=self._session, client=self._borrowed
        )
        try:
            if config.verify_table:
                await self._check(dynamo)
        except BaseException:
            await dynamo.close()
            raise
        return dynamo

    def _closed(self) -> StorageUnavailableError:
        return StorageUnavailableError(f"table {self.name!r} was closed: nothing was sent; open it again")

    async def _status(self, dynamo: DynamoClient) -> str:
        described = await self._describe(dynamo)
        # Right after its creation DescribeTable may not know it yet.
        return "CREATING" if described is None else str(described["TableStatus"])

    async def _check(self, dynamo: DynamoClient) -> None:
        described = await self._describe(dynamo)
        if problems := list(self._problems(described, dynamo.place)):
            raise ConfigurationError(f"table {self.name!r}", problems)
        self.identity = identity_of(described)

    async def _describe(self, dynamo: DynamoClient) -> Mapping[str, Any] | None:
        try:
            answer = await dynamo.call("DescribeTable", {"TableName": self.name}, table=self.name)
        except StorageDeniedError as error:
            if error.code != _NO_TABLE:
                raise
            return None
        described: Mapping[str, Any] = answer["Table"]
        return described

    def _problems(self, described: Mapping[str, Any] | None, place: str) -> Iterator[str]:
        if described is None:
            yield f"it does not exist in {place}; {self._config.made_by}, or check its name and the region"
            return
        if (keys := described_keys(described)) != self._shape.keys:
            yield f"its keys are {_said(keys)}; {_said(self._shape.keys)} are needed: use another table"
        preset = self._config.preset
        there = {index["IndexName"]: index for index in described.get("GlobalSecondaryIndexes", ())}
        for wanted in schema(self._shape).get("GlobalSecondaryIndexes", ()):
            name = wanted["IndexName"]
            if name not in there:
                yield f"it has no index {name!r}; add it, or deploy the table from the preset {preset}"
            elif _index_of(there[name]) != _index_of(wanted):
                yield (
                    f"its index {name!r} is {_index_of(there[name])}; {_index_of(wanted)} is needed: delete the "
                    "index, and add it so"
                )
        if (status := described.get("TableStatus", _USABLE[0])) not in _USABLE:
            yield f"its status is {status}; wait until it is ACTIVE"
        if replicas := described.get("Replicas"):
            regions = ", ".join(replica["RegionName"] for replica in replicas)
            yield (
                f"it has replicas in {regions}: conditions hold in one Region only, so that "
                f"{self._config.with_replicas}"
            )


def identity_of(described: Mapping[str, Any] | None) -> str | None:
    """What a table is known by, as DescribeTable tells it; None when it does not."""
    found = (described or {}).get("TableId") or (described or {}).get("TableArn")
    return None if found is None else str(found)


def _said(keys: tuple[KeyColumn, ...]) -> str:
    return " and ".join(f"{name} ({kind}, {role})" for name, kind, role in keys)


def _index_of(index: Mapping[str, Any]) -> str:
    keys = {entry["KeyType"]: entry["AttributeName"] for entry in index["KeySchema"]}
    columns = ", ".join(f"{keys[role]} ({role})" for role in ("HASH", "RANGE") if role in keys)
    return f"{columns}, projection {index['Projection'].get('ProjectionType')}"
