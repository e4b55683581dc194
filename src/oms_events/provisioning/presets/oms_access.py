"""What the library's own work needs on its bus and its tables, as statements of roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.permissions import PolicyResource, StatementSpec

PUBLISH_ACTIONS: Final = ("events:DescribeEventBus", "events:PutEvents")

OUTBOX_ACTIONS: Final = (
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
)
"""Of writers, processors and `oms-events outbox` together; transactions are allowed by the actions in them."""

IDEMPOTENCY_ACTIONS: Final = (
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
)

BUSINESS_ACTIONS: Final = (
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
)
"""What transactions of the outbox can do with tables of the user's, and reading before them."""


def publish_statement(bus: Reference) -> StatementSpec:
    """Publishing to one bus."""
    return StatementSpec(
        sid="Publish",
        actions=PUBLISH_ACTIONS,
        resources=(bus,),
        why="publish events, and see before that the bus is there",
    )


def outbox_statement(table: Reference) -> StatementSpec:
    """Writing to an outbox, relaying from it and looking after it."""
    return StatementSpec(
        sid="Outbox",
        actions=OUTBOX_ACTIONS,
        resources=(table,),
        why="add events in transactions, relay them, requeue and purge dead letters",
    )


def idempotency_statement(table: Reference) -> StatementSpec:
    """Running things once."""
    return StatementSpec(
        sid="Idempotency",
        actions=IDEMPOTENCY_ACTIONS,
        resources=(table,),
        why="note what has run, so that it does not run twice",
    )


def business_statement(tables: Sequence[PolicyResource]) -> StatementSpec:
    """Business writes in the transactions of the outbox."""
    return StatementSpec(
        sid="Business",
        actions=BUSINESS_ACTIONS,
        resources=tuple(tables),
        why="write your own items in the transactions that add events",
    )
