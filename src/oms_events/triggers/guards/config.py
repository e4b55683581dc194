"""Where guards keep what they know."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from oms_events._aws.config import TableConfig, TableName
from oms_events.resilience.backoff import RetryConfig


class GuardTableConfig(TableConfig):
    """The DynamoDB table of a guard; the fields of `AwsConfig` and these. Breakers and leases may share one."""

    made_by: ClassVar[str] = (
        "deploy it (`oms-events infra apply ingestion-triggers`), create it (`oms-events trigger table create`)"
    )
    preset: ClassVar[str] = "ingestion-triggers"
    with_replicas: ClassVar[str] = "each would admit as if it were alone; use a table of one Region"

    table_name: TableName
    """The table, with the keys that the guard's reference page names."""
    connections: int = Field(default=16, ge=1)
    """Connections to DynamoDB, and so many calls at the same time."""
    retry: RetryConfig = RetryConfig(max_attempts=6, initial=0.05, maximum=2.0)
    """Calls that DynamoDB throttled, or did not answer, are made again; doing them twice is as once."""
