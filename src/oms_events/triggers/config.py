"""How starts are completed, checked and guarded. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from oms_events._config import ConfigModel
from oms_events.triggers.request import DEFAULT_SYMBOLS, MAX_SYMBOLS, TriggerRequest, TriggerType

Environment = Literal["dev", "staging", "prod"]

SQS_BATCH: Final = 10
"""Entries that SendMessageBatch takes (SQS API reference)."""
MAX_QUOTA: Final = 1_000
MAX_INPUT_BYTES: Final = 6_291_556
"""What Lambda takes at most as a payload (AWS Lambda guide, "Lambda quotas")."""

QuotaName = Literal["manual", "event", "schedule"]
"""What shares a quota: events and new objects are both driven by events."""


class Quota(ConfigModel):
    """At most `limit` in any `window` seconds, all instances together."""

    limit: int = Field(ge=1, le=MAX_QUOTA)
    window: float = Field(gt=0, le=86_400)


def quota_name(trigger_type: TriggerType) -> QuotaName:
    """The quota that starts of a type share."""
    return "event" if trigger_type == "s3" else trigger_type


class TriggerDefaults(ConfigModel):
    """What a start means that does not say it; each use is logged as a warning.

    Values are as in `TriggerRequest`.
    """

    data_source: str = "yahoo_finance"
    data_type: str = "prices"
    domain: str = "market"
    table_name: str = "prices"
    symbols: tuple[str, ...] = ()
    """Used where nobody loads them; unless given, those of `TriggerConfig.environment`. Where there are none,
    such a start is refused."""
    period: str = "1mo"
    interval: str = "1d"
    file_format: str = "json"

    @model_validator(mode="after")
    def _check(self) -> Self:
        TriggerRequest(trigger_type="manual", **self.model_dump())
        return self


class RunOptions(ConfigModel):
    """How a start goes on; `override_config` of a manual call may change each of them, within these limits."""

    chunk_size: int = Field(default=5, ge=1, le=MAX_SYMBOLS)
    """Symbols of a chunk."""
    sqs_send_batch_size: int = Field(default=SQS_BATCH, ge=1, le=SQS_BATCH)
    """Messages of a call to SQS."""
    worker_timeout: int = Field(default=300, ge=1, le=43_200)
    """Seconds that the worker of a chunk may take; it is told in the chunk."""


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


def _default_quotas() -> Mapping[QuotaName, Quota]:
    return {"manual": Quota(limit=10, window=3600), "event": Quota(limit=100, window=60)}


class TriggerConfig(ConfigModel):
    """How a pipeline completes, checks and guards starts; times in seconds.

    Unless `defaults` gives symbols, they are those of the environment: `dev` has AAPL, MSFT and GOOGL, the others
    none, as they load theirs. Give `TriggerDefaults(symbols=())` for none in `dev`.
    """

    environment: Environment = "dev"
    defaults: TriggerDefaults = TriggerDefaults()
    options: RunOptions = RunOptions()

    data_sources: frozenset[str] | None = None
    """The data sources that are allowed; None: any word."""
    domains: frozenset[str] | None = None
    """The domains that are allowed; None: any word."""
    max_input_bytes: int = Field(default=MAX_INPUT_BYTES, ge=1)
    """A longer input is refused before it is read."""

    object_prefix: str = ""
    """New objects whose keys begin otherwise are ignored."""
    object_suffix: str = ""
    """New objects whose keys end otherwise are ignored."""

    quotas: Mapping[QuotaName, Quota] = Field(default_factory=_default_quotas)
    """How many starts may run; what is not named is not limited. New objects count as events."""

    keep_for: float = Field(default=86_400.0, gt=0)
    """So long a start that has run answers its duplicates."""
    in_progress_for: float = Field(default=900.0, gt=0)
    """A run that has not ended after so long counts as crashed: its duplicate may run."""

    breaker: BreakerOptions = BreakerOptions()
    """When the breaker of a domain and table opens, where the pipeline is made with one by these settings."""

    exclusive: frozenset[TriggerType] = frozenset(("schedule",))
    """The types of which one start per domain and table may run at a time."""
    lease_time: float = Field(default=60.0, ge=1, le=3_600)
    """How long an exclusive run holds its key without renewing it: then it counts as crashed. Longer than hosts'
    clocks may differ."""

    @classmethod
    def of(cls, environment: Environment) -> TriggerConfig:
        """The configuration of an environment, with its symbols."""
        return cls(environment=environment)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("environment", "dev") != "dev":
            return values
        defaults = values.get("defaults", {})
        if isinstance(defaults, TriggerDefaults):
            if "symbols" not in defaults.model_fields_set:
                defaults = defaults.model_copy(update={"symbols": DEFAULT_SYMBOLS})
        elif isinstance(defaults, Mapping):
            defaults = {"symbols": DEFAULT_SYMBOLS, **defaults}
        return {**values, "defaults": defaults}
