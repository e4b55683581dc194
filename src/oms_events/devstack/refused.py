"""Resource types that make the emulator's CloudFormation refuse a template, and what makes them instead. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from oms_events.devstack.supplies import Json, Properties, Request, Supply


@dataclass(frozen=True, slots=True)
class RefusedType:
    """A resource type that makes the emulator refuse the whole template.

    `name` is the property that names the resource, `arn` its ARN up to that name; `supply` is None where the
    emulator lacks the service as well.
    """

    name: str = ""
    arn: str = ""
    supply: Callable[[Properties], Supply] | None = None


def _archive(said: Properties) -> Supply:
    pattern = said.get("EventPattern") or ""
    name = {"ArchiveName": said["ArchiveName"]}
    asked = {
        **name,
        # What is not said is sent as nothing, or an update would leave what was there.
        "Description": said.get("Description", ""),
        "EventPattern": pattern if isinstance(pattern, str) else json.dumps(pattern),
        "RetentionDays": said.get("RetentionDays", 0),
        "KmsKeyIdentifier": said.get("KmsKeyIdentifier", ""),
    }
    return Supply(
        make=Request("events", "CreateArchive", {**asked, "EventSourceArn": said["SourceArn"]}),
        change=Request("events", "UpdateArchive", asked),
        undo=Request("events", "DeleteArchive", name),
    )


def _connection(said: Properties) -> Supply:
    return Supply(
        make=Request("events", "CreateConnection", said),
        change=Request("events", "UpdateConnection", said),
        undo=Request("events", "DeleteConnection", {"Name": said["Name"]}),
    )


def _api_destination(said: Properties) -> Supply:
    return Supply(
        make=Request("events", "CreateApiDestination", said),
        change=Request("events", "UpdateApiDestination", said),
        undo=Request("events", "DeleteApiDestination", {"Name": said["Name"]}),
    )


def _bus_policy(said: Properties) -> Supply:
    statement = said.get("Statement") or said
    where = {"EventBusName": said.get("EventBusName", "default"), "StatementId": said["StatementId"]}
    principal = statement["Principal"]
    if isinstance(principal, Mapping):
        principal = principal["AWS"]
    asked = {**where, "Action": statement["Action"], "Principal": _account_of(principal)}
    if condition := _condition(statement.get("Condition")):
        asked["Condition"] = condition
    return Supply(
        make=Request("events", "PutPermission", asked), undo=Request("events", "RemovePermission", where)
    )


def _account_of(principal: str) -> str:
    return principal.split(":")[4] if principal.startswith("arn:") else principal


def _condition(said: Json) -> Json:
    # PutPermission takes one condition with one value: the others are for CloudFormation alone.
    if said is None or "Type" in said:
        return said
    found = [(kind, key, value) for kind, keys in said.items() for key, value in keys.items()]
    kind, key, value = found[0]
    values = value if isinstance(value, list) else [value]
    return {"Type": kind, "Key": key, "Value": values[0]} if len(found) == len(values) == 1 else None


def _composite_alarm(said: Properties) -> Supply:
    return Supply(make=Request("cloudwatch", "PutCompositeAlarm", said), undo=_without_alarm(said))


def _metric_alarm(said: Properties) -> Supply:
    return Supply(make=Request("cloudwatch", "PutMetricAlarm", said), undo=_without_alarm(said))


def _without_alarm(said: Properties) -> Request:
    return Request("cloudwatch", "DeleteAlarms", {"AlarmNames": [said["AlarmName"]]})


_EVENTS: Final = "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}"
_ALARM: Final = "arn:${AWS::Partition}:cloudwatch:${AWS::Region}:${AWS::AccountId}:alarm:"

REFUSED: Final[Mapping[str, RefusedType]] = {
    "AWS::Events::Connection": RefusedType("Name", f"{_EVENTS}:connection/", _connection),
    "AWS::Events::ApiDestination": RefusedType("Name", f"{_EVENTS}:api-destination/", _api_destination),
    "AWS::Events::Archive": RefusedType("ArchiveName", f"{_EVENTS}:archive/", _archive),
    "AWS::Events::EventBusPolicy": RefusedType("StatementId", "", _bus_policy),
    "AWS::Events::Endpoint": RefusedType(),
    "AWS::CloudWatch::CompositeAlarm": RefusedType("AlarmName", _ALARM, _composite_alarm),
    "AWS::CloudWatch::AnomalyDetector": RefusedType(),
    "AWS::CloudWatch::MetricStream": RefusedType(),
    "AWS::ApplicationAutoScaling::ScalableTarget": RefusedType(),
    "AWS::ApplicationAutoScaling::ScalingPolicy": RefusedType(),
    "AWS::EventSchemas::Discoverer": RefusedType(),
    "AWS::Logs::Delivery": RefusedType(),
    "AWS::Logs::DeliveryDestination": RefusedType(),
    "AWS::Logs::DeliverySource": RefusedType(),
    "AWS::Logs::QueryDefinition": RefusedType(),
}
"""Types that it does not know, in the order in which they are made."""

_MATH_ALARM: Final = RefusedType("AlarmName", _ALARM, _metric_alarm)


def refused_type(kind: str, properties: Properties) -> RefusedType | None:
    """Why a resource must be left out as a whole; None where it may stay."""
    if kind == "AWS::CloudWatch::Alarm" and "Metrics" in properties:
        return _MATH_ALARM
    return REFUSED.get(kind)
