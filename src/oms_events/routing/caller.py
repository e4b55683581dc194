"""Calls one publisher: one attempt per event, as breaker, slots and pace allow, and never past the deadline."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oms_events._aio import Clock, Slots, cancelled_from_outside
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
from oms_events.instrumentation.hooks import BreakerChanged, CallEnded, Hooks
from oms_events.publishing import Publisher, Receipt
from oms_events.resilience.backoff import Pace
from oms_events.resilience.breaker import BreakerState, CircuitBreaker
from oms_events.resilience.health import Health
from oms_events.routing.config import DestinationConfig
from oms_events.routing.progress import Answer, NotSentError, all_receipts

_log = logging.getLogger("oms_events")
_GRACE = 0.25
_LATE_CLOSE = 1.0


def grace(timeout: float) -> float:
    """Seconds that a publisher may be late before its silence is taken for its answer."""
    return min(_GRACE, max(0.0, timeout) / 4)


@dataclass(slots=True)
class _Call:
    """One call to the publisher: what the breaker admitted, how far it came, and what it brought."""

    admitted: int = 0
    epoch: int = 0
    at_once: bool = False
    opening: bool = False
    on_wire: bool = False
    seconds: float = 0.0
    answers: Sequence[Answer] = ()


class Caller:
    """The guarded door to one publisher. Gives an answer for every event, and raises only when cancelled."""

    def __init__(
        self,
        name: str,
        publisher: Publisher,
        config: DestinationConfig,
        *,
        clock: Clock,
        rng: random.Random,
        hooks: Hooks,
        health: Health,
    ) -> None:
        self.disabled = False
        self.closing = False
        self.misconfigured: ConfigurationError | MissingExtraError | None = None
        self.breaker = CircuitBreaker(config.breaker, monotonic=clock.monotonic, on_change=self._breaker_changed)
        self.slots = Slots(config.max_in_flight)
        self._name = name
        self._publisher = publisher
        self._capacity = publisher.traits.max_batch
        self._clock = clock
        self._hooks = hooks
        self._health = health
        self._pace = Pace(monotonic=clock.monotonic, draw=rng.random)
        self._is_open = False
        self._opening = asyncio.Lock()
        self._active: set[asyncio.Timeout] = set()

    # ------------------------------------------------------------------ life

    async def open(self) -> PublishError | None:
        """Opens the publisher unless it is open; gives what stands in the way."""
        async with self._opening:
            if self._is_open:
                return None
            error = self._closed() if self.closing else await self._try_to_open()
            if error is None and self.closing:
                # Closed while it opened: nobody else would close it now.
                await self.close(timeout=_LATE_CLOSE)
                return self._closed()
            self._is_open = error is None
            return error

    async def _try_to_open(self) -> PublishError | None:
        try:
            await self._publisher.open()
        except PublishError as error:
            return error
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            return TransientError("opening the publisher was cancelled from inside")
        except (ConfigurationError, MissingExtraError) as error:
            self.misconfigured = error
            return PlatformDeniedError(str(error))
        except Exception as error:
            _log.exception("opening the publisher of platform %s failed", self._name)
            return TransientError(f"opening the publisher failed: {error!r}")
        return None

    def _closed(self) -> PublishError:
        return NotSentError("the router is closed")

    def reopen(self) -> None:
        """Has the publisher opened again before the next call: the platform denied us."""
        self._is_open = False

    def abort(self) -> int:
        """Ends all calls under way and counts them: what is on the wire is `unknown`, the rest is not sent."""
        self.closing = True
        unfinished = [scope for scope in self._active if not scope.expired()]
        for scope in unfinished:
            scope.reschedule(asyncio.get_running_loop().time())
        return len(unfinished)

    async def close(self, *, timeout: float) -> None:
        """Closes the publisher, for which it has `timeout` seconds. Idempotent."""
        self._is_open = False
        try:
            async with asyncio.timeout(timeout):
                await self._publisher.close()
        except TimeoutError:
            _log.warning("the publisher of platform %s did not close within %s s", self._name, timeout)
        except Exception:
            _log.exception("closing the publisher of platform %s failed", self._name)

    async def sleep(self, seconds: float) -> None:
        """Sleeps, or less when the router is closed meanwhile."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._active.add(scope)
                await self._clock.sleep(seconds)
        except TimeoutError:
            pass
        finally:
            self._active.discard(scope)

    # ------------------------------------------------------------------ calling

    def why_skipped(self) -> SkippedError | None:
        """Why an event would not even be attempted now; None when it would."""
        if self.closing:
            return SkippedError("the router was closed before the event was sent")
        if self.disabled:
            return SkippedError(f"platform {self._name} is disabled; router.enable({self._name!r}) ends that")
        if self.breaker.state is BreakerState.OPEN:
            return SkippedError(
                f"the breaker of {self._name} is open for {self.breaker.retry_in():.1f} s more: "
                f"{self._health.last_error}"
            )
        return None

    async def send(self, events: Sequence[EncodedEvent], wire_by: float, deadline: float) -> Sequence[Answer]:
        """One attempt for each event, as many at a time as breaker and slots allow.

        What is not on the wire at `wire_by` is not sent; what is has its answer until `deadline`.
        """
        answers: list[Answer] = []
        while len(answers) < len(events):
            done = len(answers)
            size = min(len(events) - done, self.slots.capacity)
            part = events if size == len(events) else events[done : done + size]
            answers += await self._send_part(part, wire_by, deadline)
        return answers

    async def _send_part(
        self, events: Sequence[EncodedEvent], wire_by: float, deadline: float
    ) -> Sequence[Answer]:
        """Answers for the first events of a part: all, or as many as a half-open breaker lets through."""
        now = self._clock.monotonic()
        if now >= wire_by:
            return self._not_sent(len(events))
        call = _Call()
        taken = len(events) if self.slots.take_now(len(events)) else 0
        timeout = deadline - now
        # Nearly every call goes out at once: its time is then set once.
        call.at_once = bool(taken) and self._is_open and not self._pace.wait()
        scope = asyncio.timeout(timeout + grace(timeout) if call.at_once else wire_by - now)
        try:
            async with scope:
                self._active.add(scope)
                if not taken:
                    await self.slots.take(len(events))
                    taken = len(events)
                skipped = self.why_skipped()
                if skipped is None:
                    call.admitted, call.epoch = self.breaker.admit(len(events))
                if not call.admitted:
                    busy = SkippedError(f"{self._name} is half-open, and another event probes it now")
                    return [skipped or busy] * len(events)
                await self._call(call, events[: call.admitted], wire_by, deadline, scope)
        except TimeoutError:
            if not call.admitted:
                return self._not_sent(len(events))
            call.answers = self._interrupted(call)
        finally:
            self._active.discard(scope)
            if taken:
                self.slots.give(taken)
            # Cancelled, closed or never sent: that says nothing of the platform.
            if call.admitted and (not call.opening or not call.answers or self.closing):
                self.breaker.release(call.admitted, call.epoch)
        if call.opening and not self.closing:
            self._learn(call)
        return call.answers

    async def _call(
        self,
        call: _Call,
        events: Sequence[EncodedEvent],
        wire_by: float,
        deadline: float,
        scope: asyncio.Timeout,
    ) -> None:
        """One call with events that the breaker admitted, once the platform's pace allows."""
        if not call.at_once:
            pause = self._pace.wait()
            if self._clock.monotonic() + pause >= wire_by:
                call.answers = self._not_sent(len(events))
                return
            if pause:
                await self._clock.sleep(pause)
            call.opening = True
            error = None if self._is_open else await self.open()
            if error is not None:
                call.answers = [error] * len(events)
                return
            if scope.expired():
                # The publisher swallowed the end of its time.
                call.answers = self._interrupted(call)
                return
        started = self._clock.monotonic()
        timeout = deadline - started
        if not call.at_once:
            scope.reschedule(asyncio.get_running_loop().time() + timeout + grace(timeout))
        call.opening = call.on_wire = True
        call.answers = await self._ask(events, timeout)
        call.seconds = self._clock.monotonic() - started

    async def _ask(self, events: Sequence[EncodedEvent], timeout: float) -> Sequence[Answer]:
        try:
            answers: list[Any] = list(await self._publisher.publish(events, timeout=timeout))
        except PublishError as error:
            return [error] * len(events)
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            # Nobody cancelled us: something inside the publisher was.
            return [UnknownOutcomeError("the publisher's call was cancelled from inside")] * len(events)
        except Exception as error:
            _log.exception("the publisher of platform %s raised", self._name)
            return [UnknownOutcomeError(f"the publisher raised {error!r}")] * len(events)
        if len(answers) != len(events):
            wrong = f"the publisher gave {len(answers)} answers for {len(events)} events"
            return [UnknownOutcomeError(wrong)] * len(events)
        if not all_receipts(answers):
            for index, answer in enumerate(answers):
                if not isinstance(answer, Receipt | PublishError):
                    answers[index] = UnknownOutcomeError(f"the publisher gave {answer!r}, which is no answer")
        return answers

    def _interrupted(self, call: _Call) -> Sequence[Answer]:
        """What is known of a call that time, or the closing of the router, has ended."""
        why = "the router was closed" if self.closing else "the time was up"
        if call.on_wire:
            return [UnknownOutcomeError(f"{why} before the platform answered")] * call.admitted
        if call.opening and not self.closing:
            return [TransientError(f"{self._name} could not be opened before {why}")] * call.admitted
        return self._not_sent(call.admitted)

    def _not_sent(self, count: int) -> Sequence[Answer]:
        if self.closing:
            return [SkippedError("the router was closed before the event was sent")] * count
        return [NotSentError(f"the deadline passed before the event could be sent to {self._name}")] * count

    def _learn(self, call: _Call) -> None:
        """Tells breaker, pace, health and hooks how one call went."""
        failures: dict[FailureClass, int] = {}
        throttles: list[float] = []
        errors = [] if all_receipts(call.answers) else [e for e in call.answers if isinstance(e, PublishError)]
        for error in errors:
            if error.throttled:
                throttles.append(error.retry_after or 0.0)
            failures[error.failure] = failures.get(error.failure, 0) + 1
        delivered = len(call.answers) - len(errors)
        if errors:
            self._health.failed(errors[-1], self._clock.now())
        denied = FailureClass.PLATFORM_DENIED in failures
        if denied:
            self.reopen()
        failed = failures.get(FailureClass.UNKNOWN, 0) + failures.get(FailureClass.TRANSIENT, 0) - len(throttles)
        self.breaker.record(call.admitted, call.epoch, delivered=delivered, failed=failed, denied=denied)
        if throttles:
            self._pace.throttled(max(throttles))
        elif delivered:
            self._pace.succeeded()
        if self._hooks and call.on_wire:
            self._hooks(
                CallEnded(
                    self._name,
                    len(call.answers),
                    self._capacity,
                    delivered,
                    failures,
                    bool(throttles),
                    call.seconds,
                )
            )

    def _breaker_changed(self, old: BreakerState, new: BreakerState) -> None:
        if self._hooks:
            reason = self._health.last_error or "" if new is BreakerState.OPEN else ""
            self._hooks(BreakerChanged(self._name, old.value, new.value, reason))
