"""Which recorded events are replayed, where to, and how."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StrictBool, StringConstraints, field_validator, model_validator

from oms_events._config import ConfigModel
from oms_events.errors import ConfigurationError
from oms_events.eventstore.append import check_aggregate_id
from oms_events.eventstore.time_ranges import TimeRange, parse_time
from oms_events.resilience.backoff import RetryConfig

Time = datetime | Annotated[str, StringConstraints(min_length=1)]

_SOME_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)


_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""As EventBridge wants the names of its replays (API reference, StartReplay)."""


class ReplaySelection(ConfigModel):
    """Which events of an event store, and where they go. Empty, it is all of them, to where the rules say.

    Times are aware ones, or texts as `parse_time` reads them, such as "2 hours ago". Raises `ConfigurationError`.
    """

    types: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    """Only events of these types, by their whole names."""
    aggregate_ids: tuple[str, ...] = ()
    """Only events of these aggregates."""
    start: Time | None = None
    """Only events from this time on."""
    end: Time | None = None
    """Only events before this time; before the replay began, unless given."""
    rule: str | None = None
    """Only events that this rule of the router takes."""
    platform: str | None = None
    """Only to this platform, whatever the rules say of it."""

    @field_validator("types", "aggregate_ids")
    @classmethod
    def _in_one_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @field_validator("aggregate_ids")
    @classmethod
    def _check_ids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for aggregate_id in value:
            check_aggregate_id(aggregate_id)
        return value

    @field_validator("start", "end")
    @classmethod
    def _check_time(cls, value: Time | None) -> Time | None:
        if isinstance(value, str):
            parse_time(value, now=_SOME_TIME)
        elif value is not None:
            TimeRange(value)
        return value

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if isinstance(self.start, datetime) and isinstance(self.end, datetime):
            TimeRange(self.start, self.end)
        return self

    def time_range(self, *, now: datetime) -> TimeRange:
        """The range that the texts mean now; it ends now unless it says when. Raises `ValueError`."""
        return TimeRange(_time(self.start, now), now if self.end is None else _time(self.end, now))


class ReplayConfig(ConfigModel):
    """How a replay goes on; times in seconds."""

    ordered: StrictBool = True
    """Whether an aggregate's next event waits until the one before is settled. Without, it is faster."""
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Events per second that are sent at most, repetitions included."""
    max_batch: int = Field(default=256, ge=1)
    """Events in one call of the router."""
    max_calls: int = Field(default=4, ge=1)
    """Calls of the router at the same time."""
    publish_timeout: float = Field(default=10.0, gt=0)
    """How long one attempt may take."""
    retry: RetryConfig = RetryConfig(max_attempts=12, initial=0.1, maximum=30.0)
    """How an event is tried again after a failure that may pass: for about 80 s, longer than a breaker is open."""
    after_rejection: Literal["continue", "stop"] = "continue"
    """What comes after an event that a platform can never accept."""
    after_failure: Literal["stop", "continue"] = "stop"
    """What comes after an event that was not delivered at all attempts, cannot be read, or is missing."""
    window: int = Field(default=2048, ge=1)
    """Events that are read ahead."""
    window_bytes: int = Field(default=32 * 1024 * 1024, ge=1)
    """Bytes of events that are read ahead."""
    readers: int = Field(default=8, ge=1, le=100)
    """How many aggregates, or parts of a whole table, are read at once."""
    page_size: int = Field(default=256, ge=1)
    """Events that one reading asks for at most."""
    save_interval: float = Field(default=1.0, gt=0)
    """How often the checkpoint is written."""


def new_replay_name(now: datetime, rng: random.Random) -> str:
    """A name for a replay, made up of the time."""
    return f"replay-{now:%Y%m%dT%H%M%SZ}-{rng.getrandbits(16):04x}"


def check_replay_name(name: str) -> None:
    """Raises `ConfigurationError` for what cannot be a replay's name."""
    if _NAME.fullmatch(name) is None:
        problem = f"name = {name!r}: use 1 to 64 letters, digits, '.', '-' and '_'"
        raise ConfigurationError("replay", [problem])


def _time(value: Time | None, now: datetime) -> datetime | None:
    return parse_time(value, now=now) if isinstance(value, str) else value
