"""One idempotent run: records its start, replays or waits for another's result, records its own."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

import orjson

from oms_events._aio import Clock, SystemClock, in_parting_time, seen_through
from oms_events.errors import (
    PayloadMismatchError,
    ResultNotStoredError,
    RunInProgressError,
    StorageOutcomeUnknownError,
)
from oms_events.events import load_json
from oms_events.idempotency.config import IdempotencyOptions
from oms_events.idempotency.records import RunRecord, RunState, as_event, expiry, fingerprint, item_key
from oms_events.idempotency.store import IdempotencyStore
from oms_events.resilience.backoff import RetryConfig

_log = logging.getLogger("oms_events")

BY_KEY: Final = object()
"""No payload was given: an event that is the key is checked itself, else nothing is."""

_LOOKS: Final = RetryConfig(initial=0.05, maximum=1.0)
_CLOCK: Final = SystemClock()


class Serializer(NamedTuple):
    """How a result becomes a JSON value, and a JSON value a result."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


class IdempotentRun:
    """`async with IdempotentRun(store, event, prefix="charge") as run:` runs its body's work once per key.

    In the body: `if not run.replayed:` do the work and set `run.result` (None if you do not). With `replayed`
    true, `result` is that of an earlier run. An exception, or a cancellation, in the body removes the record, so
    that it can be tried again; when that fails the record expires by itself. Once the body has ended well a
    cancellation no longer removes it: recording the result is finished first, for up to 5 s. When it cannot be
    recorded, that is logged: the work is done. One object serves one `async with` at a time.

    `key` is an event (its identity counts), text, a whole number or a UUID; `payload` is what must be the same
    for the same key, by default the type and data of an event that is the key. Entering raises
    `IdempotencyArgumentError`, `PayloadMismatchError`, `RunInProgressError` or a `StorageError`: the body does
    not run. Entering or leaving may raise `ResultNotStoredError`.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        key: object,
        *,
        prefix: str,
        payload: object = BY_KEY,
        options: IdempotencyOptions | None = None,
        serializer: Serializer | None = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.replayed = False
        self.result: Any = None
        self.key = item_key(prefix, key)
        if payload is BY_KEY:
            payload = as_event(key) or BY_KEY
        self._fingerprint = "" if payload is BY_KEY else fingerprint(payload)
        self._store = store
        self._options = options or IdempotencyOptions()
        self._serializer = serializer
        self._clock = clock or _CLOCK
        self._draw = draw
        self._token = ""

    async def __aenter__(self) -> Self:
        self._token, self.replayed, self.result = uuid4().hex, False, None
        deadline = self._clock.monotonic() + self._options.wait_timeout
        standing, looks = await self._start(), 0
        while standing is not None:
            if standing.contradicts(self._fingerprint):
                raise PayloadMismatchError(
                    f"{self.key} was used before with another payload; give a new payload a new key", key=self.key
                )
            if standing.state is RunState.COMPLETED:
                self._replay(standing)
                break
            looks += 1
            await self._wait(standing, looks, deadline - self._clock.monotonic())
            standing = await self._store.read(self.key)
            if standing is None or not standing.is_live(self._now()):
                standing = await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.replayed:
            return
        if error is None:
            await self._complete()
        elif isinstance(error, Exception | asyncio.CancelledError):
            await self._release()

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    def _record(self, state: RunState, seconds: float) -> RunRecord:
        return RunRecord(self.key, self._token, state, expiry(self._clock.now(), seconds), self._fingerprint)

    async def _start(self) -> RunRecord | None:
        record = self._record(RunState.IN_PROGRESS, self._options.in_progress_for)
        try:
            return await self._store.write(record, now=self._now())
        except (asyncio.CancelledError, StorageOutcomeUnknownError):
            # It may be recorded, and nobody will run it.
            await self._release()
            raise

    async def _wait(self, standing: RunRecord, looks: int, left: float) -> None:
        if self._options.on_concurrent == "raise" or left <= 0:
            expires_in = max(0.0, standing.expires_at - self._clock.now().timestamp())
            raise RunInProgressError(
                f"another run of {self.key} is at work; try again later, in {expires_in:.0f} s at the latest",
                key=self.key,
                expires_in=expires_in,
            )
        await self._clock.sleep(min(_LOOKS.delay(looks, self._draw), left))

    def _replay(self, standing: RunRecord) -> None:
        self._refuse(standing.problem)
        value = load_json(standing.result)
        self.result = self._serializer.load(value) if self._serializer and not standing.problem else value
        self.replayed = True

    def _refuse(self, problem: str) -> None:
        if problem and self._options.on_unstorable == "raise":
            raise ResultNotStoredError(
                f"{self.key} has run, but its result was not stored: {problem}; return less, give a serializer, "
                'or set on_unstorable="omit"',
                key=self.key,
            )

    async def _complete(self) -> None:
        text, problem = self._dump()
        record = self._record(RunState.COMPLETED, self._options.keep_for)
        await seen_through(
            self._write_result(replace(record, result=text, problem=problem)), name="idempotency-result"
        )
        self._refuse(problem)

    def _dump(self) -> tuple[str, str]:
        """The result's text, or why there is none. Never raises: the work is done."""
        try:
            value = self._serializer.dump(self.result) if self._serializer else self.result
            raw = orjson.dumps(value)
            # What JSON has no form for comes back as something else: a tuple, a datetime, NaN.
            problem = "" if load_json(raw) == value else "JSON gives back another value"
        except Exception as error:
            raw, problem = b"", f"it is no JSON: {error!r:.200}"
        if len(raw) > self._store.max_result_bytes:
            problem = f"it takes {len(raw):,} bytes, and a record {self._store.max_result_bytes:,}"
        return ("null", problem) if problem else (raw.decode(), "")

    async def _write_result(self, record: RunRecord) -> None:
        """Never raises: the work is done, and an error here would have it done again."""
        try:
            standing = await self._store.write(record, now=self._now())
        except Exception:
            _log.exception("%s has run, but that could not be recorded; a duplicate will run again", self.key)
            return
        if standing is not None:
            _log.warning("%s ran longer than in_progress_for and was taken over: it ran twice", self.key)

    async def _release(self) -> None:
        """Never raises but when cancelled again: the error under way is the one to show."""
        try:
            await in_parting_time(self._store.remove(self.key, self._token))
        except Exception as error:
            _log.warning("the record of %s was not removed and will expire: %r", self.key, error)
