"""One pipeline for all that starts something: read, checked, guarded, handed on, answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ConfigurationError
from oms_events.idempotency.store import IdempotencyStore
from oms_events.instrumentation.hooks import Hook, Hooks
from oms_events.triggers.admission import Admission, Guards
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.endings import FAILED, Ending, answer, success, together
from oms_events.triggers.guards.breaker import TriggerBreakers
from oms_events.triggers.guards.exclusion import Leases
from oms_events.triggers.guards.rate import RateLimiter
from oms_events.triggers.lambda_entry import Handled, LambdaHandler
from oms_events.triggers.one_start import StartRunner, has_caller, one_line
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.custom_events import DEFAULT_EVENTS
from oms_events.triggers.reading.event_table import EventReaders
from oms_events.triggers.reading.recognition import read_starts
from oms_events.triggers.reading.results import Reading
from oms_events.triggers.responses import Status, TriggerResponse
from oms_events.triggers.rules import BusinessRule
from oms_events.triggers.sending.dead_letters import DeadLetters
from oms_events.triggers.sending.delay import DelayQueue
from oms_events.triggers.setting_aside import Aside
from oms_events.triggers.start import Handler
from oms_events.triggers.symbols import SymbolSource
from oms_events.triggers.work import Worker

_log = logging.getLogger("oms_events")

_BROKEN: Final = Problem(Code.FAILED, "it could not be handled; the log has more")
_BEFORE: Final = "an earlier message of its group has to go first"


class TriggerPipeline:
    """Makes starts of all that comes in, and hands each to `handler` once, behind the guards that are given.

    Use it as an async context manager; without, the first start opens its parts. Parts (the handler too) that have
    `open` and `close` are opened and closed by the pipeline, whoever made them. A guard that is not given does not
    guard. `rules` are asked in their order; `events` knows the events that start something; `symbols` is where
    those come from that a start does not name; `make_id` gives ids to starts that have none (UUIDs by default).

    Safe to use concurrently. Raises `ConfigurationError` for parts that cannot be called.
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
    ) -> None:
        _check({"handler": handler, "symbols": symbols, **{f"rules.{at}": rule for at, rule in enumerate(rules)}})
        self._config = config or TriggerConfig()
        self._events = events
        clock = clock or SystemClock()
        guards = Guards(idempotency=idempotency, breaker=breaker, rate=rate, leases=leases)
        self._aside = Aside(delay, dead_letters, clock=clock)
        self._starts = StartRunner(
            Worker(handler, self._config, symbols=symbols, rules=rules),
            Admission(guards, self._config, clock=clock),
            self._aside,
            config=self._config,
            clock=clock,
            hooks=Hooks(hooks),
            make_id=make_id or (lambda: str(uuid4())),
            open_parts=self.open,
        )
        self._parts = (idempotency, breaker, rate, leases, symbols, delay, dead_letters, handler)
        self._opening = asyncio.Lock()
        self._opened: AsyncExitStack | None = None
        self.lambda_handler = LambdaHandler(self)
        """The pipeline as a Lambda function's entry point: `lambda_handler(event, context)`."""

    async def open(self) -> None:
        """Opens the parts; idempotent. Raises what they raise, and then none of them is open."""
        async with self._opening:
            if self._opened is not None:
                return
            async with AsyncExitStack() as opened:
                for part in {id(part): part for part in self._parts}.values():
                    if callable(open_part := getattr(part, "open", None)):
                        await open_part()
                    if callable(close_part := getattr(part, "close", None)):
                        opened.push_async_callback(close_part)
                self._opened = opened.pop_all()

    async def close(self) -> None:
        """Closes the parts, the last one first; idempotent. What is under way then fails, and may come again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

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

    async def run(self, raw: object, *, seconds: float | None = None, grace: float = 0.0) -> Handled:
        """As `handle`, for entry points: also says who gets the answer, and which messages have to come again.

        After `seconds` the handler is cancelled and has failed; `grace` seconds later the rest is given up too.
        """
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        try:
            reading = read_starts(raw, config=self._config, events=self._events)
        except Exception:
            _log.exception("an input could not be read")
            return Handled(answer(FAILED, [_BROKEN]), has_caller=False)
        if reading.messages:
            return await self._run_messages(reading.messages, until, grace)
        response = await self._answered(reading, until, grace)
        is_manual = reading.trigger_type == "manual" and all(map(has_caller, reading.drafts))
        return Handled(response, has_caller=is_manual)

    async def _answered(self, reading: Reading, until: float | None, grace: float) -> TriggerResponse:
        try:
            return await self._run_one(reading, until, grace)
        except Exception:
            # Outside of the guards: `make_id`, or an error of ours.
            _log.exception("an input could not be handled")
            return answer(FAILED, [_BROKEN])

    async def _run_one(self, reading: Reading, until: float | None, grace: float) -> TriggerResponse:
        if reading.problems:
            return self._starts.reject(reading.drafts, reading.problems, reading.trigger_type)
        if not reading.drafts:
            _log.info("nothing is started: %s", one_line("; ".join(reading.reasons)[:1_000]))
            return success(Status.SUCCESS, result={"ignored": reading.ignored, "reasons": list(reading.reasons)})
        responses = [await self._starts.run(draft, until=until, grace=grace) for draft in reading.drafts]
        return responses[0] if len(responses) == 1 else together(responses)

    async def _run_messages(self, messages: Mapping[str, Reading], until: float | None, grace: float) -> Handled:
        """Each message by itself; after one of a group that has to come again, the later ones have to as well."""
        responses, failed = [], []
        stuck: dict[str, TriggerResponse] = {}
        for message_id, reading in messages.items():
            queued = next((draft.queued for draft in reading.drafts if draft.queued is not None), None)
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
                    await self._aside.hold(queued, response.retry_after)
        return Handled(together(responses), has_caller=False, failed_messages=failed)


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
