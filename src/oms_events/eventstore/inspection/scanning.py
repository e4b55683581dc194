"""Reading all of an event store's table, or all of one history, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from oms_events._aio import cancel_and_wait
from oms_events.eventstore.history import EventTable, Token
from oms_events.eventstore.items import Item

OnPage = Callable[[int, Sequence[Item]], Awaitable[None]]
"""Called with the segment and one page of its items, one page of a segment after the other."""
OnItems = Callable[[int], None]
"""Called with how many more items were read."""


async def read_table(table: EventTable, on_page: OnPage, *, segments: int, page_size: int | None = None) -> None:
    """Reads the whole table in `segments` parts side by side; at most one page of each is held.

    The first error of one part ends all. Cancelled, all have ended when it returns.
    """

    async def read_segment(segment: int) -> None:
        start: Token | None = None
        while True:
            page = await table.scan(start=start, segment=segment, segments=segments, limit=page_size)
            await on_page(segment, page.items)
            start = page.next
            if start is None:
                return

    tasks = [
        asyncio.create_task(read_segment(segment), name=f"oms-events-eventstore-scan-{segment}")
        for segment in range(segments)
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)


async def read_history(
    table: EventTable,
    aggregate_id: str,
    on_page: OnPage,
    *,
    after: int = -1,
    up_to: int | None = None,
    page_size: int | None = None,
) -> None:
    """Reads one aggregate's items, `after` < sequence <= `up_to`, as segment 0; at first position 0 too."""
    while True:
        page = await table.read(aggregate_id, after=after, up_to=up_to, limit=page_size)
        await on_page(0, page.items)
        last = page.items[-1] if page.items else page.next
        if page.next is None or last is None:
            return
        after = int(last["EventSequence"]["N"])
