"""The port to where the outbox is kept. The memory store and DynamoDB pass the same contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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
    RecordState,
    StoredRecord,
)

Action = Mapping[str, Any]
"""One action of a TransactWriteItems call, as the wire has it: `{"Put": {...}}`."""


class DeadPage(NamedTuple):
    """Dead letters in the order of their ids; `next` is where to go on, None when there are no more."""

    letters: Sequence[DeadLetter]
    next: str | None


class TransactionStore(Protocol):
    """What a commit needs of a store; see `OutboxStore`."""

    table: str

    def put_action(self, record: NewRecord) -> Action: ...

    async def commit(self, actions: Sequence[Action], token: str) -> None: ...


class OutboxStore(Protocol):
    """Where the outbox is kept. Everything is strongly consistent; every change is atomic and says if it took.

    Safe to call concurrently. All methods may raise `StorageUnavailableError` (certainly not done),
    `StorageOutcomeUnknownError` (may be done), `StorageDeniedError` and `StorageRejectedError`. Cancelled, what
    was asked may or may not have been done.
    """

    table: str
    """The name of the table."""

    async def open(self) -> None:
        """Makes the store ready; idempotent. Raises `ConfigurationError` for a table of another shape."""
        ...

    async def close(self) -> None:
        """Releases what the store owns; idempotent."""
        ...

    # ------------------------------------------------------------------ layout

    async def read_layout(self) -> Layout | None:
        """The layout, or None when the table has none yet."""
        ...

    async def write_layout(self, layout: Layout) -> bool:
        """Puts a layout in place of the one whose revision is lower by one (or of none, for revision 1)."""
        ...

    async def close_counter(self, bucket: Bucket) -> None:
        """From now on `reserve` in this bucket fails; idempotent."""
        ...

    # ------------------------------------------------------------------ writing

    async def reserve(self, bucket: Bucket, count: int) -> int:
        """Reserves `count` sequence numbers and gives the first. Raises `EpochClosedError`.

        After an unknown outcome the numbers are lost, which is harmless: a gap.
        """
        ...

    def put_action(self, record: NewRecord) -> Action:
        """The action that puts a record, if there is none with its key. Raises `OutboxLimitError` over 400 KB."""
        ...

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        """Does all actions or none. The same call with the same token does them once, within ten minutes.

        Raises `TransactionCanceledError` (definite, with the reasons), or what all methods raise.
        """
        ...

    # ------------------------------------------------------------------ reading

    async def read(self, partition: Partition, *, after: str | None = None, limit: int = 100) -> Page:
        """Records with an `sk` above `after`, in order. Read-committed: one may show without an earlier one."""
        ...

    async def probe(self, partition: Partition, sks: Sequence[str]) -> Sequence[StoredRecord]:
        """Those of at most 100 records that are there, by a serializable read, in order of `sk`.

        Raises `StorageUnavailableError` while a transaction is writing one of them.
        """
        ...

    async def count(self, partition: Partition, *, limit: int) -> Count:
        """Counts the partition's records up to `limit`, and looks at the first."""
        ...

    # ------------------------------------------------------------------ settling

    async def remove(self, partition: Partition, sks: Sequence[str]) -> None:
        """Removes records that were seen settled; those that are not there are fine. All, or raises."""
        ...

    async def update(self, partition: Partition, sk: str, state: RecordState) -> RecordState | None:
        """Adds to a record's state and gives what it is now; a plan that was recorded before stays.

        None when the record is gone or of another generation: it is not made anew.
        """
        ...

    async def forget_plan(self, partition: Partition, sk: str, *, generation: int) -> bool:
        """Removes a record's plan, so that it is decided anew; its states stay, and its generation is raised.

        False when the record is gone, of another generation, or has no plan.
        """
        ...

    async def bury(self, letter: DeadLetter, state: RecordState | None) -> bool:
        """Stores a dead letter and, in the same transaction, the record's state, or its removal (None).

        `state.generation` is the record's; for a removal no generation is looked at. What was recorded of
        attempts is never lowered. False, and nothing is
        stored, when the record is gone, of another generation, or has a state for one of the letter's platforms
        other than `rejected`.
        """
        ...

    # ------------------------------------------------------------------ dead letters

    async def dead_letters(
        self, *, platform: str | None = None, after: str | None = None, limit: int = 100
    ) -> DeadPage:
        """Dead letters in the order of their ids, of one platform or of all."""
        ...

    async def requeue(self, letter: DeadLetter, record: NewRecord | None) -> bool:
        """Removes a dead letter and puts `record` for it, in one transaction; with None, frees its held record.

        Freeing removes the letter's platforms from the record's states, raises its generation, and adds the
        letter's history to its own. False, and
        nothing is changed, when the letter (or the held record) is gone: somebody else was first.
        """
        ...

    async def purge(self, letter: DeadLetter) -> bool:
        """Removes a dead letter; a held record's state becomes `dead`: its key goes on. False when gone."""
        ...

    # ------------------------------------------------------------------ coordination

    async def read_coordination(self) -> Coordination:
        """Who is there and who relays what."""
        ...

    async def beat(self, member: Member) -> None:
        """Writes a processor's heartbeat."""
        ...

    async def forget(self, member: Member) -> bool:
        """Removes a processor whose beat is still the one given."""
        ...

    async def take(self, lease: Lease, owner: str, *, silent: Member | None = None) -> Lease | None:
        """Makes `owner` the owner of a bucket whose lease is still as given: its version is raised by one.

        With `silent` the previous owner's heartbeat must also be the one given, or gone. None: another was first.
        """
        ...

    async def release(self, lease: Lease, *, low: int = 0) -> bool:
        """Gives a bucket up. False when it is not ours any more, or `wake` has grown: look again."""
        ...

    async def wake(self, bucket: Bucket) -> None:
        """Asks a bucket's owner, whoever it is, to look again before it releases."""
        ...
