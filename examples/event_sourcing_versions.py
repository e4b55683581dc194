"""Changing an event: what is stored stays as it is, and upcasters bring it to the newest version."""

# [start:imports]
from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, Field

from oms_events import EventUnreadableError, MemoryOutbox
from oms_events.eventstore import EventRegistry, EventStore, MemoryEventStore

# [end:imports]

before = EventRegistry()


# [start:old]
@before.event(type="BookLent")  # the class was named BookLent then
class OldBookLent(BaseModel, frozen=True):
    reader: str
    days: int


# [end:old]

registry = EventRegistry()


# [start:new]
@registry.event(version=2)
class BookLent(BaseModel, frozen=True):
    reader_id: str = Field(alias="readerId")
    weeks: int
    note: str = ""


@registry.upcaster("BookLent", from_version=1)
def weeks_of_days(data: dict[str, Any]) -> dict[str, Any]:
    return {"readerId": data["reader"], "weeks": data["days"] // 7}


# [end:new]


# [start:test]
def test_version_1_is_read() -> None:
    stored = '{"reader": "ann", "days": 14}'
    assert registry.read("BookLent", 1, stored) == BookLent(readerId="ann", weeks=2)


# [end:test]


async def show(store: EventStore) -> None:
    # [start:read]
    async for recorded in store.read("book-1"):
        print(recorded.position, "stored as version", recorded.version, recorded.data)
        print(recorded.position, "read as", repr(recorded.domain_event))
    # [end:read]


async def main() -> None:
    test_version_1_is_read()
    # Two stores of one outbox and one table name have the same events, as old and new code have on AWS.
    outbox = MemoryOutbox()
    old_code = MemoryEventStore(outbox=outbox, registry=before)
    new_code = MemoryEventStore(outbox=outbox, registry=registry)
    await old_code.append("book-1", [OldBookLent(reader="ann", days=14)], expected_sequence=0)
    await new_code.append("book-1", [BookLent(readerId="bob", weeks=3)], expected_sequence=1)
    await show(new_code)
    try:
        await show(old_code)
    except EventUnreadableError as error:
        print("old code:", error)


if __name__ == "__main__":
    asyncio.run(main())
