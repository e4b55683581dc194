"""A DynamoDB table as event stores, snapshots and projections reach it: opened, checked, called again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events._aws.tables import KeyColumn, TableShape, create_request, described_keys
from oms_events.errors import (
    ConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.eventstore.config import TableAccess

if TYPE_CHECKING:
    import aioboto3

_NO_TABLE: Final = "ResourceNotFoundException"
_LOOK_EVERY: Final = 0.5
_WAIT: Final = 120.0


class DynamoTable:
    """One table and a connection to it. Give a `session` or a `client` to use your own; neither is ever closed."""

    def __init__(
        self,
        config: TableAccess,
        name: str,
        shape: TableShape,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._shape = shape
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._opening = asyncio.Lock()
        self._dynamo: DynamoClient | None = None

    async def open(self) -> None:
        """Connects, and looks at the table's keys; idempotent.

        Raises `ConfigurationError` for a table that is missing or of another shape, and for a region, profile or
        file that is missing; `MissingExtraError` without aioboto3; a `StorageError`.
        """
        async with self._opening:
            if self._dynamo is not None:
                return
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
            self._dynamo = dynamo

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        async with self._opening:
            dynamo, self._dynamo = self._dynamo, None
            if dynamo is not None:
                await dynamo.close()

    async def call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """An operation, sent once; opens the table before. Raises a `StorageError`.

        Cancelled, what was asked may or may not have been done.
        """
        if self._dynamo is None:
            await self.open()
        dynamo = self._dynamo
        if dynamo is None:
            raise StorageUnavailableError(f"table {self.name!r} was closed")
        return await dynamo.call(operation, parameters, table=self.name)

    async def repeat(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """As `call`, sent again when it was not done, or may have been: for reads, and what twice is as once."""
        retry, attempt = self._config.retry, 1
        while True:
            try:
                return await self.call(operation, **parameters)
            except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
                if attempt >= retry.max_attempts or self._dynamo is None:
                    raise
                pause = max(retry.delay(attempt, self._rng.random), error.retry_after or 0.0)
                await self._clock.sleep(pause)
            attempt += 1

    async def create(self) -> bool:
        """Makes the table, on demand, and waits until it is ready; false when it was there.

        For development and tests: production's come from the preset. Needs `dynamodb:CreateTable` and
        `DescribeTable`. Waits at most two minutes.
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
        finally:
            await dynamo.close()
        return is_new

    async def _status(self, dynamo: DynamoClient) -> str:
        try:
            answer = await dynamo.call("DescribeTable", {"TableName": self.name}, table=self.name)
        except StorageDeniedError as error:
            # Right after its creation DescribeTable may not know it yet.
            if error.code != _NO_TABLE:
                raise
            return "CREATING"
        return str(answer["Table"]["TableStatus"])

    async def _check(self, dynamo: DynamoClient) -> None:
        try:
            answer = await dynamo.call("DescribeTable", {"TableName": self.name}, table=self.name)
        except StorageDeniedError as error:
            if error.code != _NO_TABLE:
                raise
            problem = (
                "it does not exist; deploy it (`oms-events infra apply event-sourcing`), create it "
                "(`oms-events store table create`), or check its name and the region"
            )
            raise ConfigurationError(f"table {self.name!r}", [problem]) from None
        described = answer["Table"]
        problems = []
        if (keys := described_keys(described)) != self._shape.keys:
            problems.append(f"its keys are {_said(keys)}; {_said(self._shape.keys)} are needed: use another table")
        there = {index["IndexName"] for index in described.get("GlobalSecondaryIndexes", ())}
        problems += [
            f"it has no index {index.name!r}; add it, or deploy the table from the preset event-sourcing"
            for index in self._shape.indexes
            if index.name not in there
        ]
        if problems:
            raise ConfigurationError(f"table {self.name!r}", problems)


def _said(keys: tuple[KeyColumn, ...]) -> str:
    return " and ".join(f"{name} ({kind}, {role})" for name, kind, role in keys)
