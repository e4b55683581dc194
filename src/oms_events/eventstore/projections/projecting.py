"""One aggregate's way into one projection: from its checkpoint on, event by event, whatever was delivered."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from oms_events._aio import Clock
from oms_events.errors import EventUnreadableError, ProjectionError, TransactionConflictError
from oms_events.eventstore.config import ProjectorConfig
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections.folding import (
    MAX_ROWS,
    Folded,
    Folding,
    HistoryEvent,
    Poison,
    RowChange,
    concerns,
)
from oms_events.eventstore.projections.items import (
    Checkpoint,
    ItemKey,
    ParkedEvent,
    Write,
    checkpoint_key,
    checkpoint_write,
    parked_change,
    parked_key,
    parked_write,
    read_checkpoint,
    read_parked,
    row_item,
    row_key,
    row_write,
)
from oms_events.eventstore.projections.positions import KeyedLocks, Positions
from oms_events.eventstore.projections.projection import REVISION, Projection
from oms_events.eventstore.projections.read_models import ReadModels
from oms_events.eventstore.projections.runs import Runs
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.store import EventStore
from oms_events.instrumentation.hooks import EventParked, Hooks, Projected

_log = logging.getLogger("oms_events")

_BEYOND: Final = 2**63
"""After every event: a held aggregate need not be given anything again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What all work of a projector shares."""

    store: EventStore
    read_models: ReadModels
    config: ProjectorConfig
    hooks: Hooks
    clock: Clock
    rng: random.Random
    positions: Positions
    locks: KeyedLocks


class Advance:
    """Brings one aggregate forward in one projection; used once.

    `position` is how far it has come, also when it raised: all up to there is in the read model, or parked, or
    waits in the store for what is parked. Cancelled at any point, what was committed stands, and no more.
    """

    def __init__(
        self,
        engine: Engine,
        projection: Projection[Any],
        aggregate_id: str,
        delivered: Iterable[RecordedEvent] = (),
        *,
        to_end: bool = False,
    ) -> None:
        config = engine.config
        self.aggregate_id = aggregate_id
        self.position = 0
        self._engine = engine
        self._tables = engine.read_models.tables
        self._projection = projection
        self._name = projection.full_name
        self._to_end = to_end
        self._release: int | None = None
        self._runs = Runs(
            engine.store,
            aggregate_id,
            delivered,
            page_size=config.page_size,
            clock=engine.clock,
            rng=engine.rng,
        )
        self._folding = Folding(
            projection,
            pass_poison=config.after_poison == "continue",
            is_private=engine.store.cipher is not None,
        )
        self._checkpoint: Checkpoint | None = None
        self._rows: dict[str, Item | None] = {}
        self._is_loaded = False
        self._refusals = 0

    async def run(self) -> None:
        """Works until nothing is left to do.

        Raises a `StorageError`, and `ProjectionError` for an event that the store lacks and for a row whose
        checkpoint is gone.
        """
        async with self._to_myself():
            while await self._step():
                pass

    async def retry(self, parked: ParkedEvent) -> bool:
        """Tries a parked event again, and goes on to the end where the aggregate waits for it.

        Whether it is parked no more. Raises as `run`.
        """
        async with self._to_myself():
            if not parked.held:
                return await self._retry_passed(parked)
            self._release = parked.sequence
            while await self._step():
                pass
            listed = await self._listed(parked.sequence)
            known = self._checkpoint
            if listed is None or not listed.held or (known is not None and known.parked == parked.sequence):
                return listed is None
            # Nobody waits for it: what it says was left behind by a version that was removed.
            return await self._tables.commit([parked_change(listed, None)])

    @asynccontextmanager
    async def _to_myself(self) -> AsyncIterator[None]:
        """Keeps this process's other tasks from the same aggregate: all but one of them would be refused."""
        async with self._engine.locks.hold([f"aggregate {self._name} {self.aggregate_id}"]):
            yield

    # ------------------------------------------------------------------ step by step

    async def _step(self) -> bool:
        """One transaction further; whether there may be more to do."""
        if not self._is_loaded:
            await self._load()
        known = self._checkpoint or Checkpoint()
        if known.is_held and self._release != known.parked:
            self.position = _BEYOND
            return False
        # What came while the aggregate was held was not handled, and nobody will deliver it again.
        to_end = self._to_end or known.parked is not None
        run = await self._runs.after(self.position, to_end=to_end)
        if not run:
            return await self._settle(known)
        wanted = [event for event in run if concerns(event, self._projection)]
        if wanted:
            await self._project(run, await self._runs.revealed(wanted))
        else:
            self._engine.positions.passed(self._name, self.aggregate_id, run[0].sequence, run[-1].sequence)
            self.position = run[-1].sequence
        return True

    async def _load(self) -> None:
        """Reads the checkpoint, and with it the row that the delivered events will most likely need."""
        keys: list[str] = []
        if not self._projection.shares_rows and any(
            concerns(one, self._projection) for one in self._runs.delivered
        ):
            keys = [self.aggregate_id]
        found = await self._tables.get([self._checkpoint_key, *(row_key(self._name, key) for key in keys)])
        self._checkpoint = known = read_checkpoint(found[0])
        if known is not None and known.is_held:
            self.position = known.sequence
        else:
            self.position = self._engine.positions.after(self._name, self.aggregate_id, _sequence(known))
        self._rows = dict(zip(keys, found[1:], strict=True))
        self._is_loaded = True

    async def _project(self, run: Sequence[HistoryEvent], wanted: Sequence[HistoryEvent]) -> None:
        """Folds the events of interest of a run, as many as one transaction takes, and writes what they make."""
        keys: dict[str, None] = {}
        for number, event in enumerate(wanted):
            more = keys | dict.fromkeys(self._folding.keys_of(event))
            if number and len(more) > MAX_ROWS:
                wanted = wanted[:number]
                run = [one for one in run if one.sequence < event.sequence]
                break
            keys = more
        async with self._rows_to_myself(keys):
            rows = await self._need(keys)
            if not await self._is_consistent(rows):
                await self._refused()
                return
            folded = self._folding.fold(wanted, rows)
            # What stands between the last event in it and the first that is not is of no interest.
            last = run[-1].sequence if folded.next == len(wanted) else wanted[folded.next].sequence - 1
            await self._commit(folded, last)

    @asynccontextmanager
    async def _rows_to_myself(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Keeps this process's other aggregates from the same rows, as `_to_myself` does."""
        if not self._projection.shares_rows:
            yield
            return
        async with self._engine.locks.hold([f"row {self._name} {key}" for key in keys]):
            try:
                yield
            finally:
                # From now on they are others' to change.
                self._rows.clear()

    async def _need(self, keys: Iterable[str]) -> Mapping[str, Item | None]:
        missing = [key for key in keys if key not in self._rows]
        if missing:
            found = await self._tables.get([row_key(self._name, key) for key in missing])
            self._rows.update(zip(missing, found, strict=True))
        return self._rows

    async def _is_consistent(self, rows: Mapping[str, Item | None]) -> bool:
        """Whether the rows have none of the aggregate's events after its checkpoint: they are not read at once.

        Raises `ProjectionError` for a checkpoint that is gone, or was put back: its events would count again.
        """
        newest = max((_revision(row, self.aggregate_id) for row in rows.values()), default=0)
        if newest <= _sequence(self._checkpoint):
            return True
        # What is read after the rows is at least as new, whatever others write meanwhile.
        [item] = await self._tables.get([self._checkpoint_key])
        sequence = _sequence(read_checkpoint(item))
        if newest > sequence:
            raise ProjectionError(
                f"{self._name}: a row has event {self.aggregate_id}@{newest}, but the aggregate's checkpoint is "
                f"at {sequence}: was it deleted alone? Build a new version of the projection, and retire this one"
            )
        return False

    async def _commit(self, folded: Folded, last: int) -> None:
        """Writes rows, checkpoint and what is parked at once, if nobody changed any of it since it was read."""
        before, now = self._checkpoint, self._engine.clock.now()
        waited_for = None if before is None else before.parked
        waits_for = folded.poison[-1].sequence if folded.is_held else waited_for
        after = Checkpoint(last, waits_for)
        items = self._items(folded.rows, now)
        parked = [await self._parked(poison, now, held=folded.is_held) for poison in folded.poison]
        writes = [
            checkpoint_write(self._checkpoint_key, before, after, now),
            *self._row_writes(items),
            *map(parked_write, parked),
        ]
        if waited_for is not None and waits_for != waited_for:
            writes += await self._delisted(waited_for)
        if not await self._tables.commit(writes):
            await self._refused()
            return
        self._checkpoint, self._refusals = after, 0
        self.position = last
        self._rows.update(items)
        self._engine.positions.handled(self._name, self.aggregate_id, last)
        if folded.is_held:
            self._release = None
        self._tell(folded, parked, now)

    async def _settle(self, known: Checkpoint) -> bool:
        """Ends the catching up after a parked event, at the history's end; whether there may be more to do."""
        if known.parked is None or known.is_held:
            return False
        now, after = self._engine.clock.now(), Checkpoint(max(known.sequence, self.position))
        writes = [checkpoint_write(self._checkpoint_key, known, after, now), *await self._delisted(known.parked)]
        if not await self._tables.commit(writes):
            await self._refused()
            return True
        self._checkpoint = after
        return False

    async def _refused(self) -> None:
        """Others were faster, or this was done before and its answer lost: what is there now is read."""
        self._is_loaded = False
        self._refusals += 1
        retry = self._engine.config.conflicts
        if self._refusals >= retry.max_attempts:
            text = (
                f"{self._name}, aggregate {self.aggregate_id!r}: others changed it or its rows at each of "
                f"{self._refusals} attempts; nothing was written"
            )
            raise TransactionConflictError(text)
        await self._engine.clock.sleep(retry.delay(self._refusals, self._engine.rng.random))

    # ------------------------------------------------------------------ parked events

    async def _retry_passed(self, parked: ParkedEvent) -> bool:
        """Handles an event that was passed over, on its rows as they are by now, and takes it from the list."""
        listed: ParkedEvent | None = parked
        while listed is not None and not listed.held:
            wanted = await self._runs.revealed(await self._runs.one(parked.sequence))
            keys = [key for event in wanted for key in self._folding.keys_of(event)]
            async with self._rows_to_myself(keys):
                self._rows.clear()
                folded = self._folding.fold(wanted, await self._need(keys))
                now, still = self._engine.clock.now(), None
                if folded.poison:
                    reason = folded.poison[-1].reason
                    still = replace(listed, reason=reason, parked_at=now, attempts=listed.attempts + 1)
                writes = [parked_change(listed, still), *self._row_writes(self._items(folded.rows, now))]
                is_done = await self._tables.commit(writes)
            if is_done:
                self._tell(folded, [] if still is None else [still], now)
                return still is None
            await self._refused()
            listed = await self._listed(parked.sequence)
        return listed is None

    async def _parked(self, poison: Poison, now: datetime, *, held: bool) -> ParkedEvent:
        event = ParkedEvent(
            projection=self._name,
            aggregate_id=self.aggregate_id,
            sequence=poison.sequence,
            event_type=poison.type,
            reason=poison.reason,
            parked_at=now,
            held=held,
        )
        known = await self._listed(poison.sequence) if poison.sequence == self._release else None
        return event if known is None else replace(event, attempts=known.attempts + 1)

    async def _listed(self, sequence: int) -> ParkedEvent | None:
        [item] = await self._tables.get([parked_key(self._name, self.aggregate_id, sequence)])
        return None if item is None else read_parked(item)

    async def _delisted(self, sequence: int) -> list[Write]:
        """Takes the event that the aggregate waited for from the list, unless it was passed over since."""
        listed = await self._listed(sequence)
        return [parked_change(listed, None)] if listed is not None and listed.held else []

    # ------------------------------------------------------------------ writes

    @property
    def _checkpoint_key(self) -> ItemKey:
        return checkpoint_key(self._name, self.aggregate_id)

    def _items(self, rows: Mapping[str, RowChange], now: datetime) -> dict[str, Item | None]:
        items: dict[str, Item | None] = {}
        for key, (attributes, revision) in rows.items():
            place = row_key(self._name, key)
            items[key] = None if attributes is None else row_item(place, attributes, revision=revision, now=now)
        return items

    def _row_writes(self, items: Mapping[str, Item | None]) -> list[Write]:
        return [row_write(row_key(self._name, key), self._rows[key], item) for key, item in items.items()]

    def _tell(self, folded: Folded, parked: Sequence[ParkedEvent], now: datetime) -> None:
        hooks = self._engine.hooks
        for event in parked:
            _log.warning("%s parked %s (%s): %s", self._name, event.position, event.event_type, event.reason)
            if event.attempts == 1:
                hooks(EventParked(self._name, event.position, event.event_type, event.reason))
        if hooks and folded.handled:
            hooks(Projected(self._name, len(folded.handled), [_lag(event, now) for event in folded.handled]))


def _sequence(checkpoint: Checkpoint | None) -> int:
    return 0 if checkpoint is None else checkpoint.sequence


def _revision(row: Item | None, aggregate_id: str) -> int:
    """The event of an aggregate that a row was made of last; 0 when it was another's, or nobody knows."""
    revision: str = "" if row is None else row.get(REVISION, {}).get("S", "")
    owner, _, sequence = revision.rpartition("@")
    return int(sequence) if owner == aggregate_id and sequence.isdecimal() else 0


def _lag(event: RecordedEvent, now: datetime) -> float:
    try:
        return max(0.0, (now - event.time).total_seconds())
    except EventUnreadableError:
        # Its data could be read, which is what counts.
        return 0.0
