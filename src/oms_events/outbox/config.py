"""How an outbox and its processors behave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from oms_events._aws.config import AwsConfig
from oms_events._config import ConfigModel

DEFAULT_BUCKETS = 32


class ClaimCheckConfig(ConfigModel):
    """Where the data of large events goes: to S3 before the commit, and the event carries a `dataref` to it.

    Objects are named `prefix` + a digest of the event's identity; give the S3 bucket a lifecycle rule that
    outlives your consumers, also for what a refused transaction leaves behind.
    """

    bucket: str = Field(min_length=3, max_length=63)
    prefix: str = "outbox/"
    threshold: int = Field(default=256 * 1024, ge=1, le=380_000)
    """Bytes of an event's JSON form above which its data goes to S3."""
    endpoint_url: str | None = None
    """Where S3 is; the regional endpoint when absent."""


class WriterConfig(ConfigModel):
    """How an outbox commits, wherever it is kept; times in seconds.

    `buckets` is the number that the table must have when the outbox first looks (it is made with 32 unless
    given); `key_of` gives the order key of an event that has no `partitionkey`. A transaction is tried
    `conflict_attempts` times when others write the same items or DynamoDB throttles; after an unanswered commit
    the same request is sent for `commit_timeout`, at most 300 s of the 600 s that DynamoDB remembers a token
    (API_TransactWriteItems).
    """

    buckets: int | None = Field(default=None, ge=1, le=1024)
    key_of: Callable[[Any], str | None] | None = None
    conflict_attempts: int = Field(default=8, ge=1)
    commit_timeout: float = Field(default=60.0, gt=0, le=300)
    prepared_for: float = Field(default=25.0, gt=0, le=25)
    """Seconds that a reservation may wait for its commit to be sent; then it must be prepared again.

    With the longest `commit_timeout` it stays below a processor's default `drain_time` and `gap_horizon`.
    """
    layout_ttl: float = Field(default=60.0, gt=0, le=240)
    """Seconds after which a writer reads the table's layout again.

    With the longest `prepared_for` and `commit_timeout` it stays below the 600 s after which an empty epoch is
    dropped.
    """


class OutboxConfig(WriterConfig, AwsConfig):
    """The outbox's table on DynamoDB, and how its transactions are committed."""

    table_name: str = Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
    connections: int = Field(default=32, ge=1)
    claim_check: ClaimCheckConfig | None = None


class ProcessorConfig(ConfigModel):
    """How a processor relays; times in seconds.

    Without `max_attempts` and `max_age` an event is tried until it is delivered or rejected; time with an open
    breaker counts toward neither. After a dead letter its key goes on, or is held until the letter is requeued or
    purged, as `after_dead_letter` says.
    """

    lease: float = Field(default=15.0, gt=0)
    """A processor that shows no sign of life for so long is replaced."""
    heartbeat: float = Field(default=3.0, gt=0)
    lease_margin: float = Field(default=1.0, ge=0)
    """A processor stops publishing so long before its own lease ends."""
    poll_floor: float = Field(default=0.1, gt=0)
    poll_ceiling: float = Field(default=10.0, gt=0)
    """An idle bucket is looked at this rarely; a local commit wakes it at once."""
    sweep_interval: float = Field(default=60.0, gt=0)
    """A bucket with a backlog is read again from its first record at the latest after so long."""
    gap_horizon: float = Field(default=360.0, gt=0)
    """A missing sequence number is looked for so long before each later record; then only sweeps find it.

    Longer than the writers' `prepared_for` and `commit_timeout` together.
    """
    drain_time: float = Field(default=330.0, ge=0)
    """After the bucket count changed, keyed events of the new layout wait so long for writers of the old one.

    Longer than the writers' `prepared_for` and `commit_timeout` together.
    """
    publish_timeout: float = Field(default=8.0, gt=0)
    """The deadline of one attempt; never more than what is left of the lease."""
    max_batch: int = Field(default=256, ge=1, le=10_000)
    max_calls: int = Field(default=4, ge=1)
    """Publish calls in flight at once for each set of platforms."""
    window: int = Field(default=512, ge=10)
    """Records of one partition in memory at once."""
    window_bytes: int = Field(default=32_000_000, ge=1_000_000)
    """Bytes of stored records in memory at once, in all."""
    page_size: int = Field(default=100, ge=1, le=1000)
    retry_initial: float = Field(default=0.5, gt=0)
    """The pause after an event's first failed attempt; it doubles, with jitter, up to `retry_maximum`."""
    retry_maximum: float = Field(default=60.0, gt=0)
    max_attempts: int | None = Field(default=None, ge=1)
    max_age: float | None = Field(default=None, gt=0)
    after_dead_letter: Literal["continue", "hold"] = "continue"
    dedup_window: float = Field(default=120.0, gt=0)
    """The shortest time for which a platform of yours drops duplicates (JetStream's default: 2 minutes)."""
    measure_interval: float = Field(default=15.0, gt=0)
    measure_limit: int = Field(default=1000, ge=1)
    """Backlogs are counted up to this many records per partition."""
    stop_timeout: float = Field(default=15.0, ge=0)
    """How long a clean stop lets what is in flight finish."""

    @model_validator(mode="after")
    def _check(self) -> ProcessorConfig:
        if self.heartbeat * 2 + self.lease_margin >= self.lease:
            raise ValueError(
                f"lease = {self.lease} is too short for heartbeat = {self.heartbeat} and lease_margin = "
                f"{self.lease_margin}; make it longer than two heartbeats and the margin"
            )
        if self.poll_floor > self.poll_ceiling:
            raise ValueError(f"poll_floor = {self.poll_floor} is above poll_ceiling {self.poll_ceiling}; lower it")
        if self.retry_maximum < self.retry_initial:
            raise ValueError(f"retry_maximum = {self.retry_maximum} is below retry_initial; raise it")
        if self.retry_initial > self.dedup_window / 4:
            raise ValueError(
                f"retry_initial = {self.retry_initial}: the first retry of an unanswered event must come within a "
                f"quarter of dedup_window = {self.dedup_window}; lower it"
            )
        return self
