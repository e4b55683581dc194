"""The router: events through rules to platforms, results back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from cloudevents.core.v1.event import CloudEvent

from oms_events._aio import Clock, SystemClock
from oms_events.errors import (
    ConfigurationError,
    InvalidEventError,
    RouterClosedError,
    RuleError,
    UnroutableEventError,
)
from oms_events.events import EncodedEvent, encode
from oms_events.instrumentation.hooks import Decided, Hook, Hooks, Settled
from oms_events.publishing import ROUTER, Outcome, Plan, Platform, Publisher, PublishResult, PublishResults
from oms_events.routing.config import RouterConfig
from oms_events.routing.delivery import Delivery, Sticky, deliver_batch
from oms_events.routing.destination import Destination
from oms_events.routing.explain import Explanation, explain
from oms_events.routing.rules import (
    RoutingRule,
    RuleSet,
    check_platform_name,
    unknown_platforms,
    unknown_platforms_error,
)
from oms_events.routing.strategies import Availability, make_plan

_log = logging.getLogger("oms_events")
_NO_RESULTS = PublishResults({}, delivered=False, rule=None, strategy=None)
_LAST_PATIENCE = 1.0
"""Seconds at least for what has been told to end, and for each publisher to close."""


class EventRouter:
    """Routes CloudEvents to platforms by rules; an async context manager.

    `publishers` maps platform names to publishers, in registration order; the router opens and closes them.
    `primary` is the platform for PRIMARY_ONLY and for events that no rule takes: the first registered one
    unless named. Without a running router (before `async with`, or after) publishing raises
    `RouterClosedError`. Raises `ConfigurationError` or `RuleError` for what cannot work.
    """

    def __init__(
        self,
        publishers: Mapping[str, Publisher],
        rules: Iterable[RoutingRule] = (),
        *,
        primary: str | None = None,
        config: RouterConfig | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = RouterConfig() if config is None else config
        if not isinstance(self._config, RouterConfig):
            raise ConfigurationError("EventRouter", [f"config = {config!r} is no RouterConfig; make one"])
        self._clock = clock or SystemClock()
        self._hooks = Hooks(hooks)
        _check_platforms(publishers, primary, self._config)
        self._primary = primary or next(iter(publishers))
        self._sticky = Sticky(self._config, self._clock)
        # Jitter needs no secrecy, only spread.
        dice = rng or random.Random()  # noqa: S311
        self._destinations = {
            str(name): Destination(
                str(name),
                publisher,
                self._config.for_platform(name),
                clock=self._clock,
                rng=dice,
                hooks=self._hooks,
                on_check_ok=self._sticky.recovered,
            )
            for name, publisher in publishers.items()
        }
        self._rules = RuleSet()
        self._plans: dict[str | None, Plan] = {}
        self._is_open = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        for rule in rules:
            self.add_routing_rule(rule)

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Opens all publishers and checks them once, for `check_timeout` each at most.

        A platform that is down does not keep the service from starting: it shows in the status, its checks
        go on, and the rules steer around it. Raises `ConfigurationError` or `MissingExtraError` for a publisher
        that can never open.
        """
        if self._is_open:
            raise ConfigurationError("EventRouter", ["is open already; give each `async with` its own router"])
        try:
            opening = (destination.open() for destination in self._destinations.values())
            for problem in await asyncio.gather(*opening, return_exceptions=True):
                if problem is not None:
                    raise problem
        except BaseException:
            await self._close_destinations()
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, *, timeout: float | None = None) -> Mapping[str, int]:
        """Takes no more events, lets those under way finish for `timeout` seconds, then ends them. Idempotent.

        Whoever waits for an ended event gets its truthful result: `unknown` when it was on the wire, `skipped`
        when it was not sent. Publishers then have the same time to close, and 1 s at least. Gives the number of
        publish calls that had to be ended, by platform.
        """
        self._is_open = False
        patience = self._config.close_timeout if timeout is None else timeout
        unfinished: dict[str, int] = {}
        try:
            await self._wait_until_idle(patience)
            for name, destination in self._destinations.items():
                ended = destination.abort()
                if ended:
                    unfinished[name] = ended
                    _log.warning("closing the router ended %d publish calls to %s", ended, name)
            await self._wait_until_idle(_LAST_PATIENCE)
        finally:
            await self._close_destinations()
        return unfinished

    async def _close_destinations(self) -> None:
        patience = max(_LAST_PATIENCE, self._config.close_timeout)
        await asyncio.gather(*(destination.close(timeout=patience) for destination in self._destinations.values()))

    # ------------------------------------------------------------------ publishing

    async def publish_event(self, event: CloudEvent | object, *, timeout: float | None = None) -> PublishResults:
        """Publishes one event and gives its results by platform; a failed delivery is a result, never raised.

        `timeout` is the deadline in seconds for everything, retries included (`RouterConfig.timeout` by
        default); when it is not above 0 nothing is sent. Raises `InvalidEventError` for what is no CloudEvent,
        `UnroutableEventError` when no rule takes it and `RouterConfig.unrouted` says to refuse it,
        `RouterClosedError` when the router is not open. Cancelled, the event may or may not have been stored by
        each platform of its plan.
        """
        encoded = encode(event)
        deadline = self._deadline(timeout)
        plan = self._plan(encoded)
        if self._hooks:
            self._hooks(Decided({(plan.rule, plan.strategy): 1}))
        delivery = Delivery(plan, (0,), (encoded,))
        self._begin()
        try:
            await self._deliver([delivery], deadline)
        finally:
            self._end()
        return delivery.results(0)

    async def publish_events(
        self, events: Sequence[CloudEvent | object], *, timeout: float | None = None
    ) -> list[PublishResults]:
        """Publishes many events in full batches and gives their results, aligned with `events`.

        An item that is no valid event has a `rejected` result under the name `router` and harms no other;
        otherwise as `publish_event`. While nothing fails, each platform gets the events of one call in their
        order, but those of a FAILOVER rule in calls of their own; order per key is the outbox's.
        """
        deadline = self._deadline(timeout)
        results: list[PublishResults | None] = [None] * len(events)
        groups: dict[str | None, tuple[Plan, list[int], list[EncodedEvent]]] = {}
        for index, event in enumerate(events):
            try:
                encoded = encode(event)
                rule = self._rules.decide(encoded)
                name = None if rule is None else rule.name
                group = groups.get(name)
                if group is None:
                    group = groups[name] = (self._plan_of(rule), [], [])
            except (InvalidEventError, UnroutableEventError) as error:
                results[index] = self._refuse(error)
                continue
            group[1].append(index)
            group[2].append(encoded)
        if self._hooks and groups:
            counts = {(plan.rule, plan.strategy): len(members) for plan, members, _ in groups.values()}
            self._hooks(Decided(counts))
        deliveries = [Delivery(*group) for group in groups.values()]
        self._begin()
        try:
            await self._deliver(deliveries, deadline)
        finally:
            self._end()
        for delivery in deliveries:
            for position, index in enumerate(delivery.indices):
                results[index] = delivery.results(position)
        return [result for result in results if result is not None]

    def plan_event(self, event: EncodedEvent) -> Plan:
        """What the rules decide for an event now.

        Raises `UnroutableEventError` when no rule takes it and `RouterConfig.unrouted` says to refuse it.
        """
        return self._plan(event)

    async def publish_planned(
        self, deliveries: Sequence[tuple[EncodedEvent, Plan]], *, timeout: float
    ) -> list[PublishResults]:
        """Carries out plans that were made before, whatever the rules say now; results aligned with `deliveries`.

        Each platform is tried once: whoever keeps events (the outbox) keeps the time of their retries too.
        Raises `RouterClosedError` when the router is not open. Cancelled, each event may or may not have been
        stored by each platform of its plan.
        """
        deadline = self._deadline(timeout)
        # By identity: hashing a plan costs more than a second group of equal ones.
        groups: dict[int, tuple[Plan, list[int], list[EncodedEvent]]] = {}
        for index, (event, plan) in enumerate(deliveries):
            group = groups.get(id(plan))
            if group is None:
                group = groups[id(plan)] = (plan, [], [])
            group[1].append(index)
            group[2].append(event)
        batches = [Delivery(*group) for group in groups.values()]
        self._begin()
        try:
            await self._deliver(batches, deadline, retry=False)
        finally:
            self._end()
        results: list[PublishResults] = [_NO_RESULTS] * len(deliveries)
        for batch in batches:
            for position, index in enumerate(batch.indices):
                results[index] = batch.results(position)
        return results

    def _refuse(self, error: InvalidEventError | UnroutableEventError) -> PublishResults:
        refused = PublishResult(ROUTER, Outcome.REJECTED, error)
        if self._hooks:
            self._hooks(Settled(ROUTER, [refused]))
        return PublishResults({ROUTER: refused}, delivered=False, rule=None, strategy=None)

    async def _deliver(self, deliveries: Sequence[Delivery], deadline: float, *, retry: bool = True) -> None:
        await deliver_batch(
            deliveries, self._destinations, deadline,
            clock=self._clock, sticky=self._sticky, hooks=self._hooks, retry=retry,
        )  # fmt: skip

    def _deadline(self, timeout: float | None) -> float:
        self._require_open()
        if timeout is not None and math.isnan(timeout):
            raise ValueError("timeout = nan: give a number of seconds, or None")
        return self._clock.monotonic() + (self._config.timeout if timeout is None else timeout)

    def _require_open(self) -> None:
        if not self._is_open:
            raise RouterClosedError("the router is not open; use it inside `async with router:`")

    def _begin(self) -> None:
        self._under_way += 1
        self._idle.clear()

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def _wait_until_idle(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()

    def _plan(self, event: EncodedEvent) -> Plan:
        return self._plan_of(self._rules.decide(event))

    def _plan_of(self, rule: RoutingRule | None) -> Plan:
        name = None if rule is None else rule.name
        plan = self._plans.get(name)
        if plan is None:
            primary = None if rule is None and self._config.unrouted == "refuse" else self._primary
            plan = make_plan(rule, registered=tuple(self._destinations), primary=primary)
            self._plans[name] = plan
        return plan

    # ------------------------------------------------------------------ rules

    @property
    def is_open(self) -> bool:
        """Whether it was entered and not closed since."""
        return self._is_open

    @property
    def platforms(self) -> tuple[str, ...]:
        """The names of the platforms in registration order."""
        return tuple(self._destinations)

    def is_available(self, platform: str) -> bool:
        """Whether a platform is configured, enabled, and its breaker closed."""
        destination = self._destinations.get(platform)
        return destination is not None and destination.availability is Availability.USABLE

    @property
    def routing_rules(self) -> tuple[RoutingRule, ...]:
        """The rules in the order in which they are asked."""
        return tuple(self._rules)

    def add_routing_rule(self, rule: RoutingRule, *, replace: bool = False) -> None:
        """Adds a rule, effective from the next event; with `replace` the rule of the same name goes.

        Raises `RuleError` when the name is taken, or a platform is neither registered here nor one that the
        package knows (`Platform`).
        """
        self._require_known_platforms(rule)
        self._rules.add(rule, replace=replace)
        self._forget(rule.name)

    def remove_routing_rule(self, name: str) -> RoutingRule:
        """Removes a rule by name and gives it back. Raises `RuleError` when there is none."""
        rule = self._rules.remove(name)
        self._forget(name)
        return rule

    def replace_routing_rules(self, rules: Iterable[RoutingRule]) -> None:
        """Puts these rules in place of all others at once; when one of them cannot work, nothing changes."""
        fresh = list(rules)
        for rule in fresh:
            self._require_known_platforms(rule)
        gone = [rule.name for rule in self._rules]
        self._rules.replace_all(fresh)
        for name in gone:
            self._forget(name)

    def _forget(self, rule: str) -> None:
        self._plans.pop(rule, None)
        self._sticky.forget(rule)

    def explain(self, event: CloudEvent | object, *, assume_down: Collection[str] = ()) -> Explanation:
        """Says which rule takes an event, why the others do not, and where it would go; publishes nothing."""
        for name in (assume_down,) if isinstance(assume_down, str) else assume_down:
            self._destination(name)
        encoded = encode(event)
        plan = self._plan(encoded)
        return explain(
            encoded, self._rules.explain(encoded), plan, self._destinations,
            {assume_down} if isinstance(assume_down, str) else set(assume_down),
            sticky=self._sticky.get(plan),
        )  # fmt: skip

    def _require_known_platforms(self, rule: RoutingRule | object) -> None:
        if not isinstance(rule, RoutingRule):
            raise RuleError("routing rule", [f"{rule!r} is no RoutingRule; make one, or read it with load_rules"])
        known = {*self._destinations, *(platform.value for platform in Platform)}
        if unknown_platforms(rule, known):
            raise unknown_platforms_error(rule, known)

    # ------------------------------------------------------------------ operation

    def disable(self, platform: str) -> None:
        """Takes a platform out for maintenance: its events are `skipped`, FAILOVER passes over it."""
        self._destination(platform).disabled = True

    def enable(self, platform: str) -> None:
        """Ends what `disable` began."""
        self._destination(platform).disabled = False

    async def check_platforms(self) -> None:
        """Checks all platforms now instead of at the next interval. Raises `RouterClosedError` when not open."""
        self._require_open()
        await asyncio.gather(*(destination.check() for destination in self._destinations.values()))

    def get_platform_status(self) -> dict[str, Any]:
        """All platforms' state, the rules and a summary as plain values, fit for JSON, without secrets."""
        healthy = {name: destination.is_healthy for name, destination in self._destinations.items()}
        return {
            "platforms": {
                name: {"is_primary": name == self._primary, **destination.describe()}
                for name, destination in self._destinations.items()
            },
            "routing_rules": [
                {
                    "name": rule.name,
                    "pattern": rule.event_type_pattern,
                    "platforms": list(rule.platforms),
                    "strategy": rule.strategy.value,
                    "priority": rule.priority,
                    "conditional": rule.conditions is not None,
                }
                for rule in self._rules
            ],
            "health_summary": {
                "total_platforms": len(healthy),
                "healthy_platforms": sum(healthy.values()),
                "primary_platform": self._primary,
                "primary_platform_healthy": healthy[self._primary],
            },
        }

    def _destination(self, platform: str) -> Destination:
        try:
            return self._destinations[platform]
        except KeyError:
            known = ", ".join(self._destinations)
            raise ConfigurationError("EventRouter", [f"no platform {platform!r}; there are: {known}"]) from None


def _check_platforms(publishers: Mapping[str, Publisher], primary: str | None, config: RouterConfig) -> None:
    problems = []
    if not publishers:
        problems.append("has no platforms; give it at least one publisher")
    if primary is not None and primary not in publishers:
        problems.append(f"primary = {primary!r} is not among its platforms: {', '.join(publishers) or 'none'}")
    given: list[tuple[object, object]] = list(publishers.items())
    for name, publisher in given:
        try:
            check_platform_name(name)
        except ValueError as error:
            problems.append(str(error))
        if isinstance(publisher, type) or not isinstance(publisher, Publisher):
            problems.append(f"{publisher!r} for platform {name!r} is no Publisher; see oms_events.Publisher")
    problems += [
        f"config.platforms names {name!r}, which nobody knows; its platforms: {', '.join(publishers) or 'none'}"
        for name in config.platforms
        if name not in {*publishers, *(platform.value for platform in Platform)}
    ]
    if problems:
        raise ConfigurationError("EventRouter", problems)
