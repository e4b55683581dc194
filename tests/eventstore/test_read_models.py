from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import FaultProxy, LoseAnswer, run_in_thread
from oms_events.errors import ConfigurationError, StorageUnavailableError
from oms_events.eventstore.config import ProjectionTables
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.items import ABSENT, Checkpoint, Write, checkpoint_key, checkpoint_write
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModels, ReadModels
from oms_events.eventstore.schema import CHECKPOINTS, READ_MODEL
from oms_events.instrumentation.hooks import EventParked, Projected
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing.read_models_contract import ReadModelsContract, item, key
from tests.eventstore.accounts import AccountCreated, deposit, registry
from tests.eventstore.summaries import summaries
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings, session_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


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


async def test_readers_of_rows_need_no_right_to_the_checkpoints_and_projectors_look_at_them(
    aws: Settings, dynamodb_read_models: DynamoDBReadModels
) -> None:
    there = dynamodb_read_models.tables
    place, config = key(), there._config
    await there.commit([Write(place, item(place), ABSENT)])
    # Whoever looks for it is told.
    changed = config.model_copy(update={"checkpoint_table": "nowhere"})
    async with DynamoDBReadModels(changed) as readers:
        assert await readers.rows("Contract", [place.hash], version=1) != {place.hash: None}
        with pytest.raises(ConfigurationError, match="table 'nowhere': it does not exist"):
            await readers.parked_page("Contract@1")
        with pytest.raises(ConfigurationError, match="table 'nowhere': it does not exist"):
            await Projector([summaries()], MemoryEventStore(registry=registry), readers).open()
    # Closed is closed, for both tables, until it is opened again.
    again = DynamoDBReadModels(config)
    for _ in range(2):
        await again.open()
        assert (await again.parked_page("Contract@1")).events == []
        await again.close()
        with pytest.raises(StorageUnavailableError, match="was closed"):
            await again.parked_page("Contract@1")


class Hurried:
    """A `dynamodb` client whose DynamoDB does only some of a batch, as often as there are limits left."""

    def __init__(self, client: Any, *limits: int) -> None:
        self._client = client
        self.limits = list(limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def batch_get_item(self, **parameters: Any) -> Any:
        limit = self.limits.pop(0) if self.limits else 100
        now: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for table, request in parameters["RequestItems"].items():
            for place, keys in ((now, request["Keys"][:limit]), (later, request["Keys"][limit:])):
                if keys:
                    place[table] = {**request, "Keys": keys}
        answer: Any = await self._client.batch_get_item(RequestItems=now) if now else {"Responses": {}}
        return {**answer, "UnprocessedKeys": later}

    async def batch_write_item(self, **parameters: Any) -> Any:
        limit = self.limits.pop(0) if self.limits else 100
        ((table, requests),) = parameters["RequestItems"].items()
        if requests[:limit]:
            await self._client.batch_write_item(RequestItems={table: requests[:limit]})
        return {"UnprocessedItems": {table: requests[limit:]} if requests[limit:] else {}}


async def test_what_dynamodb_leaves_undone_of_a_batch_is_asked_again_or_told(
    aws: Settings, dynamodb_read_models: DynamoDBReadModels
) -> None:
    tables = dynamodb_read_models.tables
    rows = [key(str(number)) for number in range(30)]
    marks = [checkpoint_key("Contract@1", f"{at.hash}") for at in rows]
    there = [Write(at, item(at), ABSENT) for at in rows]
    marked = [checkpoint_write(at, None, Checkpoint(1), NOW) for at in marks]
    await tables.commit([*there, *marked])
    expected = [write.item for write in (*there, *marked)]
    config = tables._config.model_copy(update={"retry": RetryConfig(max_attempts=3, initial=0.001, maximum=0.01)})
    async with session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"]) as client:
        hurried = Hurried(client, 0, 5)
        async with DynamoDBReadModels(config, client=hurried) as slow:
            assert await slow.tables.get([*rows, *marks]) == expected
            hurried.limits = [0, 0, 0]
            with pytest.raises(StorageUnavailableError, match="BatchGetItem: DynamoDB throttles"):
                await slow.tables.get(rows)
            hurried.limits = [0, 5]
            await slow.tables.delete(rows)
            assert await tables.get([*rows, *marks]) == [None] * 30 + expected[30:]
            hurried.limits = [0, 0, 0]
            with pytest.raises(StorageUnavailableError, match="BatchWriteItem: DynamoDB throttles"):
                await slow.tables.delete(marks)


async def test_a_transaction_whose_answer_was_lost_is_no_refusal_and_is_told(
    aws: Settings, dynamodb_read_models: DynamoDBReadModels
) -> None:
    there = dynamodb_read_models.tables._config
    details: list[Any] = []
    store = MemoryEventStore(registry=registry)
    opened = AccountCreated(customer_id="c")
    await store.append("lost", [opened, deposit(1), deposit(13)], expected_sequence=0)
    with run_in_thread(FaultProxy(aws["endpoint_url"])) as proxy:
        config = there.model_copy(update={"endpoint_url": proxy.endpoint_url})
        async with DynamoDBReadModels(config) as read_models:
            projection = summaries(poison=13)
            projector = Projector([projection], store, read_models, hooks=[details.append])
            await projector.open()
            proxy.script(LoseAnswer(), operation="TransactWriteItems")
            await projector.catch_up("lost")
            assert await read_models.checkpoint(projection, "lost") == Checkpoint(2, 3)
            assert [type(detail) for detail in details] == [EventParked, Projected]
            # What others do is refused all the same.
            place = key()
            assert await read_models.tables.commit([Write(place, item(place), ABSENT)])
            assert not await read_models.tables.commit([Write(place, item(place), ABSENT)])
