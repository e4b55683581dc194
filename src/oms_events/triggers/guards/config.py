"""Where guards keep what they know, and when breakers open."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from oms_events._aws.config import TableConfig, TableName
from oms_events._config import ConfigModel
from oms_events.resilience.backoff import RetryConfig
from oms_events.triggers.config import TriggerConfig


class GuardTableConfig(TableConfig):
    """The DynamoDB table of a guard; the fields of `AwsConfig` and these. Breakers and leases may share one."""

    made_by: ClassVar[str] = (
        "deploy it (`oms-events infra apply ingestion-triggers`), create it (the guard's `create()`)"
    )
    preset: ClassVar[str] = "ingestion-triggers"
    with_replicas: ClassVar[str] = "each would admit as if it were alone; use a table of one Region"

    table_name: TableName
    """The table, with the keys that the guard's reference page names."""
    connections: int = Field(default=16, ge=1)
    """Connections to DynamoDB, and so many calls at the same time."""
    retry: RetryConfig = RetryConfig(max_attempts=6, initial=0.05, maximum=2.0)
    """Calls that DynamoDB throttled, or did not answer, are made again; doing them twice is as once."""


class BreakerOptions(ConfigModel):
    """When breakers open and how they close again; times in seconds."""

    failure_threshold: int = Field(default=5, ge=1, le=100)
    """So many failures within `failure_window` open a breaker, whatever went well between them."""
    failure_window: float = Field(default=3_600.0, gt=0, allow_inf_nan=False)
    """So long a failure counts."""
    recovery_time: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """After so long an open breaker lets one trial through, over all instances."""
    trial_time: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    """A trial that has not ended after so long counts as crashed: another may take its place. Longer than a start
    ever takes, plus what hosts' clocks may differ."""

    @classmethod
    def of(cls, config: TriggerConfig) -> Self:
        """Those of a pipeline; its trials may take as long as its runs."""
        return cls(
            failure_threshold=config.failure_threshold,
            failure_window=config.failure_window,
            recovery_time=config.recovery_time,
            trial_time=config.in_progress_for,
        )
