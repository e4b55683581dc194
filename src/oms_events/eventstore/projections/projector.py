"""The projector: takes recorded events from whatever source, and keeps read models up with them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from oms_events._aio import Clock, SystemClock, cancel_and_wait, cancelled_from_outside
from oms_events.errors import ConfigurationError, ProjectionError, StorageError, StorageOutcomeUnknownError
from oms_events.eventstore.config import ProjectorConfig
from oms_events.eventstore.history import Token
from oms_events.eventstore.projections.items import ParkedEvent
from oms_events.eventstore.projections.positions import KeyedLocks, Positions
from oms_events.eventstore.projections.projecting import Advance, Engine
from oms_events.eventstore.projections.projection import Projection, check_projections, projection_of
from oms_events.eventstore.projections.read_models import ReadModels
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.store import EventStore
from oms_events.instrumentation.hooks import Hook, Hooks

T = TypeVar("T")


class Retried(NamedTuple):
    """What became of parked events: so many are in the read model now, so many are parked still."""

    released: int
    parked: int


class Projector:
    """Keeps the read models of `projections` up with the events of `store`; an async context manager.

    Each event takes effect exactly once in each read model, and those of an aggregate in their order, whatever
    the source does: rows and the aggregate's checkpoint change in one transaction, and what the source left out
    is read from the store. Several projectors may work at the same time, in one process or in many. It closes
    neither the store nor the read models. Safe to use concurrently. Raises `ConfigurationError` for arguments of
    other kinds, and for projections that cannot be kept up: none, without a function, of another registry.
    """

    def __init__(
        self,
        projections: Sequence[Projection[Any]],
        store: EventStore,
        read_models: ReadModels,
        *,
        config: ProjectorConfig | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        _check_kinds(projections, store, read_models)
        self.projections = tuple(projections)
        check_projections(self.projections, store.registry)
        self.store = store
        self.read_models = read_models
        self.config = config or ProjectorConfig()
        self._engine = Engine(
            store=store,
            read_models=read_models,
            config=self.config,
            hooks=Hooks(hooks),
            clock=clock or SystemClock(),
            rng=rng or random.SystemRandom(),
            positions=Positions(self.config.remembered_positions),
            locks=KeyedLocks(),
        )
        self._slots = asyncio.Semaphore(self.config.concurrency)
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self) -> None:
        """Opens the store and the read models; idempotent.

        A projection that has no active version yet gets its own as that. Raises what their `open` does, a
        `StorageError`, and `ProjectionError` for a version without an active one that is being retired.
        """
        if self._is_open:
            return
        async with self._opening:
            await self.store.open()
            await self.read_models.open(checkpoints=True)
            for projection in self.projections:
                if await self.read_models.active_version(projection.name) is None:
                    await self.read_models.set_active_version(projection.name, projection.version, expected=None)
            self._is_open = True

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    # ------------------------------------------------------------------ events

    async def handle(self, events: Sequence[RecordedEvent]) -> list[Exception | None]:
        """Handles events, in any order, with any gaps and duplicates; gives what became of each, aligned.

        None: it is in the read models, or was before, or is parked, or waits in the store for one that is; the
        source may forget it. An error: not now, and neither were the aggregate's later events; deliver it again.
        That is a `StorageError`, or a `ProjectionError` when the store lacks an event before it. Raises
        `ConfigurationError` as `open` does, and for what is no recorded event, with nothing done. Cancelled, some
        events may have been handled: deliver all again.
        """
        _check_recorded(events)
        try:
            await self.open()
        except (StorageError, ProjectionError) as error:
            return [error for _ in events]
        aggregates: dict[str, dict[int, RecordedEvent]] = {}
        for event in events:
            aggregates.setdefault(event.aggregate_id, {}).setdefault(event.sequence, event)
        work = [
            Advance(self._engine, projection, aggregate_id, delivered)
            for aggregate_id, found in aggregates.items()
            for delivered in ([found[sequence] for sequence in sorted(found)],)
            for projection in self.projections
            if not self._passed(projection, aggregate_id, delivered)
        ]
        failures = await self._run(work)
        results: list[Exception | None] = []
        for event in events:
            errors = (
                error
                for advance, error in failures.get(event.aggregate_id, ())
                if event.sequence > advance.position
            )
            results.append(next(errors, None))
        return results

    async def catch_up(self, aggregate_id: str) -> None:
        """Brings an aggregate from its checkpoints to the end of its history, in all projections.

        Where it waits for a parked event it stays. Raises as `open` does, a `StorageError` and `ProjectionError`.
        """
        await self.open()
        work = [Advance(self._engine, projection, aggregate_id, to_end=True) for projection in self.projections]
        for _, error in (await self._run(work)).get(aggregate_id, ()):
            raise error

    def _passed(self, projection: Projection[Any], aggregate_id: str, events: Sequence[RecordedEvent]) -> bool:
        """Remembers events that a projection has nothing to do with; whether all are such."""
        if any(projection.handlers(event.type) for event in events):
            return False
        for event in events:
            self._engine.positions.passed(projection.full_name, aggregate_id, event.sequence, event.sequence)
        return True

    async def _run(self, work: Sequence[Advance]) -> dict[str, list[tuple[Advance, Exception]]]:
        """Does work; gives what failed, by aggregate."""
        failures: dict[str, list[tuple[Advance, Exception]]] = {}
        for advance, error in zip(work, await self._all(map(self._failure, work)), strict=True):
            if error is not None:
                failures.setdefault(advance.aggregate_id, []).append((advance, error))
        return failures

    async def _failure(self, advance: Advance) -> Exception | None:
        async with self._slots:
            try:
                await advance.run()
            except asyncio.CancelledError as error:
                if cancelled_from_outside():
                    raise
                # Something inside was cancelled, and not this: it must not look as if the source were to stop.
                failure = StorageOutcomeUnknownError(
                    f"projection of {advance.aggregate_id!r}: a call was cancelled"
                )
                failure.__cause__ = error
                return failure
            except Exception as error:
                return error
        return None

    async def _all(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Results, aligned. Ends all tasks before it ends; the first error is raised as it is."""
        tasks = [asyncio.create_task(one, name="projection") for one in work]
        try:
            return await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(*tasks)

    # ------------------------------------------------------------------ parked events

    async def parked(
        self, projection: Projection[Any] | str, *, aggregate_id: str | None = None
    ) -> AsyncGenerator[ParkedEvent]:
        """The parked events of a projection, of all aggregates or of one, those of an aggregate in their order.

        Raises `ConfigurationError` for a projection that is not this projector's, and for a name without version
        that several have; a `StorageError`.
        """
        full_name = projection_of(self.projections, projection).full_name
        start: Token | None = None
        while True:
            page = await self.read_models.parked_page(full_name, aggregate_id=aggregate_id, start=start)
            for event in page.events:
                yield event
            start = page.next
            if start is None:
                return

    async def retry_parked(self, projection: Projection[Any] | str, *, aggregate_id: str | None = None) -> Retried:
        """Tries parked events again, those of all aggregates or of one, and catches up with what waited for them.

        What is still poison stays parked, with its new reason. Raises as `parked`, and `ProjectionError`; do it
        again then, also when cancelled: nothing is lost, and nothing takes effect twice.
        """
        await self.open()
        own = projection_of(self.projections, projection)
        released = 0
        start: Token | None = None
        while True:
            page = await self.read_models.parked_page(own, aggregate_id=aggregate_id, start=start)
            aggregates: dict[str, list[ParkedEvent]] = {}
            for event in page.events:
                aggregates.setdefault(event.aggregate_id, []).append(event)
            # The aggregates at the same time, the events of one in their order.
            gone = await self._all(self._retried(own, events) for events in aggregates.values())
            released += sum(gone)
            start = page.next
            if start is None:
                break
        # Counted now: an aggregate that went on may wait for a later event.
        return Retried(released, sum([1 async for _ in self.parked(own, aggregate_id=aggregate_id)]))

    async def _retried(self, projection: Projection[Any], events: Sequence[ParkedEvent]) -> int:
        gone = 0
        for event in events:
            async with self._slots:
                gone += await Advance(self._engine, projection, event.aggregate_id).retry(event)
        return gone


def _check_recorded(events: Sequence[Any]) -> None:
    for event in events:
        if not isinstance(event, RecordedEvent):
            problem = f"it is of type {type(event).__name__}; give events as `append` and `read` give them"
            raise ConfigurationError("events: no recorded event", [problem])


def _check_kinds(projections: Any, store: Any, read_models: Any) -> None:
    problems = []
    if not isinstance(projections, Sequence) or not all(isinstance(one, Projection) for one in projections):
        problems.append(f"projections = {projections!r}: give a list of projections: [projection]")
    if not isinstance(store, EventStore):
        problems.append(f"store = {store!r}: give an event store, such as DynamoDBEventStore(...)")
    if not isinstance(read_models, ReadModels):
        problems.append(f"read_models = {read_models!r}: give read models, such as DynamoDBReadModels(...)")
    if problems:
        raise ConfigurationError("projector", problems)
