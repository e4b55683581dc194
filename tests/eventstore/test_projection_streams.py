"""The function on the event store's stream: what it takes, what it answers, and that nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.dynamodb import DynamoClient, open_dynamo
from oms_events.devstack import FaultProxy
from oms_events.devstack.faults import LoseAnswer, Throttle
from oms_events.errors import ConfigurationError, StorageUnavailableError
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.items import event_item
from oms_events.eventstore.memory import MemoryEventStore, MemoryEventTable
from oms_events.eventstore.projections.dynamodb import DynamoDBReadModels
from oms_events.eventstore.projections.items import Write
from oms_events.eventstore.projections.projector import Projector
from oms_events.eventstore.projections.read_models import MemoryReadModelTables, ReadModels
from oms_events.eventstore.projections.sources import Told, project
from oms_events.eventstore.projections.streams import create_projection_handler, streamed_events
from oms_events.eventstore.records import RecordedEvent
from oms_events.resilience.backoff import RetryConfig
from tests.eventstore.accounts import AccountClosed, AccountCreated, deposit, registry
from tests.eventstore.summaries import assert_rows_are_as_the_store, configured, summaries
from tests.outbox.support import Settings
from tests.publishers.jetstream.conftest import until

numbers = itertools.count(1)


class Context:
    """Lambda's context, with so many milliseconds left."""

    def __init__(self, left: int = 60_000) -> None:
        self.left = left

    def get_remaining_time_in_millis(self) -> int:
        return self.left


def record(event: RecordedEvent, **changes: Any) -> dict[str, Any]:
    """A record of the stream as Lambda gives it; None leaves a part out."""
    item = event_item(event)
    keys = {name: item[name] for name in ("AggregateId", "EventSequence")}
    number = f"{next(numbers):021d}"
    change = {"Keys": keys, "NewImage": item, "SequenceNumber": number, **changes.pop("dynamodb", {})}
    kept = {name: value for name, value in change.items() if value is not None}
    return {"eventName": "INSERT", "eventSource": "aws:dynamodb", "dynamodb": kept, **changes}


def batch(*records: Mapping[str, Any]) -> dict[str, Any]:
    return {"Records": list(records)}


def number_of(one: Mapping[str, Any]) -> str:
    number: str = one["dynamodb"]["SequenceNumber"]
    return number


class MoodyTables(MemoryReadModelTables):
    """Tables that fail for some aggregates."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: Callable[[str], bool] = lambda aggregate_id: False
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = 0

    async def commit(self, writes: Any) -> bool:
        self.at_once += 1
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if any(isinstance(write, Write) and self.fails(write.key.hash) for write in writes):
            raise StorageUnavailableError("throttled")
        return await super().commit(writes)


class Function:
    """The function, its store and its read models; called as Lambda calls it, in a thread without a loop."""

    def __init__(self, **options: Any) -> None:
        self.store = MemoryEventStore(registry=registry)
        self.tables = MoodyTables()
        self.read_models = ReadModels(self.tables)
        self.opened = 0
        self.closed = 0
        self.projection = summaries(**options)
        self.handler = create_projection_handler(self._open)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Projector]:
        self.opened += 1
        yield Projector([self.projection], self.store, self.read_models)
        self.closed += 1

    async def __call__(self, *records: Mapping[str, Any], left: int = 60_000) -> list[str]:
        answer = await asyncio.to_thread(self.handler, batch(*records), Context(left))
        assert set(answer) == {"batchItemFailures"}
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    async def append(self, account_id: str, *events: Any, after: int = 0, **options: Any) -> list[dict[str, Any]]:
        recorded = await self.store.append(account_id, list(events), expected_sequence=after, **options)
        return [record(event) for event in recorded]

    async def check(self, *account_ids: str) -> None:
        await assert_rows_are_as_the_store(self.store, self.read_models, list(account_ids))


@pytest.fixture
def function() -> Iterator[Function]:
    function = Function()
    yield function
    function.handler.close()


async def test_a_batch_makes_rows_and_the_function_stays_open(function: Function) -> None:
    one = await function.append("a", AccountCreated(customer_id="c"), deposit(3), AccountClosed())
    two = await function.append("b", AccountCreated(customer_id="d"), deposit(4))
    assert await function(one[0], two[0], one[1], one[2]) == []
    assert await function(two[1]) == []
    await function.check("a", "b")
    assert function.opened == 1
    await asyncio.to_thread(function.handler.close)
    await asyncio.to_thread(function.handler.close)
    assert function.closed == 1
    assert await function(one[0]) == []
    assert function.opened == 2
    await function.check("a", "b")


async def test_records_that_come_again_or_late_or_not_at_all_are_no_matter(function: Function) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), *map(deposit, range(1, 8)))
    assert await function(records[2]) == []
    assert await function(records[0], records[1], records[2], records[1]) == []
    assert await function(records[7], records[5]) == []
    await function.check("a")


async def test_the_answer_names_what_was_not_handled_and_the_rest_goes_on(function: Function) -> None:
    one = await function.append("a", AccountCreated(customer_id="c"), deposit(3))
    two = await function.append("b", AccountCreated(customer_id="d"))
    function.tables.fails = lambda aggregate_id: aggregate_id == "a"
    assert await function(two[0], one[0], one[1]) == [number_of(one[0]), number_of(one[1])]
    await function.check("b")
    assert await function.read_models.row("AccountSummary", "a") is None
    function.tables.fails = lambda aggregate_id: False
    # Lambda goes on from the first that failed.
    assert await function(one[0], one[1]) == []
    await function.check("a", "b")


async def test_markers_of_commands_are_passed_over(function: Function) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), command_id="command-1")
    [marker] = [
        item
        for items in function.store.table._aggregates.values()  # type: ignore[attr-defined]
        for item in items.values()
        if item["AggregateId"]["S"].startswith("command#")
    ]
    image = {"Keys": {name: marker[name] for name in ("AggregateId", "EventSequence")}, "NewImage": marker}
    told = {"eventName": "INSERT", "dynamodb": {**image, "SequenceNumber": "1"}}
    function.tables.fails = lambda aggregate_id: aggregate_id.startswith("command#")
    assert await function(told, *records) == []
    await function.check("a")


@pytest.mark.parametrize("kind", ["MODIFY", "REMOVE"])
async def test_events_that_were_changed_or_removed_change_no_row(
    function: Function, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), deposit(3))
    assert await function(*records) == []
    await function.append("a", deposit(100), after=2)
    changed = {**records[1], "eventName": kind}
    with caplog.at_level(logging.ERROR, "oms_events"):
        assert await function(changed) == []
    assert f"a@2: {kind} in the event store, where events never change" in caplog.text
    row = await function.read_models.row("AccountSummary", "a")
    assert row is not None
    assert (row["balance"], row["events"]) == (3, 2)


@pytest.mark.parametrize(
    "image",
    [None, {}, {"AggregateId": {"S": "a"}}, {"AggregateId": {"S": "a"}, "EventSequence": {"S": "one"}}],
    ids=["keys only", "empty", "without sequence", "of other types"],
)
async def test_what_a_record_does_not_show_is_read_from_the_store(function: Function, image: Any) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), deposit(3))
    blind = [{**one, "dynamodb": {**one["dynamodb"], "NewImage": image}} for one in records]
    function.tables.fails = lambda aggregate_id: True
    assert await function(*blind) == [number_of(one) for one in blind]
    function.tables.fails = lambda aggregate_id: False
    assert await function(*blind) == []
    await function.check("a")


async def test_poison_is_parked_and_holds_up_no_other_aggregate() -> None:
    function = Function(poison=13)
    bad = await function.append("a", AccountCreated(customer_id="c"), deposit(13), deposit(1))
    good = await function.append("b", AccountCreated(customer_id="d"), deposit(2))
    assert await function(*bad, *good) == []
    await function.check("b")
    page = await function.read_models.parked_page("AccountSummary@1")
    assert [event.position for event in page.events] == ["a@2"]
    await asyncio.to_thread(function.handler.close)


async def test_an_image_that_is_damaged_is_parked_when_the_store_has_it_so(function: Function) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), deposit(3))
    table = function.store.table
    assert isinstance(table, MemoryEventTable)
    damaged = {**table._aggregates["a"][2], "CloudEvent": {"S": "{"}, "Data": {"S": "{"}}
    table._aggregates["a"][2] = damaged
    records[1]["dynamodb"]["NewImage"] = damaged
    assert await function(*records) == []
    page = await function.read_models.parked_page("AccountSummary@1")
    assert [event.position for event in page.events] == ["a@2"]


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({}, "no list of Records"),
        ({"Records": "x"}, "no list of Records"),
        ({"Records": [{"body": "from a queue"}]}, "lacks 'SequenceNumber'"),
        ({"Records": [None]}, "lacks 'SequenceNumber'"),
        (
            batch({"eventName": "INSERT", "dynamodb": {"SequenceNumber": "1", "Keys": {"pk": {"S": "x"}}}}),
            "lacks 'AggregateId'",
        ),
    ],
)
async def test_what_is_no_batch_of_an_event_store_fails_as_a_whole(
    function: Function, event: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        streamed_events(event, registry)
    with pytest.raises(ConfigurationError, match="map the stream of an event store"):
        await asyncio.to_thread(function.handler, event, Context())


async def test_when_the_time_is_over_the_batch_comes_again(function: Function) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), deposit(3))
    function.tables.gate.clear()
    assert await function(*records, left=100) == [number_of(one) for one in records]
    function.tables.gate.set()
    assert await function(*records) == []
    await function.check("a")


@pytest.mark.parametrize("left", [1_000, 2_000])
async def test_a_function_of_a_short_time_uses_most_of_it(function: Function, left: int) -> None:
    records = await function.append("a", AccountCreated(customer_id="c"), deposit(3))
    assert await function(*records, left=left) == []
    await function.check("a")


async def test_aggregates_without_images_are_caught_up_at_the_same_time_and_harm_no_other(
    function: Function,
) -> None:
    accounts = [f"account-{number}" for number in range(40)]
    told = []
    for account in accounts:
        for one in await function.append(account, AccountCreated(customer_id="c"), deposit(3)):
            told.append({**one, "dynamodb": {**one["dynamodb"], "NewImage": None}})
    assert await function(*told[:2]) == []
    bad = accounts[7]
    function.tables.fails = lambda aggregate_id: aggregate_id == bad
    function.tables.gate.clear()
    calling = asyncio.create_task(function(*told, left=8_000))
    # All that the projector takes, and no more.
    await until(lambda: function.tables.at_once == 16, seconds=5)
    await asyncio.sleep(0.05)
    assert function.tables.at_once == 16
    assert function.handler._runner is not None
    function.handler._runner.get_loop().call_soon_threadsafe(function.tables.gate.set)
    assert await calling == [number_of(one) for one in told[14:16]]
    await function.check(*(account for account in accounts if account != bad))


async def test_opening_that_fails_is_raised_and_tried_again() -> None:
    store = MemoryEventStore(registry=registry)
    attempts = []

    @asynccontextmanager
    async def open_projector() -> AsyncIterator[Projector]:
        attempts.append(1)
        if len(attempts) == 1:
            raise StorageUnavailableError("not now")
        yield Projector([summaries()], store, ReadModels(MemoryReadModelTables()))

    handler = create_projection_handler(open_projector)
    with pytest.raises(StorageUnavailableError):
        await asyncio.to_thread(handler, batch(), Context())
    assert await asyncio.to_thread(handler, batch(), None) == {"batchItemFailures": []}
    await asyncio.to_thread(handler.close)


# ---------------------------------------------------------------------- with what a real stream gives


async def records_of(aws: Settings, dynamo: DynamoClient, table: str) -> list[dict[str, Any]]:
    """All records of a table's stream, as Lambda gives them."""
    described = await dynamo.call("DescribeTable", {"TableName": table}, table=table)
    arn = described["Table"]["LatestStreamArn"]
    client = await open_dynamo(AwsConfig(**aws), connections=1, service="dynamodbstreams")
    try:
        stream = (await client.call("DescribeStream", {"StreamArn": arn}, table=table))["StreamDescription"]
        assert stream["StreamViewType"] == "NEW_IMAGE"
        found: list[dict[str, Any]] = []
        for shard in stream["Shards"]:
            place = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
            iterator = (await client.call("GetShardIterator", place, table=table))["ShardIterator"]
            while iterator:
                page = await client.call("GetRecords", {"ShardIterator": iterator}, table=table)
                found += page["Records"]
                iterator = page.get("NextShardIterator") if page["Records"] else None
        return found
    finally:
        await client.close()


async def test_real_records_make_real_rows_whatever_fails_on_the_way(
    aws: Settings, dynamo: DynamoClient, oms_fault_proxy: FaultProxy
) -> None:
    accounts = [f"account-{number}" for number in range(6)]
    async with (
        configured(aws, dynamo) as (store_config, tables),
        DynamoDBEventStore(store_config, registry=registry) as store,
        DynamoDBReadModels(tables) as looking,
    ):
        for number, account in enumerate(accounts):
            first = [AccountCreated(customer_id=f"c{number}"), deposit(1)]
            await store.append(account, first, expected_sequence=0, command_id="open")
            for after in (2, 3, 4):
                await store.append(account, [deposit(after)], expected_sequence=after)
        records = await records_of(aws, dynamo, store_config.table_name)
        # The events, and a marker for each command.
        assert len(records) == 6 * 5 + 6

        faulty = {"endpoint_url": oms_fault_proxy.endpoint_url, "retry": RetryConfig(max_attempts=1)}
        own_config, own_tables = store_config.model_copy(update=faulty), tables.model_copy(update=faulty)

        @asynccontextmanager
        async def open_projector() -> AsyncIterator[Projector]:
            async with (
                DynamoDBEventStore(own_config, registry=registry) as own,
                DynamoDBReadModels(own_tables) as read_models,
                Projector([summaries()], own, read_models) as projector,
            ):
                yield projector

        handler = create_projection_handler(open_projector)
        # Opened while all is well; then a third of the transactions fails, or their answers are lost.
        assert await asyncio.to_thread(handler, batch(), Context()) == {"batchItemFailures": []}
        oms_fault_proxy.seeded(7, {Throttle(): 0.2, LoseAnswer(): 0.15}, operation="TransactWriteItems")
        rng, place, failures = random.Random(5), 0, 0
        while place < len(records):
            some = records[place : place + rng.randint(1, 12)]
            answer = await asyncio.to_thread(handler, batch(*some), Context())
            failed = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
            order = [number_of(one) for one in some]
            # As Lambda goes on: from the first that failed.
            place += order.index(failed[0]) if failed else len(some)
            failures += len(failed)
            assert failures < 500
        assert failures
        await asyncio.to_thread(handler.close)
        await assert_rows_are_as_the_store(store, looking, accounts)


async def test_tables_of_another_shape_are_raised_and_told_of_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    read_models = ReadModels(MemoryReadModelTables())

    async def open_tables(**options: object) -> None:
        raise ConfigurationError("table 'read-models'", ["it does not exist"])

    monkeypatch.setattr(read_models.tables, "open", open_tables)
    projector = Projector([summaries()], MemoryEventStore(registry=registry), read_models)
    with pytest.raises(ConfigurationError, match="does not exist"):
        await project(projector, [Told("a", None)])
