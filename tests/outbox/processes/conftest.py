from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import to_item
from tests.outbox.processes.ground import TAKEN, Ground
from tests.outbox.support import Settings, fresh_table, unique_name


@pytest.fixture(scope="session")
def nats_url(request: pytest.FixtureRequest) -> str:
    """The NATS server of `OMS_TEST_NATS_URL`, or a real one of the devstack."""
    return os.environ.get("OMS_TEST_NATS_URL") or request.getfixturevalue("oms_nats_server").url


@pytest.fixture
async def ground(aws: Settings, dynamo: DynamoClient, nats_url: str, tmp_path: Path) -> AsyncIterator[Ground]:
    """An empty outbox, a table for business items and a stream, all of this test's own."""
    stream = unique_name("processes")
    client = await nats.connect(nats_url)
    try:
        js = client.jetstream()
        await js.add_stream(name=stream, subjects=[f"{stream}.>"], duplicate_window=120.0)
        try:
            async with fresh_table(aws, dynamo) as outbox, fresh_table(aws, dynamo) as items:
                put = {"TableName": items.table_name, "Item": to_item(TAKEN)}
                await dynamo.call("PutItem", put, table=items.table_name)
                yield Ground(aws, outbox.table_name, items.table_name, nats_url, stream, str(tmp_path))
        finally:
            await js.delete_stream(stream)
    finally:
        await client.close()
