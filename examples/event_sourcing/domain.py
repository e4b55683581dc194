"""The domain of the example: bank accounts, as events, commands, and the rules between them. Pure."""

# [start:imports]
from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from oms_events import CommandRejectedError
from oms_events.eventstore import Aggregate, domain_event

# [end:imports]

# [start:names]
SOURCE: Final = "event-sourcing.financial"
"""The `source` of the events, which the rule of the preset `event-sourcing` matches."""

AccountType = Literal["checking", "savings"]
TransactionType = Literal["deposit", "withdrawal"]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Amount = Annotated[Decimal, Field(gt=0, max_digits=18, decimal_places=2)]
"""Money is decimal all the way, in JSON as text."""
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


# [end:names]


# [start:events]
@domain_event
class AccountCreated(Model):
    customer_id: str
    account_type: AccountType
    currency: Currency


@domain_event
class TransactionProcessed(Model):
    transaction_type: TransactionType
    amount: Decimal
    description: str = ""


@domain_event
class AccountClosed(Model):
    reason: str


# [end:events]


# [start:commands]
class CreateAccount(Model):
    customer_id: Text
    account_type: AccountType
    currency: Currency


class ProcessTransaction(Model):
    transaction_type: TransactionType
    amount: Amount
    description: str = Field(default="", max_length=200)


class CloseAccount(Model):
    reason: Text


Command = CreateAccount | ProcessTransaction | CloseAccount
Event = AccountCreated | TransactionProcessed | AccountClosed
# [end:commands]


# [start:decide]
class Account(Model):
    """What the rules need to know of an account."""

    status: Literal["none", "open", "closed"] = "none"
    balance: Decimal = Decimal(0)


def decide(account: Account, command: Command) -> Sequence[Event]:
    if isinstance(command, CreateAccount):
        if account.status != "none":
            raise CommandRejectedError("the account is there already", code="ACCOUNT_EXISTS")
        return [AccountCreated(**command.model_dump())]
    if account.status == "none":
        raise CommandRejectedError("there is no such account; create it first", code="ACCOUNT_UNKNOWN")
    if account.status == "closed":
        raise CommandRejectedError("the account is closed", code="ACCOUNT_CLOSED")
    if isinstance(command, ProcessTransaction):
        if command.transaction_type == "withdrawal" and command.amount > account.balance:
            text = f"the balance is {account.balance}, less than {command.amount}"
            raise CommandRejectedError(text, code="INSUFFICIENT_FUNDS", field="commandData.amount")
        return [TransactionProcessed(**command.model_dump())]
    if account.balance != 0:
        text = f"the balance is {account.balance}; withdraw it before closing the account"
        raise CommandRejectedError(text, code="BALANCE_NOT_ZERO")
    return [AccountClosed(reason=command.reason)]


# [end:decide]


# [start:evolve]
def signed(event: TransactionProcessed) -> Decimal:
    return event.amount if event.transaction_type == "deposit" else -event.amount


def evolve(account: Account, event: Event) -> Account:
    match event:
        case AccountCreated():
            return Account(status="open")
        case TransactionProcessed():
            return account.model_copy(update={"balance": account.balance + signed(event)})
        case AccountClosed():
            return account.model_copy(update={"status": "closed"})


ACCOUNT: Final = Aggregate(
    name="Account", state=Account, initial=lambda account_id: Account(), decide=decide, evolve=evolve
)
# [end:evolve]
