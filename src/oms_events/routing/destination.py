"""A destination: publisher + breaker + health + retry + batcher, the thing that the router talks to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from oms_events._aio import Clock, PeriodicTask, Slots
from oms_events.errors import (
    ConfigurationError,
    FailureClass,
    MissingExtraError,
    PlatformDeniedError,
    PublishError,
    SkippedError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent
from oms_events.instrumentation.hooks import BreakerChanged, CallEnded, CheckEnded, Hooks, Settled
from oms_events.publishing import Outcome, Publisher, PublishResult, Receipt
from oms_events.resilience.backoff import Pace
from oms_events.resilience.breaker import BreakerState, CircuitBreaker
from oms_events.resilience.health import Health
from oms_events.routing.batcher import Answer, Batcher
from oms_events.routing.config import DestinationConfig
from oms_events.routing.progress import Progress
from oms_events.routing.retry import retry
from oms_events.routing.strategies import Availability

_log = logging.getLogger("oms_events")
_GRACE = 0.25
"""Seconds that a publisher may be late before its silence is taken for its answer."""


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
        self.publisher = publisher
        self.health = Health()
        self.disabled = False
        self.misconfigured: ConfigurationError | MissingExtraError | None = None
        self._config = config
        self._clock = clock
        self._rng = rng
        self._hooks = hooks
        self._on_check_ok = on_check_ok
        self._traits = publisher.traits
        self._breaker = CircuitBreaker(config.breaker, monotonic=clock.monotonic, on_change=self._breaker_changed)
        self._pace = Pace(monotonic=clock.monotonic, draw=rng.random)
        self._slots = Slots(config.max_in_flight)
        self._batcher = Batcher(self._send, self._traits, name=f"oms-events-{name}")
        self._is_open = False
        self._opening = asyncio.Lock()
        self._active: set[asyncio.Timeout] = set()
        self._closing = False
        self._checks = PeriodicTask(
            self.check, interval=config.check_interval, name=f"oms-events-{name}-check", clock=clock
        )

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Starts the active checks; the publisher opens with the first of them or with the first event."""
        self._closing = False
        self._checks.start()

    def abort(self) -> int:
        """Ends all publish calls under way and counts them: what is on the wire is `unknown`, the rest unsent."""
        self._closing = True
        unfinished = [scope for scope in self._active if not scope.expired()]
        for scope in unfinished:
            scope.reschedule(asyncio.get_running_loop().time())
        return len(unfinished)

    async def close(self) -> None:
        """Ends checks and calls and closes the publisher. Idempotent."""
        self._closing = True
        await self._checks.stop()
        await self._batcher.close()
        self._is_open = False
        try:
            await self.publisher.close()
        except Exception:
            _log.exception("closing the publisher of platform %s failed", self.name)

    # ------------------------------------------------------------------ state

    @property
    def availability(self) -> Availability:
        """What FAILOVER may do with this platform now."""
        if self.disabled or self._closing:
            return Availability.DOWN
        match self._breaker.state:
            case BreakerState.CLOSED:
                return Availability.USABLE
            case BreakerState.HALF_OPEN:
                return Availability.PROBE
            case _:
                return Availability.DOWN

    @property
    def is_healthy(self) -> bool:
        """Enabled, its breaker closed, and its last check good."""
        is_closed = self._breaker.state is BreakerState.CLOSED
        return is_closed and not self.disabled and self.health.check_error is None

    def why_skipped(self) -> SkippedError | None:
        """Why an event would not even be attempted now; None when it would."""
        if self._closing:
            return SkippedError("the router is closing")
        if self.disabled:
            return SkippedError(f"platform {self.name} is disabled; router.enable({self.name!r}) ends that")
        if self._breaker.state is BreakerState.OPEN:
            return SkippedError(
                f"the breaker of {self.name} is open for {self._breaker.retry_in():.1f} s more: "
                f"{self.health.last_error}"
            )
        return None

    def describe(self) -> dict[str, Any]:
        """The platform's state as plain values, without secrets."""
        describe = getattr(self.publisher, "describe", dict)
        return {
            "healthy": self.is_healthy,
            "disabled": self.disabled,
            "breaker": self._breaker.state.value,
            "in_flight": self._slots.in_use,
            **self.health.describe(),
            "publisher": describe(),
        }

    # ------------------------------------------------------------------ publishing

    async def publish(self, events: Sequence[EncodedEvent], deadline: float) -> list[PublishResult]:
        """Delivers events until `deadline` (of the clock's monotonic time), retries included.

        Results are aligned with `events`. Cancelled, each event may or may not have been stored.
        """
        skipped = self.why_skipped()
        if skipped is not None:
            return self._settle([PublishResult(self.name, Outcome.SKIPPED, skipped)] * len(events))
        started = self._clock.monotonic()
        progress = Progress(events)
        scope = asyncio.timeout(max(0.0, deadline - started) + _GRACE)
        try:
            async with scope:
                self._active.add(scope)
                await self._attempt(progress, range(len(events)), deadline)
                if progress.has_failures:
                    await self._retry(progress, deadline)
        except TimeoutError:
            progress.interrupt(closing=self._closing)
        finally:
            self._active.discard(scope)
        latency = self._clock.monotonic() - started
        return self._settle(progress.results(self.name, latency, deduplicates=self._traits.deduplicates))

    def _settle(self, results: list[PublishResult]) -> list[PublishResult]:
        self.health.settled(results, self._clock.now())
        if self._hooks:
            self._hooks(Settled(self.name, results))
        return results

    async def _attempt(self, progress: Progress, indices: Sequence[int], deadline: float) -> None:
        if self._traits.gather and len(indices) == 1:
            (index,) = indices
            waiting = self._batcher.submit(progress.events[index], deadline)
            try:
                progress.take(indices, (await waiting.answer,))
            except asyncio.CancelledError:
                self._batcher.withdraw(waiting)
                if waiting.called:
                    progress.on_wire = indices
                raise
        else:
            events = progress.events
            if len(indices) < len(events):
                events = [events[index] for index in indices]
            progress.take(indices, await self._send(events, deadline, progress, indices))

    async def _retry(self, progress: Progress, deadline: float) -> None:
        async def again(indices: Sequence[int]) -> None:
            await self._attempt(progress, indices, deadline)

        await retry(
            again, progress, self._config.retry, deadline,
            platform=self.name, clock=self._clock, draw=self._rng.random, hooks=self._hooks, health=self.health,
        )  # fmt: skip

    async def _send(
        self,
        events: Sequence[EncodedEvent],
        deadline: float,
        progress: Progress | None = None,
        indices: Sequence[int] = (),
    ) -> Sequence[Answer]:
        """One attempt for each event, as many at a time as breaker and slots allow."""
        answers: list[Answer] = []
        while len(answers) < len(events):
            done = len(answers)
            size = min(len(events) - done, self._slots.capacity)
            await self._slots.take(size)
            try:
                admitted, epoch = self._breaker.admit(size)
                if not admitted:
                    skipped = self.why_skipped() or SkippedError(f"{self.name} is being probed by another event")
                    return answers + [skipped] * (len(events) - done)
                part = events if admitted == len(events) else events[done : done + admitted]
                on_wire = indices[done : done + admitted]
                answers += await self._call(part, epoch, deadline, progress, on_wire)
            finally:
                self._slots.give(size)
        return answers

    async def _call(
        self,
        events: Sequence[EncodedEvent],
        epoch: int,
        deadline: float,
        progress: Progress | None,
        on_wire: Sequence[int],
    ) -> Sequence[Answer]:
        """One call of the publisher with events that the breaker admitted, once the platform's pace allows."""
        answers: Sequence[Answer] | None = None
        started = self._clock.monotonic()
        try:
            pause = self._pace.wait()
            if started + pause >= deadline:
                late = TransientError(f"the deadline passed before the event could be sent to {self.name}")
                return [late] * len(events)
            if pause:
                await self._clock.sleep(pause)
            error = None if self._is_open else await self._open()
            if error is not None:
                answers = [error] * len(events)
            else:
                if progress is not None:
                    progress.on_wire = on_wire
                answers = await self._ask(events, deadline - self._clock.monotonic())
                if progress is not None:
                    progress.on_wire = ()
        finally:
            if answers is None:
                self._breaker.release(len(events), epoch)
        self._learn(answers, epoch, self._clock.monotonic() - started)
        return answers

    async def _open(self) -> PublishError | None:
        async with self._opening:
            if self._is_open:
                return None
            try:
                await self.publisher.open()
            except PublishError as error:
                return error
            except (ConfigurationError, MissingExtraError) as error:
                self.misconfigured = error
                return PlatformDeniedError(str(error))
            except Exception as error:
                _log.exception("opening the publisher of platform %s failed", self.name)
                return TransientError(f"opening the publisher failed: {error!r}")
            self._is_open = True
            return None

    async def _ask(self, events: Sequence[EncodedEvent], timeout: float) -> Sequence[Answer]:
        try:
            answers = await self.publisher.publish(events, timeout=timeout)
        except PublishError as error:
            return [error] * len(events)
        except Exception as error:
            _log.exception("the publisher of platform %s raised", self.name)
            return [UnknownOutcomeError(f"the publisher raised {error!r}")] * len(events)
        if len(answers) != len(events):
            wrong = f"the publisher gave {len(answers)} answers for {len(events)} events"
            return [UnknownOutcomeError(wrong)] * len(events)
        return answers

    def _learn(self, answers: Sequence[Answer], epoch: int, seconds: float) -> None:
        """Tells breaker, pace, health and hooks how one call went."""
        failures: dict[FailureClass, int] = {}
        throttles: list[float] = []
        for answer in answers:
            if type(answer) is Receipt:
                continue
            if isinstance(answer, PublishError):
                if answer.throttled:
                    throttles.append(answer.retry_after or 0.0)
                failures[answer.failure] = failures.get(answer.failure, 0) + 1
                last_error = answer
        delivered = len(answers) - sum(failures.values())
        if failures:
            self.health.failed(last_error, self._clock.now())
        denied = FailureClass.PLATFORM_DENIED in failures
        if denied:
            self._is_open = False
        failed = failures.get(FailureClass.UNKNOWN, 0) + failures.get(FailureClass.TRANSIENT, 0) - len(throttles)
        self._breaker.record(len(answers), epoch, delivered=delivered, failed=failed, denied=denied)
        if throttles:
            self._pace.throttled(max(throttles))
        elif delivered:
            self._pace.succeeded()
        if self._hooks:
            self._hooks(
                CallEnded(
                    self.name, len(answers), self._traits.max_batch, delivered, failures, bool(throttles), seconds
                )
            )

    # ------------------------------------------------------------------ checks

    async def check(self) -> None:
        """Checks the platform once and tells breaker and health. Never raises for what it finds."""
        if self.disabled:
            return
        started = self._clock.monotonic()
        error = await self._probe()
        admitted, epoch = self._breaker.admit(1)
        if admitted:
            denied = error is not None and error.failure is FailureClass.PLATFORM_DENIED
            if error is None and self._breaker.state is BreakerState.HALF_OPEN:
                self._breaker.record(1, epoch, delivered=1)
            elif error is None or error.throttled:
                # While closed, only delivered events prove delivery: a good check does not hide failed publishes.
                self._breaker.release(1, epoch)
            else:
                self.health.failed(error, self._clock.now())
                self._breaker.record(1, epoch, failed=1, denied=denied)
        self.health.checked(error, self._clock.now())
        if error is None:
            self._on_check_ok(self.name)
        if self._hooks:
            text = None if error is None else str(error)
            self._hooks(CheckEnded(self.name, text, self._clock.monotonic() - started))

    async def _probe(self) -> PublishError | None:
        try:
            async with asyncio.timeout(self._config.check_timeout):
                if not self._is_open and (error := await self._open()) is not None:
                    return error
                await self.publisher.check()
        except TimeoutError:
            return UnknownOutcomeError(f"no answer to the check within {self._config.check_timeout} s")
        except PublishError as error:
            if error.failure is FailureClass.PLATFORM_DENIED:
                self._is_open = False
            return error
        except Exception as error:
            _log.exception("checking platform %s failed", self.name)
            return TransientError(f"the check failed: {error!r}")
        return None

    def _breaker_changed(self, old: BreakerState, new: BreakerState) -> None:
        if self._hooks:
            reason = self.health.last_error or "" if new is BreakerState.OPEN else ""
            self._hooks(BreakerChanged(self.name, old.value, new.value, reason))
