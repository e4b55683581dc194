"""An event store's table that answers at once, in a process of its own: one history, in pages of a megabyte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel

from benchmarks.stub import Stub, serve
from oms_events._aio import SystemClock
from oms_events._aws.tables import create_request
from oms_events.eventstore.author import Author
from oms_events.eventstore.items import Item, event_item
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import EVENT_STORE
from oms_events.outbox.schema import item_size

TABLE = "bench-events"
AGGREGATE = "account-123"
HISTORY = 1000
_PAGE = 1024 * 1024

registry = EventRegistry()


@registry.event
class TransactionProcessed(BaseModel, frozen=True):
    transaction_id: str
    amount: Decimal
    currency: str
    processed_at: datetime
    counterparty: str
    text: str


def make_event(number: int) -> TransactionProcessed:
    """A domain event whose item has about 1 KB."""
    return TransactionProcessed(
        transaction_id=f"transaction-{number:08d}",
        amount=Decimal(number) / 100,
        currency="EUR",
        processed_at=datetime(2026, 1, 1, tzinfo=UTC),
        counterparty=f"account-{number % 97}",
        text="x" * 160,
    )


async def recorded(aggregate_id: str, numbers: range) -> list[RecordedEvent]:
    """Events as an append stores them, from the first on."""
    author = Author(TABLE, registry, None, clock=SystemClock(), rng=random.Random(1))
    events = [make_event(number) for number in numbers]
    options: Any = {"correlation_id": "request-7", "causation_id": "command-7", "attributes": {}}
    return await author.write(aggregate_id, events, after=0, **options)


def pages(items: list[Item]) -> Iterator[bytes]:
    """The answers of queries, as DynamoDB cuts them."""
    while items:
        size = count = 0
        while count < len(items) and size < _PAGE:
            size += item_size(items[count])
            count += 1
        shown, items = items[:count], items[count:]
        answer: dict[str, Any] = {"Count": count, "Items": shown}
        if items:
            answer["LastEvaluatedKey"] = {name: shown[-1][name] for name in ("AggregateId", "EventSequence")}
        yield orjson.dumps(answer)


class Table(Stub):
    """Knows the history of one aggregate."""

    ready: ClassVar[dict[int, bytes]] = {}

    def answer(self, operation: str, request: bytes) -> bytes:
        if operation == "DescribeTable":
            described = {**create_request(TABLE, EVENT_STORE), "TableStatus": "ACTIVE", "TableId": "1"}
            return orjson.dumps({"Table": described})
        asked = orjson.loads(request)
        start = asked.get("ExclusiveStartKey")
        values = asked["ExpressionAttributeValues"]
        return self.ready[int(start["EventSequence"]["N"] if start else values[":after"]["N"])]


async def run() -> None:
    items: list[Item] = [event_item(event) for event in await recorded(AGGREGATE, range(HISTORY))]
    after = 0
    for page in pages(items):
        Table.ready[after] = page
        after += orjson.loads(page)["Count"]
    await serve(Table)


if __name__ == "__main__":
    asyncio.run(run())
