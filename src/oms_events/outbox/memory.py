"""An outbox store that keeps everything in memory: for tests, and as the plainest reading of the contract."""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from oms_events.errors import ConditionFailedError, EpochClosedError, StorageRejectedError
from oms_events.outbox.records import (
    Bucket,
    Coordination,
    Count,
    DeadLetter,
    Layout,
    Lease,
    Member,
    NewRecord,
    Page,
    Partition,
    PlatformState,
    RecordState,
    StoredRecord,
)
from oms_events.outbox.schema import (
    NOT_THERE,
    joined_history,
    last_error,
    letter_item,
    parse_partition,
    read_letter,
    read_record,
    record_item,
)
from oms_events.outbox.store import Action, DeadPage

_MAX_ACTIONS = 100
_MAX_PROBED = 100


class _Rows:
    """The records of one partition, by `sk` and in its order."""

    def __init__(self) -> None:
        self.by_sk: dict[str, StoredRecord] = {}
        self.order: list[str] = []

    def put(self, record: StoredRecord) -> None:
        if record.sk not in self.by_sk:
            insort(self.order, record.sk)
        self.by_sk[record.sk] = record

    def remove(self, sks: Iterable[str]) -> None:
        gone = {sk for sk in sks if self.by_sk.pop(sk, None) is not None}
        if gone:
            self.order = [sk for sk in self.order if sk not in gone]


class MemoryTable(Protocol):
    """A table in memory that takes part in the transactions of a `MemoryOutboxStore`."""

    def refuses(self, action: Action) -> bool:
        """Whether the condition of an action on this table fails now."""
        ...

    def apply(self, action: Action) -> None:
        """Does it."""
        ...


class MemoryOutboxStore:
    """The outbox in one process; what is read back went through the stored form, as it does with DynamoDB.

    `commit` keeps the business actions in `committed`, and cancels the transaction when `refuse` says so of one.
    Those on one of the `tables`, by name, are that table's to refuse and to do.
    Each method yields to the event loop once and then does its work in one step.
    """

    def __init__(self, *, table: str = "outbox", refuse: Callable[[Action], bool] | None = None) -> None:
        self.table = table
        self.committed: list[Action] = []
        self.tables: dict[str, MemoryTable] = {}
        self._refuse = refuse
        self._layout: Layout | None = None
        self._counters: defaultdict[Bucket, int] = defaultdict(int)
        self._closed: set[Bucket] = set()
        self._rows: defaultdict[Partition, _Rows] = defaultdict(_Rows)
        self._stored: list[tuple[Partition, str]] = []
        self._tokens: dict[str, Sequence[Action]] = {}
        self._letters: dict[str, DeadLetter] = {}
        self._members: dict[str, Member] = {}
        self._leases: dict[Bucket, Lease] = {}

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    # ------------------------------------------------------------------ layout

    async def read_layout(self) -> Layout | None:
        await asyncio.sleep(0)
        return self._layout

    async def write_layout(self, layout: Layout) -> bool:
        await asyncio.sleep(0)
        if layout.revision != (self._layout.revision if self._layout else 0) + 1:
            return False
        self._layout = layout
        return True

    async def close_counter(self, bucket: Bucket) -> None:
        await asyncio.sleep(0)
        self._closed.add(bucket)

    # ------------------------------------------------------------------ writing

    async def reserve(self, bucket: Bucket, count: int) -> int:
        await asyncio.sleep(0)
        if bucket in self._closed:
            raise EpochClosedError(f"{bucket} takes no more reservations: read the layout again")
        first = self._counters[bucket] + 1
        self._counters[bucket] += count
        return first

    def put_action(self, record: NewRecord) -> Action:
        put = {"TableName": self.table, "Item": record_item(record), "ConditionExpression": NOT_THERE}
        return {"Put": put}

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await asyncio.sleep(0)
        known = self._tokens.get(token)
        if known is not None:
            if list(known) != list(actions):
                raise StorageRejectedError(f"the token {token!r} was used for other actions: make a new one")
            return
        if not 1 <= len(actions) <= _MAX_ACTIONS:
            raise StorageRejectedError(f"{len(actions)} actions; a transaction takes 1 to {_MAX_ACTIONS}")
        records = [self._own(action) for action in actions]
        refused = [self._is_refused(action, record) for action, record in zip(actions, records, strict=True)]
        if any(refused):
            reasons = ["ConditionalCheckFailed" if no else "None" for no in refused]
            raise ConditionFailedError(f"the transaction was refused: {', '.join(reasons)}", reasons=reasons)
        self._tokens[token] = tuple(actions)
        for action, record in zip(actions, records, strict=True):
            if record is None:
                self.committed.append(action)
                if (table := self._table_of(action)) is not None:
                    table.apply(action)
            else:
                self._store(record)

    # ------------------------------------------------------------------ reading

    def pending(self) -> list[StoredRecord]:
        """All records that are there, in the order in which they were stored."""
        rows = self._rows
        return [rows[partition].by_sk[sk] for partition, sk in self._stored if sk in rows[partition].by_sk]

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        await asyncio.sleep(0)
        rows = self._rows[partition]
        start = 0 if after is None else bisect_right(rows.order, after)
        sks = rows.order[start : start + limit]
        more = start + limit < len(rows.order)
        return Page([rows.by_sk[sk] for sk in sks], sks[-1] if more else None)

    async def probe(self, partition: Partition, sks: Sequence[str]) -> Sequence[StoredRecord]:
        await asyncio.sleep(0)
        if len(sks) > _MAX_PROBED:
            raise StorageRejectedError(f"{len(sks)} records probed at once; at most {_MAX_PROBED} are")
        rows = self._rows[partition].by_sk
        return [rows[sk] for sk in sorted(set(sks)) if sk in rows]

    async def count(self, partition: Partition, *, limit: int) -> Count:
        await asyncio.sleep(0)
        rows = self._rows[partition]
        oldest = rows.by_sk[rows.order[0]].added if rows.order else None
        return Count(min(len(rows.order), limit), len(rows.order) > limit, oldest)

    # ------------------------------------------------------------------ settling

    async def remove(self, partition: Partition, sks: Sequence[str]) -> None:
        await asyncio.sleep(0)
        self._rows[partition].remove(sks)

    async def update(self, partition: Partition, sk: str, state: RecordState) -> RecordState | None:
        await asyncio.sleep(0)
        record = self._rows[partition].by_sk.get(sk)
        if record is None or record.state.generation != state.generation:
            return None
        return self._set_state(record, _merged(record.state, state))

    async def forget_plan(self, partition: Partition, sk: str, *, generation: int) -> bool:
        await asyncio.sleep(0)
        record = self._rows[partition].by_sk.get(sk)
        if record is None or record.state.generation != generation or record.state.plan is None:
            return False
        self._set_state(record, replace(record.state, plan=None, generation=generation + 1))
        return True

    async def bury(self, letter: DeadLetter, state: RecordState | None) -> bool:
        await asyncio.sleep(0)
        record = self._rows[letter.origin].by_sk.get(letter.origin_sk)
        if record is None or (state is not None and record.state.generation != state.generation):
            return False
        found = {record.state.states.get(platform) for platform in letter.platforms}
        if not found <= {None, PlatformState.REJECTED}:
            return False
        if state is None:
            self._rows[letter.origin].remove([letter.origin_sk])
        else:
            buried = {
                platform: state.states[platform] for platform in letter.platforms if platform in state.states
            }
            merged = _merged(record.state, state)
            self._set_state(record, replace(merged, states={**merged.states, **buried}))
        self._letters[letter.id] = read_letter(letter_item(letter))
        return True

    # ------------------------------------------------------------------ dead letters

    async def dead_letters(
        self, *, platform: str | None = None, after: str | None = None, limit: int = 100
    ) -> DeadPage:
        await asyncio.sleep(0)
        prefix = "" if platform is None else f"{platform}#"
        found = sorted(name for name in self._letters if name.startswith(prefix) and name > (after or ""))
        page = found[:limit]
        return DeadPage([self._letters[name] for name in page], page[-1] if len(found) > limit else None)

    async def requeue(self, letter: DeadLetter, record: NewRecord | None) -> bool:
        await asyncio.sleep(0)
        if not self._is_there(letter):
            return False
        if record is not None:
            self._store(read_record(record.partition, record_item(record)))
        else:
            held = self._held(letter)
            if held is None:
                return False
            states = {name: state for name, state in held.state.states.items() if name not in letter.platforms}
            freed = RecordState(held.state.plan, states, generation=held.state.generation + 1)
            history = joined_history(held.history, letter.history)
            self._set_state(held._replace(history=history), freed)
        del self._letters[letter.id]
        return True

    async def purge(self, letter: DeadLetter) -> bool:
        await asyncio.sleep(0)
        if not self._is_there(letter):
            return False
        del self._letters[letter.id]
        held = self._held(letter)
        if held is not None:
            dead = dict.fromkeys(letter.platforms, PlatformState.DEAD)
            self._set_state(held, replace(held.state, states={**held.state.states, **dead}))
        return True

    # ------------------------------------------------------------------ coordination

    async def read_coordination(self) -> Coordination:
        await asyncio.sleep(0)
        return Coordination(dict(self._members), dict(self._leases))

    async def beat(self, member: Member) -> None:
        await asyncio.sleep(0)
        self._members[member.id] = member

    async def forget(self, member: Member) -> bool:
        await asyncio.sleep(0)
        found = self._members.get(member.id)
        if found is None or found.beat != member.beat:
            return False
        del self._members[member.id]
        return True

    async def take(self, lease: Lease, owner: str, *, silent: Member | None = None) -> Lease | None:
        await asyncio.sleep(0)
        found = self._lease(lease.bucket)
        if (found.owner, found.version) != (lease.owner, lease.version):
            return None
        if silent is not None and self._members.get(silent.id, silent).beat != silent.beat:
            return None
        taken = replace(found, owner=owner, version=found.version + 1)
        self._leases[lease.bucket] = taken
        return taken

    async def release(self, lease: Lease, *, low: int = 0) -> bool:
        await asyncio.sleep(0)
        found = self._lease(lease.bucket)
        if (found.owner, found.version, found.wake) != (lease.owner, lease.version, lease.wake):
            return False
        self._leases[lease.bucket] = replace(found, owner=None, low=low)
        return True

    async def wake(self, bucket: Bucket) -> None:
        await asyncio.sleep(0)
        found = self._lease(bucket)
        self._leases[bucket] = replace(found, wake=found.wake + 1)

    # ------------------------------------------------------------------

    def _store(self, record: StoredRecord) -> None:
        self._rows[record.partition].put(record)
        self._stored.append((record.partition, record.sk))

    def _own(self, action: Action) -> StoredRecord | None:
        """The record that an action of `put_action` puts; None for a business action."""
        put = action.get("Put")
        if put is None or put["TableName"] != self.table:
            return None
        try:
            partition = parse_partition(put["Item"]["pk"]["S"])
        except (KeyError, ValueError):
            return None
        return read_record(partition, put["Item"])

    def _is_refused(self, action: Action, record: StoredRecord | None) -> bool:
        if record is not None:
            return record.sk in self._rows[record.partition].by_sk
        table = self._table_of(action)
        return (table is not None and table.refuses(action)) or (self._refuse is not None and self._refuse(action))

    def _table_of(self, action: Action) -> MemoryTable | None:
        (body,) = action.values()
        return self.tables.get(body["TableName"])

    def _set_state(self, record: StoredRecord, state: RecordState) -> RecordState:
        self._rows[record.partition].put(record._replace(state=state))
        return state

    def _is_there(self, letter: DeadLetter) -> bool:
        """Whether it is this letter: a held record may have died again under the same id."""
        found = self._letters.get(letter.id)
        return found is not None and found.failed == letter.failed

    def _held(self, letter: DeadLetter) -> StoredRecord | None:
        """The record that a letter holds, if it is still there and still held."""
        record = self._rows[letter.origin].by_sk.get(letter.origin_sk) if letter.held else None
        if record is None:
            return None
        held = all(record.state.states.get(platform) is PlatformState.HELD for platform in letter.platforms)
        return record if held else None

    def _lease(self, bucket: Bucket) -> Lease:
        return self._leases.get(bucket, Lease(bucket))


def _merged(old: RecordState, new: RecordState) -> RecordState:
    """What is known of both: a plan and the states that were recorded before stay."""
    return RecordState(
        plan=old.plan or new.plan,
        states={**new.states, **old.states},
        attempts=max(old.attempts, new.attempts),
        tried_for=max(old.tried_for, new.tried_for),
        generation=old.generation,
        last_error=old.last_error if new.last_error is None else last_error(new.last_error),
    )
