"""The table of permissions: what the roles of every preset may do, read off their specs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from oms_events.provisioning import (
    CodeSpec,
    EventSourcingPreset,
    IngestionTriggersPreset,
    OmsEndpoint,
    OmsPreset,
    OmsRelay,
    PermissionRow,
    Preset,
    TicketEventsPreset,
    TicketTablesPreset,
    permission_rows,
)

_TABLE: Final = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders"
_TOPIC: Final = "arn:aws:sns:eu-central-1:123456789012:alarms"
_QUEUE: Final = "arn:aws:sqs:eu-central-1:123456789012:desk"
_CODE: Final = CodeSpec(s3_bucket="deployments", s3_key="code-1.zip")
_RELAY: Final = OmsRelay(code=_CODE, handler="relay.handler")

WHOLE: Final[Mapping[str, Preset]] = {
    "oms": OmsPreset(
        business_tables=(_TABLE,),
        relay=_RELAY,
        endpoint=OmsEndpoint(
            vpc_id="vpc-0123456789abcdef0",
            subnet_ids=("subnet-0123456789abcdef0",),
            security_group_ids=("sg-0123456789abcdef0",),
        ),
    ),
    "ticket-events": TicketEventsPreset(
        rules={
            "ticket-created": {},
            "to-queue": {
                "event_pattern": {"source": ["ticket.service"]},
                "targets": [{"id": "desk", "arn": _QUEUE}, {"id": "alarms", "arn": _TOPIC}],
            },
        },
        dynamodb_table_arns=(_TABLE,),
    ),
    "ticket-tables": TicketTablesPreset(kms_key_id="12345678-1234-1234-1234-123456789012"),
    "event-sourcing": EventSourcingPreset(
        code=_CODE,
        enable_xray_tracing=True,
        enable_outbox=True,
        outbox_relay=_RELAY,
        enable_personal_data=True,
        personal_key_arn="arn:aws:kms:${AWS::Region}:${AWS::AccountId}:key/<key>",
    ),
    "ingestion-triggers": IngestionTriggersPreset(
        code=_CODE,
        publish_to_custom_bus=True,
        enable_xray_tracing=True,
        enable_custom_bus=True,
        symbols_parameter="/ingestion/symbols",
    ),
}
"""Each preset with every option that gives a role a permission."""


def rows(preset: str) -> Iterator[tuple[str, ...]]:
    """Role, actions, resources, condition and reason of each statement of a preset's roles."""
    for role in WHOLE[preset].stack().roles:
        for statement in role.statements:
            alone = role.model_copy(update={"statements": (statement,), "managed_policies": ()})
            yield _row(tuple(permission_rows([alone])))
        for row in permission_rows([role.model_copy(update={"statements": ()})]):
            yield _row((row,))


def _row(found: Sequence[PermissionRow]) -> tuple[str, ...]:
    one = found[0]
    condition = one.condition and f"`{one.condition}`"
    return f"`{one.role}`", _lines(found, "action"), _lines(found, "resource"), condition, one.why


def _lines(found: Sequence[PermissionRow], field: str) -> str:
    return "<br>".join(f"`{text}`" for text in dict.fromkeys(getattr(row, field) for row in found))
