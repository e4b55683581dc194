"""The events of one type by time: the shards of the index, read side by side and merged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from datetime import datetime

from oms_events.eventstore.history import EventTable
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
        self._has_more = True
        self.items: deque[Item] = deque()

    async def fill(self) -> None:
        """Reads on until there is an item, or no more."""
        while self._has_more and not self.items:
            page = await self._table.read_shard(
                self._key,
                since=self._since,
                until=self._until,
                limit=self._page_size,
                newest_first=self._newest_first,
            )
            self.items.extend(page.items)
            self._has_more = page.next is not None
            # A page that is empty and not the last was filtered by nobody here: its key says where to go on.
            last = page.items[-1] if page.items else page.next
            if last is None:
                return
            if self._newest_first:
                self._until = time_key(last)
            else:
                self._since = time_key(last) + _NEXT

    @property
    def must_wait(self) -> bool:
        """Whether its next item is not known yet."""
        return self._has_more and not self.items


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
    first = max if newest_first else min
    while shards:
        await asyncio.gather(*(shard.fill() for shard in shards if shard.must_wait))
        shards = [shard for shard in shards if shard.items]
        batch = []
        while shards and not any(shard.must_wait for shard in shards):
            shard = first(shards, key=lambda shard: time_key(shard.items[0]))
            batch.append(shard.items.popleft())
            if not shard.items and not shard.must_wait:
                shards.remove(shard)
        if batch:
            yield batch


def time_key(item: Item) -> str:
    """The key of an item in the index: unique among the events of a type, and in the order of time."""
    key: str = item[EVENT_TIME]["S"]
    return key
