"""Breakers that stop starts of a domain and table: the port, what they decide, and some in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol, Self

from oms_events._aio import Clock, SystemClock
from oms_events.instrumentation.hooks import Hook, Hooks, TriggerBreakerChanged
from oms_events.resilience.breaker import BreakerState
from oms_events.triggers.config import BreakerOptions
from oms_events.triggers.guards.times import moment_of, seconds_of, since_epoch, span
from oms_events.triggers.request import WORD, WORD_REMEDY

RECOVERING: Final = "the recovery time is over: one trial"
RECOVERED: Final = "the trial went well"
FAILED_AGAIN: Final = "the trial failed"
RESET: Final = "reset"


@dataclass(frozen=True, slots=True)
class Permit:
    """A start that a breaker let through: give it back, once, with how the start ended.

    `trial` is set when the breaker is half-open and this is its one trial. `token` tells the start from others;
    `epoch` rises whenever the breaker closes, so that what was admitted before is known to be old.
    """

    domain: str
    table_name: str
    trial: str | None = None
    token: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerView:
    """How a breaker stands now.

    `failures` are those that count yet, `last_failure` and `opened_at` are UTC, `retry_after` are the seconds
    until a trial is let through, `trial_running` says whether one is at work.
    """

    domain: str
    table_name: str
    state: BreakerState
    failures: int
    last_failure: datetime | None
    opened_at: datetime | None
    retry_after: float
    trial_running: bool


class TriggerBreakers(Protocol):
    """One breaker per domain and table, shared by all instances.

    It opens at `failure_threshold` failures within `failure_window`, whatever went well between them; after
    `recovery_time` one trial is let through: if it goes well the breaker closes and forgets its failures, if it
    fails the breaker stays open for another `recovery_time`. Permits from before the breaker last opened or closed
    change nothing. Raises `ValueError` for a domain or table name that is none, and a `StorageError` when the
    state cannot be known or changed: then nothing may start.
    """

    async def open(self) -> None:
        """Connects; idempotent. The first call does it too."""
        ...

    async def close(self) -> None:
        """Closes what was opened here; idempotent."""
        ...

    async def admit(self, domain: str, table_name: str) -> Permit | float:
        """Lets a start through, or says after how many seconds to ask again: open, or its trial is under way.

        A permit is given back with `succeeded`, `failed` or `released`; a trial that never is, because its process
        crashed, is replaced after `trial_time`. Cancelled, it leaves no trial behind.
        """
        ...

    async def look(self, domain: str, table_name: str) -> float:
        """The seconds that `admit` would say, or 0.0 where it would let a start through; changes nothing."""
        ...

    async def succeeded(self, permit: Permit) -> None:
        """The start went well: a trial closes the breaker. A second time it is harmless."""
        ...

    async def failed(self, permit: Permit) -> None:
        """The start failed: it counts, once however often it is said; a trial opens the breaker again."""
        ...

    async def released(self, permit: Permit) -> None:
        """The start says nothing about its domain and table: cancelled, or refused. Another trial may follow."""
        ...

    async def views(self) -> list[BreakerView]:
        """The breakers that are open or have failures that count, by domain and table; the others are closed."""
        ...

    async def reset(self, domain: str, table_name: str) -> bool:
        """Closes a breaker and forgets its failures; false when there was nothing to forget."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRecord:
    """What is kept of a breaker: times in microseconds since 1970, failures and their permits newest first."""

    failures: tuple[int, ...] = ()
    permits: tuple[str, ...] = ()
    opened_at: int | None = None
    trial: str | None = None
    trial_until: int | None = None
    epoch: int = 0
    closed_by: str | None = None
    """The trial, or the reset, that closed it last."""

    def state(self, options: BreakerOptions, now: int) -> BreakerState:
        """Closed, open, or half-open once the recovery time is over."""
        if self.opened_at is None:
            return BreakerState.CLOSED
        is_over = now >= self.opened_at + span(options.recovery_time)
        return BreakerState.HALF_OPEN if is_over else BreakerState.OPEN

    def trial_runs(self, now: int) -> bool:
        """Whether a trial is at work that does not count as crashed."""
        return self.trial is not None and self.trial_until is not None and now < self.trial_until

    def wait(self, options: BreakerOptions, now: int) -> float:
        """Seconds after which to ask again; 0.0: a start, or a trial, is let through now."""
        if self.opened_at is None:
            return 0.0
        recovery = span(options.recovery_time)
        if now < self.opened_at + recovery:
            return seconds_of(self.opened_at + recovery - now)
        if self.trial_until is not None and self.trial_runs(now):
            # It may end long before it counts as crashed.
            return seconds_of(min(self.trial_until - now, recovery))
        return 0.0

    def counting(self, options: BreakerOptions, now: int) -> int:
        """How many failures are in the window."""
        since = now - span(options.failure_window)
        return sum(failure > since for failure in self.failures)

    def takes(self, permit: Permit) -> bool:
        """Whether this failure counts: it is of the breaker's time, closed as it is, and was not said before."""
        return self.opened_at is None and self.epoch in (0, permit.epoch) and permit.token not in self.permits

    def opens(self, options: BreakerOptions, now: int) -> bool:
        """Whether one more failure opens it."""
        place = options.failure_threshold - 2
        if place < 0:
            return True
        return len(self.failures) > place and self.failures[place] > now - span(options.failure_window)

    def view(self, domain: str, table_name: str, options: BreakerOptions, now: int) -> BreakerView:
        return BreakerView(
            domain=domain,
            table_name=table_name,
            state=self.state(options, now),
            failures=self.counting(options, now),
            last_failure=moment_of(self.failures[0]) if self.failures else None,
            opened_at=None if self.opened_at is None else moment_of(self.opened_at),
            retry_after=self.wait(options, now),
            trial_running=self.trial_runs(now),
        )


def opened_because(options: BreakerOptions) -> str:
    """Why a breaker opened, in words."""
    return f"{options.failure_threshold} failures within {options.failure_window:g} s"


def check_breaker(domain: str, table_name: str) -> None:
    """Raises `ValueError` for names that no breaker has."""
    for field, word in (("domain", domain), ("table_name", table_name)):
        if WORD.fullmatch(word) is None:
            raise ValueError(f"{field} = {word!r}: {WORD_REMEDY}")


class MemoryBreakers:
    """Breakers of this process only: for tests, and services of one instance."""

    def __init__(
        self, options: BreakerOptions | None = None, *, clock: Clock | None = None, hooks: Iterable[Hook] = ()
    ) -> None:
        self._options = options or BreakerOptions()
        self._clock = clock or SystemClock()
        self._hooks = Hooks(hooks)
        self._records: dict[tuple[str, str], BreakerRecord] = {}

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def admit(self, domain: str, table_name: str) -> Permit | float:
        check_breaker(domain, table_name)
        record, now = self._record(domain, table_name), self._now()
        if wait := record.wait(self._options, now):
            return wait
        token = uuid.uuid4().hex
        if record.opened_at is None:
            return Permit(domain, table_name, token=token, epoch=record.epoch)
        until = now + span(self._options.trial_time)
        self._records[domain, table_name] = replace(record, trial=token, trial_until=until)
        self._tell(domain, table_name, BreakerState.OPEN, BreakerState.HALF_OPEN, RECOVERING)
        return Permit(domain, table_name, trial=token, token=token, epoch=record.epoch)

    async def look(self, domain: str, table_name: str) -> float:
        check_breaker(domain, table_name)
        return self._record(domain, table_name).wait(self._options, self._now())

    async def succeeded(self, permit: Permit) -> None:
        if self._is_trial(permit):
            self._close(permit.domain, permit.table_name)
            self._tell(permit.domain, permit.table_name, BreakerState.HALF_OPEN, BreakerState.CLOSED, RECOVERED)

    async def failed(self, permit: Permit) -> None:
        domain, table_name, now = permit.domain, permit.table_name, self._now()
        record = self._record(domain, table_name)
        if permit.trial is not None:
            if self._is_trial(permit):
                self._records[domain, table_name] = replace(record, opened_at=now, trial=None, trial_until=None)
                self._tell(domain, table_name, BreakerState.HALF_OPEN, BreakerState.OPEN, FAILED_AGAIN)
            return
        if not record.takes(permit):
            return
        kept = self._options.failure_threshold
        counted = replace(
            record, failures=(now, *record.failures)[:kept], permits=(permit.token, *record.permits)[:kept]
        )
        if record.opens(self._options, now):
            counted = replace(counted, opened_at=now)
        self._records[domain, table_name] = counted
        if counted.opened_at is not None:
            why = opened_because(self._options)
            self._tell(domain, table_name, BreakerState.CLOSED, BreakerState.OPEN, why)

    async def released(self, permit: Permit) -> None:
        if self._is_trial(permit):
            record = self._record(permit.domain, permit.table_name)
            self._records[permit.domain, permit.table_name] = replace(record, trial=None, trial_until=None)

    async def views(self) -> list[BreakerView]:
        now = self._now()
        found = (record.view(*key, self._options, now) for key, record in sorted(self._records.items()))
        return [view for view in found if says_something(view)]

    async def reset(self, domain: str, table_name: str) -> bool:
        check_breaker(domain, table_name)
        view = self._record(domain, table_name).view(domain, table_name, self._options, self._now())
        if not says_something(view):
            return False
        self._close(domain, table_name)
        if view.state is not BreakerState.CLOSED:
            self._tell(domain, table_name, view.state, BreakerState.CLOSED, RESET)
        return True

    def _now(self) -> int:
        return since_epoch(self._clock.now())

    def _record(self, domain: str, table_name: str) -> BreakerRecord:
        return self._records.get((domain, table_name), BreakerRecord())

    def _is_trial(self, permit: Permit) -> bool:
        return permit.trial is not None and self._record(permit.domain, permit.table_name).trial == permit.trial

    def _close(self, domain: str, table_name: str) -> None:
        epoch = self._record(domain, table_name).epoch + 1
        self._records[domain, table_name] = BreakerRecord(epoch=epoch)

    def _tell(self, domain: str, table_name: str, old: BreakerState, new: BreakerState, reason: str) -> None:
        self._hooks(TriggerBreakerChanged(domain, table_name, old.value, new.value, reason))


def says_something(view: BreakerView) -> bool:
    """Whether a breaker is worth a line: a closed one without failures is as one that never was."""
    return view.state is not BreakerState.CLOSED or view.failures > 0
