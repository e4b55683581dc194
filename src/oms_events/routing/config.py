"""How a router and its destinations behave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from oms_events._config import ConfigModel
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.breaker import BreakerConfig


class DestinationConfig(ConfigModel):
    """One platform's retry, breaker, active check (seconds) and bound on events in flight."""

    retry: RetryConfig = RetryConfig()
    breaker: BreakerConfig = BreakerConfig()
    check_interval: float = Field(default=15.0, gt=0)
    check_timeout: float = Field(default=5.0, gt=0)
    max_in_flight: int = Field(default=8192, ge=1)


class RouterConfig(ConfigModel):
    """A router's deadlines, failover habits and its destinations' configuration, times in seconds.

    `timeout` is the deadline of a publish call that names none; `close_timeout` is how long closing lets
    events in flight finish. An event that no rule takes goes to the primary platform, or is refused as
    unroutable, as `unrouted` says. With `sticky_failover`, FAILOVER stays on the platform that worked last until a
    check of the primary succeeds or `sticky_for` passes. `platforms` holds what differs from `destination`.
    """

    timeout: float = Field(default=30.0, gt=0)
    close_timeout: float = Field(default=10.0, ge=0)
    unrouted: Literal["primary", "refuse"] = "primary"
    sticky_failover: bool = False
    sticky_for: float = Field(default=60.0, gt=0)
    destination: DestinationConfig = DestinationConfig()
    platforms: Mapping[str, DestinationConfig] = Field(default_factory=dict)

    def for_platform(self, name: str) -> DestinationConfig:
        """The configuration of one platform."""
        return self.platforms.get(name, self.destination)
