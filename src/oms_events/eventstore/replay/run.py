"""One run of a replay at work: readers fill the window, calls of the router empty it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final

from oms_events._aio import Clock, cancel_and_wait, cancelled_from_outside
from oms_events.errors import ReplayError
from oms_events.eventstore.items import Item
from oms_events.eventstore.replay.config import ReplayConfig
from oms_events.eventstore.replay.plans import Planner
from oms_events.eventstore.replay.report import ReplayFailure, Tally
from oms_events.eventstore.replay.sources import Missing, Stream, Streams
from oms_events.eventstore.replay.verdict import Judgement, Verdict, judge
from oms_events.eventstore.replay.window import Frontier, Lane, Position, Window
from oms_events.instrumentation.hooks import Hooks, Replayed
from oms_events.outbox.alarm import Alarm
from oms_events.outbox.records import rest_of
from oms_events.publishing import PlanPublisher, PublishResults
from oms_events.resilience.rate import RateLimit

_RATE_STEPS: Final = 10
"""With a rate, a call has at most what may go in this part of a second."""


class ReplayRun:
    """Reads and publishes until all is settled, or something ends it early; with `is_dry` it only reads."""

    def __init__(
        self,
        streams: Streams,
        planner: Planner,
        router: PlanPublisher,
        positions: Mapping[str, Position],
        config: ReplayConfig,
        tally: Tally,
        *,
        is_dry: bool,
        on_progress: Callable[[], None],
        on_failure: Callable[[ReplayFailure], None],
        hooks: Hooks,
        clock: Clock,
        draw: Callable[[], float],
    ) -> None:
        self._streams = streams
        self._planner = planner
        self._router = router
        self._config = config
        self._tally = tally
        self._is_dry = is_dry
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._hooks = hooks
        self._clock = clock
        self._draw = draw
        self._settled_at = dict(positions)
        self._frontiers: dict[str, Frontier] = {}
        self._window = Window(ordered=config.ordered)
        self._share = max(1, config.window // streams.at_once)
        self._batch = config.max_batch
        self._limit: RateLimit | None = None
        if config.rate is not None:
            self._batch = max(1, min(config.max_batch, int(config.rate / _RATE_STEPS)))
            self._limit = RateLimit(config.rate, burst=self._batch, monotonic=clock.monotonic)
        self._alarm = Alarm(clock, name="oms-events-replay-alarm")
        self._calls: set[asyncio.Task[None]] = set()
        self._readers = streams.at_once
        self._is_scheduled = False
        self._is_stopping = False
        self._room = asyncio.Event()
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    @property
    def positions(self) -> dict[str, Position]:
        """Up to where each stream is settled now."""
        found = {name: one.position for name, one in self._frontiers.items() if one.position is not None}
        return {**self._settled_at, **found}

    async def work(self) -> None:
        """Raises what ended it early, once the calls under way are answered; cancelled, they are left alone."""
        self._alarm.start()
        readers = [
            asyncio.create_task(self._read_streams(), name="oms-events-replay-reader")
            for _ in range(self._streams.at_once)
        ]
        try:
            await self._ended.wait()
        finally:
            # First, or each call that ends here would be followed by a new one.
            self._is_stopping = True
            try:
                await cancel_and_wait(*readers, *self._calls)
            finally:
                await self._alarm.stop()
        if self._error is not None:
            raise self._error

    def stop(self, error: Exception) -> None:
        """Begins nothing more; `work` raises the first of these errors."""
        self._error = self._error or error
        self._room.set()
        self._schedule()

    # ------------------------------------------------------------------ reading

    async def _read_streams(self) -> None:
        try:
            for stream in self._streams.each:
                await self._read(stream)
                if self._error is not None:
                    return
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            self.stop(_cancelled_inside("reading the store"))
        except Exception as error:
            self.stop(error)
        finally:
            self._readers -= 1
            self._schedule()

    async def _read(self, stream: Stream) -> None:
        frontier = self._frontiers[stream.name] = Frontier(stream.name, self._settled_at.get(stream.name))
        async with aclosing(stream.pages(frontier.position)) as pages:
            async for page in pages:
                for item, position in page.items:
                    await self._admit(item, position, frontier)
                    if self._error is not None:
                        return
                end = page.end or (page.items[-1][1] if page.items else None)
                if end is not None:
                    frontier.pass_to(end)
                self._on_progress()
        frontier.has_ended = True
        self._drop_if_done(frontier)

    async def _admit(self, item: Item | Missing, position: Position, frontier: Frontier) -> None:
        planned = self._planner.plan(item)
        if planned is None:
            return
        if isinstance(planned, ReplayFailure):
            self._give_up(planned, must_stop=not self._is_dry and self._config.after_failure == "stop")
            return
        if self._is_dry:
            return
        while self._is_full(frontier):
            self._room.clear()
            await self._room.wait()
            if self._error is not None:
                return
        self._window.add(Lane(planned, frontier, position))
        self._schedule()

    def _is_full(self, frontier: Frontier) -> bool:
        # Each stream may hold one event at least, or a full window could wait for a stream that waits for it.
        return frontier.open >= self._share or (
            frontier.open > 0 and self._window.bytes >= self._config.window_bytes
        )

    def _drop_if_done(self, frontier: Frontier) -> None:
        if frontier.has_ended and not frontier.open:
            if frontier.position is not None:
                self._settled_at[frontier.name] = frontier.position
            self._frontiers.pop(frontier.name, None)

    # ------------------------------------------------------------------ publishing

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            # Not at once: the rest of a page, or of a batch of answers, shall come along.
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._is_scheduled = False
        may_begin = self._error is None and not self._is_stopping
        while may_begin and len(self._calls) < self._config.max_calls:
            batch = self._window.take(self._batch)
            if not batch:
                break
            call = asyncio.create_task(self._call(batch), name="oms-events-replay-call")
            self._calls.add(call)
            call.add_done_callback(self._call_ended)
        has_nothing = not self._readers and not self._window.count
        if not self._calls and (has_nothing or self._error is not None):
            self._ended.set()

    def _call_ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._schedule()

    async def _call(self, batch: list[Lane]) -> None:
        try:
            pause = self._limit.take(len(batch)) if self._limit is not None else 0.0
            if pause:
                await self._clock.sleep(pause)
            if self._error is not None:
                return
            results = await self._router.publish_planned(
                [(lane.planned.event, lane.plan) for lane in batch], timeout=self._config.publish_timeout
            )
            self._take(batch, results)
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            self.stop(_cancelled_inside("publishing"))
        except Exception as error:
            self.stop(error)

    def _take(self, batch: list[Lane], results: list[PublishResults]) -> None:
        tally = self._tally
        delivered, given_up = tally.delivered, tally.rejected + tally.failed
        for lane, result in zip(batch, results, strict=True):
            self._answered(lane, result)
        self._room.set()
        if self._hooks:
            failed = tally.rejected + tally.failed - given_up
            self._hooks(Replayed(tally.name, tally.delivered - delivered, failed))
        self._on_progress()

    def _answered(self, lane: Lane, results: PublishResults) -> None:
        lane.tries += 1
        receipts = (result.receipt for result in results.values())
        self._tally.duplicates += sum(receipt is not None and receipt.duplicate for receipt in receipts)
        found = judge(lane, results, self._router.platforms)
        lane.refused.update(found.refused)
        match found.verdict:
            case Verdict.DELIVERED:
                self._tally.delivered += 1
                self._settle(lane)
            case Verdict.REJECTED:
                self._give_up(
                    _failure("rejected", lane, lane.refused),
                    must_stop=self._config.after_rejection == "stop",
                    lane=lane,
                )
            case Verdict.DENIED:
                denied = "; ".join(f"{name}: {why}" for name, why in found.reasons.items())
                self.stop(ReplayError(f"a platform takes nothing from us, mend that and go on: {denied}"))
            case Verdict.LATER if lane.tries < self._config.retry.max_attempts:
                self._try_later(lane, found)
            case _:
                self._give_up(
                    _failure("failed", lane, {**lane.refused, **found.reasons}),
                    must_stop=self._config.after_failure == "stop",
                    lane=lane,
                )

    def _try_later(self, lane: Lane, found: Judgement) -> None:
        if found.left != lane.plan.platforms:
            lane.plan = rest_of(lane.plan, found.left)
        pause = max(self._config.retry.delay(lane.tries, self._draw), found.retry_after)
        self._alarm.at(self._clock.monotonic() + pause, partial(self._try_again, lane))

    def _try_again(self, lane: Lane) -> None:
        self._window.try_again(lane)
        self._schedule()

    def _give_up(self, failure: ReplayFailure, *, must_stop: bool, lane: Lane | None = None) -> None:
        if failure.kind == "rejected":
            self._tally.rejected += 1
        else:
            self._tally.failed += 1
        self._on_failure(failure)
        if must_stop:
            # Not settled: whoever goes on from the checkpoint meets it again.
            self.stop(ReplayError(f"stopped at an event that was not delivered: {failure}"))
        elif lane is not None:
            self._settle(lane)

    def _settle(self, lane: Lane) -> None:
        self._window.settle(lane)
        self._drop_if_done(lane.frontier)


def _failure(kind: str, lane: Lane, reasons: Mapping[str, str]) -> ReplayFailure:
    event, planned = lane.planned.event, lane.planned
    position = f"{planned.aggregate_id}@{planned.sequence}"
    return ReplayFailure(kind, position, event.type, event.id, dict(reasons))


def _cancelled_inside(what: str) -> ReplayError:
    return ReplayError(f"{what} was cancelled from inside; run the replay again")
