"""Generated roles on an emulator that enforces IAM: what they are allowed, and what they are refused.

with enforcing_emulator() as emulator:
    async with deployed(template, emulator) as stack:
        role = Role(emulator, stack.outputs["publisher_role_arn"])
        EventBridgeConfig(event_bus_name="orders", **role.settings)   # the library works as the role
        assert await role.is_refused(Call("events", "PutRule", {"Name": "a", "EventPattern": "{}"}))
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
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
                if error.code not in _REFUSED:
                    # Bad credentials would refuse everything, and prove nothing.
                    raise
                return True
            except ProvisioningError:
                return False
        return False

    async def allows(self, iam: Any, action: str, resource: str) -> bool:
        """What IAM's policy simulator says; `iam` is root's client."""
        answer = await iam.simulate_principal_policy(
            PolicySourceArn=self.settings["role_arn"], ActionNames=[action], ResourceArns=[resource]
        )
        return bool(answer["EvaluationResults"][0]["EvalDecision"] == "allowed")


@asynccontextmanager
async def sees_bus(iam: Any, role_name: str, bus_arn: str) -> AsyncIterator[None]:
    """Lets a role call DescribeEventBus on the emulator, which takes the bus for a rule of the default bus.

    `Role.allows` tells whether its own statements allow it on the bus, as AWS asks.
    """
    taken_for = bus_arn.replace(":event-bus/", ":rule/default/")
    statement = {"Effect": "Allow", "Action": "events:DescribeEventBus", "Resource": taken_for}
    name = {"RoleName": role_name, "PolicyName": "as-the-emulator-asks"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await iam.put_role_policy(**name, PolicyDocument=document)
    yield
    await iam.delete_role_policy(**name)


@asynccontextmanager
async def batches_on_queues(iam: Any, role: Role, role_name: str, *queues: str) -> AsyncIterator[None]:
    """Lets a role make calls of batches on the queues of these ARNs where it may make the single ones.

    AWS asks for `sqs:SendMessage` in both cases, the emulator for `sqs:SendMessageBatch`.
    """
    statements = [
        {"Effect": "Allow", "Action": f"{action}Batch", "Resource": queue}
        for queue in queues
        for action in ("sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")
        if await role.allows(iam, action, queue)
    ]
    name = {"RoleName": role_name, "PolicyName": "as-the-emulator-asks-of-batches"}
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    await iam.put_role_policy(**name, PolicyDocument=document)
    try:
        yield
    finally:
        await iam.delete_role_policy(**name)
