"""Read models: rows, the checkpoints of the projections that write them, parked events, the active version."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from oms_events._aio import Clock, SystemClock
from oms_events.errors import ProjectionError, TransactionConflictError
from oms_events.eventstore.history import Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.projections.items import (
    KEY_NAMES,
    Checkpoint,
    ItemKey,
    ParkedEvent,
    Pointer,
    TableRole,
    Write,
    checkpoint_key,
    keys_of,
    parked_list,
    parked_prefix,
    pointer_key,
    pointer_write,
    read_checkpoint,
    read_parked,
    read_pointer,
    row_key,
    row_values,
)
from oms_events.eventstore.projections.projection import Projection
from oms_events.eventstore.projections.rebuild_positions import not_retiring_check, retiring_key
from oms_events.resilience.backoff import RetryConfig

POINTER_SECONDS: Final = 5.0
"""So long readers go on with the version that was active when they looked."""
_CONFLICTS: Final = RetryConfig(max_attempts=8, initial=0.02, maximum=1.0)
_PAGE: Final = 1000


class TablePage(NamedTuple):
    """Items of a table; `next` is where to go on, None when there are no more."""

    items: Sequence[Item]
    next: Token | None


class ParkedPage(NamedTuple):
    """Parked events, those of an aggregate together and in their order; `next` is where to go on."""

    events: Sequence[ParkedEvent]
    next: Token | None


class ReadModelTables(Protocol):
    """Where the items of read models and checkpoints are kept. Safe to call concurrently.

    All methods may raise a `StorageError`, and are tried again before they do. Everything is strongly consistent.
    """

    async def open(self, *, checkpoints: bool = False) -> None:
        """Makes the table of rows ready, and that of the checkpoints when they are wanted; idempotent.

        Checkpoints that were not wanted become ready when they are used: readers of rows may have no right to
        them. Raises `ConfigurationError` for tables of another shape.
        """
        ...

    async def close(self) -> None:
        """Releases what was opened; idempotent."""
        ...

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        """The items of keys, aligned; None for what is not there."""
        ...

    async def commit(self, writes: Sequence[Write]) -> bool:
        """Does all writes, or none: False when something is not as expected, or somebody else is at it just now.

        At most 100 writes and 4 MB, no two of one key. Sent again after an unknown answer, it is known by a token:
        what was done the first time is no refusal. Cancelled, all or nothing may have been done.
        """
        ...

    async def query(
        self, hash_key: str, *, prefix: str, start: Token | None = None, limit: int | None = None
    ) -> TablePage:
        """One page of the checkpoints' table: the items of a hash key whose range keys begin so, in order."""
        ...

    async def scan(
        self, table: TableRole, *, range_key: str, start: Token | None = None, limit: int | None = None
    ) -> TablePage:
        """One page of a whole table, only the items of that range key. A page may be empty and not the last."""
        ...

    async def delete(self, keys: Sequence[ItemKey]) -> None:
        """Deletes items, whatever they are by now; those that are not there too. Not atomic."""
        ...


class ReadModels:
    """The rows of projections for those who ask, and what projectors write.

    `DynamoDBReadModels` and `MemoryReadModels` are what services make. Opens its tables at the first use, or as
    `async with`. Safe to use concurrently.
    """

    def __init__(
        self, tables: ReadModelTables, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self.tables = tables
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._pointers: dict[str, tuple[float, int | None]] = {}

    async def open(self, *, checkpoints: bool = False) -> None:
        """Opens the table of rows, and for projectors that of the checkpoints; idempotent.

        Raises what the tables' `open` does.
        """
        await self.tables.open(checkpoints=checkpoints)

    async def close(self) -> None:
        """Closes what was opened here; idempotent. A borrowed client and a session stay open."""
        await self.tables.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------ reading

    async def row(
        self, projection: str | Projection[Any], key: str, *, version: int | None = None
    ) -> Mapping[str, Any] | None:
        """The row of a key, its fields as JSON has them; None when there is none.

        Of the projection's active version, unless you say which: that is known for 5 seconds at most, so that
        for as long after a switch the old version answers. Raises a `StorageError`.
        """
        return (await self.rows(projection, [key], version=version))[key]

    async def rows(
        self, projection: str | Projection[Any], keys: Sequence[str], *, version: int | None = None
    ) -> dict[str, Mapping[str, Any] | None]:
        """The rows of keys, by key; see `row`. Strongly consistent, but not all of one moment."""
        name = projection if isinstance(projection, str) else projection.name
        if version is None:
            version = await self._active(name)
        wanted = list(dict.fromkeys(keys))
        if version is None:
            return dict.fromkeys(wanted)
        items = await self.tables.get([row_key(f"{name}@{version}", key) for key in wanted])
        found = (None if item is None else row_values(item) for item in items)
        return dict(zip(wanted, found, strict=True))

    async def checkpoint(self, projection: Projection[Any], aggregate_id: str) -> Checkpoint | None:
        """How far an aggregate is in a projection; None when it was never there. Raises a `StorageError`."""
        [item] = await self.tables.get([checkpoint_key(projection.full_name, aggregate_id)])
        return read_checkpoint(item)

    async def parked_page(
        self,
        projection: Projection[Any] | str,
        *,
        aggregate_id: str | None = None,
        start: Token | None = None,
        limit: int | None = None,
    ) -> ParkedPage:
        """One page of a projection's parked events, of all aggregates or of one. Raises a `StorageError`.

        A name stands for the full one, with the version: `AccountSummary@1`.
        """
        full_name = projection if isinstance(projection, str) else projection.full_name
        prefix = parked_prefix(aggregate_id)
        page = await self.tables.query(parked_list(full_name), prefix=prefix, start=start, limit=limit)
        found = [read_parked(item) for item in page.items]
        # An id may hold an '@' itself.
        events = [event for event in found if aggregate_id in (None, event.aggregate_id)]
        return ParkedPage(events, page.next)

    # ------------------------------------------------------------------ versions

    async def active_version(self, name: str) -> int | None:
        """The version that readers of a projection get, now; None before its first projector was opened."""
        pointer = await self.pointer(name)
        return None if pointer is None else pointer.version

    async def pointer(self, name: str) -> Pointer | None:
        """As `active_version`, with the time of the last switch."""
        [item] = await self.tables.get([pointer_key(name)])
        return read_pointer(item)

    async def check_not_retiring(self, *full_names: str) -> None:
        """Raises `ProjectionError` for a version of which a part was deleted: checkpoints do not fit its rows."""
        marks = await self.tables.get([retiring_key(full_name) for full_name in full_names])
        for full_name, item in zip(full_names, marks, strict=True):
            if item is not None:
                raise ProjectionError(
                    f"{full_name} is being retired: let `retire` come to its end before it is built anew"
                )

    async def set_active_version(self, name: str, version: int, *, expected: int | None) -> bool:
        """Lets readers have another version, if `expected` is the active one (None: there is none yet).

        False: another is. Raises `ProjectionError` for a version that is being retired, with nothing done, and a
        `StorageError`; then, and cancelled, it may or may not have been done.
        """
        self._pointers.pop(name, None)
        full_name, attempt = f"{name}@{version}", 1
        # With the mark in one transaction: readers never get a version while it is deleted.
        while not await self.tables.commit(
            [pointer_write(name, version, expected, self._clock.now()), not_retiring_check(full_name)]
        ):
            active = await self.active_version(name)
            if active == version or active != expected:
                # The answer may have been lost, or somebody else has done the same.
                return active == version
            await self.check_not_retiring(full_name)
            if attempt == _CONFLICTS.max_attempts:
                raise TransactionConflictError(
                    f"the active version of {name!r}: others change it just now; try again"
                )
            await self._clock.sleep(_CONFLICTS.delay(attempt, self._rng.random))
            attempt += 1
        return True

    async def _active(self, name: str) -> int | None:
        known = self._pointers.get(name)
        if known is None or known[0] <= self._clock.monotonic():
            # From before it is read: what was switched meanwhile is known no later than it says.
            until = self._clock.monotonic() + POINTER_SECONDS
            version = await self.active_version(name)
            # What is not there yet is looked for each time: the first rows should show at once.
            if version is None:
                return None
            known = self._pointers[name] = (until, version)
        return known[1]

    # ------------------------------------------------------------------ removing a version

    async def delete_page(
        self, full_name: str, table: TableRole, *, start: Token | None = None, limit: int | None = None
    ) -> tuple[int, Token | None]:
        """Deletes one page of a version's rows, or of its checkpoints: how many, and where to go on.

        Reads the table, page by page, whole. Do it for versions that nobody reads and no projector writes.
        """
        page = await self.tables.scan(table, range_key=full_name, start=start, limit=limit)
        await self.tables.delete(keys_of(page.items, table))
        return len(page.items), page.next

    async def delete_partition(self, hash_key: str, *, prefix: str = "", limit: int | None = None) -> int:
        """Deletes what the checkpoints' table has under a hash key, page by page: how many items."""
        deleted, start = 0, None
        while True:
            page = await self.tables.query(hash_key, prefix=prefix, start=start, limit=limit)
            await self.tables.delete(keys_of(page.items, "checkpoints"))
            deleted, start = deleted + len(page.items), page.next
            if start is None:
                return deleted


class MemoryReadModelTables:
    """The `ReadModelTables` in one process. Each method yields to the event loop once and then does its work."""

    def __init__(self) -> None:
        self._items: dict[ItemKey, Item] = {}
        self._order: list[ItemKey] = []

    async def open(self, *, checkpoints: bool = False) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        await asyncio.sleep(0)
        return [self._items.get(key) for key in keys]

    async def commit(self, writes: Sequence[Write]) -> bool:
        await asyncio.sleep(0)
        if not all(self._is_as_expected(write) for write in writes):
            return False
        for write in writes:
            if not write.keep:
                self._set(write.key, write.item)
        return True

    async def query(
        self, hash_key: str, *, prefix: str, start: Token | None = None, limit: int | None = None
    ) -> TablePage:
        await asyncio.sleep(0)
        found = [
            key
            for key in self._order
            if key.table == "checkpoints" and key.hash == hash_key and key.range.startswith(prefix)
        ]
        return self._page(found, start, limit)

    async def scan(
        self, table: TableRole, *, range_key: str, start: Token | None = None, limit: int | None = None
    ) -> TablePage:
        await asyncio.sleep(0)
        found = [key for key in self._order if key.table == table and key.range == range_key]
        return self._page(found, start, limit)

    async def delete(self, keys: Sequence[ItemKey]) -> None:
        await asyncio.sleep(0)
        for key in keys:
            self._set(key, None)

    def _is_as_expected(self, write: Write) -> bool:
        if write.expected is None:
            return True
        item = self._items.get(write.key)
        if not write.expected:
            return item is None
        return item is not None and all(item.get(name) == value for name, value in write.expected.items())

    def _set(self, key: ItemKey, item: Item | None) -> None:
        if key in self._items:
            del self._items[key]
            del self._order[bisect_left(self._order, key)]
        if item is not None:
            self._items[key] = item
            insort(self._order, key)

    def _page(self, keys: Sequence[ItemKey], start: Token | None, limit: int | None) -> TablePage:
        if start is not None:
            table: TableRole = "rows" if KEY_NAMES["rows"][0] in start else "checkpoints"
            [last] = keys_of([start], table)
            keys = [key for key in keys if key > last]
        page = keys[: limit or _PAGE]
        items = [self._items[key] for key in page]
        return TablePage(items, _token(page[-1]) if len(page) < len(keys) else None)


def _token(key: ItemKey) -> Token:
    hash_name, range_name = KEY_NAMES[key.table]
    return {hash_name: {"S": key.hash}, range_name: {"S": key.range}}


class MemoryReadModels(ReadModels):
    """Read models in memory, for tests."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(MemoryReadModelTables(), clock=clock)
