"""What the function of the ingestion triggers works with: queues and tables, and what its role may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from oms_events.provisioning.presets.handlers import allow, function_role
from oms_events.provisioning.specs.base import Reference
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.permissions import StatementSpec
from oms_events.provisioning.specs.queues import MAX_RETENTION_SECONDS, QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.triggers import schema

FUNCTION: Final = "orchestrator"
"""The function's key, and its role's."""

_FACTOR: Final = 6
"""A queue hides a message for so many times the timeout of the function that reads it (Lambda guide, "Using Lambda
with Amazon SQS")."""
_LONGEST: Final = 43_200
_DELAYED_RECEIVES: Final = 100
_CHUNK_RECEIVES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """The queues, each with the one for what it could not get rid of."""

    dead_letters: QueueSpec
    delay_dead_letters: QueueSpec
    delay: QueueSpec
    chunk_dead_letters: QueueSpec
    chunks: QueueSpec

    @property
    def all(self) -> tuple[QueueSpec, ...]:
        return (self.dead_letters, self.delay_dead_letters, self.delay, self.chunk_dead_letters, self.chunks)

    @property
    def of_dead_letters(self) -> tuple[QueueSpec, ...]:
        return (self.dead_letters, self.delay_dead_letters, self.chunk_dead_letters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The tables of the guards."""

    idempotency: TableSpec
    breaker: TableSpec
    rate: TableSpec

    @property
    def all(self) -> tuple[TableSpec, ...]:
        return (self.idempotency, self.breaker, self.rate)


def make_queues(environment: str, *, timeout: int, delay: int, chunk_visibility: int) -> Queues:
    """The queues; `timeout` is the function's, in seconds as all of them."""

    def queue(part: str, **options: object) -> QueueSpec:
        ending = ".fifo" if options.get("fifo") else ""
        return QueueSpec(
            name=f"{environment}-ingestion-{part}{ending}",
            key=part,
            retention_seconds=MAX_RETENTION_SECONDS,
            **options,
        )

    delay_dead_letters = queue("delay-dlq", fifo=True)
    chunk_dead_letters = queue("chunks-dlq")
    return Queues(
        dead_letters=queue("dlq"),
        delay_dead_letters=delay_dead_letters,
        delay=queue(
            "delay",
            fifo=True,
            delay_seconds=delay,
            visibility_timeout=min(_FACTOR * timeout, _LONGEST),
            dead_letter=delay_dead_letters.arn,
            # A start that still finds the limit used up goes back, and so counts as received.
            max_receive_count=_DELAYED_RECEIVES,
        ),
        chunk_dead_letters=chunk_dead_letters,
        chunks=queue(
            "chunks",
            visibility_timeout=chunk_visibility,
            dead_letter=chunk_dead_letters.arn,
            max_receive_count=_CHUNK_RECEIVES,
        ),
    )


def make_guards(environment: str, *, deletion_protection: bool) -> Guards:
    """The guards' tables, as their modules want them."""
    shapes = {"idempotency": schema.IDEMPOTENCY, "breaker": schema.BREAKER, "rate": schema.RATE}
    tables = {
        part: TableSpec.from_shape(
            f"{environment}-ingestion-{part}", shape, key=part, deletion_protection=deletion_protection
        )
        for part, shape in shapes.items()
    }
    return Guards(**tables)


def variables(
    environment: str, queues: Queues, guards: Guards, bus: EventBusSpec | None
) -> Mapping[str, str | Reference]:
    """The function's environment, without what concerns chunks and symbols."""
    known: dict[str, str | Reference] = {
        "ENVIRONMENT": environment,
        "QUEUE_URL": queues.chunks.reference("url"),
        "DELAY_QUEUE_URL": queues.delay.reference("url"),
        "DEAD_LETTER_QUEUE_URL": queues.dead_letters.reference("url"),
        "IDEMPOTENCY_TABLE": guards.idempotency.reference("name"),
        "BREAKER_TABLE": guards.breaker.reference("name"),
        "RATE_TABLE": guards.rate.reference("name"),
    }
    if bus is not None:
        known["EVENT_BUS_NAME"] = bus.reference("name")
    return known


def orchestrator_role(
    function: str,
    queues: Queues,
    guards: Guards,
    bus: EventBusSpec | None,
    *,
    symbols_parameter: str | None,
    tracing: bool,
    more: Sequence[StatementSpec],
) -> RoleSpec:
    """What the function may do: write to its queues, read the one for delayed starts, and keep its guards."""
    optional = _optional(bus, symbols_parameter)
    return function_role(
        FUNCTION,
        function,
        allow(
            "SendOn",
            "chunks of work, starts that must wait, and dead letters",
            (queues.chunks.arn, queues.delay.arn, queues.dead_letters.arn),
            "sqs:SendMessage",
        ),
        allow(
            "ReadDelayed",
            "Lambda reads the delay queue as this role",
            queues.delay.arn,
            *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        ),
        allow(
            "HoldDelayed",
            "starts that still come too fast stay in the delay queue",
            queues.delay.arn,
            "sqs:ChangeMessageVisibility",
        ),
        allow(
            "RecordStarts",
            "what has run is recorded, and what failed forgotten",
            guards.idempotency.arn,
            *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"),
        ),
        allow(
            "KeepGuards",
            "breakers, leases and counters, of which none is ever deleted: a lease's fence has to rise for ever",
            (guards.breaker.arn, guards.rate.arn),
            *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:UpdateItem"),
        ),
        *optional,
        *more,
        tracing=tracing,
    )


def _optional(bus: EventBusSpec | None, symbols_parameter: str | None) -> Iterator[StatementSpec]:
    if bus is not None:
        yield allow(
            "Publish",
            "requests that go on as events, on a bus that is looked up first",
            bus.arn,
            *("events:PutEvents", "events:DescribeEventBus"),
        )
    if symbols_parameter is not None:
        path = symbols_parameter.removeprefix("/")
        arn = f"arn:${{AWS::Partition}}:ssm:${{AWS::Region}}:${{AWS::AccountId}}:parameter/{path}"
        yield allow("LoadSymbols", "the symbols of a start that names none", (arn,), "ssm:GetParameter")
