"""Writes what became of records, and insists until it is written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from oms_events._aio import Clock, Slots, cancel_and_wait
from oms_events.errors import StorageError
from oms_events.instrumentation.hooks import Hooks, OutboxAlert
from oms_events.outbox.records import Partition
from oms_events.outbox.store import OutboxStore
from oms_events.resilience.backoff import RetryConfig

_log = logging.getLogger("oms_events")
_T = TypeVar("_T")
_BACKOFF: Final = RetryConfig(initial=0.1, maximum=5.0)
_WRITERS: Final = 16
_ALERT_AFTER: Final = 3


class Doomed(Protocol):
    """Records of a partition that are settled and have to go."""

    def take_doomed(self) -> Sequence[str]:
        """Their keys; empty when there are no more, and from then on `Settler.remove` has to be asked again."""
        ...

    def removed(self, sks: Sequence[str]) -> None:
        """These are gone."""
        ...


class Settler:
    """Removes and updates records in the background; what DynamoDB does not take is tried until it does.

    Safe after the lease is lost: it writes only what this process saw. Ended before it is done, records stay and
    are delivered again by whoever comes next.
    """

    def __init__(self, store: OutboxStore, *, clock: Clock, draw: Callable[[], float], hooks: Hooks) -> None:
        self._store = store
        self._clock = clock
        self._draw = draw
        self._hooks = hooks
        self._slots = Slots(_WRITERS)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether everything is written."""
        return not self._tasks

    def remove(self, partition: Partition, doomed: Doomed) -> None:
        """Removes all that is doomed, now and until it is done; one call at a time per source."""
        self._start(self._remove_all(partition, doomed))

    def write(self, call: Callable[[], Awaitable[_T]], then: Callable[[_T], None]) -> None:
        """Calls a method of the store until it has an answer, and hands that on."""
        self._start(self._write(call, then))

    async def flush(self, *, timeout: float) -> None:
        """Waits until what is to be written now is written, for `timeout` seconds."""
        deadline = self._clock.monotonic() + timeout
        # One write may lead to the next: a state that is stored lets its record be removed.
        while self._tasks and (left := deadline - self._clock.monotonic()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *, timeout: float) -> None:
        """Lets writes finish for `timeout` seconds, then ends them."""
        if self._tasks and timeout > 0:
            await asyncio.wait(set(self._tasks), timeout=timeout)
        if self._tasks:
            _log.warning(
                "%d outbox writes were not finished; their records will be delivered again", len(self._tasks)
            )
        await cancel_and_wait(*self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="oms-events-outbox-settle")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove_all(self, partition: Partition, doomed: Doomed) -> None:
        # One turn of the loop: the other results of the same publish call come along.
        await asyncio.sleep(0)
        while sks := doomed.take_doomed():
            await self._insist(lambda sks=sks: self._store.remove(partition, sks))  # type: ignore[misc]
            doomed.removed(sks)

    async def _write(self, call: Callable[[], Awaitable[_T]], then: Callable[[_T], None]) -> None:
        await self._slots.take(1)
        try:
            answer = await self._insist(call)
        finally:
            self._slots.give(1)
        then(answer)

    async def _insist(self, call: Callable[[], Awaitable[_T]]) -> _T:
        attempt = 0
        while True:
            try:
                return await call()
            except StorageError as error:
                attempt += 1
                if attempt == _ALERT_AFTER:
                    self._hooks(OutboxAlert("storage", f"cannot write to table {self._store.table}: {error}"))
                pause = max(_BACKOFF.delay(attempt, self._draw), error.retry_after or 0.0)
            except Exception:
                # A defect must not end it either: what is settled would never be removed.
                attempt += 1
                _log.exception("writing to outbox table %s failed", self._store.table)
                pause = _BACKOFF.delay(attempt, self._draw)
            await self._clock.sleep(pause)
