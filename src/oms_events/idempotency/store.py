"""The port to where runs are recorded. Memory, DynamoDB and the local cache pass the same contract suite."""

from __future__ import annotations

from typing import Protocol

from oms_events.idempotency.records import RunRecord


class IdempotencyStore(Protocol):
    """Where the latest run of each key is recorded. Strongly consistent; every change is atomic.

    Safe to call concurrently. `now` is in epoch seconds, of the caller's clock. All methods may raise a
    `StorageError`; after `StorageOutcomeUnknownError`, and cancelled, a change may or may not have been made.
    """

    max_result_bytes: int
    """The longest result, in bytes of JSON, that a record takes."""

    async def write(self, record: RunRecord, *, now: int) -> RunRecord | None:
        """Puts a record where there is none, or one that yields to it; else gives the one that stands.

        The same call again is harmless.
        """
        ...

    async def read(self, key: str) -> RunRecord | None:
        """The record of a key, expired or not."""
        ...

    async def remove(self, key: str, token: str) -> None:
        """Removes the record if it is the run's own; else nothing happens."""
        ...
