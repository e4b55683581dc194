"""Gathers what may be published now, of all partitions, into full publish calls."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol

from oms_events._aio import Clock, cancel_and_wait
from oms_events.errors import RouterClosedError
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.window import Lane
from oms_events.publishing import PlanPublisher, PublishResults

_log = logging.getLogger("oms_events")
_ENOUGH: Final = 64
"""Lanes that are worth a call of their own while another is under way."""
_LINGER: Final = 0.002


class Owner(Protocol):
    """Where a lane comes from, and its results go."""

    def seconds_left(self) -> float:
        """How long this processor may still publish for the lane's bucket."""
        ...

    def answered(self, lane: Lane, results: PublishResults | None) -> None:
        """The lane was published, with these results; None: nobody knows."""
        ...

    def moved(self) -> None:
        """All answers of a call were handed over."""
        ...

    def not_tried(self, lane: Lane) -> None:
        """The lane was not published: the lease has ended, or the lane was left meanwhile."""
        ...


class _Queue:
    __slots__ = ("calls", "is_scheduled", "lanes")

    def __init__(self) -> None:
        self.lanes: deque[tuple[Owner, Lane]] = deque()
        self.calls = 0
        self.is_scheduled = False


class Dispatcher:
    """Publishes lanes: those of the same platforms share calls of up to `max_batch`, a few calls at a time.

    Lanes that failed before go in calls of their own, so that the others never wait for their timeouts.
    """

    def __init__(self, router: PlanPublisher, config: ProcessorConfig, *, clock: Clock) -> None:
        self._router = router
        self._config = config
        self._clock = clock
        self._queues: dict[tuple[tuple[str, ...], bool], _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def submit(self, owner: Owner, lane: Lane) -> None:
        """Publishes a lane soon; its owner hears of it exactly once, unless this dispatcher is closed before."""
        key = (lane.plan.platforms, lane.failed)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        queue.lanes.append((owner, lane))
        if not queue.is_scheduled:
            queue.is_scheduled = True
            # Not at once: the rest of a page, or of a batch of answers, shall come along.
            asyncio.get_running_loop().call_soon(self._pump, queue)

    async def close(self, *, timeout: float) -> None:
        """Lets calls under way finish for `timeout` seconds, then cancels them."""
        if self._tasks and timeout > 0:
            await asyncio.wait(set(self._tasks), timeout=timeout)
        await cancel_and_wait(*self._tasks)

    def _pump(self, queue: _Queue, *, lingered: bool = False) -> None:
        queue.is_scheduled = False
        while queue.lanes and queue.calls < self._config.max_calls:
            if queue.calls and len(queue.lanes) < _ENOUGH and not lingered:
                queue.is_scheduled = True
                asyncio.get_running_loop().call_later(_LINGER, lambda: self._pump(queue, lingered=True))
                return
            lingered = False
            batch = self._take(queue)
            if batch:
                queue.calls += 1
                task = asyncio.create_task(self._call(queue, batch), name="oms-events-outbox-publish")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _take(self, queue: _Queue) -> list[tuple[Owner, Lane]]:
        batch: list[tuple[Owner, Lane]] = []
        left: dict[Owner, float] = {}
        while queue.lanes and len(batch) < self._config.max_batch:
            owner, lane = queue.lanes.popleft()
            if owner not in left:
                left[owner] = owner.seconds_left()
            if lane.open and left[owner] > 0:
                lane.in_flight = True
                batch.append((owner, lane))
            else:
                owner.not_tried(lane)
        return batch

    async def _call(self, queue: _Queue, batch: list[tuple[Owner, Lane]]) -> None:
        try:
            deliveries = [(lane.entry.event, lane.plan) for _, lane in batch]
            seconds = min(owner.seconds_left() for owner in {owner for owner, _ in batch})
            timeout = min(self._config.publish_timeout, seconds)
            results: list[PublishResults] | list[None]
            try:
                results = await self._router.publish_planned(deliveries, timeout=timeout)
                self._is_closed = False
                if len(results) != len(batch):
                    raise RuntimeError(f"{len(results)} results for {len(batch)} records")
            except RouterClosedError as error:
                if not self._is_closed:
                    self._is_closed = True
                    _log.error("the outbox cannot publish: %s", error)
                results = [None] * len(batch)
            except Exception:
                _log.exception("publishing %d outbox records failed", len(batch))
                results = [None] * len(batch)
            for (owner, lane), result in zip(batch, results, strict=True):
                lane.in_flight = False
                try:
                    owner.answered(lane, result)
                except Exception:
                    _log.exception("settling an outbox record failed; it stays in the table")
            for owner in {owner for owner, _ in batch}:
                owner.moved()
        finally:
            queue.calls -= 1
            if queue.lanes and (not queue.is_scheduled or not queue.calls):
                self._pump(queue)
