"""How an outbox is, as seen from outside its processors: backlog, who relays it, dead letters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from oms_events._aio import Clock
from oms_events.errors import StorageError
from oms_events.outbox.filters import after_all_of
from oms_events.outbox.records import Bucket, Coordination, Count, Epoch, Member, Partition
from oms_events.outbox.store import OutboxStore

_AT_ONCE: Final = 8
_LOOK_EVERY: Final = 0.5
_TOP_REASONS: Final = 3
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Reason:
    """Why dead letters arose, or records wait: a code, how often, and one of the texts."""

    code: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """A bucket: its pending records, or the `problem` of counting them, and who relays it.

    `pending` counts up to a limit (`bounded`: there are more); None: it could not be counted.
    """

    bucket: Bucket
    pending: int | None
    bounded: bool
    oldest_age: float | None
    owner: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A processor: how many buckets it relays, and the counts that it told last.

    `alive` says whether its heartbeat was seen; None: nobody waited for it.
    """

    id: str
    buckets: int
    info: Mapping[str, int]
    alive: bool | None


@dataclass(frozen=True, slots=True)
class DeadStatus:
    """A platform's dead letters, counted up to a limit (`bounded`: there are more), and their top reasons."""

    platform: str
    count: int
    bounded: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """An outbox at one time. What could not be read is None, and `problems` says why, by part."""

    table: str
    epochs: tuple[Epoch, ...] | None = None
    buckets: tuple[BucketStatus, ...] | None = None
    members: tuple[MemberStatus, ...] | None = None
    dead_letters: tuple[DeadStatus, ...] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    """The top reasons of pending records: of those among the first ones of each bucket that have a last error."""

    @property
    def pending(self) -> int | None:
        """All pending records that were counted; None when a bucket could not be counted."""
        found = [bucket.pending for bucket in self.buckets or ()]
        known = [count for count in found if count is not None]
        return sum(known) if self.buckets is not None and len(known) == len(found) else None

    @property
    def bounded(self) -> bool:
        """Whether there are more pending records than were counted."""
        return any(bucket.bounded for bucket in self.buckets or ())

    @property
    def oldest_age(self) -> float | None:
        """Seconds since the oldest pending record was added, by two hosts' clocks; None when there is none."""
        ages = [bucket.oldest_age for bucket in self.buckets or () if bucket.oldest_age is not None]
        return max(ages, default=None)


class _Reasons:
    """Counts reasons by their codes, and keeps an example of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    @property
    def count(self) -> int:
        return self._counts.total()

    def add(self, code: str, text: str) -> None:
        self._counts[code] += 1
        self._examples.setdefault(code, text)

    def top(self) -> tuple[Reason, ...]:
        common = self._counts.most_common(_TOP_REASONS)
        return tuple(Reason(code, count, self._examples[code]) for code, count in common)


class StatusReader:
    """Reads the parts of a status, each of which may fail without harm to the others."""

    def __init__(self, store: OutboxStore, clock: Clock, *, limit: int) -> None:
        self._store = store
        self._clock = clock
        self._limit = limit
        self._problems: dict[str, str] = {}
        self._errors = _Reasons()

    async def read(self, *, watch: float) -> OutboxStatus:
        """The status; waits up to `watch` seconds for each processor's next heartbeat."""
        began = self._clock.monotonic()
        before = await self._coordination()
        epochs = await self._epochs()
        buckets = None if epochs is None else await self._buckets(epochs, before)
        dead = await self._dead_letters()
        members = None if before is None else await self._members(before, began + watch, wait=watch > 0)
        return OutboxStatus(
            table=self._store.table,
            epochs=epochs,
            buckets=buckets,
            members=members,
            dead_letters=dead,
            problems=self._problems,
            reasons=self._errors.top(),
        )

    async def _coordination(self) -> Coordination | None:
        try:
            return await self._store.read_coordination()
        except StorageError as error:
            self._problems["processors"] = str(error)
            return None

    async def _epochs(self) -> tuple[Epoch, ...] | None:
        try:
            layout = await self._store.read_layout()
        except StorageError as error:
            self._problems["layout"] = str(error)
            return None
        return () if layout is None else layout.epochs

    async def _buckets(
        self, epochs: Sequence[Epoch], coordination: Coordination | None
    ) -> tuple[BucketStatus, ...]:
        slots = asyncio.Semaphore(_AT_ONCE)
        now = self._clock.now().timestamp()
        leases = {} if coordination is None else coordination.leases

        async def read(bucket: Bucket) -> BucketStatus:
            owner = lease.owner if (lease := leases.get(bucket)) is not None else None
            try:
                async with slots:
                    keyed = await self._store.count(Partition(bucket, True), limit=self._limit)
                    unkeyed = await self._store.count(Partition(bucket, False), limit=self._limit)
                    for count, is_keyed in ((keyed, True), (unkeyed, False)):
                        if count.pending:
                            await self._read_errors(Partition(bucket, is_keyed))
            except StorageError as error:
                self._problems[f"bucket {bucket.epoch}/{bucket.number}"] = str(error)
                return BucketStatus(bucket, None, False, None, owner, str(error))
            pending, bounded, oldest = _together(keyed, unkeyed)
            age = None if oldest is None else max(0.0, now - oldest / 1000)
            return BucketStatus(bucket, pending, bounded, age, owner)

        numbers = [Bucket(epoch.number, number) for epoch in epochs for number in range(epoch.buckets)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(bucket), name="oms-events-outbox-count") for bucket in numbers]
        return tuple(task.result() for task in tasks)

    async def _read_errors(self, partition: Partition) -> None:
        page = await self._store.read(partition, limit=min(self._limit, _PAGE))
        for record in page.records:
            if (error := record.state.last_error) is not None:
                *code, text = error.split(": ", 2)
                self._errors.add(": ".join(code) or text, text)

    async def _dead_letters(self) -> tuple[DeadStatus, ...] | None:
        found: list[DeadStatus] = []
        after: str | None = None
        try:
            # From one platform's letters to the next one's, so that many of one hide no other.
            while (page := await self._store.dead_letters(after=after, limit=1)).letters:
                platform = page.letters[0].platform
                found.append(await self._dead_letters_of(platform))
                after = after_all_of(platform)
        except StorageError as error:
            self._problems["dead letters"] = str(error)
            return None
        return tuple(found)

    async def _dead_letters_of(self, platform: str) -> DeadStatus:
        reasons = _Reasons()
        after: str | None = None
        while (room := self._limit - reasons.count) >= 0:
            # One more than is counted: whether it is there says more than that the page may go on.
            page = await self._store.dead_letters(platform=platform, after=after, limit=min(_PAGE, room + 1))
            for letter in page.letters[:room]:
                reasons.add(letter.code, letter.reason)
            after = page.next
            if after is None or len(page.letters) > room:
                break
        is_bounded = len(page.letters) > room
        return DeadStatus(platform, reasons.count, is_bounded, reasons.top())

    async def _members(self, before: Coordination, until: float, *, wait: bool) -> tuple[MemberStatus, ...] | None:
        now = before
        seen: set[str] = set()
        while wait:
            latest = await self._coordination()
            if latest is None:
                return None
            now = latest
            seen |= {name for name, member in now.members.items() if _has_beaten(before, member)}
            if now.members.keys() <= seen or self._clock.monotonic() >= until:
                break
            await self._clock.sleep(_LOOK_EVERY)
        owned = Counter(lease.owner for lease in now.leases.values())
        return tuple(
            MemberStatus(name, owned[name], member.info, name in seen if wait else None)
            for name, member in sorted(now.members.items())
        )


def _has_beaten(before: Coordination, member: Member) -> bool:
    old = before.members.get(member.id)
    return old is None or old.beat != member.beat


def _together(keyed: Count, unkeyed: Count) -> Count:
    oldest = min((count.oldest for count in (keyed, unkeyed) if count.oldest is not None), default=None)
    return Count(keyed.pending + unkeyed.pending, keyed.bounded or unkeyed.bounded, oldest)
