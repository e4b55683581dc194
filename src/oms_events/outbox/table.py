"""Making and looking at the outbox's table, for set-up scripts and the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.tables import create_request
from oms_events.errors import (
    ConfigurationError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.outbox.config import DEFAULT_BUCKETS, OutboxConfig
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from oms_events.outbox.dynamodb_calls import describe_table, open_config, table_problems
from oms_events.outbox.records import Epoch, Layout
from oms_events.outbox.schema import TABLE

if TYPE_CHECKING:
    import aioboto3

_FIRST_EPOCH: Final = 1
_POLL: Final = 0.5
_WAIT: Final = 120.0


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table as it is: whether it is there and ready, its buckets, and what keeps it from being an outbox.

    `problems` is empty for a table that fits; `layout` is None until the first writer, or `create_table`.
    """

    name: str
    status: str | None
    billing: str | None
    problems: Sequence[str]
    layout: Layout | None

    @property
    def fits(self) -> bool:
        return not self.problems


async def create_table(
    config: OutboxConfig,
    *,
    session: aioboto3.Session | None = None,
    client: Any = None,
    buckets: int | None = None,
    point_in_time_recovery: bool = False,
    deletion_protection: bool = False,
    wait: bool = True,
    clock: Clock | None = None,
) -> TableDescription:
    """Makes the table, billed on demand, and writes its layout; one that is there and fits is left as it is.

    `buckets` is that of `config`, or 32. Without `wait` it returns while the table is being made; the first writer
    then writes the layout, and point-in-time recovery cannot be asked for. Waits at most two minutes. Raises
    `ConfigurationError` for a table of another shape or number of buckets, and a `StorageError`. Cancelled, the
    table may be there without a layout: call it again.
    """
    wanted = buckets or config.buckets or DEFAULT_BUCKETS
    if point_in_time_recovery and not wait:
        raise ConfigurationError("create_table", ["point_in_time_recovery = True needs wait = True"])
    timer = clock or SystemClock()
    async with _opened(config, session, client) as dynamo:
        described = await describe_table(dynamo, config.table_name)
        if described is None:
            described = await _create(dynamo, config.table_name, deletion_protection)
        if not wait:
            return _description(config, described, None)
        described = await _until_ready(dynamo, config.table_name, timer)
        if problems := table_problems(described):
            raise ConfigurationError(f"table {config.table_name!r}", problems)
        if point_in_time_recovery:
            await _recoverable(dynamo, config.table_name, timer)
    layout = await _laid_out(config, session, client, wanted)
    epoch = layout.open_epoch
    is_given = buckets is not None or config.buckets is not None
    if is_given and epoch is not None and epoch.buckets != wanted:
        problem = (
            f"it has {epoch.buckets} buckets, not {wanted}; ask for {epoch.buckets}, or change the bucket count "
            f"(`oms-events outbox buckets {wanted}`)"
        )
        raise ConfigurationError(f"table {config.table_name!r}", [problem])
    return _description(config, described, layout)


async def describe(
    config: OutboxConfig, *, session: aioboto3.Session | None = None, client: Any = None
) -> TableDescription:
    """Looks at the table; what does not fit is in `problems`. Raises a `StorageError`."""
    async with _opened(config, session, client) as dynamo:
        described = await describe_table(dynamo, config.table_name)
    if table_problems(described):
        return _description(config, described, None)
    store = DynamoDBOutboxStore(config, session=session, client=client)
    await store.open()
    try:
        return _description(config, described, await store.read_layout())
    finally:
        await store.close()


async def verify(
    config: OutboxConfig, *, session: aioboto3.Session | None = None, client: Any = None
) -> TableDescription:
    """As `describe`, but raises `ConfigurationError` for a table that is missing or does not fit."""
    described = await describe(config, session=session, client=client)
    if not described.fits:
        raise ConfigurationError(f"table {config.table_name!r}", described.problems)
    return described


@asynccontextmanager
async def _opened(
    config: OutboxConfig, session: aioboto3.Session | None, client: Any
) -> AsyncIterator[DynamoClient]:
    dynamo = await open_config(config, session, client)
    try:
        yield dynamo
    finally:
        await dynamo.close()


async def _create(dynamo: DynamoClient, table: str, deletion_protection: bool) -> Mapping[str, Any] | None:
    request = {**create_request(table, TABLE), "DeletionProtectionEnabled": deletion_protection}
    try:
        answer = await dynamo.call("CreateTable", request, table=table)
    except StorageOutcomeUnknownError:
        return await describe_table(dynamo, table)
    except StorageUnavailableError as error:
        # Somebody else was first.
        if error.code != "ResourceInUseException":
            raise
        return await describe_table(dynamo, table)
    described: Mapping[str, Any] = answer["TableDescription"]
    return described


async def _until_ready(dynamo: DynamoClient, table: str, clock: Clock) -> Mapping[str, Any]:
    """What DescribeTable says of a table that is ready; right after its creation it may not know it yet."""
    latest: Mapping[str, Any] | None = None

    async def is_ready() -> bool:
        nonlocal latest
        latest = await describe_table(dynamo, table)
        return latest is not None and latest["TableStatus"] != "CREATING"

    await _until(is_ready, clock, f"table {table!r} is not ready")
    return latest or {}


async def _recoverable(dynamo: DynamoClient, table: str, clock: Clock) -> None:
    request = {"TableName": table, "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}

    async def is_on() -> bool:
        try:
            await dynamo.call("UpdateContinuousBackups", request, table=table)
        except StorageUnavailableError as error:
            # DynamoDB is still preparing backups for a table that has just been made.
            if error.code != "ContinuousBackupsUnavailableException":
                raise
            return False
        return True

    await _until(is_on, clock, f"point-in-time recovery of table {table!r} cannot be switched on yet")


async def _until(is_so: Callable[[], Awaitable[bool]], clock: Clock, otherwise: str) -> None:
    deadline = clock.monotonic() + _WAIT
    while not await is_so():
        if clock.monotonic() >= deadline:
            raise StorageUnavailableError(f"{otherwise} after {_WAIT:g} s; try again")
        await clock.sleep(_POLL)


async def _laid_out(config: OutboxConfig, session: aioboto3.Session | None, client: Any, buckets: int) -> Layout:
    store = DynamoDBOutboxStore(config, session=session, client=client)
    await store.open()
    try:
        while (layout := await store.read_layout()) is None:
            first = Layout(1, (Epoch(_FIRST_EPOCH, buckets, is_open=True),))
            if await store.write_layout(first):
                return first
        return layout
    finally:
        await store.close()


def _description(
    config: OutboxConfig, described: Mapping[str, Any] | None, layout: Layout | None
) -> TableDescription:
    found = described or {}
    return TableDescription(
        name=config.table_name,
        status=found.get("TableStatus"),
        billing=found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED") if found else None,
        problems=table_problems(described),
        layout=layout,
    )
