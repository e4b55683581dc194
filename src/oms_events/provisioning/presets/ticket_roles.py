"""The roles of the preset `ticket-tables`, and who takes the applications' roles of both ticket presets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from oms_events.provisioning.specs.logs import log_group_arn
from oms_events.provisioning.specs.permissions import StatementSpec, Suffixed
from oms_events.provisioning.specs.roles import RoleSpec
from oms_events.provisioning.specs.tables import TableSpec
from oms_events.provisioning.specs.trust import ServiceTrust, TrustSpec

COMPUTE: Final[tuple[TrustSpec, ...]] = (
    ServiceTrust(service="ec2.amazonaws.com"),
    ServiceTrust(service="ecs-tasks.amazonaws.com"),
)
"""What applications run on, unless said otherwise."""

READ: Final = ("dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:BatchGetItem")
WRITE: Final = ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem")

_DESCRIBE: Final = "dynamodb:DescribeTable"
_CHECK: Final = "dynamodb:ConditionCheckItem"
_INDEX: Final = ("dynamodb:Query", "dynamodb:Scan")
_KEY_READ: Final = ("kms:Decrypt", "kms:DescribeKey")
_KEY_WRITE: Final = ("kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo")


def application_role(
    name: str, trust: tuple[TrustSpec, ...], tables: Sequence[TableSpec], key: str | None
) -> RoleSpec:
    """What the applications work with: reads and writes the items of all tables."""
    return RoleSpec(
        name=f"{name}-dynamodb-application-role",
        key="application",
        description="Reads and writes the tables",
        trust=trust,
        statements=tuple(_uses(tables, (*READ, *WRITE), (*_KEY_READ, *_KEY_WRITE), key, "applications work with")),
    )


def readonly_role(
    name: str, trust: tuple[TrustSpec, ...], tables: Sequence[TableSpec], key: str | None
) -> RoleSpec:
    """For those who look: reads the items of all tables."""
    return RoleSpec(
        name=f"{name}-dynamodb-readonly-role",
        key="readonly",
        description="Reads the tables",
        trust=trust,
        statements=tuple(_uses(tables, (*READ, _DESCRIBE), _KEY_READ, key, "people and reports look at")),
    )


def reservation_role(
    name: str,
    trust: tuple[TrustSpec, ...],
    tables: Sequence[TableSpec],
    key: str | None,
    *,
    bus: str,
    log_group: str,
    more: Sequence[StatementSpec],
) -> RoleSpec:
    """What the reservation service works with, its outbox and its idempotency among it."""
    # Transactions of the outbox check items, and it looks at its table before it begins.
    actions = (*READ, *WRITE, _CHECK, _DESCRIBE)
    return RoleSpec(
        name=f"{name}-reservation-api-service-role",
        key="reservation",
        description="What the reservation service does",
        trust=trust,
        statements=(
            *_uses(tables, actions, (*_KEY_READ, *_KEY_WRITE), key, "the reservation service works with"),
            StatementSpec(
                sid="PublishEvents",
                actions=("events:PutEvents",),
                resources=(
                    f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:event-bus/{bus}",
                ),
                why="The reservation service publishes its events",
            ),
            StatementSpec(
                sid="WriteLogs",
                actions=("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
                resources=(log_group_arn(log_group),),
                why="The reservation service writes its log",
            ),
            *more,
        ),
    )


def _uses(
    tables: Sequence[TableSpec], actions: tuple[str, ...], on_key: tuple[str, ...], key: str | None, who: str
) -> Iterator[StatementSpec]:
    if tables:
        yield StatementSpec(
            sid="UseTables",
            actions=actions,
            resources=tuple(table.arn for table in tables),
            why=f"The items that {who}",
        )
    if indexed := [table for table in tables if table.indexes]:
        yield StatementSpec(
            sid="UseIndexes",
            actions=_INDEX,
            resources=tuple(Suffixed.of(table.arn, "/index/*") for table in indexed),
            why=f"The items that {who}, by other keys",
        )
    if tables and key is not None:
        yield StatementSpec(
            sid="UseKey",
            actions=on_key,
            resources=(key,),
            # DynamoDB asks KMS in the name of its caller.
            conditions={"StringEquals": {"kms:ViaService": "dynamodb.${AWS::Region}.${AWS::URLSuffix}"}},
            why="DynamoDB asks KMS for the tables' key in the name of its caller",
        )
