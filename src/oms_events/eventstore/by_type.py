"""The events of one type by time: the shards of the index, read side by side and merged."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime

from oms_events.eventstore.history import EventTable, Token
from oms_events.eventstore.items import Item
from oms_events.eventstore.schema import EVENT_TIME, time_bound, type_shards

_NEXT = "\x00"
"""After a key, what makes the least text that sorts behind it."""


class _Shard:
    """One shard, read page by page; at most one page is held."""

    def __init__(
        self,
        table: EventTable,
        key: str,
        *,
        since: str,
        until: str | None,
        newest_first: bool,
        page_size: int | None,
    ) -> None:
        self._table = table
        self._key = key
        self._since = since
        self._until = until
        self._newest_first = newest_first
        self._page_size = page_size
        self._start: Token | None = None
        self._is_read = False
        self._items: Sequence[Item] = ()

    @property
    def is_over(self) -> bool:
        return self._is_read and not self._items

    async def fill(self) -> None:
        """Reads on until there is an item, or no more."""
        while not self._items and not self._is_read:
            page = await self._table.read_shard(
                self._key,
                since=self._since,
                until=self._until,
                start=self._start,
                limit=self._page_size,
                newest_first=self._newest_first,
            )
            self._items, self._start = page.items, page.next
            self._is_read = page.next is None

    @property
    def known_to(self) -> str | None:
        """The key up to which nothing of this shard is missing; None when nothing is at all."""
        return None if self._is_read or not self._items else time_key(self._items[-1])

    def take(self, bound: str | None) -> Sequence[Item]:
        """Its items up to the bound, that one included."""
        if bound is None:
            count = len(self._items)
        elif self._newest_first:
            count = len(self._items) - bisect_left(self._items[::-1], bound, key=time_key)
        else:
            count = bisect_right(self._items, bound, key=time_key)
        taken, self._items = self._items[:count], self._items[count:]
        return taken


async def items_by_type(
    table: EventTable,
    event_type: str,
    *,
    start: datetime | None,
    end: datetime | None,
    after: str | None,
    newest_first: bool,
    page_size: int | None,
) -> AsyncGenerator[list[Item]]:
    """The items of a type by time, in batches; see `EventStore.events_by_type`."""
    since = "" if start is None else time_bound(start)
    until = None if end is None else time_bound(end)
    if after is not None and newest_first:
        until = after if until is None else min(until, after)
    elif after is not None:
        since = max(since, after + _NEXT)
    if until is not None and until <= since:
        return
    shards = [
        _Shard(table, key, since=since, until=until, newest_first=newest_first, page_size=page_size)
        for key in type_shards(event_type)
    ]
    nearest = max if newest_first else min
    while True:
        # All of them end before an error is told: none is left behind.
        for failure in await asyncio.gather(*(shard.fill() for shard in shards), return_exceptions=True):
            if failure is not None:
                raise failure
        shards = [shard for shard in shards if not shard.is_over]
        if not shards:
            return
        # Behind the end of a page there may be more of its shard, before what others have.
        ends = [end_of for shard in shards if (end_of := shard.known_to) is not None]
        bound = nearest(ends) if ends else None
        batch = [item for shard in shards for item in shard.take(bound)]
        batch.sort(key=time_key, reverse=newest_first)
        yield batch


def time_key(item: Item) -> str:
    """The key of an item in the index: unique among the events of a type, and in the order of time."""
    key: str = item[EVENT_TIME]["S"]
    return key
