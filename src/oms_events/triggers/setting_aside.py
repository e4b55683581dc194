"""Where starts go that neither run nor are lost: the delay queue, and dead letters."""

from __future__ import annotations

import json
import logging
from typing import Final

from oms_events._aio import Clock
from oms_events.triggers.endings import FAILED, Stopped
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.delayed import wrap_delayed
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.sending.dead_letters import DeadLetters
from oms_events.triggers.sending.delay import DelayQueue
from oms_events.triggers.sending.letters import DeadLetter
from oms_events.triggers.start import Draft, Queued
from oms_events.triggers.validation import key_of

_log = logging.getLogger("oms_events")

_LONGEST: Final = 100_000
"""Characters of an input that the log keeps where no queue did; a line of CloudWatch Logs takes 1 MB."""


class Aside:
    """Puts starts aside, where there is a place for them."""

    def __init__(self, delay: DelayQueue | None, dead_letters: DeadLetters | None, *, clock: Clock) -> None:
        self._delay = delay
        self._dead_letters = dead_letters
        self._clock = clock

    async def delay(self, draft: Draft, request: TriggerRequest, stop: Stopped) -> bool:
        """Puts an event's or a new object's start on the delay queue; False where it has no place there.

        What came from the queue stays in it, by itself. Raises `Stopped` when the queue does not take it.
        """
        if self._delay is None or draft.queued is not None or draft.trigger_type not in ("event", "s3"):
            return False
        key = key_of(draft, request)
        try:
            message = wrap_delayed(
                draft,
                request,
                key=key,
                delayed_at=self._clock.now().isoformat(timespec="milliseconds"),
                reason=str(stop.problems[0].code),
            )
            await self._delay.put(message, group=f"{request.domain}:{request.table_name}", key=key)
        except Exception as error:
            remedy = (
                f"it has to wait, and the delay queue did not take it ({type(error).__name__}); try again later"
            )
            raise Stopped(Problem(Code.STORAGE_UNAVAILABLE, remedy), retry_after=stop.retry_after) from error
        return True

    def keeps(self, draft: Draft) -> bool:
        """Whether a start that has to wait does so in a queue, of which it came."""
        return self._delay is not None and draft.queued is not None

    async def hold(self, queued: Queued, seconds: float) -> None:
        """Lets a message that has to wait come again after so many seconds. Never raises but `CancelledError`."""
        if self._delay is None:
            return
        try:
            await self._delay.hold(queued, seconds)
        except Exception as error:
            # It comes again when its visibility timeout is over.
            _log.warning("message %s was not held for %.1f s: %r", queued.message_id, seconds, error)

    async def bury(self, draft: Draft, request: TriggerRequest, stop: Stopped) -> bool:
        """Keeps a start as a dead letter; False where there is no place for them.

        Raises `Stopped` when it was not taken: then the input is in the log.
        """
        if self._dead_letters is None:
            return False
        try:
            letter = DeadLetter(
                reason=str(stop.problems[0].code),
                problems=stop.problems,
                raw=draft.raw,
                correlation_id=request.correlation_id,
                trigger_type=draft.trigger_type,
                time=self._clock.now(),
                trigger_time=request.trigger_time,
                key=key_of(draft, request),
            )
            await self._dead_letters.put(letter)
        except Exception as error:
            _log.error(
                "start %s is no dead letter, as the queue did not take it (%r); it was: %s",
                request.correlation_id,
                error,
                _text(draft.raw),
                extra={"correlation_id": request.correlation_id},
            )
            remedy = f"{stop}; and it could not be kept as a dead letter ({type(error).__name__}): try again later"
            raise Stopped(Problem(Code.FAILED, remedy), ending=FAILED) from error
        return True


def _text(raw: object) -> str:
    try:
        return json.dumps(raw, default=repr)[:_LONGEST]
    except Exception:
        return f"a {type(raw).__name__} that is no JSON"
