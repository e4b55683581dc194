from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.dynamodb import DynamoClient
from oms_events.outbox.config import OutboxConfig
from oms_events.outbox.dynamodb import DynamoDBOutboxStore
from tests.outbox.support import ENDPOINT_VARIABLE, Settings, dynamo_client, fresh_table, open_store, settings_of


@pytest.fixture(scope="session")
def aws(request: pytest.FixtureRequest) -> Settings:
    """The AWS fields of a configuration, for the endpoint of `OMS_TEST_AWS_ENDPOINT` or the emulator."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    return settings_of(endpoint or request.getfixturevalue("oms_aws_emulator").endpoint_url)


@pytest.fixture(scope="session")
async def dynamo(aws: Settings) -> AsyncIterator[DynamoClient]:
    """A client for set-up and for looking into tables."""
    async with dynamo_client(AwsConfig(**aws)) as client:
        yield client


@pytest.fixture
async def table_config(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[OutboxConfig]:
    """The configuration of an empty table of this test's own."""
    async with fresh_table(aws, dynamo) as config:
        yield config


@pytest.fixture
async def dynamodb_store(table_config: OutboxConfig) -> AsyncIterator[DynamoDBOutboxStore]:
    """An open store on a table of this test's own."""
    async with open_store(table_config) as store:
        yield store
