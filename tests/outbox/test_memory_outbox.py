from __future__ import annotations

import pytest

from oms_events import EventRouter, MemoryOutbox, MemoryPublisher, OutboxProcessor, build_event
from oms_events.errors import ConditionFailedError


async def test_pending_events_come_in_the_order_of_their_commits_whatever_their_keys() -> None:
    async with MemoryOutbox() as outbox:
        for number in range(20):
            key = None if number % 4 == 0 else f"order {number}"
            await outbox.add(build_event(f"shop.{number}", "/shop", {"number": number}, partitionkey=key))
        pending = outbox.pending()
    assert [event.get_type() for event in pending] == [f"shop.{number}" for number in range(20)]
    assert [event.get_data() for event in pending] == [{"number": number} for number in range(20)]


async def test_events_of_a_refused_transaction_are_not_pending() -> None:
    async with MemoryOutbox(refuse=lambda action: "Put" in action) as outbox:
        with pytest.raises(ConditionFailedError):
            await _place(outbox)
        assert outbox.pending() == []


async def _place(outbox: MemoryOutbox) -> None:
    async with outbox.transaction() as tx:
        tx.put("orders", {"pk": "A-1"}, condition="attribute_not_exists(pk)")
        tx.add(build_event("shop.order.placed", "/shop"))


async def test_delivered_events_are_not_pending_any_more() -> None:
    async with MemoryOutbox() as outbox, EventRouter({"nats": MemoryPublisher()}) as router:
        await outbox.add(build_event("shop.order.placed", "/shop", partitionkey="A-1"))
        assert len(outbox.pending()) == 1
        assert await OutboxProcessor(outbox, router).drain(timeout=5)
        assert outbox.pending() == []
