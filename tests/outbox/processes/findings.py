"""Reads everything that a test's processes have left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.msg import Msg

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item
from oms_events.publishers.jetstream import from_nats_message
from tests.outbox.processes.checker import Findings, Message
from tests.outbox.processes.ground import TAKEN, Ground
from tests.outbox.processes.recorder import read_acceptances

_PATIENCE = 20.0


@asynccontextmanager
async def overhearing(ground: Ground) -> AsyncIterator[list[Message]]:
    """Everything that is sent to the stream from now on, also what JetStream drops as a duplicate."""
    client = await nats.connect(ground.nats_url)
    heard: list[Message] = []

    async def hear(message: Msg) -> None:
        heard.append(_message(message))

    try:
        await client.subscribe(f"{ground.stream}.>", cb=hear)
        await client.flush()
        yield heard
        await client.flush()
    finally:
        await client.close()


async def find(ground: Ground, dynamo: DynamoClient, attempts: list[Message]) -> Findings:
    """Reads the tables, the stream, and the files."""
    records = await _scan(dynamo, ground.table)
    items = await _scan(dynamo, ground.items)
    return Findings(
        items=[item for item in items if item["pk"] != TAKEN["pk"]],
        stream=await _stored(ground),
        attempts=list(attempts),
        accepted=read_acceptances(ground.acceptances),
        journals=list(ground.journals()),
        left=[f"{item['pk']} {item['sk']}" for item in records if item["pk"][:2] in ("k#", "u#")],
        letters=[item["sk"] for item in records if item["pk"] == "dead"],
    )


async def _stored(ground: Ground) -> list[Message]:
    client = await nats.connect(ground.nats_url)
    try:
        js = client.jetstream()
        count = (await js.stream_info(ground.stream)).state.messages
        consumer = await js.subscribe(f"{ground.stream}.>", ordered_consumer=True)
        return [_message(await consumer.next_msg(timeout=_PATIENCE)) for _ in range(count)]
    finally:
        await client.close()


def _message(message: Msg) -> Message:
    event = from_nats_message(message.headers, message.data)
    return Message((message.headers or {})["Nats-Msg-Id"], event.get_id(), event.get_data())


async def _scan(dynamo: DynamoClient, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    while True:
        answer = await dynamo.call("Scan", {"TableName": table, "ConsistentRead": True, **start}, table=table)
        found += map(from_item, answer["Items"])
        if "LastEvaluatedKey" not in answer:
            return found
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
