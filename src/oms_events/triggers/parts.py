"""The parts of a pipeline: opened for one event loop at a time, and closed when no start uses them any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from oms_events._aio import PARTING, parting_until
from oms_events.errors import ConfigurationError, QueueError, StorageError
from oms_events.instrumentation.correlation import correlated
from oms_events.triggers.endings import Stopped
from oms_events.triggers.problems import Code, Problem

_log = logging.getLogger("oms_events")

CLOSING: Final = 30.0
"""Seconds that closing waits for the starts that are under way."""


class _OtherLoopError(ConfigurationError):
    """The parts are open in another event loop, which runs."""


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    task: asyncio.Task[object] | None
    limit: asyncio.Timeout
    ended: asyncio.Future[None]


class Parts:
    """Opens what has `open`, and closes what has `close` unless `close_parts` is false.

    What was opened in an event loop that does not run any more is closed, as far as that goes, and opened again in
    the one that does.
    """

    def __init__(self, parts: Iterable[object], *, close_parts: bool = True) -> None:
        self._parts = tuple({id(part): part for part in parts}.values())
        self._closes = close_parts
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._opened: AsyncExitStack | None = None
        self._left: AsyncExitStack | None = None
        """What was opened in a loop that has ended."""
        self._is_closed = False
        self._uses: set[_Use] = set()

    async def open(self) -> None:
        """Opens the parts, also after `close`; idempotent. Raises what they raise: then none of them is open.

        While the parts are being closed it waits for that, and opens them again. Raises `ConfigurationError` while
        another event loop that runs has them.
        """
        self._claim()
        # Not before: `close` may be at work, and would close what was told to be open.
        async with self._opening:
            self._is_closed = False
            if self._opened is None:
                await self._open_parts()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        """Keeps the parts open while its body runs, and opens them before, unless they were closed.

        Raises `Stopped` when they are closed or cannot be reached, and what else they raise. A body that closing
        does not wait for any longer is cancelled, and `Stopped` raised in its place.
        """
        await self._open_for_use()
        use = _Use(asyncio.current_task(), asyncio.timeout(None), asyncio.get_running_loop().create_future())
        self._uses.add(use)
        try:
            async with use.limit:
                yield
        except TimeoutError as error:
            if not use.limit.expired():
                raise
            raise _closed("the pipeline was closed while it ran") from error
        finally:
            self._uses.discard(use)
            use.ended.set_result(None)

    async def close(self, timeout: float = CLOSING) -> None:
        """Lets no start in any more, waits for those that are, and closes the parts; idempotent.

        After `timeout` seconds the starts are cancelled. Cancelled itself, it waits for nobody any more.
        """
        self._claim()
        self._is_closed = True
        async with self._opening:
            # Whoever had the lock may have opened them.
            self._is_closed = True
            try:
                await self._until_unused(timeout)
            finally:
                opened, self._opened = self._opened, None
                await self._leave()
                if opened is not None:
                    await opened.aclose()

    def _claim(self) -> None:
        """Makes the running loop the one that the parts are in."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and self._loop.is_running():
            problem = "it is in use in another event loop, which runs; make a pipeline for each loop"
            raise _OtherLoopError("TriggerPipeline", [problem])
        # A lock belongs to the loop that it was first waited for in; whoever waited has gone with that loop.
        self._loop, self._opening, self._uses = loop, asyncio.Lock(), set()
        if self._opened is not None:
            self._left, self._opened = self._opened, None

    async def _open_for_use(self) -> None:
        try:
            self._claim()
            # Tasks that parts begin live on: they belong to no start.
            with correlated(None), parting_until(None):
                await self._open()
        except _OtherLoopError as error:
            raise Stopped(Problem(Code.FAILED, str(error))) from error
        except (StorageError, QueueError) as error:
            remedy = "the pipeline could not connect, and nothing was started; try again later"
            raise Stopped(Problem(Code.STORAGE_UNAVAILABLE, remedy)) from error

    async def _open(self) -> None:
        if self._is_open():
            return
        async with self._opening:
            if not self._is_open():
                await self._open_parts()

    async def _open_parts(self) -> None:
        await self._leave()
        async with AsyncExitStack() as opened:
            for part in self._parts:
                if callable(open_part := getattr(part, "open", None)):
                    await open_part()
                if self._closes and callable(close_part := getattr(part, "close", None)):
                    opened.push_async_callback(close_part)
            self._opened = opened.pop_all()

    def _is_open(self) -> bool:
        if self._is_closed:
            raise _closed("the pipeline is closed, and nothing was started")
        return self._opened is not None

    async def _leave(self) -> None:
        """Closes what belongs to a loop that has ended; its connections went with that."""
        left, self._left = self._left, None
        if left is None:
            return
        try:
            async with asyncio.timeout(PARTING):
                await left.aclose()
        except Exception as error:
            _log.debug("a part of an event loop that has ended was left as it was: %r", error)

    async def _until_unused(self, timeout: float) -> None:
        await self._wait(timeout)
        left = self._others()
        if not left:
            return
        _log.warning("the pipeline is closed: %d starts that still run are cancelled", len(left))
        for use in left:
            use.limit.reschedule(asyncio.get_running_loop().time())
        await self._wait(PARTING)

    async def _wait(self, timeout: float) -> None:
        if left := self._others():
            await asyncio.wait([use.ended for use in left], timeout=timeout)

    def _others(self) -> list[_Use]:
        """The uses that may end: one that closes the pipeline would wait for itself."""
        return [use for use in self._uses if use.task is not asyncio.current_task() and not use.limit.expired()]


def _closed(what: str) -> Stopped:
    remedy = f"{what}; open it again, or give it to a pipeline that is open"
    return Stopped(Problem(Code.STORAGE_UNAVAILABLE, remedy))
