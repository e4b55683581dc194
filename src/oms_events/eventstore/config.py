"""How event stores and the tables beside them are reached and behave."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from oms_events._aws.config import AwsConfig, TableConfig, TableName
from oms_events._config import ConfigModel
from oms_events.resilience.backoff import RetryConfig


class TableAccess(TableConfig):
    """How a table is reached; the fields of `AwsConfig` and these."""

    made_by: ClassVar[str] = (
        "deploy it (`oms-events infra apply event-sourcing`), create it (`oms-events store table create`)"
    )
    preset: ClassVar[str] = "event-sourcing"
    with_replicas: ClassVar[str] = (
        "two would write one history; use a table of one Region (only readers may switch verify_table off)"
    )

    retry: RetryConfig = RetryConfig(max_attempts=6, initial=0.05, maximum=2.0)


class EventStoreConfig(TableAccess):
    """The event store's table, and what its events say of themselves."""

    table_name: TableName
    """The table, as the preset `event-sourcing` or `oms-events store table create` makes it."""
    source: str | None = Field(default=None, min_length=1)
    """The `source` of its events; the table's name when absent."""
    conflict_attempts: int = Field(default=8, ge=1)
    """How often an append is sent while others write the same items, or DynamoDB throttles."""
    commit_timeout: float = Field(default=60.0, gt=0, le=300)
    """Seconds for which an append that was not answered is sent again, as it was.

    This and `conflict_attempts` are for stores without an outbox: with one, its own count.
    """


class SnapshotConfig(TableAccess):
    """The table of snapshots."""

    table_name: TableName
    """The table, with the keys `AggregateId` (text) and `EventSequence` (number)."""


class ProjectionTables(TableAccess):
    """The tables of read models and of the projections' checkpoints."""

    read_model_table: TableName
    """The table of rows, and of which version of each projection is active."""
    checkpoint_table: TableName
    """The table of how far projections have come, and of parked events."""


class PersonalKeysConfig(TableAccess):
    """The table of the keys that personal data is encrypted under."""

    table_name: TableName
    """The table, with the key `Subject`."""


class KmsConfig(AwsConfig):
    """The KMS key that people's keys are wrapped with; the fields of `AwsConfig` and these."""

    key_id: str = Field(min_length=1, max_length=2048)
    """A symmetric key: its id or ARN, or the name (`alias/...`) or ARN of its alias."""
    connections: int = Field(default=16, ge=1)
    """Connections to KMS, and so many calls at the same time."""
    retry: RetryConfig = RetryConfig(max_attempts=6, initial=0.05, maximum=2.0)
    """How calls are tried again when KMS throttles or cannot be reached; all of them may be repeated."""


class ProjectorConfig(ConfigModel):
    """How a projector works."""

    concurrency: int = Field(default=16, ge=1, le=1000)
    """How many aggregates are worked on at the same time."""
    after_poison: Literal["hold", "continue"] = "hold"
    """What becomes of an aggregate's later events once one was parked: with `hold` they wait in the store for
    `retry_parked`, with `continue` they are handled without it."""
    conflicts: RetryConfig = RetryConfig(max_attempts=30, initial=0.01, maximum=1.0)
    """How often, and after how long, a change is decided anew while others change the same row or aggregate."""
    page_size: int = Field(default=500, ge=1, le=10_000)
    """How many events of an aggregate are read from the store at once, and at most 1 MB of them."""
    remembered_positions: int = Field(default=100_000, ge=0)
    """Of how many aggregates and projections the projector remembers which events it passed without a write."""
