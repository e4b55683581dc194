"""Keeps the emulator's CloudFormation from making what exists: it would put an empty one in its place, or fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from oms_events._aws.config import AwsConfig
from oms_events.devstack.left_out import GONE, Services
from oms_events.devstack.supplies import Request
from oms_events.devstack.templates import Adapted
from oms_events.errors import ProvisioningError

# Type: the property with its name, and the call that fails when there is none, with the name as the parameter.
_LOOKS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "AWS::DynamoDB::Table": ("TableName", "dynamodb", "DescribeTable", "TableName"),
    "AWS::Events::EventBus": ("Name", "events", "DescribeEventBus", "Name"),
    "AWS::IAM::Role": ("RoleName", "iam", "GetRole", "RoleName"),
    "AWS::Lambda::Function": ("FunctionName", "lambda", "GetFunction", "FunctionName"),
    "AWS::Logs::LogGroup": ("LogGroupName", "logs", "DescribeLogStreams", "logGroupName"),
    "AWS::SQS::Queue": ("QueueName", "sqs", "GetQueueUrl", "QueueName"),
}


async def refuse_taken_names(adapted: Adapted, stack_name: str, config: AwsConfig, *, session: Any = None) -> None:
    """Raises `ProvisioningError` when the stack would make a resource whose name exists outside it, as AWS does.

    Call it before every plan: the emulator deploys over tables, queues, log groups, functions and roles, and what
    they held is gone; that an event bus exists, it tells only while it deploys. Names that only CloudFormation can
    tell (`Fn::Sub`) are not looked at.
    """
    async with AsyncExitStack() as stack:
        services = Services(stack, config, session)
        own = await _own(services, stack_name)
        taken = [
            f"{logical_id}: {name!r} exists"
            for logical_id, name, look in _looks(adapted)
            if not any(known == name or known.endswith(f"/{name}") for known in own)
            and await _exists(services, look)
        ]
    if taken:
        raise ProvisioningError(
            f"stack {stack_name!r} cannot be deployed, and nothing was done: {'; '.join(taken)}, and not as a "
            "part of the stack; give another name (for the bus of the preset oms: --set event_bus_name=...), or "
            "delete what is there"
        )


def _looks(adapted: Adapted) -> Iterator[tuple[str, str, Request]]:
    for logical_id, entry in adapted.document.get("Resources", {}).items():
        if entry["Type"] in _LOOKS:
            said, service, operation, parameter = _LOOKS[entry["Type"]]
            name = entry.get("Properties", {}).get(said)
            # A function's late calls make its log group again, in AWS as here: it holds nothing but their logs.
            if isinstance(name, str) and not name.startswith("/aws/lambda/"):
                yield logical_id, name, Request(service, operation, {parameter: name})


async def _own(services: Services, stack_name: str) -> list[str]:
    client = await services.client("cloudformation")
    try:
        return [
            item["PhysicalResourceId"]
            async for page in client.pages("ListStackResources", StackName=stack_name)
            for item in page["StackResourceSummaries"]
        ]
    except ProvisioningError as error:
        if error.code == "ValidationError":
            return []
        raise


async def _exists(services: Services, look: Request) -> bool:
    try:
        await services.call(look)
    except ProvisioningError as error:
        if error.code in GONE:
            return False
        raise
    return True
