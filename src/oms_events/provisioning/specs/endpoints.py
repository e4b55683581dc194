"""Interface endpoints: a service's API inside a VPC, limited to what the stack needs of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from pydantic import Field, field_validator

from oms_events.provisioning.specs.base import Arn, Json, Resource, ResourceSpec, Scope, substituted
from oms_events.provisioning.specs.permissions import Actions, check_width
from oms_events.provisioning.specs.policies import policy_document

_SERVICE: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")
_ID: Final = r"-(?:[0-9a-f]{8}|[0-9a-f]{17})"


class EndpointSpec(ResourceSpec):
    """An interface VPC endpoint of an AWS service such as `events`, in given subnets, behind security groups.

    Its policy lets identities of this account do `actions` on `targets`, each by name, and nothing else. The
    security groups must let your hosts in on port 443. `name` becomes its tag `Name`.
    """

    kind: ClassVar[str] = "endpoint"
    returns: ClassVar[Mapping[str, str]] = {"id": "Ref"}

    service: str
    """Its name in `com.amazonaws.<region>.<service>`."""
    vpc_id: str
    subnet_ids: tuple[str, ...] = Field(min_length=1)
    """One for each availability zone."""
    security_group_ids: tuple[str, ...] = Field(min_length=1)
    private_dns: bool = True
    """Whether the service's usual host name leads here inside the VPC; clients need no other setting then."""
    actions: Actions
    targets: tuple[Arn, ...] = Field(min_length=1)

    def resources(self, scope: Scope) -> dict[str, Resource]:
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": list(self.actions),
            "Resource": [scope.resolve(target) for target in self.targets],
            "Condition": {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}},
        }
        properties: dict[str, Json] = {
            "VpcEndpointType": "Interface",
            "ServiceName": substituted(f"com.amazonaws.${{AWS::Region}}.{self.service}"),
            "VpcId": self.vpc_id,
            "SubnetIds": list(self.subnet_ids),
            "SecurityGroupIds": list(self.security_group_ids),
            "PrivateDnsEnabled": self.private_dns,
            "PolicyDocument": policy_document([statement]),
            "Tags": [{"Key": "Name", "Value": self.name}],
        }
        return {self.logical_id: Resource(type="AWS::EC2::VPCEndpoint", properties=properties)}

    @field_validator("service")
    @classmethod
    def _check_service(cls, service: str) -> str:
        if _SERVICE.fullmatch(service) is None or service.startswith("com.amazonaws"):
            raise ValueError("write the last part of the service's name alone, such as events or sqs")
        return service

    @field_validator("vpc_id")
    @classmethod
    def _check_vpc(cls, vpc: str) -> str:
        return _checked("vpc", vpc)

    @field_validator("subnet_ids")
    @classmethod
    def _check_subnets(cls, subnets: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked("subnet", subnet) for subnet in subnets)

    @field_validator("security_group_ids")
    @classmethod
    def _check_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked("sg", group) for group in groups)

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, targets: tuple[Arn, ...]) -> tuple[Arn, ...]:
        for target in targets:
            if isinstance(target, str):
                check_width(target)
        return targets


def _checked(kind: str, text: str) -> str:
    if re.fullmatch(kind + _ID, text) is None:
        raise ValueError(f"{text!r} is no id; write one such as {kind}-0123456789abcdef0")
    return text
