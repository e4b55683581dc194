"""Generated roles on an emulator that enforces IAM: what they are allowed, and what they are refused.

with enforcing_emulator() as emulator:
    async with deployed(template, emulator) as stack:
        role = Role(emulator, stack.outputs["publisher_role_arn"])
        EventBridgeConfig(event_bus_name="orders", **role.settings)   # the library works as the role
        assert await role.is_refused(Call("events", "PutRule", {"Name": "a", "EventPattern": "{}"}))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events.devstack import AwsEmulator, run_in_thread
from oms_events.errors import AccessError, ProvisioningError
from tests.provisioning.embedded import aws_config

_REFUSED = ("AccessDenied", "AccessDeniedException")


@contextmanager
def enforcing_emulator() -> Iterator[AwsEmulator]:
    """An emulator that checks signatures and permissions; its own keys are root's, which may do everything."""
    with run_in_thread(AwsEmulator(settings={"AUTH": "true"})) as emulator:
        yield emulator


@dataclass(frozen=True)
class Call:
    """One call of a service; `str` of it is a test's id."""

    service: str
    operation: str
    parameters: Mapping[str, Any]
    what: str = ""

    def __str__(self) -> str:
        return f"{self.operation} {self.what}".strip()


class Role:
    """A role of the emulator's account, taken with root's keys."""

    def __init__(self, emulator: AwsEmulator, arn: str) -> None:
        self.settings: dict[str, Any] = {
            **dict(aws_config(emulator)),
            "role_arn": arn,
            "sts_endpoint_url": emulator.endpoint_url,
        }
        """The AWS fields of every configuration of the library, so that it works as this role."""

    async def is_refused(self, call: Call) -> bool:
        """Whether IAM says no; whatever else the service answers, the role may call it."""
        async with open_control(AwsConfig(**self.settings), call.service) as control:
            try:
                await control.call(call.operation, **call.parameters)
            except AccessError as error:
                # Also bad credentials, which would refuse everything and prove nothing.
                assert error.code in _REFUSED, error
                return True
            except ProvisioningError:
                return False
        return False
