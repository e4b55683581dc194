"""Replay: recorded events once more through the router, from the event store."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from oms_events._aio import Clock, SystemClock, cancel_and_wait
from oms_events.errors import ConfigurationError, ReplayError
from oms_events.eventstore.replay.checkpoints import ReplayCheckpoint, ReplayState
from oms_events.eventstore.replay.config import ReplayConfig, ReplaySelection, check_replay_name, new_replay_name
from oms_events.eventstore.replay.plans import Planner
from oms_events.eventstore.replay.report import ReplayFailure, ReplayReport, Tally
from oms_events.eventstore.replay.run import ReplayRun
from oms_events.eventstore.replay.sources import Filter, streams_of
from oms_events.eventstore.store import EventStore
from oms_events.eventstore.time_ranges import TimeRange
from oms_events.instrumentation.hooks import Hook, Hooks
from oms_events.publishing import PlanPublisher
from oms_events.routing.rules import RoutingRule

_log = logging.getLogger("oms_events")


class ReplayRouter(PlanPublisher, Protocol):
    """What a replay publishes through: the router."""

    @property
    def routing_rules(self) -> Sequence[RoutingRule]:
        """The rules, by whose names a replay may choose."""
        ...


class StoreReplay:
    """One replay of an event store's history through a router, to be `run` or only counted.

    Events keep their identity and their data as they were stored, and have the attribute `replayname` more: the
    `name` of this replay, made up unless given. They are published at least once; of each aggregate one after the
    other, in the order of their sequences, or, selected by types, of their times. With a `checkpoint` a replay
    that ended early goes on where it was. `on_progress` is called with the report after each page and each call of
    the router, `on_failure` with each event that is given up; neither may block. A gap in a history that is read
    counts as a failure; selected by types alone, what is missing does not show. Raises `ConfigurationError` for a
    selection that the router cannot serve.
    """

    def __init__(
        self,
        store: EventStore,
        router: ReplayRouter,
        selection: ReplaySelection | None = None,
        *,
        name: str | None = None,
        checkpoint: ReplayCheckpoint | None = None,
        config: ReplayConfig | None = None,
        on_progress: Callable[[ReplayReport], None] | None = None,
        on_failure: Callable[[ReplayFailure], None] | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._router = router
        self._selection = selection or ReplaySelection()
        self._name = name
        self._checkpoint = checkpoint
        self._config = config or ReplayConfig()
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._hooks = Hooks(hooks)
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._tally: Tally | None = None
        if name is not None:
            check_replay_name(name)
        _check_target(router, self._selection)

    @property
    def report(self) -> ReplayReport | None:
        """What the current or last run has done so far; None before the first."""
        return None if self._tally is None else self._tally.report()

    async def run(self) -> ReplayReport:
        """Publishes what is selected, or what the checkpoint says is left of it.

        Raises, with the checkpoint at the last event before which all is settled: `ReplayError` when an event was
        given up and the config says to stop, when a platform denies us, and for a checkpoint of another replay or
        that cannot be kept; `RouterClosedError`; a `StorageError` of the store. `report` then tells what was done.
        Cancelled, it keeps the checkpoint too; what was under way is published again by the next run.
        """
        state = await self._begin()
        tally = self._tally_of(state)
        if not state.complete:
            # Before anything is published: what the texts of times mean now stays so, and a bad place shows.
            await self._save(state)
            await self._publish(state, tally)
        tally.complete = True
        return tally.report()

    async def count(self) -> ReplayReport:
        """A dry run: reads what `run` would, and says what would go where. Publishes and saves nothing.

        Raises as `run` does for its checkpoint and its store.
        """
        state = await self._begin()
        tally = self._tally_of(state)
        if not state.complete:
            await self._prepare(state, tally, is_dry=True).work()
        tally.complete = True
        return tally.report()

    async def _publish(self, state: ReplayState, tally: Tally) -> None:
        run = self._prepare(state, tally, is_dry=False)
        saver = None
        if self._checkpoint is not None:
            saver = asyncio.create_task(self._keep_saving(run, state), name="oms-events-replay-saver")
        try:
            await run.work()
        except BaseException:
            await cancel_and_wait(saver)
            await self._save(_at(state, run))
            raise
        await cancel_and_wait(saver)
        await self._save(_at(state, run, complete=True))

    def _prepare(self, state: ReplayState, tally: Tally, *, is_dry: bool) -> ReplayRun:
        where = Filter(self._selection, tally.time_range)
        streams = streams_of(
            self._store.table,
            self._selection,
            tally.time_range,
            self._config,
            segments=state.segments,
            clock=self._clock,
        )
        return ReplayRun(
            streams,
            Planner(self._router, self._store.registry, self._selection, where, tally),
            self._router,
            state.positions,
            self._config,
            tally,
            is_dry=is_dry,
            on_progress=self._tell_progress,
            on_failure=self._tell_failure,
            hooks=self._hooks,
            clock=self._clock,
            draw=self._rng.random,
        )

    # ------------------------------------------------------------------ checkpoint

    async def _begin(self) -> ReplayState:
        found = None
        if self._checkpoint is not None:
            found = await self._checkpoint.load()
            # Which table it is shows once it is open.
            await self._store.ensure_open()
        selection, table = self._selection, self._store.table
        if found is None:
            now = self._clock.now()
            try:
                time_range = selection.time_range(now=now)
            except ValueError as error:
                raise ConfigurationError("replay", [str(error)]) from None
            is_scan = not (selection.types or selection.aggregate_ids)
            return ReplayState(
                store=table.name,
                table_id=table.identity,
                name=self._name or new_replay_name(now, self._rng),
                selection=selection.model_dump(mode="json"),
                start=time_range.start,
                end=time_range.end,
                segments=self._config.readers if is_scan else None,
            )
        asked = {
            "store": table.name,
            "name": self._name or found.name,
            **selection.model_dump(mode="json"),
        }
        there = {"store": found.store, "name": found.name, **found.selection}
        differences = [
            f"{name} is {there.get(name)!r} there, {asked[name]!r} here"
            for name in asked
            if asked[name] != there.get(name)
        ]
        if None not in (found.table_id, table.identity) and found.table_id != table.identity:
            differences.append(
                f"its table was another one of the name {found.store!r}: of another Region or account, or deleted "
                "and made anew"
            )
        if differences:
            raise ReplayError(
                f"the checkpoint is of another replay: {'; '.join(differences)}; ask for the same again, "
                "or take another checkpoint"
            )
        return found

    def _tally_of(self, state: ReplayState) -> Tally:
        is_resumed = state.complete or bool(state.positions)
        self._tally = Tally(state.name, TimeRange(state.start, state.end), resumed=is_resumed)
        return self._tally

    async def _keep_saving(self, run: ReplayRun, state: ReplayState) -> None:
        saved = state.positions
        try:
            while True:
                await self._clock.sleep(self._config.save_interval)
                if (positions := run.positions) != saved:
                    await self._save(_at(state, run))
                    saved = positions
        except Exception as error:
            run.stop(error)

    async def _save(self, state: ReplayState) -> None:
        if self._checkpoint is not None:
            await self._checkpoint.save(state)

    # ------------------------------------------------------------------ telling

    def _tell_progress(self) -> None:
        if self._on_progress is not None and self._tally is not None:
            self._on_progress(self._tally.report())

    def _tell_failure(self, failure: ReplayFailure) -> None:
        if self._on_failure is not None:
            self._on_failure(failure)
        else:
            _log.warning("replay: %s", failure)


def _at(state: ReplayState, run: ReplayRun, *, complete: bool = False) -> ReplayState:
    return state.model_copy(update={"positions": run.positions, "complete": complete})


def _check_target(router: ReplayRouter, selection: ReplaySelection) -> None:
    problems = []
    if selection.platform is not None and selection.platform not in router.platforms:
        problems.append(f"platform = {selection.platform!r} is not among {', '.join(router.platforms)}")
    names = [rule.name for rule in router.routing_rules]
    if selection.rule is not None and selection.rule not in names:
        problems.append(
            f"rule = {selection.rule!r} is not among the router's: {', '.join(names) or 'it has none'}"
        )
    if problems:
        raise ConfigurationError("replay", problems)
