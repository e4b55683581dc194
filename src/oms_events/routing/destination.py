"""A destination: publisher + breaker + health + retry + batcher, the thing that the router talks to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from oms_events._aio import Clock, PeriodicTask, cancelled_from_outside
from oms_events.errors import (
    FailureClass,
    PublishError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import CheckEnded, Hooks, Settled
from oms_events.publishing import Outcome, Publisher, PublishResult
from oms_events.resilience.breaker import BreakerState
from oms_events.resilience.health import Health
from oms_events.routing.batcher import Batcher
from oms_events.routing.caller import Caller, grace
from oms_events.routing.config import DestinationConfig
from oms_events.routing.progress import Answer, NotSentError, Progress
from oms_events.routing.retry import retry
from oms_events.routing.strategies import Availability

_log = logging.getLogger("oms_events")
_NEUTRAL = (FailureClass.ADDRESS_DENIED, FailureClass.EVENT_REJECTED)


class Destination:
    """Delivers events to one platform and never raises for a failed delivery."""

    def __init__(
        self,
        name: str,
        publisher: Publisher,
        config: DestinationConfig,
        *,
        clock: Clock,
        rng: random.Random,
        hooks: Hooks,
        on_check_ok: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.name = name
        self.health = Health()
        self._publisher = publisher
        self._traits = publisher.traits
        self._config = config
        self._clock = clock
        self._rng = rng
        self._hooks = hooks
        self._on_check_ok = on_check_ok
        self._failed_checks = 0
        self._caller = Caller(name, publisher, config, clock=clock, rng=rng, hooks=hooks, health=self.health)
        self._batcher = Batcher(self._caller.send, self._traits, name=f"oms-events-{name}")
        self._checks = PeriodicTask(
            self.check, interval=config.check_interval, name=f"oms-events-{name}-check", clock=clock
        )

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """Checks the platform once, which opens the publisher, and from then on at the interval.

        Raises `ConfigurationError` or `MissingExtraError` when the publisher can never open.
        """
        self._caller.closing = False
        self._caller.misconfigured = None
        await self.check()
        if self._caller.misconfigured is not None:
            raise self._caller.misconfigured
        self._checks.start()

    def abort(self) -> int:
        """Ends all calls under way and counts them: what is on the wire is `unknown`, the rest is not sent."""
        return self._caller.abort()

    async def close(self, *, timeout: float) -> None:
        """Ends checks and calls, and closes the publisher, for which it has `timeout` seconds. Idempotent."""
        self._caller.abort()
        await self._checks.stop()
        await self._batcher.close()
        await self._caller.close(timeout=timeout)

    # ------------------------------------------------------------------ state

    @property
    def disabled(self) -> bool:
        """Whether it is taken out for maintenance."""
        return self._caller.disabled

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self._caller.disabled = value

    @property
    def availability(self) -> Availability:
        """What FAILOVER may do with this platform now."""
        if self.why_skipped() is not None:
            return Availability.DOWN
        is_closed = self._caller.breaker.state is BreakerState.CLOSED
        return Availability.USABLE if is_closed else Availability.PROBE

    @property
    def is_healthy(self) -> bool:
        """Enabled, its breaker closed, and its last check good."""
        is_closed = self._caller.breaker.state is BreakerState.CLOSED
        return is_closed and not self.disabled and self.health.check_error is None

    def why_skipped(self) -> SkippedError | None:
        """Why an event would not even be attempted now; None when it would."""
        return self._caller.why_skipped()

    def describe(self) -> dict[str, Any]:
        """The platform's state as plain values, without secrets."""
        try:
            publisher: dict[str, Any] = getattr(self._publisher, "describe", dict)()
        except Exception as error:
            _log.exception("describing the publisher of platform %s failed", self.name)
            publisher = {"error": repr(error)}
        return {
            "healthy": self.is_healthy,
            "disabled": self.disabled,
            "breaker": self._caller.breaker.state.value,
            "in_flight": self._caller.slots.in_use,
            **self.health.describe(),
            "publisher": publisher,
        }

    # ------------------------------------------------------------------ publishing

    async def publish(
        self, events: Sequence[EncodedEvent], deadline: float, *, retry: bool = True
    ) -> list[PublishResult]:
        """Delivers events until `deadline` (of the clock's monotonic time), retries included if wanted.

        Results are aligned with `events`. Cancelled, each event may or may not have been stored.
        """
        if self.why_skipped() is not None:
            return self.pass_over(len(events))
        started = self._clock.monotonic()
        progress = Progress(events)
        await self._attempt(progress, range(len(events)), deadline)
        if retry and progress.has_failures:
            await self._retry(progress, deadline)
        latency = self._clock.monotonic() - started
        return self._settle(progress.results(self.name, latency, deduplicates=self._traits.deduplicates))

    def pass_over(self, count: int) -> list[PublishResult]:
        """The results of events that are owed here, but not attempted."""
        skipped = self.why_skipped() or SkippedError(f"{self.name} was passed over: it was not available then")
        return self._settle([PublishResult(self.name, Outcome.SKIPPED, skipped)] * count)

    def _settle(self, results: list[PublishResult]) -> list[PublishResult]:
        self.health.settled(results, self._clock.now())
        if self._hooks:
            self._hooks(Settled(self.name, results))
        return results

    async def _attempt(self, progress: Progress, indices: Sequence[int], deadline: float) -> None:
        if self._traits.gather and len(indices) == 1:
            progress.take(indices, (await self._gathered(progress.events[indices[0]], deadline),))
        else:
            events = progress.events
            if len(indices) < len(events):
                events = [events[index] for index in indices]
            progress.take(indices, await self._caller.send(events, deadline, deadline))

    async def _gathered(self, event: EncodedEvent, deadline: float) -> Answer:
        timeout = deadline - self._clock.monotonic()
        not_sent = NotSentError(f"the deadline passed before the event could be sent to {self.name}")
        if timeout <= 0:
            return not_sent
        waiting = self._batcher.submit(event, deadline)
        try:
            # The call keeps its deadline and answers first; this is for events with an earlier one than others.
            async with asyncio.timeout(timeout + 2 * grace(timeout)):
                return await waiting.answer
        except TimeoutError:
            if self._batcher.withdraw(waiting):
                return not_sent
            return UnknownOutcomeError("the time was up before the platform answered")
        finally:
            self._batcher.withdraw(waiting)

    async def _retry(self, progress: Progress, deadline: float) -> None:
        async def again(indices: Sequence[int]) -> None:
            await self._attempt(progress, indices, deadline)

        await retry(
            again, progress, self._config.retry, deadline,
            platform=self.name, clock=self._clock, sleep=self._caller.sleep, draw=self._rng.random,
            hooks=self._hooks, health=self.health,
        )  # fmt: skip

    # ------------------------------------------------------------------ checks

    async def check(self) -> None:
        """Checks the platform once and tells breaker and health. Never raises for what it finds."""
        if self.disabled:
            return
        started = self._clock.monotonic()
        error = await self._probe()
        if self._caller.closing:
            return
        self._learn(error)
        self.health.checked(error, self._clock.now())
        if error is None:
            self._on_check_ok(self.name)
        if self._hooks:
            text = None if error is None else str(error)
            self._hooks(CheckEnded(self.name, text, self._clock.monotonic() - started))

    def _learn(self, error: PublishError | None) -> None:
        breaker = self._caller.breaker
        if error is None:
            self._failed_checks = 0
        admitted, epoch = breaker.admit(1)
        if not admitted:
            return
        if error is None and breaker.state is BreakerState.HALF_OPEN:
            breaker.record(1, epoch, delivered=1)
        elif error is None or error.throttled or error.failure in _NEUTRAL:
            # While closed, only delivered events prove delivery: a good check does not hide failed publishes.
            breaker.release(1, epoch)
        else:
            self.health.failed(error, self._clock.now())
            self._failed_checks += 1
            # A row of its own: good checks do not end a row of failed publishes, but one of failed checks.
            in_a_row = self._failed_checks >= self._config.breaker.failure_threshold
            denied = in_a_row or error.failure is FailureClass.PLATFORM_DENIED
            failed = breaker.state is BreakerState.HALF_OPEN
            breaker.record(1, epoch, failed=int(failed), denied=denied)

    async def _probe(self) -> PublishError | None:
        try:
            async with asyncio.timeout(self._config.check_timeout):
                error = await self._caller.open()
                if error is not None:
                    return error
                await self._publisher.check()
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            return TransientError("the check was cancelled from inside")
        except TimeoutError:
            return UnknownOutcomeError(f"no answer to the check within {self._config.check_timeout} s")
        except PublishError as error:
            if error.failure is FailureClass.PLATFORM_DENIED:
                self._caller.reopen()
            return error
        except Exception as error:
            _log.exception("checking platform %s failed", self.name)
            return TransientError(f"the check failed: {error!r}")
        return None
