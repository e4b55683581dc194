"""Carries out plans: all platforms at the same time, or one after the other until one works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from oms_events._aio import Clock
from oms_events.errors import SkippedError
from oms_events.events import EncodedEvent
from oms_events.publishing import Outcome, PublishResult, PublishResults
from oms_events.routing.config import RouterConfig
from oms_events.routing.destination import Destination
from oms_events.routing.strategies import Availability, Plan, budget, failover_order


class Delivery:
    """Events of one publish call that share a plan, where they stood in the call, and their results so far."""

    __slots__ = ("_results", "_strategy", "events", "indices", "plan")

    def __init__(self, plan: Plan, indices: Sequence[int], events: Sequence[EncodedEvent]) -> None:
        self.plan = plan
        self.indices = indices
        self.events = events
        self._results: dict[str, list[PublishResult | None]] = {}
        self._strategy = plan.strategy.value

    def take(self, platform: str, positions: Sequence[int], results: Sequence[PublishResult]) -> None:
        """Takes one platform's results for the events at `positions`."""
        if len(positions) == len(self.events):
            self._results[platform] = list(results)
            return
        column = self._results.setdefault(platform, [None] * len(self.events))
        for position, result in zip(positions, results, strict=True):
            column[position] = result

    def results(self, position: int) -> PublishResults:
        """One event's results."""
        by_platform: dict[str, PublishResult] = {}
        delivered = 0
        for platform, column in self._results.items():
            result = column[position]
            if result is not None:
                by_platform[platform] = result
                delivered += result.outcome is Outcome.DELIVERED
        needed = 1 if self.plan.first_that_works else len(by_platform)
        return PublishResults(
            by_platform, delivered=delivered >= needed, rule=self.plan.rule, strategy=self._strategy
        )


class Sticky:
    """Which platform FAILOVER used last, per rule, for as long as it should stay there."""

    def __init__(self, config: RouterConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._last: dict[str | None, tuple[str, float]] = {}

    def get(self, rule: str | None) -> str | None:
        """The platform to try first, if any."""
        platform, until = self._last.get(rule, (None, 0.0))
        return platform if until > self._clock.monotonic() else None

    def worked(self, rule: str | None, platform: str, *, was_first: bool) -> None:
        """A platform took an event: it stays first if it was not the plan's own first."""
        if self._config.sticky_failover and not was_first and self.get(rule) != platform:
            self._last[rule] = (platform, self._clock.monotonic() + self._config.sticky_for)

    def forget(self) -> None:
        """The primary is well again."""
        self._last.clear()


async def deliver_batch(
    deliveries: Sequence[Delivery],
    destinations: Mapping[str, Destination],
    deadline: float,
    *,
    clock: Clock,
    sticky: Sticky,
    on_failover: Callable[[str | None, str, str, int], None],
) -> None:
    """Carries all plans out at the same time; each platform gets the events of all plans in one call.

    FAILOVER events go in calls of their own, since they have a part of the deadline only.
    """
    shared: dict[str, list[Delivery]] = {}
    jobs: list[Coroutine[Any, Any, None]] = []
    for delivery in deliveries:
        if delivery.plan.first_that_works:
            jobs.append(_fail_over(delivery, destinations, deadline, clock, sticky, on_failover))
        else:
            for platform in delivery.plan.platforms:
                shared.setdefault(platform, []).append(delivery)
    jobs += [
        _send_all(platform, destinations.get(platform), members, deadline) for platform, members in shared.items()
    ]
    if len(jobs) == 1:
        await jobs[0]
    elif jobs:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)


async def _send_all(
    platform: str, destination: Destination | None, members: Sequence[Delivery], deadline: float
) -> None:
    if len(members) == 1:
        (delivery,) = members
        positions = range(len(delivery.events))
        delivery.take(platform, positions, await _publish(platform, destination, delivery.events, deadline))
        return
    merged = sorted(
        (index, number, position)
        for number, delivery in enumerate(members)
        for position, index in enumerate(delivery.indices)
    )
    events = [members[number].events[position] for _, number, position in merged]
    results = await _publish(platform, destination, events, deadline)
    columns: list[tuple[list[int], list[PublishResult]]] = [([], []) for _ in members]
    for (_, number, position), result in zip(merged, results, strict=True):
        columns[number][0].append(position)
        columns[number][1].append(result)
    for delivery, (own_positions, own_results) in zip(members, columns, strict=True):
        delivery.take(platform, own_positions, own_results)


async def _publish(
    platform: str, destination: Destination | None, events: Sequence[EncodedEvent], deadline: float
) -> list[PublishResult]:
    if destination is None:
        skipped = SkippedError(f"platform {platform} is not configured on this router")
        return [PublishResult(platform, Outcome.SKIPPED, skipped)] * len(events)
    return await destination.publish(events, deadline)


async def _fail_over(
    delivery: Delivery,
    destinations: Mapping[str, Destination],
    deadline: float,
    clock: Clock,
    sticky: Sticky,
    on_failover: Callable[[str | None, str, str, int], None],
) -> None:
    plan = delivery.plan

    def availability(name: str) -> Availability:
        return destinations[name].availability if name in destinations else Availability.DOWN

    async def publish(name: str, positions: Sequence[int], until: float) -> list[PublishResult]:
        events = [delivery.events[position] for position in positions]
        results = await _publish(name, destinations.get(name), events, until)
        delivery.take(name, positions, results)
        return results

    order, passed_over = failover_order(plan.platforms, availability, sticky=sticky.get(plan.rule))
    positions: Sequence[int] = range(len(delivery.events))
    previous: str | None = None
    for turn, name in enumerate(order):
        # Told as skipped are those that stood before the platform that is tried: the others are backups.
        for skipped in [other for other in passed_over if _stands_before(plan, other, name)]:
            passed_over.remove(skipped)
            await publish(skipped, positions, deadline)
            previous = previous or skipped
        if previous is not None:
            on_failover(plan.rule, previous, name, len(positions))
        now = clock.monotonic()
        results = await publish(name, positions, now + budget(deadline - now, len(order) - turn))
        left = [position for position, result in zip(positions, results, strict=True) if not result.success]
        if len(left) < len(positions):
            sticky.worked(plan.rule, name, was_first=name == plan.platforms[0])
        if not left:
            return
        positions, previous = left, name
    for name in passed_over:
        await publish(name, positions, deadline)


def _stands_before(plan: Plan, one: str, other: str) -> bool:
    return plan.platforms.index(one) < plan.platforms.index(other)
