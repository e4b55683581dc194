"""Carries out plans: all platforms at the same time, or one after the other until one works."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from oms_events._aio import Clock
from oms_events.errors import SkippedError
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import FailedOver, Hooks, Settled
from oms_events.publishing import Outcome, Plan, PublishResult, PublishResults
from oms_events.routing.config import RouterConfig
from oms_events.routing.destination import Destination
from oms_events.routing.strategies import Availability, budget, failover_order


class Delivery:
    """Events of one publish call that share a plan, where they stood in the call, and their results so far."""

    __slots__ = ("_results", "events", "indices", "plan")

    def __init__(self, plan: Plan, indices: Sequence[int], events: Sequence[EncodedEvent]) -> None:
        self.plan = plan
        self.indices = indices
        self.events = events
        self._results: dict[str, list[PublishResult | None]] = {}

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
        needed = 1 if self.plan.first_that_works else len(self.plan.platforms)
        return PublishResults(
            by_platform, delivered=delivered >= needed, rule=self.plan.rule, strategy=self.plan.strategy
        )


class Sticky:
    """Which platform FAILOVER used last, per rule, for as long as it should stay there."""

    def __init__(self, config: RouterConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._last: dict[str | None, tuple[str, str, float]] = {}

    def get(self, plan: Plan) -> str | None:
        """The platform to try first, if it is not the plan's own first."""
        platform, _, until = self._last.get(plan.rule, (None, "", 0.0))
        if platform is not None and until <= self._clock.monotonic():
            del self._last[plan.rule]
            return None
        return platform

    def worked(self, plan: Plan, platform: str) -> None:
        """A platform took an event: from now on it goes first, or the plan's own order holds again."""
        if platform == plan.platforms[0]:
            self._last.pop(plan.rule, None)
        elif self._config.sticky_failover and self.get(plan) != platform:
            until = self._clock.monotonic() + self._config.sticky_for
            self._last[plan.rule] = (platform, plan.platforms[0], until)

    def recovered(self, platform: str) -> None:
        """A check of this platform was good: the plans that have it first go back to it."""
        for rule in [rule for rule, (_, first, _) in self._last.items() if first == platform]:
            del self._last[rule]

    def forget(self, rule: str | None) -> None:
        """The rule is no longer there, or is another one."""
        self._last.pop(rule, None)


async def deliver_batch(
    deliveries: Sequence[Delivery],
    destinations: Mapping[str, Destination],
    deadline: float,
    *,
    clock: Clock,
    sticky: Sticky,
    hooks: Hooks,
    retry: bool = True,
) -> None:
    """Carries all plans out at the same time; each platform gets the events of all plans in one call.

    FAILOVER events go in calls of their own, since they have a part of the deadline only. Without `retry` each
    platform is tried once.
    """
    if len(deliveries) == 1 and len(deliveries[0].plan.platforms) == 1:
        (platform,) = deliveries[0].plan.platforms
        await _send_all(platform, destinations.get(platform), deliveries, deadline, hooks, retry)
        return
    shared: dict[str, list[Delivery]] = {}
    jobs: list[Coroutine[Any, Any, None]] = []
    for delivery in deliveries:
        if delivery.plan.first_that_works:
            jobs.append(_fail_over(delivery, destinations, deadline, clock, sticky, hooks, retry))
        else:
            for platform in delivery.plan.platforms:
                shared.setdefault(platform, []).append(delivery)
    jobs += [
        _send_all(platform, destinations.get(platform), members, deadline, hooks, retry)
        for platform, members in shared.items()
    ]
    if len(jobs) == 1:
        await jobs[0]
    elif jobs:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)


async def _send_all(
    platform: str,
    destination: Destination | None,
    members: Sequence[Delivery],
    deadline: float,
    hooks: Hooks,
    retry: bool,
) -> None:
    if len(members) == 1:
        (delivery,) = members
        positions = range(len(delivery.events))
        results = await _publish(platform, destination, delivery.events, deadline, hooks, retry)
        delivery.take(platform, positions, results)
        return
    merged = sorted(
        (index, number, position)
        for number, delivery in enumerate(members)
        for position, index in enumerate(delivery.indices)
    )
    events = [members[number].events[position] for _, number, position in merged]
    results = await _publish(platform, destination, events, deadline, hooks, retry)
    columns: list[tuple[list[int], list[PublishResult]]] = [([], []) for _ in members]
    for (_, number, position), result in zip(merged, results, strict=True):
        columns[number][0].append(position)
        columns[number][1].append(result)
    for delivery, (own_positions, own_results) in zip(members, columns, strict=True):
        delivery.take(platform, own_positions, own_results)


async def _publish(
    platform: str,
    destination: Destination | None,
    events: Sequence[EncodedEvent],
    deadline: float,
    hooks: Hooks,
    retry: bool,
) -> list[PublishResult]:
    if destination is None:
        return _not_configured(platform, len(events), hooks)
    return await destination.publish(events, deadline, retry=retry)


def _not_configured(platform: str, count: int, hooks: Hooks) -> list[PublishResult]:
    skipped = SkippedError(f"platform {platform} is not configured on this router")
    results = [PublishResult(platform, Outcome.SKIPPED, skipped)] * count
    if hooks:
        hooks(Settled(platform, results))
    return results


async def _fail_over(
    delivery: Delivery,
    destinations: Mapping[str, Destination],
    deadline: float,
    clock: Clock,
    sticky: Sticky,
    hooks: Hooks,
    retry: bool,
) -> None:
    plan = delivery.plan

    def availability(name: str) -> Availability:
        return destinations[name].availability if name in destinations else Availability.DOWN

    def pass_over(names: Sequence[str]) -> None:
        for name in names:
            passed_over.remove(name)
            destination = destinations.get(name)
            count = len(positions)
            skipped = destination.pass_over(count) if destination else _not_configured(name, count, hooks)
            delivery.take(name, positions, skipped)

    order, passed_over = failover_order(plan.platforms, availability, sticky=sticky.get(plan))
    positions: Sequence[int] = range(len(delivery.events))
    previous: str | None = None
    for turn, name in enumerate(order):
        # Told as skipped are those that stand before the platform that is tried: the others are backups.
        before = [other for other in passed_over if plan.platforms.index(other) < plan.platforms.index(name)]
        pass_over(before)
        previous = previous or next(iter(before), None)
        if previous is not None and hooks:
            hooks(FailedOver(plan.rule, previous, name, len(positions)))
        now = clock.monotonic()
        events = [delivery.events[position] for position in positions]
        until = now + budget(deadline - now, len(order) - turn)
        results = await destinations[name].publish(events, until, retry=retry)
        delivery.take(name, positions, results)
        left = [position for position, result in zip(positions, results, strict=True) if not result.success]
        if len(left) < len(positions):
            sticky.worked(plan, name)
        if not left:
            return
        positions, previous = left, name
    pass_over(list(passed_over))
