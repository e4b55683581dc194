"""What a table or an index may read and write: as much as is asked for, or a capacity that is paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Self

from pydantic import Field, PlainValidator, model_validator

from oms_events._config import fields_by_name
from oms_events.provisioning.specs.base import Json, Resource, Spec

_DIMENSIONS: Final = ("Read", "Write")


class AutoscalingSpec(Spec):
    """Between which capacities, and at which use of them, a table or an index is scaled.

    DynamoDB aims at 20 to 90 percent (developer guide, "Managing throughput capacity automatically").
    """

    min: int = Field(ge=1)
    max: int = Field(ge=1)
    target_percent: int = Field(default=70, ge=20, le=90)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}; lower it")
        return self


class ProvisionedSpec(Spec):
    """A fixed capacity, in units per second, or the one to start with where `autoscaling` changes it.

    A deployment that changes `read` or `write` sets the capacity back to them, whatever the scaling made of it.
    """

    read: int = Field(ge=1)
    write: int = Field(ge=1)
    autoscaling: AutoscalingSpec | None = None


class OnDemandSpec(Spec):
    """As much as is asked for, billed by request, up to `max_read` and `max_write` units per second."""

    max_read: int | None = Field(default=None, ge=1)
    max_write: int | None = Field(default=None, ge=1)


def _read_billing(value: object) -> ProvisionedSpec | OnDemandSpec:
    if isinstance(value, ProvisionedSpec | OnDemandSpec):
        return value
    if isinstance(value, Mapping):
        kind = ProvisionedSpec if {"read", "write"} & set(value) else OnDemandSpec
        return kind(**fields_by_name(value))
    raise ValueError(
        f"{value!r} is no capacity; write {{read: 5, write: 5}} or {{max_read: 1000, max_write: 1000}}, or leave "
        "it out for on-demand without a limit"
    )


Billing = Annotated[ProvisionedSpec | OnDemandSpec, PlainValidator(_read_billing)]


def throughput(billing: ProvisionedSpec | OnDemandSpec) -> dict[str, Json]:
    """The properties of a table or an index that say its capacity."""
    if isinstance(billing, ProvisionedSpec):
        return {"ProvisionedThroughput": {"ReadCapacityUnits": billing.read, "WriteCapacityUnits": billing.write}}
    limits = {"MaxReadRequestUnits": billing.max_read, "MaxWriteRequestUnits": billing.max_write}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return {"OnDemandThroughput": given} if given else {}


def scaling(
    prefix: str, billing: ProvisionedSpec | OnDemandSpec, table: str, index: str | None = None
) -> Iterator[tuple[str, Resource]]:
    """What scales a table, given by its logical id, or one of its indexes; `prefix` begins the logical ids.

    DynamoDB's service-linked role does it, which AWS makes with the first target.
    """
    if not isinstance(billing, ProvisionedSpec) or billing.autoscaling is None:
        return
    autoscaling = billing.autoscaling
    resource = f"table/${{{table}}}" if index is None else f"table/${{{table}}}/index/{index}"
    part = "table" if index is None else "index"
    for way in _DIMENSIONS:
        target = f"{prefix}{way}Scaling"
        yield (
            target,
            Resource(
                type="AWS::ApplicationAutoScaling::ScalableTarget",
                properties={
                    "ServiceNamespace": "dynamodb",
                    "ResourceId": {"Fn::Sub": resource},
                    "ScalableDimension": f"dynamodb:{part}:{way}CapacityUnits",
                    "MinCapacity": autoscaling.min,
                    "MaxCapacity": autoscaling.max,
                },
            ),
        )
        metric = {"PredefinedMetricType": f"DynamoDB{way}CapacityUtilization"}
        yield (
            f"{target}Policy",
            Resource(
                type="AWS::ApplicationAutoScaling::ScalingPolicy",
                properties={
                    "PolicyName": f"{target}Policy",
                    "PolicyType": "TargetTrackingScaling",
                    "ScalingTargetId": {"Ref": target},
                    "TargetTrackingScalingPolicyConfiguration": {
                        "TargetValue": autoscaling.target_percent,
                        "PredefinedMetricSpecification": metric,
                    },
                },
            ),
        )
