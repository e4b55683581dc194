"""An aggregate in memory: commands that lead to events, states that are folded from them, snapshots."""

# [start:imports]
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

from pydantic import BaseModel

from oms_events import CommandRejectedError, ConcurrencyError
from oms_events.eventstore import (
    Aggregate,
    MemoryEventStore,
    MemorySnapshotStore,
    Repository,
    RepositoryConfig,
    domain_event,
)

# [end:imports]


# [start:events]
@domain_event
class AccountOpened(BaseModel, frozen=True):
    customer_id: str


@domain_event
class MoneyMoved(BaseModel, frozen=True):
    amount: Decimal  # negative: withdrawn


Event = AccountOpened | MoneyMoved


class Open(BaseModel, frozen=True):
    customer_id: str


class Move(BaseModel, frozen=True):
    amount: Decimal


Command = Open | Move
# [end:events]


# [start:aggregate]
class Account(BaseModel, frozen=True):
    customer_id: str | None = None
    balance: Decimal = Decimal(0)


def decide(account: Account, command: Command) -> Sequence[Event]:
    match command:
        case Open(customer_id=customer_id):
            return [] if account.customer_id else [AccountOpened(customer_id=customer_id)]
        case Move(amount=amount):
            if account.balance + amount < 0:
                raise CommandRejectedError(f"the balance is {account.balance}", code="INSUFFICIENT_FUNDS")
            return [MoneyMoved(amount=amount)]


def evolve(account: Account, event: Event) -> Account:
    match event:
        case AccountOpened(customer_id=customer_id):
            return account.model_copy(update={"customer_id": customer_id})
        case MoneyMoved(amount=amount):
            return account.model_copy(update={"balance": account.balance + amount})


ACCOUNT = Aggregate(
    name="Account", state=Account, initial=lambda account_id: Account(), decide=decide, evolve=evolve
)
Accounts = Repository[Account, Command, Event]
# [end:aggregate]


# [start:commands]
async def use(accounts: Accounts) -> None:
    await accounts.execute("account-1", Open(customer_id="c-7"))
    executed = await accounts.execute("account-1", Move(amount=Decimal(100)), command_id="deposit-1")
    print(executed.events[0].position, executed.state.balance)

    again = await accounts.execute("account-1", Move(amount=Decimal(100)), command_id="deposit-1")
    print("carried out before:", again.replayed, again.state.balance)

    try:
        await accounts.execute("account-1", Move(amount=Decimal(-500)))
    except CommandRejectedError as error:
        print(error.code, error)


# [end:commands]


# [start:conflicts]
async def withdraw_at_once(accounts: Accounts) -> None:
    await asyncio.gather(*(accounts.execute("account-1", Move(amount=Decimal(-1))) for _ in range(20)))
    state, sequence = await accounts.load_with_sequence("account-1")
    print("after 20 at once:", state.balance, "at", sequence)

    try:
        await accounts.execute("account-1", Move(amount=Decimal(-1)), expected_sequence=2)
    except ConcurrencyError as error:
        print("decided on", error.expected, "but it is at", error.actual)


# [end:conflicts]


# [start:past]
async def look_back(accounts: Accounts) -> None:
    past = await accounts.load("account-1", up_to_sequence=2)
    print("after event 2:", past.balance)


# [end:past]


async def main() -> None:
    # [start:repository]
    store, snapshots = MemoryEventStore(), MemorySnapshotStore()
    accounts = Repository(store, ACCOUNT, snapshots=snapshots, config=RepositoryConfig(snapshot_every=10))
    # [end:repository]
    await use(accounts)
    await withdraw_at_once(accounts)
    await look_back(accounts)
    latest = await snapshots.latest("account-1")
    print("latest snapshot at", latest and latest.sequence)


if __name__ == "__main__":
    asyncio.run(main())
