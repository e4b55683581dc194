"""What operators do with an outbox: look into it, and requeue, purge, bury or replan what is stuck."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from oms_events._aio import Clock, SystemClock
from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent
from oms_events.outbox.filters import (
    EVERYTHING,
    OutboxFilter,
    has_id,
    just_below,
    place_of,
    platform_of,
    platforms_of,
    record_id,
)
from oms_events.outbox.records import (
    NEW,
    UNDECIDED,
    DeadLetter,
    NewRecord,
    Partition,
    PlatformState,
    RecordState,
    StoredRecord,
    is_settled,
    open_platforms,
    rest_of,
)
from oms_events.outbox.selection import (
    Changes,
    Chosen,
    OnDone,
    Selection,
    Selector,
    UnsureChangeError,
    Worker,
    steadily,
)
from oms_events.outbox.status import OutboxStatus, StatusReader

if TYPE_CHECKING:
    from oms_events.outbox.outbox import Outbox

GIVEN_UP: Final = "given_up"
"""The code of dead letters that an operator made."""
_PAGE: Final = 100
_OPEN: Final = (None, PlatformState.REJECTED)


class OutboxAdmin:
    """Looks into an open outbox and changes what is stuck in it; `oms-events outbox` prints what it gives.

    Safe beside processors and other admins: what two change at once is changed once. Methods raise what the
    store raises. Cancelled, a change may be done in part; doing it again does the rest.
    """

    def __init__(self, outbox: Outbox, *, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        self._outbox = outbox
        self._store = outbox.store
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter

    @property
    def table(self) -> str:
        """The name of the outbox's table."""
        return self._store.table

    # ------------------------------------------------------------------ looking

    async def status(self, *, limit: int = 1000, watch: float = 0.0) -> OutboxStatus:
        """Backlog, processors and dead letters, counted up to `limit` per partition and platform.

        Waits up to `watch` seconds for each processor's next heartbeat, to tell which are alive. What the store
        cannot tell now is in `problems`, and raises nothing.
        """
        return await StatusReader(self._store, self._clock, limit=limit).read(watch=watch)

    async def letters(
        self, where: OutboxFilter = EVERYTHING, *, after: str | None = None
    ) -> AsyncIterator[DeadLetter]:
        """Dead letters in the order of their ids, from the one after the id `after`."""
        while True:
            page = await self._store.dead_letters(platform=where.platform, after=after, limit=_PAGE)
            for letter in page.letters:
                if where.takes_letter(letter):
                    yield letter
            if page.next is None:
                return
            after = page.next

    async def records(
        self, where: OutboxFilter = EVERYTHING, *, after: str | None = None
    ) -> AsyncIterator[StoredRecord]:
        """Pending records, bucket by bucket and in order, from the one after the id `after`.

        Raises `InvalidEventError` when `after` is no record's id.
        """
        start = None if after is None else place_of(after)
        if after is not None and start is None:
            raise InvalidEventError(f"{after!r} is no id of a pending record; take one that a list shows")
        for partition in await self._partitions():
            if start is None or partition > start.partition:
                sk = None
            elif partition == start.partition:
                sk = start.sk
            else:
                continue
            async for record in self._read(partition, sk):
                if where.takes_record(record):
                    yield record

    async def find(self, id: str) -> Sequence[DeadLetter | StoredRecord]:  # noqa: A002
        """The dead letter or pending record with that id, else all of the event with that id or identity.

        Looking for an event reads the whole outbox.
        """
        if place_of(id) is not None:
            return [record async for record in self._records_with({id}, EVERYTHING)]
        if (letter := await self._letter(id)) is not None:
            return [letter]
        where = OutboxFilter(event_id=id)
        letters = [letter async for letter in self.letters(where)]
        return [*letters, *[record async for record in self.records(where)]]

    # ------------------------------------------------------------------ changing

    async def select(self, where: OutboxFilter = EVERYTHING, *, ids: Collection[str] = ()) -> Selection:
        """The dead letters that a filter means; with `ids`, of letters or events, only those among them."""
        selector = Selector()
        missing = set(ids)
        found = self._letters_with(ids, where) if ids else self.letters(where)
        async for letter in found:
            chosen = Chosen(letter.id, letter.key)
            selector.add(chosen, platform=letter.platform, code=letter.code, text=letter.reason)
            missing -= _names(letter.id, letter)
        return selector.finish(missing)

    async def select_planned(self, where: OutboxFilter = EVERYTHING, *, ids: Collection[str] = ()) -> Selection:
        """The pending records with a recorded plan that a filter means; with `ids`, only those among them."""
        selector = Selector()
        missing = set(ids)
        async for record in self._selected(where, ids):
            plan = record.state.plan
            if plan is None:
                continue
            chosen = Chosen(record_id(record), record.key, record.state.generation)
            selector.add(chosen, platform=", ".join(plan.platforms), code=plan.rule or "", text=plan.strategy)
            missing -= _names(chosen.id, record)
        return selector.finish(missing)

    async def select_pending(self, where: OutboxFilter = EVERYTHING, *, ids: Collection[str] = ()) -> Selection:
        """The pending records that a filter means; with `ids`, only those among them."""
        selector = Selector()
        missing = set(ids)
        async for record in self._selected(where, ids):
            plan = record.state.plan
            chosen = Chosen(record_id(record), record.key, record.state.generation)
            selector.add(
                chosen,
                platform=", ".join(platforms_of(record)) or UNDECIDED,
                code="" if plan is None else plan.rule or "",
                text=record.problem or record.state.last_error or "",
            )
            missing -= _names(chosen.id, record)
        return selector.finish(missing)

    async def requeue(self, selection: Selection, *, on_done: OnDone | None = None) -> Changes:
        """Delivers dead letters again: a held one in its place, any other as a new record, after later ones.

        A new record goes to the platforms that refused it, and an unroutable one where the rules say now. An
        event that could not be read is freed where it is held, and fails otherwise.
        """
        return await Worker(self._requeue, on_done).carry_out(selection)

    async def purge(self, selection: Selection, *, on_done: OnDone | None = None) -> Changes:
        """Removes dead letters for good; the key of a held one goes on."""
        return await Worker(self._purge, on_done).carry_out(selection)

    async def bury(self, selection: Selection, reason: str, *, on_done: OnDone | None = None) -> Changes:
        """Gives pending records up: a dead letter for all platforms that are owed the event; its key goes on.

        One whose plan is not recorded becomes a letter of platform `undecided`, and a requeue decides it anew.
        What a processor has at hand at this moment it may still deliver. One that only waits for its dead letter
        fails, as does one that cannot be read.
        """
        return await Worker(lambda chosen: self._bury(chosen, reason), on_done).carry_out(selection)

    async def replan(self, selection: Selection, *, on_done: OnDone | None = None) -> Changes:
        """Forgets recorded plans: processors decide anew by their rules, for platforms without the event.

        What a processor is publishing at this moment it completes by the old plan.
        """
        return await Worker(self._replan, on_done).carry_out(selection)

    async def _requeue(self, chosen: Chosen) -> bool:
        letter = await self._letter(chosen.id)
        if letter is None:
            return False
        if letter.problem is not None:
            raise InvalidEventError(f"it cannot be requeued: {letter.problem}; look at it with show, or purge it")
        history = history_of(letter, now=self._now())
        if letter.held and await self._change_letter(
            letter, lambda: self._store.requeue(replace(letter, history=history), None)
        ):
            return True
        # Not held, or nothing is left of what it held.
        if letter.event is None:
            if letter.held and await self._letter(letter.id) is None:
                return False
            raise InvalidEventError("its stored event cannot be read; look at it with show, and purge it")
        return await self._put_back(letter, letter.event, history)

    async def _put_back(
        self, letter: DeadLetter, event: EncodedEvent, history: Sequence[Mapping[str, Any]]
    ) -> bool:
        async def put(record: NewRecord) -> bool:
            try:
                return await self._change_letter(letter, lambda: self._store.requeue(letter, record))
            except UnsureChangeError:
                # Its place is ours alone. When it is empty, somebody purged the letter, or ours is delivered.
                if await self._store.probe(record.partition, [record.sk]):
                    return True
                raise

        plan = letter.plan
        return await self._outbox.put_back(
            event,
            put,
            key=letter.key,
            state=NEW if plan is None else RecordState(plan=rest_of(plan, letter.platforms)),
            history=history,
        )

    async def _purge(self, chosen: Chosen) -> bool:
        letter = await self._letter(chosen.id)
        return letter is not None and await self._change_letter(letter, lambda: self._store.purge(letter))

    async def _change_letter(self, letter: DeadLetter, change: Callable[[], Awaitable[bool]]) -> bool:
        """A change that takes a letter away: as long as that is there, no try has taken."""
        try:
            return await self._steadily(change)
        except UnsureChangeError:
            found = await self._letter(letter.id)
            if found is None or found.failed != letter.failed:
                raise
            return False

    async def _bury(self, chosen: Chosen, reason: str) -> bool:
        place = place_of(chosen.id)
        records = () if place is None else await self._store.probe(place.partition, [place.sk])
        record = next(iter(records), None)
        if record is None or record.state.generation != chosen.generation:
            return False
        letter, state = given_up(record, reason, now=self._now())
        if not await self._steadily(lambda: self._store.bury(letter, state)):
            return False
        if state is not None and state.plan is not None and is_settled(state.plan, state.states):
            # A processor that has it at hand notices at its next try.
            await self._store.remove(record.partition, [record.sk])
        return True

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    async def _replan(self, chosen: Chosen) -> bool:
        place = place_of(chosen.id)
        if place is None:
            return False
        return await self._steadily(
            lambda: self._store.forget_plan(place.partition, place.sk, generation=chosen.generation)
        )

    async def _steadily(self, change: Callable[[], Awaitable[bool]]) -> bool:
        return await steadily(change, clock=self._clock, rng=self._rng)

    # ------------------------------------------------------------------ reading

    async def _partitions(self) -> list[Partition]:
        layout = await self._store.read_layout()
        buckets = () if layout is None else layout.buckets
        return sorted(Partition(bucket, keyed) for bucket in buckets for keyed in (False, True))

    async def _read(self, partition: Partition, after: str | None) -> AsyncIterator[StoredRecord]:
        while True:
            page = await self._store.read(partition, after=after, limit=_PAGE)
            for record in page.records:
                yield record
            if page.next is None:
                return
            after = page.next

    async def _letter(self, id: str) -> DeadLetter | None:  # noqa: A002
        platform = platform_of(id)
        if platform is None:
            return None
        page = await self._store.dead_letters(platform=platform, after=just_below(id), limit=1)
        return next((letter for letter in page.letters if letter.id == id), None)

    async def _letters_with(self, ids: Collection[str], where: OutboxFilter) -> AsyncIterator[DeadLetter]:
        events = set(ids)
        for id in sorted(events):  # noqa: A001
            if (letter := await self._letter(id)) is not None:
                events.discard(id)
                if where.takes_letter(letter):
                    yield letter
        if events:
            async for letter in self.letters(where):
                if letter.event is not None and has_id(letter.event, events):
                    yield letter

    def _selected(self, where: OutboxFilter, ids: Collection[str]) -> AsyncIterator[StoredRecord]:
        return self._records_with(ids, where) if ids else self.records(where)

    async def _records_with(self, ids: Collection[str], where: OutboxFilter) -> AsyncIterator[StoredRecord]:
        events = set(ids)
        for id in sorted(events):  # noqa: A001
            if (place := place_of(id)) is not None:
                events.discard(id)
                for record in await self._store.probe(place.partition, [place.sk]):
                    if where.takes_record(record):
                        yield record
        if events:
            async for record in self.records(where):
                if record.event is not None and has_id(record.event, events):
                    yield record


def _names(id: str, found: DeadLetter | StoredRecord) -> set[str]:  # noqa: A002
    return {id} if found.event is None else {id, found.event.id, found.event.identity}


def history_of(letter: DeadLetter, *, now: int) -> Sequence[Mapping[str, Any]]:
    """What a record carries on of the dead letter that it was; the store keeps the newest entries only."""
    entry = {
        "platform": letter.platform,
        "code": letter.code,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "failed": letter.failed,
        "requeued": now,
    }
    return (*letter.history, entry)


def given_up(record: StoredRecord, reason: str, *, now: int) -> tuple[DeadLetter, RecordState | None]:
    """The dead letter for what a pending record is still owed, and the record's state with it; None: no record.

    Raises `InvalidEventError` for a record of which nothing can be given up.
    """
    state, plan = record.state, record.state.plan
    if record.event is None:
        what = record.problem or f"it has format {record.format}, which another release wrote"
        raise InvalidEventError(f"{what}; processors deal with it, or leave it to the release that wrote it")
    if plan is None:
        platforms: tuple[str, ...] = (UNDECIDED,)
    elif plan.first_that_works and open_platforms(plan, state.states):
        platforms = tuple(name for name in plan.platforms if state.states.get(name) in _OPEN)
    else:
        platforms = open_platforms(plan, state.states)
    if not platforms:
        raise InvalidEventError(
            "no platform is owed it now; when a dead letter holds it, requeue or purge that one"
        )
    last = {} if state.last_error is None else {"last_error": state.last_error}
    letter = DeadLetter(
        platform=platforms[0], platforms=platforms, key=record.key, event=record.event, reason=reason,
        code=GIVEN_UP, attempts=state.attempts, added=record.added, failed=now, origin=record.partition,
        origin_sk=record.sk, plan=plan, history=(*record.history, {"code": GIVEN_UP, "reason": reason, **last}),
    )  # fmt: skip
    if plan is None:
        return letter, None
    return letter, replace(state, states={**state.states, **dict.fromkeys(platforms, PlatformState.DEAD)})
