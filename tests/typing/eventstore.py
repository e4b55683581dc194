"""Event sourcing as a type checker sees it. Never executed; mypy --strict checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, assert_type

from pydantic import BaseModel

from oms_events import EncodedEvent
from oms_events.eventstore import (
    Aggregate,
    DynamoDBEventStore,
    EventStoreConfig,
    Executed,
    MemoryEventStore,
    MemoryReadModels,
    Projection,
    ProjectionPublisher,
    Projector,
    Rebuilt,
    RecordedEvent,
    Repository,
    domain_event,
    rebuild,
    upcaster,
)
from oms_events.publishing import Publisher
from oms_events.receiving import JetStreamReceiver


@domain_event
class Opened(BaseModel):
    owner: str


@domain_event(type="Moved", version=2)
class Moved(BaseModel):
    amount: Decimal


@upcaster("Moved", from_version=1)
def _amounts_were_cents(data: dict[str, Any]) -> Mapping[str, Any]:
    return {"amount": Decimal(data["cents"]) / 100}


class Move(BaseModel):
    amount: Decimal


class Account(BaseModel):
    balance: Decimal = Decimal(0)


Event = Opened | Moved


def decide(account: Account, command: Move) -> Sequence[Event]:
    return [Moved(amount=command.amount)]


def evolve(account: Account, event: Event) -> Account:
    return account


ACCOUNT = Aggregate[Account, Move, Event](
    name="Account", state=Account, initial=lambda account_id: Account(), decide=decide, evolve=evolve
)
SUMMARY = Projection("Summary", Account, version=2)


@SUMMARY.on(Moved)
def moved(row: Account | None, event: Moved, recorded: RecordedEvent) -> Account | None:
    return Account(balance=(row.balance if row else Decimal(0)) + event.amount)


async def appends() -> None:
    store = DynamoDBEventStore(EventStoreConfig(table_name="event-store"))
    assert_type(store, DynamoDBEventStore)
    recorded = await store.append("a", [Opened(owner="o"), Moved(amount=Decimal(1))], expected_sequence=0)
    assert_type(recorded, list[RecordedEvent])
    assert_type(recorded[0].sequence, int)
    assert_type(recorded[0].encoded, EncodedEvent)
    async for event in store.events_by_type("Moved"):
        assert_type(event, RecordedEvent)
    assert_type(await store.last_sequence("a"), int)


async def commands() -> None:
    accounts = Repository(MemoryEventStore(), ACCOUNT)
    assert_type(await accounts.load("a", up_to_sequence=10), Account)
    state, sequence = await accounts.load_with_sequence("a")
    assert_type(state, Account)
    assert_type(sequence, int)
    assert_type(await accounts.execute("a", Move(amount=Decimal(1)), command_id="c"), Executed[Account])


async def projections(receiver: JetStreamReceiver) -> None:
    async with Projector([SUMMARY], MemoryEventStore(), MemoryReadModels()) as projector:
        assert_type(await projector.handle([]), list[Exception | None])
        assert_type(await rebuild(projector), Rebuilt)
        publisher: Publisher = ProjectionPublisher(projector)
        await publisher.check()
    async with receiver as opened:
        assert_type(opened, JetStreamReceiver)
