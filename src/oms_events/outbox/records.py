"""What the outbox stores, and how a record's delivery state may change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from oms_events.events import EncodedEvent
from oms_events.publishing import Plan

UNROUTABLE: Final = "unroutable"
"""The platform name of dead letters that no rule took."""
UNREADABLE: Final = "unreadable"
"""The platform name of dead letters whose stored event cannot be read."""
UNDECIDED: Final = "undecided"
"""The platform name of dead letters that an operator gave up before any plan was recorded."""
FORMAT: Final = 1
"""The version of the records that this release writes and reads; others are left alone."""


class PlatformState(StrEnum):
    """Where a record stands on one platform; a platform without a state is pending.

    `rejected` is a FAILOVER platform that refused the event while others may still take it. `held` is a dead
    letter whose key waits until it is requeued or purged.
    """

    DELIVERED = "delivered"
    REJECTED = "rejected"
    DEAD = "dead"
    HELD = "held"


class Bucket(NamedTuple):
    """A share of the outbox that one processor relays at a time, in one layout epoch."""

    epoch: int
    number: int


class Partition(NamedTuple):
    """The records that share a partition key: the keyed or the unkeyed ones of a bucket."""

    bucket: Bucket
    keyed: bool


@dataclass(frozen=True, slots=True)
class RecordState:
    """A record's recorded plan, its state per platform, and what its failures have used up.

    `plan` is None until the first partial settlement. `attempts` and `tried_for` (seconds between attempts, not
    counting open breakers) go toward `max_attempts` and `max_age`. `generation` grows with each requeue of a
    held record, so that what an earlier owner still writes does not count.
    """

    plan: Plan | None = None
    states: Mapping[str, PlatformState] = field(default_factory=dict)
    attempts: int = 0
    tried_for: float = 0.0
    generation: int = 0
    last_error: str | None = None


NEW: Final = RecordState()


class NewRecord(NamedTuple):
    """A record to be put: where, its key, its event, when (ms since 1970, writer's clock), and how it starts."""

    partition: Partition
    sk: str
    key: str | None
    event: EncodedEvent
    added: int
    state: RecordState = NEW
    history: Sequence[Mapping[str, Any]] = ()


class StoredRecord(NamedTuple):
    """A record as it was read; without an `event` its `format` is unknown, or it has a `problem` (`raw`)."""

    partition: Partition
    sk: str
    key: str | None
    event: EncodedEvent | None
    added: int
    state: RecordState
    format: int = FORMAT
    size: int = 0
    history: Sequence[Mapping[str, Any]] = ()
    problem: str | None = None
    raw: Mapping[str, Any] | None = None


class Page(NamedTuple):
    """Records in the order of their `sk`; `next` is where to go on, None when the partition ended here."""

    records: Sequence[StoredRecord]
    next: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a platform refused for good, or that ran out of attempts, with its reason and history.

    `id` is unique in the table and sorts by platform, then by when the event was added. `platforms` are those
    that refused it (several for FAILOVER). `origin` and `origin_sk` say where its record was; `held` that the
    record is still there and its key waits. `failed` is the wall clock's ms since 1970 of who gave up.
    """

    platform: str
    platforms: tuple[str, ...]
    key: str | None
    event: EncodedEvent | None
    reason: str
    code: str
    attempts: int
    added: int
    failed: int
    origin: Partition
    origin_sk: str
    plan: Plan | None = None
    held: bool = False
    history: Sequence[Mapping[str, Any]] = ()
    raw: Mapping[str, Any] | None = None
    """The stored item of an event, or of a letter with a `problem`, that could not be read."""
    problem: str | None = None
    """Why the letter itself cannot be read: its other fields are what could be told of it."""
    stored_id: str | None = None
    """The id of a letter with a `problem`."""

    @property
    def id(self) -> str:
        return self.stored_id or f"{self.platform}#{self.added:013d}#{partition_key(self.origin)}#{self.origin_sk}"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One layout of the outbox: a number of buckets, open to writers or closed and being emptied."""

    number: int
    buckets: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """All epochs that may hold records, oldest first; at most one is open. `revision` grows with each change."""

    revision: int
    epochs: tuple[Epoch, ...]

    @property
    def open_epoch(self) -> Epoch | None:
        return next((epoch for epoch in self.epochs if epoch.is_open), None)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        return tuple(Bucket(epoch.number, number) for epoch in self.epochs for number in range(epoch.buckets))


@dataclass(frozen=True, slots=True)
class Member:
    """A processor that shares the work; `beat` changes with each heartbeat. `info` holds counts for the status."""

    id: str
    beat: int
    info: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who relays a bucket. `version` changes with each owner; `wake` counts requests to look again.

    `low` is the number below which the last owner had seen every sequence of the keyed partition.
    """

    bucket: Bucket
    owner: str | None = None
    version: int = 0
    wake: int = 0
    low: int = 0


@dataclass(frozen=True, slots=True)
class Coordination:
    """One consistent reading of who is there and who relays what; a bucket without a lease is free."""

    members: Mapping[str, Member]
    leases: Mapping[Bucket, Lease]


class Count(NamedTuple):
    """Pending records of a partition, up to a limit (`bounded`: there are more), and the oldest one's `added`."""

    pending: int
    bounded: bool
    oldest: int | None


def partition_key(partition: Partition) -> str:
    """The `pk` of a partition."""
    (epoch, number), keyed = partition
    return f"{'k' if keyed else 'u'}#{epoch:04d}#{number:04d}"


def sequence_key(number: int) -> str:
    """The `sk` of a sequence number: it sorts as the number does."""
    return f"{number:020d}"


def open_platforms(plan: Plan, states: Mapping[str, PlatformState]) -> tuple[str, ...]:
    """The platforms that are still owed the event, in the plan's order."""
    if plan.first_that_works and PlatformState.DELIVERED in states.values():
        return ()
    return tuple(platform for platform in plan.platforms if platform not in states)


def is_settled(plan: Plan, states: Mapping[str, PlatformState]) -> bool:
    """Whether nothing remains to be done, so that the record may go."""
    found = [states.get(platform) for platform in plan.platforms]
    if plan.first_that_works and PlatformState.DELIVERED in found:
        return True
    return all(state in (PlatformState.DELIVERED, PlatformState.DEAD) for state in found)


def as_tried_as(state: RecordState, found: RecordState) -> RecordState:
    """The state with the attempts, and the time they took, that another had recorded where those are more."""
    attempts, tried_for = max(found.attempts, state.attempts), max(found.tried_for, state.tried_for)
    return replace(state, attempts=attempts, tried_for=tried_for)


def rest_of(plan: Plan, platforms: Iterable[str]) -> Plan:
    """The plan for some of its platforms only."""
    return Plan(plan.rule, plan.strategy, tuple(platforms), plan.first_that_works)
