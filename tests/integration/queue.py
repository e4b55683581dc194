"""A bus of the test's own with a queue behind it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from typing import Any, Self

import aioboto3

from oms_events.devstack import AwsEmulator
from oms_events.publishers.eventbridge import from_eventbridge_event


class Bus:
    """Creates bus, rule and queue on entry; `read` gives the ids of the events that came out."""

    def __init__(self, aws: AwsEmulator) -> None:
        self.aws = aws
        self.name = f"bus-{uuid.uuid4().hex[:8]}"
        self._session = aioboto3.Session(
            region_name=aws.region, aws_access_key_id=aws.access_key, aws_secret_access_key=aws.secret_key
        )
        self._queue = ""

    async def __aenter__(self) -> Self:
        async with self._client("events") as events, self._client("sqs") as sqs:
            await events.create_event_bus(Name=self.name)
            self._queue = (await sqs.create_queue(QueueName=self.name))["QueueUrl"]
            arn = (await sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"]))[
                "Attributes"
            ]["QueueArn"]
            pattern = json.dumps({"source": [{"exists": True}]})
            await events.put_rule(Name="all", EventBusName=self.name, EventPattern=pattern)
            await events.put_targets(Rule="all", EventBusName=self.name, Targets=[{"Id": "queue", "Arn": arn}])
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._client("events") as events, self._client("sqs") as sqs:
            await events.remove_targets(Rule="all", EventBusName=self.name, Ids=["queue"])
            await events.delete_rule(Name="all", EventBusName=self.name)
            await events.delete_event_bus(Name=self.name)
            await sqs.delete_queue(QueueUrl=self._queue)

    async def read(self, count: int) -> Counter[str]:
        found: Counter[str] = Counter()
        async with self._client("sqs") as sqs, asyncio.timeout(10):
            while found.total() < count:
                answer = await sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                for message in answer.get("Messages", []):
                    found[from_eventbridge_event(message["Body"]).get_id()] += 1
                    await sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def _client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self.aws.endpoint_url)
