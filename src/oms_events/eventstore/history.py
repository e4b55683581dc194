"""The port to where events are kept: DynamoDB or memory. Both pass the same contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from oms_events.eventstore.items import Item
from oms_events.outbox.store import Action

Token = Mapping[str, Any]
"""Where a page ended: a table's key, as DynamoDB gives it. It can be written as JSON."""


class ItemPage(NamedTuple):
    """Items in order; `next` is where to go on, None when there are no more."""

    items: Sequence[Item]
    next: Token | None


class EventTable(Protocol):
    """Where the items of events and command markers are kept. Safe to call concurrently.

    All methods may raise a `StorageError`; reads are tried again before they do. Cancelled, a `commit` may or
    may not have been done.
    """

    @property
    def name(self) -> str:
        """The table's name, as actions have it."""
        ...

    @property
    def identity(self) -> str | None:
        """What tells it from others of its name, once it was opened; None where that is not known."""
        ...

    async def open(self) -> None:
        """Makes the table ready; idempotent. Raises `ConfigurationError` for a table of another shape."""
        ...

    async def close(self) -> None:
        """Releases what was opened; idempotent."""
        ...

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        """One TransactWriteItems, without an outbox. Raises `TransactionCanceledError`, aligned with `actions`.

        With a token that was used for the same actions before it does nothing again.
        """
        ...

    async def read(
        self,
        aggregate_id: str,
        *,
        after: int,
        up_to: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        """One page of an aggregate's events, `after` < sequence <= `up_to`, strongly consistent.

        A page holds at most `limit` events, and may hold fewer while `next` says that there are more: go on with
        `after` (or `up_to`) at its end. What was committed before the call is there. Of a transaction that commits
        meanwhile some events may be there and others not, in any order: a page may have a gap.
        """
        ...

    async def read_shard(
        self,
        shard: str,
        *,
        since: str,
        until: str | None,
        start: Token | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> ItemPage:
        """One page of a shard of the index by type, `since` <= key < `until`, eventually consistent.

        `start` is where the page before ended. A page may hold fewer than `limit` events, or none, while `next`
        says that there are more.
        """
        ...

    async def scan(
        self, *, start: Token | None = None, segment: int = 0, segments: int = 1, limit: int | None = None
    ) -> ItemPage:
        """One page of the whole table, or of one of `segments` parts; consistent; also the command markers.

        The items of an aggregate come together, all of them in one segment; rely on no order, which emulators do
        not keep. Of a transaction that commits meanwhile some may be there and others not. A page may be empty
        while `next` says that there are more.
        """
        ...

    async def get(self, key: Mapping[str, Any]) -> Item | None:
        """One item, strongly consistent."""
        ...
