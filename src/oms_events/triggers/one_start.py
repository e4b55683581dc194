"""One start on its whole way: completed, checked, guarded, run, and set aside where it has to wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from oms_events._aio import Clock, parting_until
from oms_events._text import one_line
from oms_events.errors import QueueError, StorageError
from oms_events.instrumentation.correlation import correlated
from oms_events.instrumentation.hooks import Hooks, Triggered
from oms_events.triggers.admission import Admission, Ran
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.endings import BUSY, SKIPPED, Ending, Stopped, answer, rejection, success
from oms_events.triggers.parts import Parts
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.request import TriggerRequest, is_correlation_id
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.setting_aside import Aside
from oms_events.triggers.start import Draft
from oms_events.triggers.validation import Completed, complete, key_of, own_key, payload_of
from oms_events.triggers.work import Worker

_log = logging.getLogger("oms_events")

_LOGGED: Final = 10
"""Problems, and unknown keys, that a line of the log names."""
_LONGEST_NAME: Final = 100
_PARTING_SHARE: Final = 1.5
"""Of the grace, after which the guards are given up: half of it after everything else."""
_LONGEST_REASON: Final = 1_000


def has_caller(draft: Draft) -> bool:
    """Whether somebody waits for the answer, and can try again by himself."""
    return draft.trigger_type == "manual" and draft.queued is None and not draft.is_wrapped


class StartRunner:
    """Runs drafts, one start each; safe to use concurrently."""

    def __init__(
        self,
        worker: Worker,
        admission: Admission,
        aside: Aside,
        *,
        config: TriggerConfig,
        clock: Clock,
        hooks: Hooks,
        make_id: Callable[[], str],
        parts: Parts,
    ) -> None:
        self._worker = worker
        self._admission = admission
        self._aside = aside
        self._config = config
        self._clock = clock
        self._hooks = hooks
        self._make_id = make_id
        self._parts = parts

    async def run(self, draft: Draft, *, until: float | None = None, grace: float = 0.0) -> TriggerResponse:
        """How the start ended. Never raises but `CancelledError`, which leaves no guard taken.

        At `until`, in the loop's time, the handler is cancelled and counts as failed; `grace` seconds later all of
        it is given up, and half of `grace` after that also what the guards still give back.
        """
        began = self._clock.monotonic()
        request, problems, defaulted = self._complete(draft)
        if request is None:
            return self._rejected(draft.trigger_type, _known_id(draft), problems)
        with correlated(request.correlation_id):
            self._tell_of_gaps(draft, request, defaulted)
            try:
                parting = parting_until(None if until is None else until + grace * _PARTING_SHARE)
                with parting:
                    async with asyncio.timeout_at(None if until is None else until + grace):
                        response = await self._guarded(draft, request, until)
            except Exception as error:
                # A guard that breaks, or the time that is over: what is held expires, if it was not given back.
                remedy = f"it failed here with {type(error).__name__}; the log has more. Try again later"
                stop = Stopped(Problem(Code.FAILED, remedy))
                stop.__cause__ = error
                response = self._told(draft, request, stop, stop.ending)
            self._report(draft.trigger_type, request.domain, response, began)
        return response

    def reject(self, reading: Reading) -> TriggerResponse:
        """The answer to an input of which nothing may run: its problems, and all that is wrong with its drafts."""
        drafts = reading.drafts
        found = [*reading.problems, *(problem for draft in drafts for problem in self._complete(draft).problems)]
        correlation_id = (_known_id(drafts[0]) if drafts else None) or reading.correlation_id
        return self._rejected(_type_of(reading), correlation_id, found, error=reading.error)

    def ignore(self, reading: Reading) -> TriggerResponse:
        """The answer to an input that starts nothing, and is right to."""
        began, correlation_id = self._clock.monotonic(), reading.correlation_id
        result = {"ignored": reading.ignored, "reasons": list(reading.reasons)}
        response = success(Status.IGNORED, correlation_id=correlation_id, result=result)
        with correlated(correlation_id):
            _log.info(
                "start %s (%s) is ignored: %s",
                correlation_id,
                reading.trigger_type,
                one_line("; ".join(reading.reasons)[:_LONGEST_REASON]),
                extra={"correlation_id": correlation_id},
            )
            self._report(_type_of(reading), "unknown", response, began)
        return response

    def _complete(self, draft: Draft) -> Completed:
        return complete(draft, self._config, now=self._clock.now(), make_id=self._make_id)

    async def _guarded(self, draft: Draft, request: TriggerRequest, until: float | None) -> TriggerResponse:
        try:
            if until is not None and asyncio.get_running_loop().time() >= until:
                raise Stopped(Problem(Code.FAILED, "the time for it was over; try again later"))
            async with self._parts.use():
                return await self._admitted(draft, request, until)
        except Stopped as stop:
            # It never got in, or closing the pipeline did not wait for it.
            return self._told(draft, request, stop, stop.ending)

    async def _admitted(self, draft: Draft, request: TriggerRequest, until: float | None) -> TriggerResponse:
        own = None if draft.dry_run else own_key(draft, request)
        try:
            if own is not None and own != key_of(draft, request) and await self._admission.stands(own, request):
                draft = replace(draft, key=own)
            ran = await self._run(draft, request, until)
        except Stopped as stop:
            if stop.is_mismatch and own is not None and own != key_of(draft, request):
                _say(logging.INFO, draft, request, f"has the id of another start, and runs as {one_line(own)}")
                return await self._admitted(replace(draft, key=own), request, until)
            return await self._stopped(draft, request, stop)
        status = Status.DRY_RUN if draft.dry_run else Status.DUPLICATE if ran.replayed else Status.SUCCESS
        response = success(status, correlation_id=request.correlation_id, result=ran.result)
        _say(logging.INFO, draft, request, response.status)
        if draft.dry_run:
            _say(logging.INFO, draft, request, f"would send {one_line(str(ran.result))}")
        return response

    async def _run(self, draft: Draft, request: TriggerRequest, until: float | None) -> Ran:
        waited = draft.queued is not None or draft.was_aside
        if draft.dry_run:
            return await self._admission.rehearse(
                request, lambda _: self._worker.plan(draft, request), waited=waited
            )
        return await self._admission.run(
            key_of(draft, request),
            payload_of(draft, request),
            request,
            lambda fence: self._worker.run(draft, request, fence=fence, until=until),
            waited=waited,
        )

    async def _stopped(self, draft: Draft, request: TriggerRequest, stop: Stopped) -> TriggerResponse:
        """What becomes of a start that does not go on: it waits, is kept as a dead letter, or is only answered."""
        ending, is_kept = stop.ending, False
        if stop.is_mismatch and not has_caller(draft):
            ending = replace(ending, dead_letter=True)
        # Its caller knows, and a dry run leaves nothing behind.
        is_only_answered = draft.dry_run or (ending.status is Status.STOPPED and has_caller(draft))
        try:
            if ending.may_wait and not draft.dry_run and await self._aside.delay(draft, request, stop):
                await self._admission.let_wait(request, stop)
                _say(logging.WARNING, draft, request, f"waits in the delay queue: {stop}")
                return success(Status.DELAYED, correlation_id=request.correlation_id)
            if ending.dead_letter and not is_only_answered and await self._aside.bury(draft, request, stop):
                # Somebody runs it again: nobody else should.
                ending, is_kept = replace(ending, retryable=False), True
        except Stopped as other:
            stop, ending = other, other.ending
        keeps = draft.trigger_type in ("event", "s3") and self._aside.keeps(draft)
        if ending.may_wait and keeps and not draft.dry_run:
            await self._admission.let_wait(request, stop)
        # One that comes again was asked for again, and waits until the other has ended.
        if ending is BUSY and draft.trigger_type == "schedule" and not draft.was_aside:
            ending = SKIPPED
        return replace(self._told(draft, request, stop, ending), dead_letter=is_kept)

    def _told(self, draft: Draft, request: TriggerRequest, stop: Stopped, ending: Ending) -> TriggerResponse:
        # What the caller is not told, as it may hold secrets, the log is: in full where the cause is not known.
        cause = stop.__cause__ if ending.status is Status.FAILED else None
        is_known = isinstance(cause, StorageError | QueueError)
        because = f"; it is {cause!r}" if is_known else ""
        _say(
            ending.level,
            draft,
            request,
            f"{ending.status}: {stop}{because}",
            error=None if is_known else cause,
        )
        return answer(ending, stop.problems, correlation_id=request.correlation_id, retry_after=stop.retry_after)

    def _rejected(
        self,
        trigger_type: str,
        correlation_id: str | None,
        problems: Sequence[Problem],
        *,
        error: Exception | None = None,
    ) -> TriggerResponse:
        began = self._clock.monotonic()
        ending = rejection(problems)
        response = answer(ending, problems, correlation_id=correlation_id)
        with correlated(correlation_id):
            _log.log(
                ending.level,
                "start %s (%s) is %s: %s",
                correlation_id,
                trigger_type,
                ending.status,
                one_line("; ".join(map(str, response.problems[:_LOGGED]))),
                exc_info=error,
                extra={"correlation_id": correlation_id},
            )
            self._report(trigger_type, "unknown", response, began)
        return response

    def _tell_of_gaps(self, draft: Draft, request: TriggerRequest, defaulted: Sequence[str]) -> None:
        if defaulted:
            names = ", ".join(f"{name} = {getattr(request, name)}" for name in defaulted)
            text = f"lacks fields, which come from the defaults of {self._config.environment}: {names}"
            _say(logging.WARNING, draft, request, text)
        if draft.unknown:
            names = ", ".join(f"{name}"[:_LONGEST_NAME] for name in list(draft.unknown)[:_LOGGED])
            _say(logging.INFO, draft, request, f"has {len(draft.unknown)} keys that no request has, kept: {names}")

    def _report(self, trigger_type: str, domain: str, response: TriggerResponse, began: float) -> None:
        self._hooks(
            Triggered(
                trigger_type=trigger_type,
                domain=domain,
                status=response.status.value,
                codes=[str(problem.code) for problem in response.problems],
                seconds=self._clock.monotonic() - began,
                correlation_id=response.correlation_id,
            )
        )


def _type_of(reading: Reading) -> str:
    """What it is told as: nobody knows what an input is that cannot be read."""
    return "unknown" if reading.kind == "unreadable" else reading.trigger_type


def _known_id(draft: Draft) -> str | None:
    return draft.correlation_id if is_correlation_id(draft.correlation_id) else None


def _say(
    level: int, draft: Draft, request: TriggerRequest, text: str, *, error: BaseException | None = None
) -> None:
    _log.log(
        level,
        "start %s (%s of %s:%s) %s",
        request.correlation_id,
        draft.trigger_type,
        request.domain,
        request.table_name,
        one_line(text),
        exc_info=error,
        extra={"correlation_id": request.correlation_id},
    )
