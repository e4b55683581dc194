from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import FaultProxy, run_in_thread
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing import ManualClock
from oms_events.triggers.guards.config import GuardTableConfig
from oms_events.triggers.schema import BREAKER, RATE
from tests.eventstore.support import fresh_table
from tests.outbox.conftest import aws, dynamo
from tests.outbox.support import Settings

__all__ = ["aws", "dynamo"]


@dataclass(frozen=True, slots=True)
class Tables:
    """The guards' tables; each test uses keys of its own."""

    rate: GuardTableConfig
    breaker: GuardTableConfig

    def behind(self, proxy: FaultProxy) -> Tables:
        """The same, through a proxy, with little patience."""
        quick = RetryConfig(max_attempts=3, initial=0.001, maximum=0.002)
        fields = {"endpoint_url": proxy.endpoint_url, "read_timeout": 0.3, "retry": quick}
        return Tables(self.rate.model_copy(update=fields), self.breaker.model_copy(update=fields))


class Hurried(ManualClock):
    """Goes only when it is told to, and keeps nobody waiting: retries follow at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
async def tables(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[Tables]:
    async with fresh_table(dynamo, RATE, "rate") as rate, fresh_table(dynamo, BREAKER, "breaker") as breaker:
        yield Tables(GuardTableConfig(table_name=rate, **aws), GuardTableConfig(table_name=breaker, **aws))


@pytest.fixture(scope="module")
def proxy_server(aws: Settings) -> Iterator[FaultProxy]:
    with run_in_thread(FaultProxy(aws["endpoint_url"])) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_server: FaultProxy) -> Iterator[FaultProxy]:
    """Without faults before and after."""
    proxy_server.forget_calls()
    yield proxy_server
    proxy_server.clear()
    proxy_server.release()
