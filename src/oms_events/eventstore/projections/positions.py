"""What a projector remembers of aggregates, and how its own tasks keep out of each other's way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple


class Run(NamedTuple):
    """A fact of a history: a projection has nothing to do with the events after `base`, up to `position`.

    It has handled them, or does not subscribe to them.
    """

    base: int
    position: int


class Positions:
    """How far aggregates are, of the `capacity` used last; so that events of no interest need no write.

    What is forgotten is read again, and what is here holds for any checkpoint.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._runs: OrderedDict[tuple[str, str], Run] = OrderedDict()

    def after(self, projection: str, aggregate_id: str, checkpoint: int) -> int:
        """The position that an aggregate has reached, whose checkpoint is at `checkpoint`."""
        run = self._runs.get((projection, aggregate_id))
        if run is None or run.base > checkpoint:
            return checkpoint
        return max(checkpoint, run.position)

    def handled(self, projection: str, aggregate_id: str, sequence: int) -> None:
        """The checkpoint is at this event."""
        run = self._runs.get((projection, aggregate_id))
        if run is None or run.position < sequence:
            self._keep((projection, aggregate_id), Run(sequence, sequence))

    def passed(self, projection: str, aggregate_id: str, first: int, last: int) -> None:
        """The projection does not subscribe to the events from `first` to `last`."""
        run = self._runs.get((projection, aggregate_id))
        if run is None or run.position < first - 1:
            self._keep((projection, aggregate_id), Run(first - 1, last))
        elif run.position < last:
            self._keep((projection, aggregate_id), Run(run.base, last))

    def _keep(self, key: tuple[str, str], run: Run) -> None:
        self._runs[key] = run
        self._runs.move_to_end(key)
        if len(self._runs) > self._capacity:
            self._runs.popitem(last=False)


class KeyedLocks:
    """A lock per key, for as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Holds the locks of some keys, taken in the order of the keys: nobody waits for one another."""
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._hold(key))
            yield

    @asynccontextmanager
    async def _hold(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._locks[key][1] - 1
            if users:
                self._locks[key] = (lock, users)
            else:
                del self._locks[key]
