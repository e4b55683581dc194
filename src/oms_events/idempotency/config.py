"""How idempotent runs behave, and where their records are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from oms_events._aws.config import AwsConfig
from oms_events._config import ConfigModel
from oms_events.idempotency.schema import HASH_KEY, TTL_ATTRIBUTE
from oms_events.resilience.backoff import RetryConfig

ATTRIBUTES = frozenset(("token", "state", "fingerprint", "result", "problem"))
"""What a record's item has besides its key and its expiry."""


class IdempotencyOptions(ConfigModel):
    """How runs behave; times in seconds."""

    in_progress_for: float = Field(default=60.0, gt=0)
    """A run that has not ended after so long counts as crashed: another may take its key over. Make it longer than
    the function ever takes, plus what your hosts' clocks may differ."""
    keep_for: float = Field(default=86_400.0, gt=0)
    """So long a result is replayed, from its completion: longer than your platforms deliver an event again."""
    on_concurrent: Literal["raise", "wait"] = "raise"
    """While another run of the key is at work: raise `RunInProgressError` at once, or wait for its result."""
    wait_timeout: float = Field(default=10.0, gt=0)
    """With `on_concurrent="wait"`: then `RunInProgressError` is raised all the same."""
    on_unstorable: Literal["raise", "omit"] = "raise"
    """A result that is too large, or no JSON: raise `ResultNotStoredError` now and at each replay, or give it to
    its own caller and None to replays. Either way the run counts as done."""


class IdempotencyConfig(AwsConfig):
    """The DynamoDB table of the records: a hash key of type string, no sort key; TTL should be on."""

    table_name: str = Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_.-]+$")
    """The table's name; it may serve many functions and services."""
    hash_key: str = Field(default=HASH_KEY, min_length=1, max_length=255)
    """The name of the table's hash key."""
    ttl_attribute: str = Field(default=TTL_ATTRIBUTE, min_length=1, max_length=255)
    """The name of the attribute with the expiry, in epoch seconds: the one that the table's TTL looks at."""
    verify_table: bool = True
    """Whether opening looks at the table's keys, for which it needs `dynamodb:DescribeTable`."""
    connections: int = Field(default=16, ge=1)
    """Connections to DynamoDB at once; more calls wait."""
    retry: RetryConfig = RetryConfig(max_attempts=4)
    """Calls that DynamoDB throttled, or did not answer, are made again; doing them twice is harmless."""

    @model_validator(mode="after")
    def _check_names(self) -> IdempotencyConfig:
        if taken := sorted(ATTRIBUTES & {self.hash_key, self.ttl_attribute}):
            raise ValueError(f"hash_key and ttl_attribute must not be {', '.join(taken)}: records use that name")
        if self.hash_key == self.ttl_attribute:
            raise ValueError(f"hash_key and ttl_attribute are both {self.hash_key!r}; give two names")
        return self
