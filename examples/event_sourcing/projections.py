"""The read model of the example: one row per account, made of its events. Pure."""

# [start:imports]
from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from domain import AccountClosed, AccountCreated, AccountType, Model, TransactionProcessed, signed

from oms_events.eventstore import Projection, RecordedEvent

# [end:imports]


# [start:row]
class AccountSummary(Model):
    customer_id: str
    account_type: AccountType
    currency: str
    status: Literal["open", "closed"] = "open"
    balance: Decimal = Decimal(0)
    transactions: int = 0
    opened_at: datetime
    changed_at: datetime
    sequence: int
    """Of the last event in it."""


ACCOUNT_SUMMARY: Final = Projection("AccountSummary", AccountSummary)


# [end:row]


# [start:projection]
@ACCOUNT_SUMMARY.on(AccountCreated)
def created(row: AccountSummary | None, event: AccountCreated, recorded: RecordedEvent) -> AccountSummary:
    return AccountSummary(
        customer_id=event.customer_id,
        account_type=event.account_type,
        currency=event.currency,
        opened_at=recorded.time,
        changed_at=recorded.time,
        sequence=recorded.sequence,
    )


@ACCOUNT_SUMMARY.on(TransactionProcessed)
def processed(row: AccountSummary, event: TransactionProcessed, recorded: RecordedEvent) -> AccountSummary:
    return row.model_copy(
        update={
            "balance": row.balance + signed(event),
            "transactions": row.transactions + 1,
            "changed_at": recorded.time,
            "sequence": recorded.sequence,
        }
    )


@ACCOUNT_SUMMARY.on(AccountClosed)
def closed(row: AccountSummary, event: AccountClosed, recorded: RecordedEvent) -> AccountSummary:
    changes = {"status": "closed", "changed_at": recorded.time, "sequence": recorded.sequence}
    return row.model_copy(update=changes)


# [end:projection]
