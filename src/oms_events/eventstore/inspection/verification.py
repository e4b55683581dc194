"""Whether an event store holds what was written to it: every event once, in its place, unchanged."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from oms_events._aio import Clock, SystemClock, cancel_and_wait
from oms_events.errors import EventUnreadableError, PersonalDataError
from oms_events.eventstore.append import check_aggregate_id
from oms_events.eventstore.by_type import time_key
from oms_events.eventstore.inspection.item_checks import (
    CheckedMarker,
    Gap,
    HistoryCheck,
    Identities,
    Place,
    Problem,
    ProblemKind,
    check_event,
    check_marker,
    digest_of,
    duplicate,
    lost_events,
    missing,
)
from oms_events.eventstore.inspection.scanning import OnItems, OnPage, read_history, read_table
from oms_events.eventstore.items import Item, event_key, is_event, read_item
from oms_events.eventstore.personal.sealed import may_have_sealed, replaced
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import EVENT_TIME, TYPE_SHARD, time_bound, type_shards
from oms_events.eventstore.store import EventStore, reveal

T = TypeVar("T")

MAX_PROBLEMS: Final = 1000
"""So many problems a report names; it counts all of them."""
MAX_IDENTITIES: Final = 20_000_000
"""So many events' ids are compared with each other, at 8 bytes each."""

_LOOK_AGAIN: Final = 1.0
"""Seconds before looking again for what is missing: a scan beside a transaction may see a part of it."""
_SUSPECTS: Final = 10_000
"""So many are kept to be looked at again."""
_INDEX_DELAY: Final = timedelta(minutes=1)
"""The index is compared for events that are older: it follows the table within about a second."""
_AT_ONCE: Final = 16
_NEXT: Final = "\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification found. `counts` has all problems by kind, `problems` the first 1,000.

    `aggregate_id` is the one that was looked at, None for all; `unchecked` says what was not looked at, and why.
    """

    table: str
    aggregate_id: str | None
    aggregates: int
    events: int
    markers: int
    counts: Mapping[ProblemKind, int]
    problems: Sequence[Problem]
    unchecked: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with what was looked at."""
        return not self.counts


async def verify(
    store: EventStore,
    *,
    aggregate_id: str | None = None,
    registry: EventRegistry | None = None,
    segments: int = 4,
    markers: bool = True,
    index: bool = False,
    max_identities: int = MAX_IDENTITIES,
    page_size: int | None = None,
    on_items: OnItems | None = None,
    clock: Clock | None = None,
) -> VerifyReport:
    """Reads all of a store, or one aggregate's events, and says what is wrong with them; it changes nothing.

    Finds gaps, beginnings that are missing, events that stand twice, were changed or moved, and whose index keys
    are wrong. A history whose end is missing looks whole, unless a command's marker says that there was more:
    with `markers` each of them costs one read. With a `registry` each event is also read into its model, as your
    code would; personal data by the store's cipher, or without one as that of people who were forgotten. With
    `index` the index by type is read too, and compared by count for events that are older than a minute.

    Costs a consistent read of the whole table, in `segments` parts side by side, a second one of histories from
    where an event seems to be missing, and of all when an id stands twice. Holds one page (1 MB, or `page_size`
    items) per part, and 8 bytes per event for up to `max_identities` of them; whether the ids of more stand twice
    is not looked at, and `unchecked` says so. Events that are appended meanwhile may be looked at or not.
    `on_items` is told how many more items were read.

    Raises a `StorageError`, and `InvalidEventError` for what is no aggregate's id.
    """
    if aggregate_id is not None:
        check_aggregate_id(aggregate_id)
    verification = _Verification(
        store,
        aggregate_id,
        registry,
        markers=markers and aggregate_id is None,
        identities=Identities(max_identities),
        on_items=on_items,
        clock=clock or SystemClock(),
    )

    async def read_all(on_page: OnPage) -> None:
        if aggregate_id is not None:
            await read_history(store.table, aggregate_id, on_page, page_size=page_size)
        else:
            await read_table(store.table, on_page, segments=segments, page_size=page_size)

    await read_all(verification.look_at)
    verification.end_histories()
    await verification.look_again()
    if digests := await verification.repeated_ids():
        await read_all(verification.places_of(digests))
        verification.tell_duplicates()
    if index and aggregate_id is None:
        await verification.compare_index()
    return verification.report(index=index, markers=markers)


class _Verification:
    """One run: what it has seen, and found."""

    def __init__(
        self,
        store: EventStore,
        aggregate_id: str | None,
        registry: EventRegistry | None,
        *,
        markers: bool,
        identities: Identities,
        on_items: OnItems | None,
        clock: Clock,
    ) -> None:
        self._store = store
        self._table = store.table
        self._aggregate_id = aggregate_id
        self._registry = registry
        self._with_markers = markers
        self._identities = identities
        self._on_items = on_items
        self._clock = clock
        self._before = time_bound(clock.now() - _INDEX_DELAY)
        self._histories: defaultdict[int, HistoryCheck] = defaultdict(HistoryCheck)
        self._shards: Counter[str] = Counter()
        self._types: set[str] = set()
        self._copies: defaultdict[tuple[str, str], set[Place]] = defaultdict(set)
        self._counts: Counter[ProblemKind] = Counter()
        self._problems: list[Problem] = []
        self._suspects: list[Gap | CheckedMarker] = []
        self._events = 0
        self._markers = 0

    # ------------------------------------------------------------------ items

    async def look_at(self, segment: int, items: Sequence[Item]) -> None:
        """Looks at one page of a segment."""
        found_markers = []
        readable = []
        for item in items:
            if is_event(item):
                self._events += 1
                if self._look_at_event(segment, item):
                    readable.append(item)
            else:
                self._markers += 1
                found_markers.append(check_marker(item))
        if self._registry is not None:
            await self._read_models(readable, self._registry)
        for marker in found_markers:
            self._tell(*marker.problems)
        if self._with_markers:
            # What is missing before the last of them is a gap.
            await _side_by_side(found_markers, self._look_for_last_event)
        if len(self._suspects) >= _SUSPECTS:
            await self.look_again()
        if self._on_items is not None:
            self._on_items(len(items))

    def _look_at_event(self, segment: int, item: Item) -> bool:
        found = check_event(item)
        self._tell(*found.problems)
        if found.is_placed:
            self._suspect(self._histories[segment].take(found.place))
        shard, time = item.get(TYPE_SHARD, {}).get("S"), item.get(EVENT_TIME, {}).get("S")
        if shard is not None and time is not None and time < self._before:
            self._shards[shard] += 1
        if found.event is None:
            return False
        self._types.add(found.event.type)
        self._identities.add((found.event.encoded.source, found.event.id))
        return True

    def _suspect(self, gap: Gap | None) -> None:
        if gap is not None:
            self._suspects.append(gap)

    def end_histories(self) -> None:
        """Nothing more comes of the aggregates that were read last."""
        for history in self._histories.values():
            self._suspect(history.end())

    async def look_again(self) -> None:
        """Looks again for what was missing, and tells what still is."""
        suspects, self._suspects = self._suspects, []
        if suspects:
            await self._clock.sleep(_LOOK_AGAIN)
            await _side_by_side(suspects, self._look_for)

    async def _look_for(self, suspect: Gap | CheckedMarker) -> None:
        if isinstance(suspect, Gap):
            self._tell(*[missing(gap) for gap in await self._gaps(suspect)])
        elif not await self._is_there(suspect):
            self._tell(lost_events(suspect))

    async def _gaps(self, suspect: Gap) -> list[Gap]:
        """Where in such a range events are missing still."""
        aggregate_id, first, last = suspect
        gaps = []

        async def look_at(_: int, items: Sequence[Item]) -> None:
            nonlocal first
            for found in map(check_event, items):
                if not found.is_placed:
                    continue
                if found.place.sequence > first:
                    gaps.append(Gap(aggregate_id, first, found.place.sequence - 1))
                first = found.place.sequence + 1

        await read_history(self._table, aggregate_id, look_at, after=first - 1, up_to=last)
        return [*gaps, Gap(aggregate_id, first, last)] if first <= last else gaps

    async def _look_for_last_event(self, marker: CheckedMarker) -> None:
        if not await self._is_there(marker):
            self._suspects.append(marker)

    async def _is_there(self, marker: CheckedMarker) -> bool:
        return marker.needs is None or await self._table.get(event_key(*marker.needs)) is not None

    async def _read_models(self, items: Sequence[Item], registry: EventRegistry) -> None:
        cipher = self._store.cipher
        for item in items:
            event = read_item(item, registry)
            try:
                if cipher is not None:
                    [event] = await reveal([event], cipher)
                elif may_have_sealed(event.payload):
                    event = _as_forgotten(event)
                _ = event.domain_event
            except (EventUnreadableError, PersonalDataError) as error:
                text = str(error).removeprefix(f"{event.position}: ")
                self._tell(Problem(ProblemKind.UNSUPPORTED, event.position, text))

    # ------------------------------------------------------------------ ids that stand twice

    async def repeated_ids(self) -> set[int]:
        """The digests of ids that were there more than once, or look like others."""
        digests: set[int] = set()
        for repeated in self._identities.repeated():
            digests |= repeated
            await asyncio.sleep(0)
        return digests

    def places_of(self, digests: set[int]) -> OnPage:
        """What finds the places of such ids in another reading."""

        async def look_at(_: int, items: Sequence[Item]) -> None:
            for item in filter(is_event, items):
                found = check_event(item)
                if found.event is None:
                    continue
                identity = (found.event.encoded.source, found.event.id)
                if digest_of(identity) in digests:
                    self._copies[identity].add(found.place)
            if self._on_items is not None:
                self._on_items(len(items))

        return look_at

    def tell_duplicates(self) -> None:
        for identity, places in sorted(self._copies.items()):
            if len(places) > 1:
                self._tell(duplicate(identity, sorted(places)))

    # ------------------------------------------------------------------ the index

    async def compare_index(self) -> None:
        """Counts the entries of each shard of the index."""
        shards = {shard for event_type in self._types for shard in type_shards(event_type)} | set(self._shards)
        for shard in sorted(shards):
            count = await self._count_shard(shard)
            if count != self._shards[shard]:
                text = f"the index by type has {count} entries, the table {self._shards[shard]} events"
                self._tell(Problem(ProblemKind.INDEX, shard, text))

    async def _count_shard(self, shard: str) -> int:
        count, since = 0, ""
        while True:
            page = await self._table.read_shard(shard, since=since, until=self._before)
            count += len(page.items)
            last = page.items[-1] if page.items else page.next
            if page.next is None or last is None:
                return count
            since = time_key(last) + _NEXT

    # ------------------------------------------------------------------ the report

    def report(self, *, index: bool, markers: bool) -> VerifyReport:
        return VerifyReport(
            table=self._table.name,
            aggregate_id=self._aggregate_id,
            aggregates=sum(history.aggregates for history in self._histories.values()),
            events=self._events,
            markers=self._markers,
            counts=dict(self._counts),
            problems=self._problems,
            unchecked=self._unchecked(index=index, markers=markers),
        )

    def _unchecked(self, *, index: bool, markers: bool) -> list[str]:
        notes = []
        if self._identities.is_full:
            count = self._identities.count
            notes.append(f"whether ids stand twice, but for {count} events: raise max_identities, at 8 bytes each")
        if self._aggregate_id is not None:
            notes.append(
                "whether ids stand in other aggregates too, and the markers of commands: verify the whole"
            )
        elif not markers:
            notes.append("the markers of commands: an end of a history that is missing does not show")
        if self._registry is None:
            notes.append("whether your code can read the events: give their registry")
        if not index:
            notes.append("the index by type")
        return notes

    def _tell(self, *problems: Problem) -> None:
        for problem in problems:
            self._counts[problem.kind] += 1
            if len(self._problems) < MAX_PROBLEMS:
                self._problems.append(problem)


def _as_forgotten(event: RecordedEvent) -> RecordedEvent:
    """The event as it reads without the keys of its personal data."""
    return event.revealed(json.dumps(replaced(event.data, lambda sealed: sealed.otherwise)).encode())


async def _side_by_side(items: Sequence[T], look: Callable[[T], Awaitable[None]]) -> None:
    """Looks at items, some at once. The first error ends all; cancelled, all have ended when it returns."""
    queue = iter(items)

    async def work() -> None:
        for item in queue:
            await look(item)

    tasks = [
        asyncio.create_task(work(), name=f"oms-events-eventstore-verify-{number}")
        for number in range(min(_AT_ONCE, len(items)))
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)
