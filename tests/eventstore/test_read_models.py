from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.eventstore.config import ProjectionTables
from oms_events.eventstore.dynamodb_read_models import DynamoDBReadModels
from oms_events.eventstore.read_models import MemoryReadModels, ReadModels
from oms_events.eventstore.schema import CHECKPOINTS, READ_MODEL
from oms_events.testing.read_models_contract import ReadModelsContract
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings


class TestMemoryReadModels(ReadModelsContract):
    @pytest.fixture
    def read_models(self) -> MemoryReadModels:
        return MemoryReadModels()


@pytest.fixture(scope="module")
async def dynamodb_read_models(aws: Settings, dynamo: DynamoClient) -> AsyncIterator[DynamoDBReadModels]:
    async with (
        fresh_table(dynamo, READ_MODEL, "read-model") as rows,
        fresh_table(dynamo, CHECKPOINTS, "checkpoints") as checkpoints,
        DynamoDBReadModels(ProjectionTables(read_model_table=rows, checkpoint_table=checkpoints, **aws)) as opened,
    ):
        yield opened


class TestDynamoDBReadModels(ReadModelsContract):
    @pytest.fixture
    def read_models(self, dynamodb_read_models: DynamoDBReadModels) -> ReadModels:
        return dynamodb_read_models
