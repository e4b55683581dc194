"""The tables of the outbox and of idempotent runs: their keys, and what protects or deletes what is in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from oms_events._aws.dynamodb import open_dynamo
from oms_events.errors import ConfigurationError, StorageError
from oms_events.idempotency.config import IdempotencyConfig
from oms_events.idempotency.table import check_table
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.table import describe
from oms_events.provisioning.checks.report import Finding, ok, problem, warning
from oms_events.provisioning.checks.services import Services

if TYPE_CHECKING:
    import aioboto3

OUTBOX: Final = "outbox"
IDEMPOTENCY: Final = "idempotency"
_ON: Final = ("ENABLED", "ENABLING")
_USABLE: Final = ("ACTIVE", "UPDATING")
_OTHER_TABLE: Final = "make a table that fits, or name another (table_name, aws_region)"


async def check_outbox(config: OutboxConfig, *, session: aioboto3.Session | None) -> AsyncIterator[Finding]:
    """The table as writers and processors need it."""
    table = config.table_name
    found = await describe(config, session=session)
    for text in found.problems:
        yield problem(OUTBOX, table, text, _OTHER_TABLE)
    if found.problems:
        return
    yield ok(OUTBOX, table, f"has the right keys, is {found.status}")
    layout = found.layout
    opened = None if layout is None else layout.open_epoch
    if layout is None:
        yield warning(
            OUTBOX,
            table,
            "has no layout yet; the first writer makes one",
            "write it now, if the number of buckets matters: `oms-events outbox table create`",
        )
    elif opened is not None and config.buckets is not None and opened.buckets != config.buckets:
        yield problem(
            OUTBOX,
            table,
            f"has {opened.buckets} buckets, and the configuration says {config.buckets}",
            f"set buckets = {opened.buckets}, or change the table (`oms-events outbox buckets {config.buckets}`)",
        )


async def check_outbox_stream(services: Services, table: str) -> AsyncIterator[Finding]:
    """Whether the table has a stream, for what reads it."""
    described = await services.find("dynamodb", "DescribeTable", TableName=table)
    if described is None:
        return
    stream = described["Table"].get("StreamSpecification", {})
    if stream.get("StreamEnabled"):
        yield ok(OUTBOX, table, f"has a stream ({stream.get('StreamViewType')})")
    else:
        yield problem(
            OUTBOX,
            table,
            "has no stream, and the relay on Lambda reads it",
            "switch the stream on, with new images",
        )


async def check_safety(services: Services, table: str) -> AsyncIterator[Finding]:
    """Whether the outbox's table can be restored, and not be deleted by mistake."""
    asked = await services.find("dynamodb", "DescribeContinuousBackups", TableName=table)
    described = await services.find("dynamodb", "DescribeTable", TableName=table)
    if asked is None or described is None:
        return
    backups = asked["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    if backups.get("PointInTimeRecoveryStatus") in _ON:
        yield ok(OUTBOX, table, "has point-in-time recovery")
    else:
        yield warning(
            OUTBOX,
            table,
            "has no point-in-time recovery",
            "switch it on: events that wait here are nowhere else",
        )
    if described["Table"].get("DeletionProtectionEnabled"):
        yield ok(OUTBOX, table, "has deletion protection")
    else:
        yield warning(OUTBOX, table, "has no deletion protection", "switch it on in production")


async def check_outbox_ttl(services: Services, table: str) -> AsyncIterator[Finding]:
    """Whether nothing deletes events that wait."""
    ttl = await _ttl(services, table)
    if ttl is not None and ttl.get("TimeToLiveStatus") in _ON:
        yield problem(
            OUTBOX,
            table,
            f"has TTL on {ttl.get('AttributeName')!r}: it may delete events before they are delivered",
            "switch TTL off",
        )
    elif ttl is not None:
        yield ok(OUTBOX, table, "has no TTL")


async def check_idempotency(
    config: IdempotencyConfig, *, session: aioboto3.Session | None
) -> AsyncIterator[Finding]:
    """The keys of the table that idempotent runs use."""
    table = config.table_name
    dynamo = await open_dynamo(config, connections=1, session=session)
    try:
        status = await check_table(dynamo, config)
    except ConfigurationError as error:
        for text in error.problems:
            yield problem(IDEMPOTENCY, table, text, _OTHER_TABLE)
    except StorageError as error:
        if error.code != "ResourceNotFoundException":
            raise
        yield problem(IDEMPOTENCY, table, "does not exist", _OTHER_TABLE)
    else:
        if status in _USABLE:
            yield ok(IDEMPOTENCY, table, f"has the right keys, is {status}")
        else:
            yield problem(IDEMPOTENCY, table, f"is {status}", "wait until it is ACTIVE")
    finally:
        await dynamo.close()


async def check_idempotency_ttl(services: Services, config: IdempotencyConfig) -> AsyncIterator[Finding]:
    """Whether records that have expired are deleted."""
    table = config.table_name
    ttl = await _ttl(services, table)
    if ttl is None:
        return
    wanted, found = config.ttl_attribute, ttl.get("AttributeName")
    if ttl.get("TimeToLiveStatus") in _ON and found == wanted:
        yield ok(IDEMPOTENCY, table, f"has TTL on {wanted!r}")
        return
    state = f"has TTL on {found!r}" if ttl.get("TimeToLiveStatus") in _ON else "has no TTL"
    yield warning(
        IDEMPOTENCY,
        table,
        f"{state}: expired records are never deleted",
        f"switch TTL on for {wanted!r} (ttl_attribute)",
    )


async def _ttl(services: Services, table: str) -> Mapping[str, Any] | None:
    """What DynamoDB says of the table's TTL; None for no table, which another check tells."""
    answer = await services.find("dynamodb", "DescribeTimeToLive", TableName=table)
    description: Mapping[str, Any] | None = None if answer is None else answer["TimeToLiveDescription"]
    return description
