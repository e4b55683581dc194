"""What an admitted start does: symbols, business rules, then the handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import orjson

from oms_events._aio import cancelled_from_outside
from oms_events._config import plain_json
from oms_events.errors import StartRefusedError
from oms_events.triggers.config import TriggerConfig
from oms_events.triggers.endings import INVALID, REFUSED, Stopped
from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.request import MAX_SYMBOLS, TriggerRequest
from oms_events.triggers.rules import BusinessRule, judge
from oms_events.triggers.start import Draft, Handler, Start
from oms_events.triggers.symbols import SymbolSource
from oms_events.triggers.validation import date_of, key_of, normal_symbols, options_of, symbol_problems

_log = logging.getLogger("oms_events")

_MAX_RESULT: Final = 400_000
"""Bytes of JSON; an item of DynamoDB takes 400 KB, and a duplicate is to be answered like the first."""


class Worker:
    """Does the work of starts, each of which may run until a time of the loop's clock. Holds nothing."""

    def __init__(
        self,
        handler: Handler,
        config: TriggerConfig,
        *,
        symbols: SymbolSource | None,
        rules: Sequence[BusinessRule],
    ) -> None:
        self._handler = handler
        self._config = config
        self._symbols = symbols
        self._rules = tuple(rules)

    async def run(
        self, draft: Draft, request: TriggerRequest, *, fence: int | None = None, until: float | None = None
    ) -> Any:
        """What the handler gives, None when that is no JSON. Raises `Stopped`.

        At `until`, in the loop's time, the handler is cancelled, and has failed.
        """
        start = await self._start(draft, request, fence)
        try:
            with _cancelled_inside_is_an_error():
                async with asyncio.timeout_at(until):
                    result = await self._handler(start)
        except StartRefusedError as error:
            raise _refused(error) from error
        except (Exception, SystemExit) as error:
            # Not the message: it may have what only the log should have.
            remedy = f"the handler failed with {type(error).__name__}; the log has more. Try again later"
            raise Stopped(Problem(Code.FAILED, remedy), counts=True) from error
        return _storable(result, start)

    async def plan(self, draft: Draft, request: TriggerRequest) -> dict[str, Any]:
        """What the handler would be given, and what it would send. Raises `Stopped`."""
        start = await self._start(draft, request, None)
        shown = {"key": start.key, "request": start.request.document(), "options": start.options.model_dump()}
        plan = getattr(self._handler, "plan", None)
        if callable(plan):
            try:
                shown["plan"] = _storable(plan(start), start)
            except StartRefusedError as error:
                raise _refused(error) from error
            except (Exception, SystemExit) as error:
                remedy = f"the handler's plan failed with {type(error).__name__}; the log has more"
                raise Stopped(Problem(Code.FAILED, remedy)) from error
        return shown

    async def _start(self, draft: Draft, request: TriggerRequest, fence: int | None) -> Start:
        key, ds = key_of(draft, request), date_of(draft, request)
        request = await self._judged(await self._with_symbols(request))
        return Start(
            request=request,
            key=key,
            ds=ds,
            correlation_id=request.correlation_id or "",
            options=options_of(draft, self._config),
            fence=fence,
            flow_id=draft.flow_id,
            cause_id=draft.cause_id,
            detail=draft.detail,
            unknown=draft.unknown,
            raw=draft.raw,
        )

    async def _with_symbols(self, request: TriggerRequest) -> TriggerRequest:
        if request.symbols:
            return request
        if self._symbols is None:
            found: object = self._config.defaults.symbols
            if found:
                _log.warning(
                    "start %s: symbols come from the defaults of %s",
                    request.correlation_id,
                    self._config.environment,
                    extra={"correlation_id": request.correlation_id},
                )
        else:
            try:
                with _cancelled_inside_is_an_error():
                    found = await self._symbols(request)
            except StartRefusedError as error:
                raise _refused(error) from error
            except (Exception, SystemExit) as error:
                remedy = f"the source of symbols failed with {type(error).__name__}; try again later"
                raise Stopped(Problem(Code.SYMBOLS_UNAVAILABLE, remedy, "symbols")) from error
        return request.model_copy(update={"symbols": _checked(found)})

    async def _judged(self, request: TriggerRequest) -> TriggerRequest:
        try:
            with _cancelled_inside_is_an_error():
                judged = await judge(request, self._rules)
        except StartRefusedError as error:
            raise _refused(error) from error
        except (Exception, SystemExit) as error:
            remedy = f"a business rule failed with {type(error).__name__}; the log has more. Try again later"
            raise Stopped(Problem(Code.FAILED, remedy)) from error
        if judged.refusals:
            raise Stopped(*judged.refusals, ending=REFUSED)
        for violation in judged.fallbacks:
            _log.info(
                "start %s goes on with %s: %s",
                request.correlation_id,
                dict(violation.fallback or {}),
                violation.problem(),
                extra={"correlation_id": request.correlation_id},
            )
        return judged.request


def _checked(found: object) -> tuple[str, ...]:
    if not isinstance(found, Iterable) or isinstance(found, str | bytes | Mapping):
        remedy = f"the source of symbols gave {type(found).__name__}; it should give a list of text"
        raise Stopped(Problem(Code.INVALID_SYMBOLS, remedy, "symbols"))
    symbols = normal_symbols(list(found))
    # What a source gives is no input: its type is a wrong value like any other. And it may be a secret, when the
    # source is not the one that was meant: only the place is told.
    problems = [
        replace(problem, code=Code.INVALID_SYMBOLS, value="(not shown)") for problem in symbol_problems(symbols)
    ]
    if len(symbols) > MAX_SYMBOLS:
        problems = [replace(problem, value=f"{len(symbols):,} symbols") for problem in problems]
    if not symbols:
        remedy = "none were given, and none were found; give some, or put some where they are loaded from"
        problems.append(Problem(Code.INVALID_SYMBOLS, remedy, "symbols"))
    if problems:
        raise Stopped(*problems, ending=INVALID)
    return tuple(str(symbol) for symbol in symbols)


def _refused(error: StartRefusedError) -> Stopped:
    return Stopped(Problem(str(error.code), error.remedy, error.field, error.value), ending=REFUSED)


def _storable(result: object, start: Start) -> Any:
    """It as JSON values; None when it is none: the start has run all the same."""
    try:
        value = plain_json(result)
        size = len(orjson.dumps(value))
        if size <= _MAX_RESULT:
            return value
        problem = f"it takes {size:,} bytes of JSON, and {_MAX_RESULT:,} are kept"
    except Exception as error:
        problem = str(error)[:500]
    _log.warning(
        "start %s: what the handler gave is left out of the answer: %s",
        start.correlation_id,
        problem,
        extra={"correlation_id": start.correlation_id},
    )
    return None


@contextmanager
def _cancelled_inside_is_an_error() -> Iterator[None]:
    """Code of the user that is cancelled by itself has failed; only a cancellation from outside goes through."""
    try:
        yield
    except asyncio.CancelledError as error:
        if cancelled_from_outside():
            raise
        raise RuntimeError("it was cancelled from inside") from error
