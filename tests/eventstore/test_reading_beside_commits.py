"""Queries are read-committed: beside a commit they may show some of its events, and not the others."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events.errors import EventUnreadableError
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.items import sequence_of
from oms_events.eventstore.memory import MemoryEventTable
from oms_events.eventstore.store import EventStore
from oms_events.testing.event_store_contract.support import fill, registry
from tests.eventstore.support import Hurried

ALL = {1, 2, 3, 4, 5, 6}


class Committing(MemoryEventTable):
    """A table whose next reads, one after the other, do not show these events."""

    def __init__(self) -> None:
        super().__init__("committing")
        self.hidden: list[set[int]] = []

    async def read(self, aggregate_id: str, **options: Any) -> ItemPage:
        page = await super().read(aggregate_id, **options)
        hidden = self.hidden.pop(0) if self.hidden else set()
        return ItemPage([item for item in page.items if sequence_of(item) not in hidden], page.next)


async def store_over(table: MemoryEventTable, clock: Hurried) -> EventStore:
    store = EventStore(table, EventStoreConfig(table_name=table.name), registry=registry, clock=clock)
    await fill(store, "a", 6)
    return store


@pytest.mark.parametrize(
    ("hidden", "limit", "found", "looks"),
    [
        ([{3}], None, 6, 1),
        ([{1}, {2}, {3}, {4}, {5}], None, 6, 5),
        ([{3, 4}, {4}, {4, 5}], None, 6, 3),
        ([{1, 2, 3, 4}, {1, 2, 3, 4}], None, 6, 2),
        ([{2}, {3}], 2, 6, 0),
        # What is missing at the end was not committed when the read began.
        ([{4, 5, 6}], None, 3, 0),
        ([{2, 5, 6}, {5, 6}], None, 4, 1),
        ([ALL], None, 0, 0),
        # A page that says that there is more, and shows nothing of it.
        ([{1, 2}, {1, 2}, set(), {3}], 2, 6, 3),
    ],
)
async def test_a_gap_is_read_again(hidden: list[set[int]], limit: int | None, found: int, looks: int) -> None:
    table, clock = Committing(), Hurried()
    store = await store_over(table, clock)
    table.hidden = hidden
    pages = [[event.sequence for event in page] async for page in store.pages("a", limit=limit)]
    assert [number for page in pages for number in page] == list(range(1, found + 1))
    assert all(pages)
    assert len(clock.pauses) == looks
    assert table.hidden == []


async def read_into(seen: list[int], store: EventStore) -> None:
    async for event in store.read("a"):
        seen.append(event.sequence)


@pytest.mark.parametrize("hidden", [{4}, {1}, {2, 3}])
async def test_a_gap_that_stays_is_no_history(hidden: set[int]) -> None:
    table, clock = Committing(), Hurried()
    store = await store_over(table, clock)
    table.hidden = [hidden] * 100
    seen: list[int] = []
    with pytest.raises(EventUnreadableError, match=rf"^a@{min(hidden)}: the event is missing, but later") as gap:
        await read_into(seen, store)
    assert seen == list(range(1, min(hidden)))
    assert gap.value.position == f"a@{min(hidden)}"
    assert 0.5 < sum(clock.pauses) < 5
