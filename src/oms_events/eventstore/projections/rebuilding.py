"""A rebuild: projections brought up to the event store from its table, while live traffic goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import Field

from oms_events._aio import Clock, SystemClock, cancel_and_wait
from oms_events._config import ConfigModel
from oms_events.errors import ConfigurationError, EventUnreadableError, StorageDeniedError
from oms_events.eventstore.items import Item, is_event, read_item
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import ReadModels
from oms_events.eventstore.projections.rebuild_positions import (
    SEGMENT_PREFIX,
    SegmentPosition,
    position_key,
    position_write,
    read_position,
    rebuild_key,
)
from oms_events.eventstore.projections.sources import Told, project
from oms_events.eventstore.schema import AGGREGATE_ID
from oms_events.resilience.backoff import RetryConfig
from oms_events.resilience.rate import RateLimit

T = TypeVar("T")


class RebuildConfig(ConfigModel):
    """How the event store's table is read for a rebuild, and to see whether one is complete."""

    segments: int = Field(default=4, ge=1, le=1000)
    """So many parts of the table are read side by side, each a page at a time."""
    page_size: int = Field(default=500, ge=1, le=10_000)
    """Events of a page, at most; it has 1 MB at most, too. Pages and segments bound the memory."""
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Events per second, at most; live traffic needs the tables' throughput too."""
    retry: RetryConfig = RetryConfig(max_attempts=8, initial=0.2, maximum=10.0)
    """How events that cannot be projected now are tried again before the rebuild ends with their error."""
    lag: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    """So many seconds the projectors of live events have to bring an aggregate up before it counts as behind."""


class RebuildProgress(NamedTuple):
    """How far a rebuild is: what it has met so far, with what was done before it was resumed."""

    aggregates: int
    events: int
    segments_done: int
    segments: int


class Rebuilt(NamedTuple):
    """A rebuild that has come to its end: what it read, also what was in the read models before.

    `parked` events wait in the projections.
    """

    aggregates: int
    events: int
    parked: int


async def rebuild(
    projector: Projector,
    *,
    config: RebuildConfig | None = None,
    resume: bool = True,
    on_progress: Callable[[RebuildProgress], None] | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> Rebuilt:
    """Brings the projector's projections up to the event store, reading its whole table once.

    Give it a projector of the new versions, and let one of them have the live events meanwhile: each event takes
    effect once, whoever brings it. Nothing is deleted, so it also repairs a version that is behind. What a version
    has by its checkpoints is passed over: to have rows made anew, raise the projection's version.

    With `resume` it goes on where one of the same projections with as many segments was ended, however that was.
    `on_progress` is called, on the event loop, after each page. Raises what kept an event out of the read models
    for all attempts: a `StorageError`, or `ProjectionError`, which is also for a version that is being retired;
    `ConfigurationError` for tables that cannot be used.
    Cancelled, what was done stays.
    """
    await projector.open()
    rebuilding = _Rebuild(
        projector, config or RebuildConfig(), on_progress, clock or SystemClock(), rng or random.SystemRandom()
    )
    await rebuilding.load(resume=resume)
    await rebuilding.run()
    await rebuilding.finish()
    parked = [await count_parked(projector.read_models, projection) for projection in projector.projections]
    progress = rebuilding.progress()
    return Rebuilt(progress.aggregates, progress.events, sum(parked))


class _Rebuild:
    def __init__(
        self,
        projector: Projector,
        config: RebuildConfig,
        on_progress: Callable[[RebuildProgress], None] | None,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._projector = projector
        self._store = projector.store
        self._tables = projector.read_models.tables
        self._config = config
        self._on_progress = on_progress
        self._clock = clock
        self._draw = rng.random
        self._names = [projection.full_name for projection in projector.projections]
        self._positions = [SegmentPosition()] * config.segments
        self._rate = (
            None
            if config.rate is None
            else RateLimit(config.rate, burst=config.page_size, monotonic=clock.monotonic)
        )

    async def load(self, *, resume: bool) -> None:
        await self._projector.read_models.check_not_retiring(*self._names)
        if not resume:
            await self.finish()
            return
        for segment in range(self._config.segments):
            keys = [position_key(name, segment, self._config.segments) for name in self._names]
            found = [read_position(item, self._store.table.name) for item in await self._tables.get(keys)]
            # Projections that were rebuilt with others before need not be at the same place.
            if all(position == found[0] for position in found):
                self._positions[segment] = found[0]

    async def run(self) -> None:
        await in_segments(self._segment, self._config.segments)

    async def finish(self) -> None:
        """Forgets the positions: the next rebuild begins at the beginning."""
        for name in self._names:
            await forget_positions(self._projector.read_models, name)

    def progress(self) -> RebuildProgress:
        return RebuildProgress(
            aggregates=sum(position.aggregates for position in self._positions),
            events=sum(position.events for position in self._positions),
            segments_done=sum(position.is_done for position in self._positions),
            segments=len(self._positions),
        )

    async def _segment(self, segment: int) -> None:
        config = self._config
        while not (position := self._positions[segment]).is_done:
            page = await self._store.table.scan(
                start=position.token, segment=segment, segments=config.segments, limit=config.page_size
            )
            told = [_told(item, self._projector) for item in page.items if is_event(item)]
            # Again at each page: it may have begun since.
            await self._projector.read_models.check_not_retiring(*self._names)
            await self._project(told)
            position = position.after([one.aggregate_id for one in told], page.next)
            keys = [position_key(name, segment, config.segments) for name in self._names]
            now = self._clock.now()
            await self._tables.commit([position_write(key, self._store.table.name, position, now) for key in keys])
            self._positions[segment] = position
            if self._on_progress is not None:
                self._on_progress(self.progress())

    async def _project(self, told: Sequence[Told]) -> None:
        attempt, retry = 1, self._config.retry
        if self._rate is not None and told:
            await self._clock.sleep(self._rate.take(min(len(told), self._config.page_size)))
        while told:
            failures = await project(self._projector, told)
            failed = [(one, error) for one, error in zip(told, failures, strict=True) if error is not None]
            told = [one for one, _ in failed]
            if not failed:
                return
            for _, error in failed:
                if attempt >= retry.max_attempts or isinstance(error, StorageDeniedError | ConfigurationError):
                    raise error
            await self._clock.sleep(retry.delay(attempt, self._draw))
            attempt += 1


def _told(item: Item, projector: Projector) -> Told:
    aggregate_id = item[AGGREGATE_ID]["S"]
    try:
        return Told(aggregate_id, read_item(item, projector.store.registry))
    except EventUnreadableError:
        # The projector reads it again, and parks it.
        return Told(aggregate_id, None)


async def in_segments(work: Callable[[int], Coroutine[Any, Any, T]], segments: int) -> list[T]:
    """Works on all parts of a table side by side; the first error ends all. Cancelled, all have ended."""
    tasks = [
        asyncio.create_task(work(segment), name=f"oms-events-segment-{segment}") for segment in range(segments)
    ]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)


async def count_parked(read_models: ReadModels, projection: Projection[Any]) -> int:
    """How many events of a projection are parked."""
    count, start = 0, None
    while True:
        page = await read_models.parked_page(projection, start=start)
        count, start = count + len(page.events), page.next
        if start is None:
            return count


async def forget_positions(read_models: ReadModels, full_name: str) -> None:
    """Deletes the positions of a projection's rebuild."""
    await read_models.delete_partition(rebuild_key(full_name), prefix=SEGMENT_PREFIX)
