"""Routers over flaky memory platforms, with time in the test's hand."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from oms_events.events import build_event
from oms_events.instrumentation.hooks import Detail
from oms_events.publishing import PublisherTraits
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.breaker import BreakerConfig
from oms_events.routing.config import DestinationConfig, RouterConfig
from oms_events.routing.router import EventRouter
from oms_events.routing.rules import RoutingRule, RoutingStrategy
from oms_events.testing import FlakyPublisher, ManualClock, MemoryPublisher

FAST = DestinationConfig(
    retry=RetryConfig(max_attempts=3, initial=0.001, maximum=0.002),
    breaker=BreakerConfig(failure_threshold=5, recovery_time=10),
    check_interval=1000,
)
KEEPS_DUPLICATES = PublisherTraits(gather=True, max_batch=10, deduplicates=False)


@dataclass
class Platforms:
    """Flaky platforms by name, what they stored, and everything that the hooks said."""

    traits: PublisherTraits | None = None
    memories: dict[str, MemoryPublisher] = field(default_factory=dict)
    flaky: dict[str, FlakyPublisher] = field(default_factory=dict)
    details: list[Detail] = field(default_factory=list)

    def add(self, *names: str) -> dict[str, FlakyPublisher]:
        for name in names:
            self.memories[name] = MemoryPublisher(traits=self.traits)
            self.flaky[name] = FlakyPublisher(self.memories[name])
        return self.flaky

    def stored(self, name: str) -> list[Any]:
        return [event.get_data() for event in self.memories[name].events]

    def seen(self, kind: type) -> list[Any]:
        return [detail for detail in self.details if isinstance(detail, kind)]


def make_router(
    platforms: Platforms,
    *names: str,
    strategy: RoutingStrategy = RoutingStrategy.ALL,
    rules: Iterable[RoutingRule] | None = None,
    clock: ManualClock | None = None,
    destination: DestinationConfig = FAST,
    **config: Any,
) -> EventRouter:
    """A router on the named platforms with one rule for everything, unless given others."""
    publishers = platforms.add(*names)
    everything = RoutingRule(event_type_pattern=".*", platforms=list(names), strategy=strategy, name="everything")
    return EventRouter(
        publishers,
        [everything] if rules is None else rules,
        config=RouterConfig(destination=destination, **config),
        hooks=[platforms.details.append],
        clock=clock,
        rng=random.Random(1),
    )


def event(data: Any = None, kind: str = "com.example.thing.done", **attributes: Any) -> CloudEvent:
    return build_event(kind, "/test", data, **attributes)
