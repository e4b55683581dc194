"""One aggregate's way into one projection: from its checkpoint on, event by event, whatever was delivered."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from oms_events._aio import Clock
from oms_events._config import ConfigModel
from oms_events.errors import EventUnreadableError, PersonalDataError, ProjectionError, TransactionConflictError
from oms_events.eventstore.folding import (
    MAX_ROWS,
    BrokenEvent,
    Folded,
    HistoryEvent,
    Poison,
    fold,
    is_of_interest,
    keys_of,
    reason_of,
)
from oms_events.eventstore.items import Item, position_of, read_item
from oms_events.eventstore.positions import KeyedLocks, Positions
from oms_events.eventstore.projections import Projection
from oms_events.eventstore.read_model_items import (
    Checkpoint,
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
from oms_events.eventstore.read_models import ReadModels
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.schema import EVENT_SEQUENCE, EVENT_TYPE
from oms_events.eventstore.store import EventStore, reveal
from oms_events.instrumentation.hooks import EventParked, Hooks, Projected
from oms_events.resilience.backoff import RetryConfig

_log = logging.getLogger("oms_events")

_ALL: Final = 2**63
"""Beyond every position: what a held aggregate need not be given again."""


class ProjectorConfig(ConfigModel):
    """How a projector works."""

    concurrency: int = Field(default=16, ge=1, le=1000)
    """So many aggregates are worked on at the same time."""
    after_poison: Literal["hold", "continue"] = "hold"
    """What becomes of an aggregate's later events when one is parked: `hold` keeps them in the store until
    `retry_parked`, `continue` handles them without it."""
    conflicts: RetryConfig = RetryConfig(max_attempts=30, initial=0.01, maximum=1.0)
    """How often and after how long a change is decided anew when others changed the same row or aggregate."""
    page_size: int = Field(default=500, ge=1, le=10_000)
    """So many events of an aggregate are read from the store at once, and 1 MB at most."""
    remembered_positions: int = Field(default=100_000, ge=0)
    """Of so many aggregates and projections it is remembered that events of no interest were passed."""


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
    """Brings one aggregate forward in one projection.

    `position` is how far it has come, also when `run` raised; everything before it is done, or in the store and
    waits there for a parked event. Cancelled at any point, what was committed stands and the rest is not done.
    """

    def __init__(
        self,
        engine: Engine,
        projection: Projection[Any],
        aggregate_id: str,
        delivered: Sequence[RecordedEvent] = (),
        *,
        to_end: bool = False,
        release: bool = False,
    ) -> None:
        self._engine = engine
        self._projection = projection
        self._name = projection.full_name
        self.aggregate_id = aggregate_id
        self._delivered = deque(delivered)
        self._to_end = to_end
        self._release = release
        self._checkpoint_key = checkpoint_key(self._name, aggregate_id)
        self._checkpoint: Checkpoint | None = None
        self._rows: dict[str, Item | None] = {}
        self._is_loaded = False
        self._refusals = 0
        self.position = 0

    async def run(self) -> None:
        """Works until nothing is left to do. Raises a `StorageError`, and `ProjectionError` for a gap in the store."""
        async with self._engine.locks.hold([f"aggregate {self._name} {self.aggregate_id}"]):
            while await self._step():
                pass

    async def run_held(self, event: ParkedEvent) -> bool:
        """As `run`, also where the aggregate waits for `event`; whether that is parked no more."""
        await self.run()
        listed = await self._listed(event.sequence)
        return listed is None

    async def run_passed(self, event: ParkedEvent) -> bool:
        """Handles an event that was passed over, on the row as it is by now; whether it is parked no more."""
        async with self._engine.locks.hold([f"aggregate {self._name} {self.aggregate_id}"]):
            listed: ParkedEvent | None = event
            while listed is not None and not listed.held:
                found = await self._revealed(await self._read(event.sequence - 1, event.sequence))
                keys = [key for one in found for key in keys_of(one, self._projection)]
                async with self._rows_to_myself(keys):
                    self._rows.clear()
                    await self._need(keys)
                    folded = fold(self._projection, found, self._rows)
                    now = self._engine.clock.now()
                    again = None
                    if folded.is_held:
                        reason = folded.poison[-1].reason
                        again = replace(listed, reason=reason, parked_at=now, attempts=listed.attempts + 1)
                    writes = [
                        parked_change(listed, again),
                        *(
                            row_write(row_key(self._name, key), self._rows[key], item)
                            for key, item in self._items(folded, now).items()
                        ),
                    ]
                    is_done = await self._engine.read_models.tables.commit(writes)
                if is_done:
                    self._tell(folded, [] if again is None else [again], now)
                    return again is None
                await self._refused()
                listed = await self._listed(event.sequence)
            return listed is None

    async def _step(self) -> bool:
        """One transaction further; whether there may be more to do."""
        if not self._is_loaded:
            await self._load()
        known = self._checkpoint or Checkpoint()
        if known.is_held and not self._release:
            self.position = _ALL
            return False
        positions = self._engine.positions
        self.position = positions.after(self._name, self.aggregate_id, known.sequence)
        if known.is_held:
            self.position = known.sequence
        run = await self._next()
        if not run:
            return known.parked is not None and await self._settle(known)
        wanted = [event for event in run if is_of_interest(event, self._projection)]
        if not wanted:
            self._pass(run[0].sequence, run[-1].sequence)
            return True
        wanted = await self._revealed(wanted)
        return await self._project(run, wanted)

    # ------------------------------------------------------------------ reading

    async def _load(self) -> None:
        """Reads the checkpoint, and with it the rows that the delivered events will most likely need."""
        keys: list[str] = []
        if not self._projection.shares_rows and any(
            is_of_interest(event, self._projection) for event in self._delivered
        ):
            keys = [self.aggregate_id]
        items = await self._engine.read_models.tables.get(
            [self._checkpoint_key, *(row_key(self._name, key) for key in keys)]
        )
        self._checkpoint = read_checkpoint(items[0])
        self._rows = dict(zip(keys, items[1:], strict=True))
        self._is_loaded = True

    async def _next(self) -> Sequence[HistoryEvent]:
        """The events that come next, without a gap; from what was delivered, or from the store."""
        delivered = self._delivered
        while delivered and delivered[0].sequence <= self.position:
            delivered.popleft()
        if delivered and delivered[0].sequence == self.position + 1:
            run: list[HistoryEvent] = []
            for event in delivered:
                if event.sequence != self.position + 1 + len(run):
                    break
                run.append(event)
            return run
        known = self._checkpoint
        if not delivered and not self._to_end and (known is None or known.parked is None):
            return []
        up_to = delivered[0].sequence - 1 if delivered else None
        found = await self._read(self.position, up_to)
        if [event.sequence for event in found] != list(
            range(self.position + 1, self.position + 1 + len(found))
        ) or (delivered and not found):
            missing = f"{self.aggregate_id}@{self.position + 1}"
            raise ProjectionError(
                f"{self._name}: the event store has no event {missing}, but later ones came: does the source give "
                "another store's events, or was history deleted?"
            )
        return found

    async def _read(self, after: int, up_to: int | None) -> list[HistoryEvent]:
        store = self._engine.store
        while True:
            page = await store.table.read(
                self.aggregate_id, after=after, up_to=up_to, limit=self._engine.config.page_size
            )
            if page.items or page.next is None:
                return [_read_event(item, store) for item in page.items]

    async def _revealed(self, events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
        """The events with personal data in clear text, where the cipher still has the key."""
        cipher = self._engine.store.cipher
        if cipher is None:
            return list(events)
        readable = [event for event in events if isinstance(event, RecordedEvent)]
        try:
            clear = iter(await reveal(readable, cipher))
            return [next(clear) if isinstance(event, RecordedEvent) else event for event in events]
        except PersonalDataError as error:
            if len(readable) == 1:
                return [_broken(event, error) if isinstance(event, RecordedEvent) else event for event in events]
        # Which of them is damaged shows one by one.
        return [found for event in events for found in await self._revealed([event])]

    # ------------------------------------------------------------------ writing

    async def _project(self, run: Sequence[HistoryEvent], wanted: list[HistoryEvent]) -> bool:
        """Folds the events of interest of a run, as many as one transaction takes, and writes what they make."""
        keys: dict[str, None] = {}
        for number, event in enumerate(wanted):
            more = {**keys, **dict.fromkeys(keys_of(event, self._projection))}
            if number and len(more) > MAX_ROWS:
                wanted = wanted[:number]
                run = [other for other in run if other.sequence < event.sequence]
                break
            keys = more
        async with self._rows_to_myself(list(keys)):
            await self._need(list(keys))
            folded = fold(
                self._projection, wanted, self._rows, pass_poison=self._engine.config.after_poison == "continue"
            )
            # Those between the last one in it and the first one that is not are of no interest.
            last = run[-1].sequence if folded.next == len(wanted) else wanted[folded.next].sequence - 1
            return await self._commit(folded, last)

    @asynccontextmanager
    async def _rows_to_myself(self, keys: Sequence[str]) -> AsyncIterator[None]:
        """Keeps this process's other aggregates from the same rows: all but one of them would be refused."""
        if not self._projection.shares_rows:
            yield
            return
        async with self._engine.locks.hold([f"row {self._name} {key}" for key in keys]):
            try:
                yield
            finally:
                # Once the locks are given back they are others' to change.
                self._rows.clear()

    async def _need(self, keys: Sequence[str]) -> None:
        missing = [key for key in keys if key not in self._rows]
        if missing:
            items = await self._engine.read_models.tables.get([row_key(self._name, key) for key in missing])
            self._rows.update(zip(missing, items, strict=True))

    async def _commit(self, folded: Folded, last: int) -> bool:
        before, now = self._checkpoint, self._engine.clock.now()
        parked = before.parked if before is not None else None
        if folded.is_held:
            parked = folded.poison[-1].sequence
        after = Checkpoint(last, parked)
        items = self._items(folded, now)
        events = [await self._parked(poison, before, now, held=folded.is_held) for poison in folded.poison]
        writes: list[Write] = [
            checkpoint_write(self._checkpoint_key, before, after, now),
            *(row_write(row_key(self._name, key), self._rows[key], item) for key, item in items.items()),
            *(parked_write(event) for event in events),
        ]
        if before is not None and before.parked is not None and parked != before.parked:
            # It waits for another one from now on.
            writes += await self._delisted(before.parked)
        if not await self._engine.read_models.tables.commit(writes):
            await self._refused()
            return True
        self._checkpoint = after
        self._rows.update(items)
        self._refusals = 0
        self._engine.positions.handled(self._name, self.aggregate_id, last)
        self._release = self._release and not folded.is_held
        self._tell(folded, events, now)
        return True

    def _items(self, folded: Folded, now: datetime) -> dict[str, Item | None]:
        items: dict[str, Item | None] = {}
        for key, (attributes, revision) in folded.rows.items():
            place = row_key(self._name, key)
            items[key] = None if attributes is None else row_item(place, attributes, revision=revision, now=now)
        return items

    async def _parked(
        self, poison: Poison, before: Checkpoint | None, now: datetime, *, held: bool
    ) -> ParkedEvent:
        event = ParkedEvent(
            projection=self._name,
            aggregate_id=self.aggregate_id,
            sequence=poison.sequence,
            event_type=poison.type,
            reason=poison.reason,
            parked_at=now,
            held=held,
        )
        if before is None or before.parked != poison.sequence:
            return event
        known = await self._listed(poison.sequence)
        return event if known is None else replace(event, attempts=known.attempts + 1)

    async def _listed(self, sequence: int) -> ParkedEvent | None:
        key = parked_key(self._name, self.aggregate_id, sequence)
        [item] = await self._engine.read_models.tables.get([key])
        return None if item is None else read_parked(item)

    async def _delisted(self, sequence: int) -> list[Write]:
        """Takes the event that the aggregate waited for from the list, unless it was passed over since."""
        listed = await self._listed(sequence)
        return [parked_change(listed, None)] if listed is not None and listed.held else []

    async def _settle(self, known: Checkpoint) -> bool:
        """Ends the catching up after a parked event: what came while the aggregate waited is done now."""
        if known.is_held or known.parked is None:
            return False
        after = Checkpoint(max(known.sequence, self.position))
        now = self._engine.clock.now()
        writes = [
            checkpoint_write(self._checkpoint_key, known, after, now),
            *await self._delisted(known.parked),
        ]
        if not await self._engine.read_models.tables.commit(writes):
            await self._refused()
            return True
        self._checkpoint = after
        return False

    async def _refused(self) -> None:
        """Others were faster, or this was done and the answer lost: what is there is read again."""
        self._is_loaded = False
        self._refusals += 1
        retry = self._engine.config.conflicts
        if self._refusals >= retry.max_attempts:
            text = (
                f"{self._name}, aggregate {self.aggregate_id!r}: others changed the same rows or the aggregate at "
                f"each of {self._refusals} attempts; nothing was written"
            )
            raise TransactionConflictError(text)
        await self._engine.clock.sleep(retry.delay(self._refusals, self._engine.rng.random))

    def _pass(self, first: int, last: int) -> None:
        self._engine.positions.passed(self._name, self.aggregate_id, first, last)

    def _tell(self, folded: Folded, parked: Sequence[ParkedEvent], now: datetime) -> None:
        hooks = self._engine.hooks
        for event in parked:
            _log.warning("%s parked %s (%s): %s", self._name, event.position, event.event_type, event.reason)
            hooks(EventParked(self._name, event.position, event.event_type, event.reason))
        if hooks and folded.handled:
            times = [event.encoded.attributes.get("time") for event in folded.handled]
            lag = [max(0.0, (now - time).total_seconds()) for time in times if isinstance(time, datetime)]
            hooks(Projected(self._name, len(folded.handled), lag))


def _read_event(item: Item, store: EventStore) -> HistoryEvent:
    try:
        return read_item(item, store.registry)
    except EventUnreadableError as error:
        try:
            sequence = int(item[EVENT_SEQUENCE]["N"])
        except (KeyError, ValueError):
            raise ProjectionError(
                f"the event store has an item without a sequence: {position_of(item)}"
            ) from error
        return BrokenEvent(sequence, item.get(EVENT_TYPE, {}).get("S", "?"), str(error))


def _broken(event: RecordedEvent, error: PersonalDataError) -> BrokenEvent:
    return BrokenEvent(event.sequence, event.type, reason_of(error))
