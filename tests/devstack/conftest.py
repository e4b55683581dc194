from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms_events.devstack import AwsEmulator, FaultProxy
from tests.devstack.support import Inbox, aws_client


@pytest.fixture
async def events(oms_fault_proxy: FaultProxy, oms_aws_emulator: AwsEmulator) -> AsyncIterator[Any]:
    """An EventBridge client that goes through the proxy."""
    async with aws_client("events", oms_aws_emulator, oms_fault_proxy.endpoint_url) as client:
        yield client


@pytest.fixture
async def inbox(oms_aws_emulator: AwsEmulator, request: pytest.FixtureRequest) -> AsyncIterator[Inbox]:
    name = f"devstack-{abs(hash(request.node.nodeid))}"
    async with (
        aws_client("events", oms_aws_emulator) as direct,
        aws_client("sqs", oms_aws_emulator) as sqs,
    ):
        await direct.create_event_bus(Name=name)
        url = (await sqs.create_queue(QueueName=name))["QueueUrl"]
        attributes = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        pattern = json.dumps({"source": ["test"]})
        await direct.put_rule(Name=name, EventBusName=name, EventPattern=pattern)
        await direct.put_targets(
            Rule=name, EventBusName=name, Targets=[{"Id": "q", "Arn": attributes["Attributes"]["QueueArn"]}]
        )
        yield Inbox(sqs, url, name)
