from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from oms_events.resilience.backoff import RetryConfig
from oms_events.triggers.config import RunOptions
from oms_events.triggers.request import TriggerRequest
from oms_events.triggers.sending.sqs import QueueConfig
from oms_events.triggers.start import Start
from tests.outbox.support import ENDPOINT_VARIABLE, Settings, session_of, settings_of

MakeQueue = Callable[..., Awaitable[QueueConfig]]
"""Makes a queue of this test's own, `fifo` or not, with attributes; the configuration for it."""

RETRY = RetryConfig(max_attempts=3, initial=0.001, maximum=0.01)


@pytest.fixture(scope="session")
def aws(request: pytest.FixtureRequest) -> Settings:
    """The AWS fields of a configuration, for the endpoint of `OMS_TEST_AWS_ENDPOINT` or the emulator."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    return settings_of(endpoint or request.getfixturevalue("oms_aws_emulator").endpoint_url)


@pytest.fixture(scope="session")
async def sqs(aws: Settings) -> AsyncIterator[Any]:
    """aioboto3's own client, for set-up and for looking into queues."""
    async with session_of(aws).client("sqs", endpoint_url=aws["endpoint_url"]) as client:
        yield client


@pytest.fixture
async def make_queue(aws: Settings, sqs: Any) -> AsyncIterator[MakeQueue]:
    made: list[str] = []

    async def make(*, fifo: bool = False, attributes: dict[str, str] | None = None, **fields: Any) -> QueueConfig:
        name = f"sending-{uuid4().hex[:12]}{'.fifo' if fifo else ''}"
        of_kind = {"FifoQueue": "true"} if fifo else {}
        created = await sqs.create_queue(QueueName=name, Attributes={**of_kind, **(attributes or {})})
        made.append(created["QueueUrl"])
        return QueueConfig(**{**aws, "queue_url": created["QueueUrl"], "retry": RETRY, **fields})

    yield make
    for url in made:
        await sqs.delete_queue(QueueUrl=url)


def make_start(
    *,
    symbols: int = 3,
    fence: int | None = None,
    cause_id: str | None = None,
    flow_id: str | None = None,
    **fields: Any,
) -> Start:
    """A start of so many symbols; the other fields are the request's and the options'."""
    options = {name: fields.pop(name) for name in RunOptions.model_fields if name in fields}
    request = TriggerRequest(
        **{"trigger_type": "event", "symbols": tuple(f"S{number}" for number in range(symbols)), **fields}
    )
    return Start(
        request=request,
        key=f"{request.domain}:{request.table_name}:2026-09-09:flow-1",
        ds="2026-09-09",
        correlation_id="flow-1",
        options=RunOptions(**options),
        fence=fence,
        cause_id=cause_id,
        flow_id=flow_id,
    )
