"""The domain of these tests: bank accounts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from oms_events.eventstore.registry import EventRegistry

registry = EventRegistry()


@registry.event
class AccountCreated(BaseModel, frozen=True):
    customer_id: str
    currency: str = "USD"


@registry.event(version=2)
class TransactionProcessed(BaseModel, frozen=True):
    amount: Decimal
    kind: str


@registry.event
class AccountClosed(BaseModel, frozen=True):
    reason: str = ""


@registry.upcaster("TransactionProcessed", from_version=1)
def _kinds_were_signs(data: dict[str, Any]) -> dict[str, Any]:
    amount = Decimal(str(data["amount"]))
    return {"amount": str(abs(amount)), "kind": "deposit" if amount >= 0 else "withdrawal"}


def deposit(amount: int | str = 10) -> TransactionProcessed:
    return TransactionProcessed(amount=Decimal(amount), kind="deposit")
