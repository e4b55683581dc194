"""Snapshots: the state of an aggregate after an event, so that loading it need not read its whole history."""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of an aggregate after its event at `sequence`, as JSON; safe to lose.

    `event_id` is that event's: a snapshot of a history that was restored to an earlier time, and then went on
    otherwise, shows by it. `aggregate` and `version` are the `name` and `snapshot_version` of the kind.
    """

    aggregate_id: str
    sequence: int
    event_id: str
    aggregate: str
    version: int
    state: bytes
    time: datetime
    """When it was made, by the writer's clock (aware)."""


class SnapshotStore(Protocol):
    """Where snapshots are kept. Safe to call concurrently; anything in it may be deleted at any time."""

    async def open(self) -> None:
        """Makes it ready; idempotent. Raises `ConfigurationError` for a table of another shape."""
        ...

    async def close(self) -> None:
        """Releases what was opened; idempotent."""
        ...

    async def latest(self, aggregate_id: str, *, up_to: int | None = None) -> Snapshot | None:
        """The snapshot of an aggregate with the highest sequence, `up_to` at most.

        Raises a `StorageError`, and `ValueError` for what is stored there and is no snapshot.
        """
        ...

    async def put(self, snapshot: Snapshot) -> None:
        """Keeps a snapshot, in place of one of the same aggregate and sequence. Twice is as once.

        Raises a `StorageError`; cancelled, it may or may not be kept.
        """
        ...


class MemorySnapshotStore:
    """Snapshots in one process, for tests."""

    def __init__(self) -> None:
        self._snapshots: dict[str, dict[int, Snapshot]] = {}
        self._order: dict[str, list[int]] = {}

    async def open(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def latest(self, aggregate_id: str, *, up_to: int | None = None) -> Snapshot | None:
        await asyncio.sleep(0)
        order = self._order.get(aggregate_id, [])
        end = len(order) if up_to is None else bisect_right(order, up_to)
        return self._snapshots[aggregate_id][order[end - 1]] if end else None

    async def put(self, snapshot: Snapshot) -> None:
        await asyncio.sleep(0)
        found = self._snapshots.setdefault(snapshot.aggregate_id, {})
        if snapshot.sequence not in found:
            insort(self._order.setdefault(snapshot.aggregate_id, []), snapshot.sequence)
        found[snapshot.sequence] = snapshot

    def delete(self, aggregate_id: str, sequence: int) -> None:
        """Removes a snapshot, if it is there."""
        if self._snapshots.get(aggregate_id, {}).pop(sequence, None) is not None:
            self._order[aggregate_id].remove(sequence)
