"""What stands for the platforms, and for the router of each host: outcomes as the model says, and a log of all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from oms_events.errors import (
    EventRejectedError,
    OmsEventsError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
    UnroutableEventError,
)
from oms_events.events import EncodedEvent
from oms_events.publishing import Outcome, Plan, PublishResult, PublishResults, Receipt

if TYPE_CHECKING:
    from tests.outbox.model.world import Host, World

PLATFORMS = ("alpha", "beta")
MODES = ("up", "flaky", "refusing", "silent", "deaf", "open")
"""`silent` stores nothing and `deaf` all, both without an answer; `open` is a breaker; `flaky` is any of them."""

RULES: Sequence[dict[str, Plan]] = (
    {
        "all": Plan("all", "ALL_PLATFORMS", PLATFORMS, first_that_works=False),
        "failover": Plan("failover", "FAILOVER", PLATFORMS, first_that_works=True),
        "one": Plan("one", "PRIMARY_ONLY", ("alpha",), first_that_works=False),
    },
    {
        "all": Plan("all 2", "ALL_PLATFORMS", PLATFORMS, first_that_works=False),
        "failover": Plan("failover 2", "FAILOVER", ("beta", "alpha"), first_that_works=True),
        "one": Plan("one 2", "PRIMARY_ONLY", ("beta",), first_that_works=False),
    },
)


class Acceptance(NamedTuple):
    """A platform stored an event: its step in the world's history, and what it stored."""

    step: int
    id: str
    json: bytes
    host: str


class FakePlatform:
    def __init__(self, name: str) -> None:
        self.name = name
        self.mode = "up"
        self.log: list[Acceptance] = []
        self.first: dict[str, int] = {}

    def behaviour(self, rng: random.Random) -> str:
        if self.mode == "flaky":
            return rng.choice(("up", "up", "up", "refusing", "silent", "deaf"))
        return self.mode

    def store(self, event: EncodedEvent, step: int, host: str) -> Receipt:
        self.log.append(Acceptance(step, event.id, event.json, host))
        is_duplicate = event.id in self.first
        self.first.setdefault(event.id, step)
        return Receipt(id=event.id, sequence=len(self.log), duplicate=is_duplicate)


class FakeRouter:
    """A `PlanPublisher` whose attempts take time, and stop anywhere when its host is paused or killed."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self._host = host
        self._in_flight: list[tuple[str, str, str]] = []

    @property
    def is_open(self) -> bool:
        return True

    @property
    def platforms(self) -> Sequence[str]:
        return PLATFORMS

    def is_available(self, platform: str) -> bool:
        return self._world.platforms[platform].mode != "open"

    def plan_event(self, event: EncodedEvent) -> Plan:
        plan = RULES[self._world.rules].get(event.type.rpartition(".")[2])
        if plan is None:
            raise UnroutableEventError("no rule takes the event")
        return plan

    async def publish_planned(
        self, deliveries: Sequence[tuple[EncodedEvent, Plan]], *, timeout: float
    ) -> list[PublishResults]:
        flights = [
            (str(key), platform, event.id)
            for event, plan in deliveries
            for platform in plan.platforms
            if (key := event.attributes.get("partitionkey")) is not None
        ]
        self._take_off(flights)
        try:
            await self._host.hop()
            results = [await self._deliver(event, plan, timeout) for event, plan in deliveries]
            await self._host.hop()
            return results
        finally:
            for flight in flights:
                self._in_flight.remove(flight)

    def _take_off(self, flights: Sequence[tuple[str, str, str]]) -> None:
        """Two unresolved events of one key for one platform: the second could be stored before the first."""
        for flight in flights:
            key, platform, event_id = flight
            stored = self._world.platforms[platform].first
            for other_key, other_platform, other_id in self._in_flight:
                is_rival = (key, platform) == (other_key, other_platform) and event_id != other_id
                if is_rival and other_id not in stored and event_id not in stored:
                    both = f"{event_id} and {other_id} of {key}"
                    self._world.violations.append(f"{self._host.name}: {both} in flight for {platform} at once")
            self._in_flight.append(flight)

    async def _deliver(self, event: EncodedEvent, plan: Plan, timeout: float) -> PublishResults:
        results: dict[str, PublishResult] = {}
        delivered = 0
        for platform in plan.platforms:
            await self._host.hop()
            result = results[platform] = self._attempt(event, platform)
            self._world.note(event.id, f"{self._host.name} publishes to {platform} of {plan}: {result.outcome}")
            if result.outcome is Outcome.UNKNOWN:
                await self._host.clock.sleep(timeout / 2)
            delivered += result.success
            if plan.first_that_works and result.success:
                break
        needed = 1 if plan.first_that_works else len(plan.platforms)
        return PublishResults(results, delivered=delivered >= needed, rule=plan.rule, strategy=plan.strategy)

    def _attempt(self, event: EncodedEvent, name: str) -> PublishResult:
        platform, world = self._world.platforms[name], self._world
        behaviour = platform.behaviour(world.rng)
        world.count(f"{name} {behaviour}")
        error: OmsEventsError
        if behaviour == "open":
            return PublishResult(name, Outcome.SKIPPED, SkippedError("the breaker is open"))
        if behaviour == "refusing":
            return PublishResult(name, Outcome.FAILED, TransientError("refused"), attempts=1)
        if behaviour == "silent":
            return PublishResult(name, Outcome.UNKNOWN, UnknownOutcomeError("silence"), attempts=1)
        if name in world.written[event.id].rejected_by:
            error = EventRejectedError("never")
            return PublishResult(name, Outcome.REJECTED, error, attempts=1)
        receipt = platform.store(event, world.next_step(), self._host.name)
        if behaviour == "deaf":
            return PublishResult(name, Outcome.UNKNOWN, UnknownOutcomeError("lost answer"), attempts=1)
        return PublishResult(name, Outcome.DELIVERED, None, receipt, attempts=1)
