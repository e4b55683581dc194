"""The aggregate of these tests: a bank account, whose state shows each event and their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from oms_events._aio import SystemClock
from oms_events._aws.dynamodb import DynamoClient
from oms_events.errors import CommandRejectedError
from oms_events.eventstore.aggregates.aggregate import Aggregate
from oms_events.eventstore.aggregates.dynamodb import DynamoDBSnapshotStore
from oms_events.eventstore.aggregates.repository import Repository
from oms_events.eventstore.aggregates.snapshots import SnapshotStore
from oms_events.eventstore.config import EventStoreConfig, SnapshotConfig
from oms_events.eventstore.memory import MemoryEventTable
from oms_events.eventstore.records import RecordedEvent
from oms_events.eventstore.schema import SNAPSHOTS
from oms_events.eventstore.store import EventStore
from oms_events.outbox.store import Action
from tests.eventstore.accounts import AccountClosed, AccountCreated, TransactionProcessed, deposit, registry
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings


class Account(BaseModel, frozen=True):
    account_id: str
    customer_id: str | None = None
    is_closed: bool = False
    balance: Decimal = Decimal(0)
    trail: int = 0
    """Another number for each run of events, in each order."""


class OpenAccount(BaseModel, frozen=True):
    customer_id: str


class Deposit(BaseModel, frozen=True):
    amount: Decimal
    parts: int = 1
    """Into so many events."""


class Withdraw(BaseModel, frozen=True):
    amount: Decimal


class CloseAccount(BaseModel, frozen=True):
    reason: str = ""


Command = OpenAccount | Deposit | Withdraw | CloseAccount
Event = AccountCreated | TransactionProcessed | AccountClosed


def decide(account: Account, command: Command) -> Sequence[Event]:
    match command:
        case OpenAccount():
            if account.customer_id is not None:
                raise CommandRejectedError("it is open already", code="ALREADY_OPEN")
            return [AccountCreated(customer_id=command.customer_id)]
        case Deposit():
            if account.is_closed:
                raise CommandRejectedError("the account is closed", code="CLOSED")
            return [TransactionProcessed(amount=command.amount, kind="deposit")] * command.parts
        case Withdraw():
            if account.balance < command.amount:
                raise CommandRejectedError("not enough money", code="INSUFFICIENT_FUNDS")
            return [TransactionProcessed(amount=command.amount, kind="withdrawal")]
        case CloseAccount():
            # To close a closed account changes nothing.
            return [] if account.is_closed else [AccountClosed(reason=command.reason)]


def evolve(account: Account, event: Event) -> Account:
    trail = (account.trail * 31 + hash_of(event)) % (2**61 - 1)
    match event:
        case AccountCreated():
            return account.model_copy(update={"customer_id": event.customer_id, "trail": trail})
        case TransactionProcessed():
            amount = event.amount if event.kind == "deposit" else -event.amount
            return account.model_copy(update={"balance": account.balance + amount, "trail": trail})
        case AccountClosed():
            return account.model_copy(update={"is_closed": True, "trail": trail})


def hash_of(event: Event) -> int:
    return int.from_bytes(event.model_dump_json().encode()[:64]) % (2**61 - 1)


def initial(account_id: str) -> Account:
    return Account(account_id=account_id)


ACCOUNT: Aggregate[Account, Command, Event] = Aggregate(
    name="Account", state=Account, initial=initial, decide=decide, evolve=evolve
)
AccountRepository = Repository[Account, Command, Event]


def deposited(amount: int | str = 10, parts: int = 1) -> Deposit:
    return Deposit(amount=Decimal(amount), parts=parts)


def withdrawn(amount: int | str = 10) -> Withdraw:
    return Withdraw(amount=Decimal(amount))


def folded(account_id: str, events: Iterable[Any]) -> Account:
    """The state after all events."""
    return ACCOUNT.fold(initial(account_id), events)


async def history(store: EventStore, account_id: str) -> list[RecordedEvent]:
    return [event async for event in store.read(account_id)]


async def domain_events(store: EventStore, account_id: str) -> list[Any]:
    return [event.domain_event for event in await history(store, account_id)]


class CountingTable(MemoryEventTable):
    """Counts the items that are read, and the calls that read them."""

    def __init__(self, name: str = "event-store") -> None:
        super().__init__(name)
        self.items = 0
        self.calls = 0

    async def read(self, aggregate_id: str, **options: Any) -> Any:
        page = await super().read(aggregate_id, **options)
        self.items += len(page.items)
        self.calls += 1
        return page


class InterruptedTable(CountingTable):
    """Lets something happen just before a commit is done, and just after: one of each list per commit."""

    def __init__(self, name: str = "event-store") -> None:
        super().__init__(name)
        self.before: list[Callable[[], Awaitable[Any]]] = []
        self.after: list[Callable[[], Awaitable[Any]]] = []
        self._is_interrupted = False

    async def commit(self, actions: Sequence[Action], token: str) -> None:
        await self._interrupt(self.before)
        await super().commit(actions, token)
        await self._interrupt(self.after)

    async def _interrupt(self, interruptions: list[Callable[[], Awaitable[Any]]]) -> None:
        # What happens then may commit too, and is not interrupted.
        if interruptions and not self._is_interrupted:
            self._is_interrupted = True
            try:
                await interruptions.pop(0)()
            finally:
                self._is_interrupted = False


class QuickClock(SystemClock):
    """Real time, in which nobody waits; `slept` has how long each would have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def store_on(table: MemoryEventTable) -> EventStore:
    return EventStore(table, EventStoreConfig(table_name=table.name), registry=registry)


def appending(store: EventStore, *events: Any) -> Callable[[], Awaitable[Any]]:
    """Somebody else appends to account `a`."""

    async def append() -> None:
        await store.append("a", events or [deposit(1)], expected_sequence=await store.last_sequence("a"))

    return append


async def sequences(kept: SnapshotStore, account_id: str = "a") -> list[int]:
    """Those of all snapshots, newest first."""
    found: list[int] = []
    while (one := await kept.latest(account_id, up_to=found[-1] - 1 if found else None)) is not None:
        found.append(one.sequence)
    return found


@asynccontextmanager
async def dynamodb_snapshots(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBSnapshotStore]:
    """An open store on an empty table of its own."""
    async with (
        fresh_table(dynamo, SNAPSHOTS, "snapshots") as name,
        DynamoDBSnapshotStore(SnapshotConfig(table_name=name, **aws)) as store,
    ):
        yield store
