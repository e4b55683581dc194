"""The guards around one start: idempotency, quota, breaker and exclusion, in that order."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from oms_events._aio import Clock, in_parting_time, seen_through
from oms_events.errors import (
    LeaseHeldError,
    LeaseLostError,
    PayloadMismatchError,
    RunInProgressError,
    StorageError,
)
from oms_events.idempotency.config import IdempotencyOptions
from oms_events.idempotency.records import item_key
from oms_events.idempotency.run import BY_KEY, IdempotentRun
from oms_events.idempotency.store import IdempotencyStore
from oms_events.triggers.config import TriggerConfig, quota_name
from oms_events.triggers.endings import Stopped
from oms_events.triggers.guards.breaker import Permit, TriggerBreakers
from oms_events.triggers.guards.exclusion import Exclusive, Leases
from oms_events.triggers.guards.rate import Behind, RateLimiter
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.request import TriggerRequest

_log = logging.getLogger("oms_events")

PREFIX: Final = "trigger"
"""Of the keys under which starts are recorded."""

Work = Callable[[int | None], Awaitable[Any]]
"""What is guarded; it is given the fence of its lease, where it has one. It raises `Stopped` to say no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """What guards starts; each may be missing."""

    idempotency: IdempotencyStore | None = None
    breaker: TriggerBreakers | None = None
    rate: RateLimiter | None = None
    leases: Leases | None = None


class Ran(NamedTuple):
    """What a start gave; `replayed`: it ran before, and this is what it gave then."""

    result: Any
    replayed: bool = False


class _Run(Protocol):
    replayed: bool
    result: Any


@dataclass(slots=True)
class _Unrecorded:
    replayed: bool = False
    result: Any = None


class _Interrupted(Exception):  # noqa: N818
    """A `KeyboardInterrupt` on its way out of the guards: they look after exceptions."""


class Admission:
    """Lets a start through all guards, or raises `Stopped`, and tells them afterwards how it ended.

    Cancelled at any moment, it leaves no record, no lease and no trial behind; where their storage does not answer
    within seconds they expire.
    """

    def __init__(self, guards: Guards, config: TriggerConfig, *, clock: Clock) -> None:
        self._guards = guards
        self._config = config
        self._clock = clock
        self._options = IdempotencyOptions(
            in_progress_for=config.in_progress_for, keep_for=config.keep_for, on_unstorable="omit"
        )

    async def run(
        self,
        key: str,
        payload: Mapping[str, Any] | None,
        request: TriggerRequest,
        work: Work,
        *,
        waited: bool = False,
    ) -> Ran:
        """Runs `work` once per key. Only what ends well is recorded; a repeated start gets what the first gave.

        `waited`: it comes from the delay queue, and goes before those that have just come.
        """
        run: _Run = _Unrecorded()
        settlement: _Settlement | None = None
        try:
            # What is held outlasts the record: others wait until it says that the work is done.
            async with AsyncExitStack() as held, self._once(key, payload) as run:
                if run.replayed:
                    return Ran(run.result, replayed=True)
                await self._take_quota(request, waited=waited)
                settlement = _Settlement(self._guards.breaker, await self._permit(request))
                held.push_async_exit(settlement)
                fence = await self._take_lease(request, held)
                try:
                    run.result = await work(fence)
                except KeyboardInterrupt as error:
                    raise _Interrupted from error
                settlement.has_run = True
        except _Interrupted:
            raise KeyboardInterrupt from None
        except Exception as error:
            if settlement is None or not settlement.has_run:
                _raise_as_stopped(error, request)
                raise
            _log.warning("%s has run, but its guards could not be given back and will expire: %r", key, error)
        return Ran(run.result)

    async def stands(self, key: str, request: TriggerRequest) -> bool:
        """Whether a start runs under this key, or has run. Raises `Stopped` when that cannot be known."""
        if self._guards.idempotency is None:
            return False
        try:
            record = await self._guards.idempotency.read(item_key(PREFIX, key))
        except StorageError as error:
            _raise_as_stopped(error, request)
            raise
        return record is not None and record.is_live(int(self._clock.now().timestamp()))

    async def let_wait(self, request: TriggerRequest, stop: Stopped) -> None:
        """Keeps room in the quota that stopped a start, for when it comes back. Raises nothing."""
        name = quota_name(request.trigger_type)
        quota = self._config.quotas.get(name)
        if self._guards.rate is None or quota is None or stop.problems[0].code != Code.RATE_LIMITED:
            return
        try:
            # What the quota itself says: who only had to stand behind others keeps nobody from going. And not for
            # longer, as those that it keeps back would find the quota full, and mark it, when they come again.
            wait = await self._guards.rate.look(name, quota, waited=True)
            if wait > 0:
                told = wait if stop.retry_after is None else stop.retry_after
                await self._guards.rate.mark_waiting(name, min(wait, told))
        except Exception as error:
            _log.warning("starts that come later may go before %s: %r", request.correlation_id, error)

    async def rehearse(self, request: TriggerRequest, work: Work, *, waited: bool = False) -> Ran:
        """Runs `work` as a dry run: its quota is taken and its breaker looked at, and nothing is recorded."""
        try:
            await self._take_quota(request, waited=waited)
            if self._guards.breaker is not None:
                wait = await self._guards.breaker.look(request.domain, request.table_name)
                if wait > 0:
                    raise _open(wait, request)
        except Exception as error:
            _raise_as_stopped(error, request)
            raise
        return Ran(await work(None))

    def _once(self, key: str, payload: Mapping[str, Any] | None) -> AbstractAsyncContextManager[_Run]:
        if self._guards.idempotency is None:
            return nullcontext(_Unrecorded())
        return IdempotentRun(
            self._guards.idempotency,
            key,
            prefix=PREFIX,
            payload=BY_KEY if payload is None else payload,
            options=self._options,
            clock=self._clock,
        )

    async def _take_quota(self, request: TriggerRequest, *, waited: bool) -> None:
        name = quota_name(request.trigger_type)
        quota = self._config.quotas.get(name)
        if self._guards.rate is None or quota is None:
            return
        wait = await self._guards.rate.take(name, quota, waited=waited)
        if wait > 0:
            why = f"{quota.limit} starts in {quota.window:g} s were made already"
            if isinstance(wait, Behind):
                why = "others have waited longer"
            remedy = f"{why}; try again in {wait:.1f} s"
            raise Stopped(
                Problem(Code.RATE_LIMITED, remedy, "trigger_type", request.trigger_type), retry_after=wait
            )

    async def _permit(self, request: TriggerRequest) -> Permit | None:
        if self._guards.breaker is None:
            return None
        said = await self._guards.breaker.admit(request.domain, request.table_name)
        if isinstance(said, Permit):
            return said
        raise _open(said, request)

    async def _take_lease(self, request: TriggerRequest, held: AsyncExitStack) -> int | None:
        leases = self._guards.leases
        if leases is None or request.trigger_type not in self._config.exclusive:
            return None
        key = f"{request.domain}:{request.table_name}"
        lease = await held.enter_async_context(
            Exclusive(leases, key, seconds=self._config.lease_time, clock=self._clock)
        )
        return lease.fence


class _Settlement:
    """Tells a breaker how a start ended that it let through; never raises, but when it is cancelled."""

    def __init__(self, breaker: TriggerBreakers | None, permit: Permit | None) -> None:
        self._breaker = breaker
        self._permit = permit
        self.has_run = False
        """Whether the work was done: whatever fails afterwards."""

    async def __call__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._breaker is None or self._permit is None:
            return
        if error is None or self.has_run:
            await self._tell(self._breaker.succeeded(self._permit))
        elif isinstance(error, Stopped) and error.counts:
            await self._tell(self._breaker.failed(self._permit))
        else:
            await self._tell(self._breaker.released(self._permit))

    async def _tell(self, call: Coroutine[Any, Any, None]) -> None:
        try:
            # The start has ended: who cancels it now would leave its trial behind.
            await seen_through(in_parting_time(call), name="oms-events-trigger-settlement")
        except Exception as error:
            _log.warning("the breaker was not told how a start ended: %r", error)


def _open(wait: float, request: TriggerRequest) -> Stopped:
    what = f"starts of {request.domain}:{request.table_name}"
    remedy = f"{what} failed too often; mend what fails and reset the breaker, or try again in {wait:.0f} s"
    return Stopped(Problem(Code.BREAKER_OPEN, remedy, "table_name", request.table_name), retry_after=wait)


def _raise_as_stopped(error: Exception, request: TriggerRequest) -> None:
    """Raises what a guard raised as how the start ends; other errors are not its business."""
    found = _problem(error, request)
    if found is not None:
        raise Stopped(found, retry_after=_retry_after(error)) from error


def _problem(error: Exception, request: TriggerRequest) -> Problem | None:
    correlation_id, table = request.correlation_id, request.table_name
    match error:
        case RunInProgressError():
            remedy = "the same start is at work; try again later"
            return Problem(Code.IN_PROGRESS, remedy, "correlation_id", correlation_id)
        case PayloadMismatchError():
            remedy = "a start with this id asked for something else; give each start an id of its own"
            return Problem(Code.PAYLOAD_MISMATCH, remedy, "correlation_id", correlation_id)
        case LeaseHeldError():
            remedy = f"a start of {request.domain}:{table} is at work; try again later"
            return Problem(Code.ALREADY_RUNNING, remedy, "table_name", table)
        case LeaseLostError():
            remedy = "its lease was lost, and it was stopped, as another may run; try again later"
            return Problem(Code.FAILED, remedy)
        case StorageError():
            remedy = "the guards' storage did not do what was asked, and nothing was started; try again later"
            return Problem(Code.STORAGE_UNAVAILABLE, remedy)
        case _:
            return None


def _retry_after(error: Exception) -> float | None:
    match error:
        case RunInProgressError():
            return error.expires_in
        case LeaseHeldError() | StorageError():
            return error.retry_after
        case _:
            return None
