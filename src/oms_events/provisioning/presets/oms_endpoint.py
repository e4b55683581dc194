"""EventBridge inside a VPC, for publishers without a way to the internet."""

from __future__ import annotations

from pydantic import Field

from oms_events.provisioning.presets.oms_access import PUBLISH_ACTIONS
from oms_events.provisioning.specs.base import Arn, Reference, Spec
from oms_events.provisioning.specs.endpoints import EndpointSpec


class OmsEndpoint(Spec):
    """An interface endpoint of EventBridge in a VPC of yours, for publishing to the bus and nothing else."""

    vpc_id: str
    subnet_ids: tuple[str, ...] = Field(min_length=1)
    """One for each availability zone."""
    security_group_ids: tuple[str, ...] = Field(min_length=1)
    """They must let your hosts in on port 443."""
    private_dns: bool = True
    """Whether EventBridge's usual host name leads here in the VPC: all of its calls there come here then."""
    other_buses: tuple[Arn, ...] = ()
    """ARNs of more buses that may be published to through it."""

    def spec(self, name: str, bus: Reference) -> EndpointSpec:
        """The endpoint for publishing to `bus`. Raises `SpecError`."""
        return EndpointSpec(
            name=name,
            service="events",
            vpc_id=self.vpc_id,
            subnet_ids=self.subnet_ids,
            security_group_ids=self.security_group_ids,
            private_dns=self.private_dns,
            actions=PUBLISH_ACTIONS,
            targets=(bus, *self.other_buses),
        )
