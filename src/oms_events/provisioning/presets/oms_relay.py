"""The relay of the outbox as a Lambda function on the table's stream, with its role, queue and sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from oms_events.provisioning.presets.handlers import FIND_STREAMS
from oms_events.provisioning.presets.oms_access import outbox_statement, publish_statement
from oms_events.provisioning.specs.base import Arn, Name, Reference, Spec
from oms_events.provisioning.specs.buses import EventBusSpec
from oms_events.provisioning.specs.functions import CodeSpec, FunctionSpec
from oms_events.provisioning.specs.mappings import StreamSourceSpec
from oms_events.provisioning.specs.permissions import StatementSpec
from oms_events.provisioning.specs.queues import MAX_RETENTION_SECONDS, QueueSpec
from oms_events.provisioning.specs.roles import RoleSpec, ServiceTrust
from oms_events.provisioning.specs.rules import RuleSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.specs.targets import TargetSpec

_SWEEP: Final = "rate(1 minute)"
_STREAM_ACTIONS: Final = ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator")


class OmsRelay(Spec):
    """The function that relays the outbox: its code calls `create_streams_handler`, and is yours."""

    code: CodeSpec
    handler: str | None = None
    """`module.name` of what `create_streams_handler` gave; an image may have it in itself."""
    runtime: str = "python3.13"
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    layers: tuple[Arn, ...] = ()
    environment: Mapping[str, Name] = Field(default_factory=dict)
    """Besides `OMS_EVENTBRIDGE_BUS_NAME` and `OMS_OUTBOX_TABLE`, which name what the stack has."""
    timeout: int = Field(default=60, ge=10, le=900)
    """Seconds of one run; it gives its buckets back three seconds before that."""
    memory: int = Field(default=512, ge=128, le=10_240)
    """MB."""
    batch_size: int = Field(default=100, ge=1, le=10_000)
    """Records of the stream in one run; they are wake-ups, what is relayed is read from the table."""
    maximum_retry_attempts: int = Field(default=3, ge=0, le=10_000)
    """Of a batch that failed. The next sweep relays what it would have."""
    reserved_concurrency: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayParts:
    """What a relay consists of."""

    role: RoleSpec
    function: FunctionSpec
    failures: QueueSpec
    sweep: RuleSpec


def relay_parts(
    relay: OmsRelay, *, name: str, bus: EventBusSpec, table: TableSpec, dead_letter: Reference | None
) -> RelayParts:
    """The relay of `table`, whose stream is on, to `bus`; `dead_letter` gets sweeps that could not begin."""
    stream = table.reference("stream_arn")
    failures = QueueSpec(name=f"{name}-relay-failures", retention_seconds=MAX_RETENTION_SECONDS)
    source = StreamSourceSpec(
        source=stream,
        batch_size=relay.batch_size,
        # Counters, leases and settlements are updates of the same stream.
        filters=({"eventName": ["INSERT"]},),
        maximum_retry_attempts=relay.maximum_retry_attempts,
        on_failure=failures.arn,
    )
    function = FunctionSpec(
        name=f"{name}-relay",
        description=f"Relays the outbox {table.name}",
        code=relay.code,
        handler=relay.handler,
        runtime=relay.runtime,
        architecture=relay.architecture,
        layers=relay.layers,
        role=Reference(ref=f"role:{name}-relay-role"),
        timeout=relay.timeout,
        memory=relay.memory,
        environment={
            "OMS_EVENTBRIDGE_BUS_NAME": bus.reference("name"),
            "OMS_OUTBOX_TABLE": table.reference("name"),
            **relay.environment,
        },
        reserved_concurrency=relay.reserved_concurrency,
        # A sweep that fails is made up for by the one a minute later.
        maximum_retry_attempts=0,
        sources=(source,),
    )
    role = RoleSpec(
        name=f"{name}-relay-role",
        description=f"The relay of the outbox {table.name}",
        trust=(ServiceTrust(service="lambda.amazonaws.com"),),
        statements=(
            publish_statement(bus.arn),
            outbox_statement(table.arn),
            StatementSpec(
                sid="Stream", actions=_STREAM_ACTIONS, resources=(stream,), why="be woken by new records"
            ),
            FIND_STREAMS,
            StatementSpec(
                sid="Failures",
                actions=("sqs:SendMessage",),
                resources=(failures.arn,),
                why="tell which records of the stream were given up",
            ),
            StatementSpec(
                sid="Logs",
                actions=("logs:CreateLogStream", "logs:PutLogEvents"),
                resources=(function.log_arn,),
                why="write the function's log",
            ),
        ),
    )
    sweep = RuleSpec(
        name=f"{name}-relay-sweep",
        description="Relays what is left: retries, and buckets whose owner died",
        schedule=_SWEEP,
        targets=(TargetSpec(id="relay", arn=function.arn, dead_letter=dead_letter),),
    )
    return RelayParts(role=role, function=function, failures=failures, sweep=sweep)
