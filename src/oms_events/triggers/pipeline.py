"""One pipeline for all that starts something: read, checked, guarded, handed on, answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ConfigurationError
from oms_events.idempotency.store import IdempotencyStore
from oms_events.instrumentation.hooks import Hook, Hooks
from oms_events.triggers.admission import Admission, Guards
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.endings import FAILED, Ending, Stopped, answer, together
from oms_events.triggers.guards.breaker import TriggerBreakers
from oms_events.triggers.guards.exclusion import Leases
from oms_events.triggers.guards.rate import RateLimiter
from oms_events.triggers.lambda_entry import Handled, LambdaHandler
from oms_events.triggers.one_start import StartRunner, has_caller
from oms_events.triggers.parts import CLOSING, Parts
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.responses import TriggerResponse
from oms_events.triggers.rules import BusinessRule
from oms_events.triggers.sending.dead_letters import DeadLetters
from oms_events.triggers.sending.delay import DelayQueue
from oms_events.triggers.setting_aside import Aside
from oms_events.triggers.start import Handler, Queued
from oms_events.triggers.symbols import SymbolSource
from oms_events.triggers.work import Worker

_log = logging.getLogger("oms_events")

_BROKEN: Final = Problem(Code.FAILED, "it could not be handled; the log has more")
_BEFORE: Final = "an earlier message of its group has to go first"


class TriggerPipeline:
    """Makes starts of all that comes in, and hands each to `handler` once, behind the guards that are given.

    Use it as an async context manager; without, the first start opens its parts. Parts (the handler too) that have
    `open` and `close` are opened and closed by the pipeline, whoever made them: give `close_parts=False` when
    others use them too, and close them yourself. What parts borrow, such as a client, stays open. A guard that is
    not given does not guard. `rules` are asked in their order; `events` knows the events that start something;
    `symbols` is where those come from that a start does not name; `make_id` gives ids to starts that have none
    (UUIDs by default).

    Safe to use concurrently, in one event loop. In another one it goes on when the first has ended: the parts are
    opened again, but those that `close_parts=False` leaves to you. While the first runs, starts of another fail.
    Raises `ConfigurationError` for parts that cannot be called.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        config: TriggerConfig | None = None,
        idempotency: IdempotencyStore | None = None,
        breaker: TriggerBreakers | None = None,
        rate: RateLimiter | None = None,
        leases: Leases | None = None,
        symbols: SymbolSource | None = None,
        rules: Sequence[BusinessRule] = (),
        events: EventReaders = DEFAULT_EVENTS,
        delay: DelayQueue | None = None,
        dead_letters: DeadLetters | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        make_id: Callable[[], str] | None = None,
        close_parts: bool = True,
    ) -> None:
        _check({"handler": handler, "symbols": symbols, **{f"rules.{at}": rule for at, rule in enumerate(rules)}})
        self._config = config or TriggerConfig()
        self._events = events
        self._clock = clock = clock or SystemClock()
        guards = Guards(idempotency=idempotency, breaker=breaker, rate=rate, leases=leases)
        parts = (idempotency, breaker, rate, leases, symbols, delay, dead_letters, handler)
        self._parts = Parts(parts, close_parts=close_parts)
        self._aside = Aside(delay, dead_letters, clock=clock)
        self._starts = StartRunner(
            Worker(handler, self._config, symbols=symbols, rules=rules),
            Admission(guards, self._config, clock=clock),
            self._aside,
            config=self._config,
            clock=clock,
            hooks=Hooks(hooks),
            make_id=make_id or (lambda: str(uuid4())),
            parts=self._parts,
        )
        self.lambda_handler = LambdaHandler(self)
        """The pipeline as a Lambda function's entry point: `lambda_handler(event, context)`."""

    async def open(self) -> None:
        """Opens the parts, also after `close`; idempotent. Raises what they raise, and then none of them is open.

        While they are being closed it waits for that, so a handler should not call it. Raises `ConfigurationError`
        while another event loop, which runs, has them.
        """
        await self._parts.open()

    async def close(self, *, timeout: float = CLOSING) -> None:
        """Closes the parts, the last one first; idempotent. From now on starts are answered with 503, retryable.

        Those that are under way have `timeout` seconds to end. Then they are cancelled, leave no guard taken, and
        are answered so too. Cancelled itself, it waits no longer. `open` lets starts in again.
        """
        await self._parts.close(timeout)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def handle(self, raw: object) -> TriggerResponse:
        """The answer to whatever came in: a dict, JSON text or bytes, a CloudEvent, or anything else.

        Never raises but `CancelledError`; cancelled, it leaves no record, lease or trial behind, and what has run
        well is recorded. Several starts in one input run one after the other, and have their answers in `results`.
        """
        return (await self.run(raw)).response

    async def run(
        self, raw: object, *, seconds: float | None = None, grace: float = 0.0, delivery_id: str | None = None
    ) -> Handled:
        """As `handle`, for entry points: also says who gets the answer, and which messages have to come again.

        After `seconds` the handler is cancelled and has failed; `grace` seconds later the rest is given up too.
        `delivery_id` is the id of starts that have none: the same whenever this input is delivered again.
        """
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        try:
            reading = read_starts(raw, config=self._config, events=self._events)
        except (Exception, SystemExit):
            _log.exception("an input could not be read")
            return Handled(answer(FAILED, [_BROKEN]), has_caller=False)
        if reading.messages:
            return await self._run_messages(reading.messages, until, grace)
        reading = reading.delivered_as(delivery_id)
        response = await self._answered(reading, until, grace)
        if reading.kind == "queue":
            # No batch that could be: Lambda takes an empty id as all of its messages, and none is deleted.
            return Handled(response, has_caller=False, failed_messages=[""])
        is_manual = reading.trigger_type == "manual" and not reading.is_wrapped
        return Handled(response, has_caller=is_manual and all(map(has_caller, reading.all_drafts())))

    async def _answered(self, reading: Reading, until: float | None, grace: float) -> TriggerResponse:
        try:
            return await self._run_one(reading, until, grace)
        except Exception:
            # Outside of the guards: `make_id`, or an error of ours.
            _log.exception("an input could not be handled")
            return answer(FAILED, [_BROKEN])

    async def _run_one(self, reading: Reading, until: float | None, grace: float) -> TriggerResponse:
        if reading.problems:
            return self._starts.reject(reading)
        if reading.parts:
            # One that is broken keeps none of the others from running.
            return together([await self._answered(part, until, grace) for part in reading.parts])
        if not reading.drafts:
            return self._starts.ignore(reading)
        responses = [await self._starts.run(draft, until=until, grace=grace) for draft in reading.drafts]
        return responses[0] if len(responses) == 1 else together(responses)

    async def _run_messages(self, messages: Mapping[str, Reading], until: float | None, grace: float) -> Handled:
        """Each message by itself; after one of a group that has to come again, the later ones have to as well."""
        responses, failed, held = [], [], []
        stuck: dict[str, TriggerResponse] = {}
        for message_id, reading in messages.items():
            queued = reading.queued
            group = "" if queued is None else queued.group
            if group in stuck:
                response = _behind(stuck[group])
            else:
                response = await self._answered(reading, until, grace)
            responses.append(response)
            if response.retryable:
                failed.append(message_id)
                if group:
                    stuck[group] = response
                if queued is not None and response.retry_after is not None:
                    held.append((queued, self._clock.monotonic() + response.retry_after))
        await self._hold(held, None if until is None else until + grace)
        return Handled(together(responses), has_caller=False, failed_messages=failed)

    async def _hold(self, messages: Sequence[tuple[Queued, float]], until: float | None) -> None:
        """Lets messages come again when they may go on. Those for which no time is left come by themselves."""
        if not messages:
            return
        now = self._clock.monotonic()
        try:
            async with asyncio.timeout_at(until), self._parts.use(), asyncio.TaskGroup() as group:
                for queued, at in messages:
                    holding = self._aside.hold(queued, max(0.0, at - now))
                    group.create_task(holding, name=f"hold message {queued.message_id}")
        except (TimeoutError, Stopped) as error:
            _log.warning("%d messages were not held, and come again by themselves: %r", len(messages), error)


def _behind(first: TriggerResponse) -> TriggerResponse:
    code = first.problems[0].code if first.problems else Code.FAILED
    ending = Ending(first.status_code, first.status, retryable=True)
    return answer(ending, [Problem(code, _BEFORE)], retry_after=first.retry_after)


def _check(parts: Mapping[str, object]) -> None:
    problems = [
        f"{name} = {part!r} cannot be called; give an async function, or an object that can be called as one"
        for name, part in parts.items()
        if not callable(part) and not (name == "symbols" and part is None)
    ]
    if problems:
        raise ConfigurationError("TriggerPipeline", problems)


__all__ = ["BusinessRule", "Handler", "TriggerPipeline"]
