"""What is DynamoDB's alone: the table's shape, connections, Regions, pages of a megabyte, restored tables."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item
from oms_events._aws.tables import TableShape, create_request
from oms_events.errors import (
    ConcurrencyError,
    ConditionFailedError,
    ConfigurationError,
    DuplicateCommandError,
    EventUnreadableError,
    OutboxLimitError,
    StorageDeniedError,
    StorageRejectedError,
)
from oms_events.eventstore.config import EventStoreConfig
from oms_events.eventstore.dynamodb import DynamoDBEventStore
from oms_events.eventstore.history import ItemPage
from oms_events.eventstore.memory import MemoryEventStore
from oms_events.eventstore.schema import BY_TYPE, CHECKPOINTS, EVENT_STORE
from oms_events.outbox.config import ClaimCheckConfig, OutboxConfig
from oms_events.outbox.outbox import DynamoDBOutbox, MemoryOutbox
from oms_events.outbox.schema import TABLE as OUTBOX
from oms_events.testing.event_store_contract.support import Changed, history, new_id
from oms_events.testing.event_store_contract.support import registry as contract_registry
from tests.eventstore.accounts import deposit, registry
from tests.eventstore.support import Hurried, fresh_table
from tests.outbox.support import Settings, dynamo_client, session_of, unique_name
from tests.outbox.writing import records_of

LARGE = 250_000


def config_of(aws: Settings, table: str, **fields: Any) -> EventStoreConfig:
    return EventStoreConfig(table_name=table, **{**aws, **fields})


# ---------------------------------------------------------------------- the table


async def test_a_table_is_made_once(aws: Settings, dynamo: DynamoClient) -> None:
    name = unique_name("made")
    store = DynamoDBEventStore(config_of(aws, name), registry=registry)
    try:
        assert await store.table.create() is True
        assert await store.table.create() is False
        await store.append("a", [deposit()], expected_sequence=0)
        assert await store.last_sequence("a") == 1
        described = (await dynamo.call("DescribeTable", {"TableName": name}, table=name))["Table"]
        assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert described["StreamSpecification"]["StreamViewType"] == "NEW_IMAGE"
    finally:
        await store.close()
        await dynamo.call("DeleteTable", {"TableName": name}, table=name)


async def test_a_missing_table_is_told(aws: Settings) -> None:
    store = DynamoDBEventStore(config_of(aws, "no-such-table"), registry=registry)
    for call in (store.open, lambda: store.last_sequence("a"), lambda: store.marker("a", "c")):
        with pytest.raises(
            ConfigurationError,
            match=r"'no-such-table': it does not exist in region .us-east-1., endpoint http:.*; deploy it",
        ):
            await call()
    with pytest.raises(ConfigurationError, match="it does not exist"):
        await store.append("a", [deposit()], expected_sequence=0)
    await store.close()


async def test_opening_may_be_tried_again(aws: Settings, dynamo: DynamoClient) -> None:
    name = unique_name("late")
    store = DynamoDBEventStore(config_of(aws, name), registry=registry)
    with pytest.raises(ConfigurationError):
        await store.open()
    await dynamo.call("CreateTable", create_request(name, EVENT_STORE), table=name)
    async with store:
        await store.append("a", [deposit()], expected_sequence=0)
    await dynamo.call("DeleteTable", {"TableName": name}, table=name)


_INDEX = EVENT_STORE.indexes[0]


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (CHECKPOINTS, r"its keys are CheckpointKey \(S, HASH\) .* are needed: use another table.*has no index"),
        (replace(EVENT_STORE, types={}), r"EventSequence \(S, RANGE\); .*EventSequence \(N, RANGE\) are needed"),
        (replace(EVENT_STORE, indexes=()), rf"it has no index '{BY_TYPE}'; add it"),
        (
            replace(EVENT_STORE, indexes=(replace(_INDEX, hash_key="EventType"),)),
            rf"its index '{BY_TYPE}' is EventType \(HASH\), .*; EventTypeShard \(HASH\), .* is needed",
        ),
        (
            replace(EVENT_STORE, indexes=(replace(_INDEX, projection="keys_only"),)),
            "projection KEYS_ONLY; .* ALL is",
        ),
    ],
)
async def test_a_table_of_another_shape_is_refused(
    aws: Settings, dynamo: DynamoClient, shape: TableShape, problem: str
) -> None:
    async with fresh_table(dynamo, shape, "other") as name:
        store = DynamoDBEventStore(config_of(aws, name), registry=registry)
        with pytest.raises(ConfigurationError, match=problem):
            await store.open()
        with pytest.raises(ConfigurationError, match="table"):
            await store.table.create()
        trusting = DynamoDBEventStore(config_of(aws, name, verify_table=False), registry=registry)
        async with trusting:
            assert trusting.table.identity is None


class Described:
    """A connection to a table that is described so."""

    def __init__(self, **changes: Any) -> None:
        request = create_request("t", EVENT_STORE)
        self.described = {**request, "TableStatus": "ACTIVE", "TableId": "1", **changes}

    async def describe_table(self, **_: Any) -> Mapping[str, Any]:
        return {"Table": self.described}

    async def transact_write_items(self, **_: Any) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"TableStatus": "CREATING"}, "its status is CREATING; wait until it is ACTIVE"),
        (
            {"Replicas": [{"RegionName": "eu-west-1"}]},
            "it has replicas in eu-west-1: conditions hold in one Region",
        ),
    ],
)
async def test_a_table_that_cannot_be_trusted_is_refused(changes: dict[str, Any], problem: str) -> None:
    store = DynamoDBEventStore(EventStoreConfig(table_name="t-t", verify_table=True), client=Described(**changes))
    with pytest.raises(ConfigurationError, match=problem):
        await store.open()


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"config": "event-store"}, "config is str; give an EventStoreConfig"),
        ({"config": OutboxConfig(table_name="outbox")}, "config is OutboxConfig; give an EventStoreConfig"),
        ({"outbox": "outbox"}, "outbox is str; give a DynamoDBOutbox"),
        ({"outbox": MemoryOutbox()}, "outbox is one in memory, which would keep the events from the table"),
    ],
)
def test_what_no_store_can_be_made_of_is_refused(arguments: dict[str, Any], problem: str) -> None:
    given = {"config": EventStoreConfig(table_name="event-store"), **arguments}
    with pytest.raises(ConfigurationError, match=problem):
        DynamoDBEventStore(**given)


def test_a_store_in_memory_takes_an_outbox_in_memory() -> None:
    outbox: Any = DynamoDBOutbox(OutboxConfig(table_name="outbox"))
    with pytest.raises(ConfigurationError, match="outbox is DynamoDBOutbox; give a MemoryOutbox"):
        MemoryEventStore(outbox=outbox)


async def test_a_store_in_memory_says_which_conditions_it_knows() -> None:
    store = MemoryEventStore(registry=registry)
    await store.append("other", [deposit()], expected_sequence=0)
    key = {"AggregateId": {"S": "other"}, "EventSequence": {"N": "1"}}
    check = {"TableName": store.table.name, "Key": key, "ConditionExpression": "attribute_exists(Data)"}
    with pytest.raises(StorageRejectedError, match="in memory knows the conditions 'attribute_exists"):
        await store.append("a", [deposit()], expected_sequence=0, actions=[{"ConditionCheck": check}])
    check["ConditionExpression"] = "attribute_exists(AggregateId)"
    await store.append("a", [deposit()], expected_sequence=0, actions=[{"ConditionCheck": check}])


async def test_stores_in_memory_on_one_outbox_share_their_table() -> None:
    outbox = MemoryOutbox()
    one, other = (MemoryEventStore(outbox=outbox, registry=registry) for _ in range(2))
    third = MemoryEventStore(EventStoreConfig(table_name="another"), outbox=outbox, registry=registry)
    await one.append("a", [deposit()], expected_sequence=0)
    with pytest.raises(ConcurrencyError):
        await other.append("a", [deposit()], expected_sequence=0)
    await third.append("a", [deposit()], expected_sequence=0)
    assert len(outbox.pending()) == 2


# ---------------------------------------------------------------------- one account, one Region


async def test_an_outbox_elsewhere_is_refused_before_anything_is_written(
    aws: Settings, dynamo: DynamoClient, table_config: OutboxConfig
) -> None:
    """In another Region a table of the same name may be there: appends would go to one, and reads to the other."""
    elsewhere = {**aws, "aws_region": "eu-central-1"}
    async with dynamo_client(AwsConfig(**elsewhere)) as there, fresh_table(dynamo, EVENT_STORE, "here") as name:
        outbox_request = create_request(table_config.table_name, OUTBOX)
        await there.call("CreateTable", outbox_request, table=table_config.table_name)
        outbox_config = table_config.model_copy(update={"aws_region": "eu-central-1"})
        try:
            async with DynamoDBOutbox(outbox_config) as outbox:
                store = DynamoDBEventStore(config_of(aws, name), outbox=outbox, registry=registry)
                async with store:
                    with pytest.raises(
                        ConfigurationError, match=r"outbox \(table '.*'\) sees no such table: give"
                    ):
                        await store.append("a", [deposit()], expected_sequence=0)
                    await there.call("CreateTable", create_request(name, EVENT_STORE), table=name)
                    with pytest.raises(ConfigurationError, match="leads to another table of this name"):
                        await store.append("a", [deposit()], expected_sequence=0)
                    for client in (dynamo, there):
                        assert (await client.call("Scan", {"TableName": name}, table=name))["Items"] == []
        finally:
            for table in (name, table_config.table_name):
                await there.call("DeleteTable", {"TableName": table}, table=table)


async def test_an_outbox_of_the_same_place_may_have_another_connection(
    aws: Settings, dynamo: DynamoClient, table_config: OutboxConfig
) -> None:
    async with (
        fresh_table(dynamo, EVENT_STORE, "here") as name,
        DynamoDBOutbox(table_config, session=session_of(aws)) as outbox,
        DynamoDBEventStore(config_of(aws, name), outbox=outbox, registry=registry) as store,
    ):
        [event] = await store.append("a", [deposit()], expected_sequence=0)
        [record] = await records_of(outbox, "a")
        assert record.event is not None
        assert record.event.json == event.encoded.json


async def test_what_the_claim_check_takes_does_not_count_twice(
    aws: Settings, dynamo: DynamoClient, table_config: OutboxConfig
) -> None:
    bucket = f"claims-{uuid.uuid4().hex[:12]}"
    claim_check = ClaimCheckConfig(bucket=bucket, endpoint_url=aws["endpoint_url"])
    async with (
        session_of(aws).client("s3", endpoint_url=aws["endpoint_url"]) as s3,
        fresh_table(dynamo, EVENT_STORE, "here") as name,
        DynamoDBOutbox(table_config.model_copy(update={"claim_check": claim_check})) as outbox,
        DynamoDBEventStore(config_of(aws, name), outbox=outbox, registry=contract_registry) as store,
    ):
        await s3.create_bucket(Bucket=bucket)
        large = [Changed(text="x" * 300_000)] * 10
        await store.append("a", large, expected_sequence=0)
        assert len(await history(store, "a")) == len(await records_of(outbox, "a")) == 10
        # With events that it leaves as they are, both count.
        whole = [Changed(text="x" * 100_000)] * 20
        with pytest.raises(OutboxLimitError, match="a transaction takes 4194304"):
            await store.append("b", [*whole, *large[:1]], expected_sequence=0)
        assert await store.last_sequence("b") == 0


# ---------------------------------------------------------------------- the caller's own writes


async def test_own_writes_are_done_with_the_events_or_not_at_all(
    aws: Settings, dynamo: DynamoClient, dynamodb_store: DynamoDBEventStore
) -> None:
    async with fresh_table(dynamo, TableShape(hash_key="id"), "own") as own:

        def write(name: str, condition: str | None = None) -> dict[str, Any]:
            body = {"TableName": own, "Item": {"id": {"S": name}, "raw": {"B": b"\x00\xff"}}}
            return {"Put": body if condition is None else {**body, "ConditionExpression": condition}}

        async def written() -> set[str]:
            items = (await dynamo.call("Scan", {"TableName": own}, table=own))["Items"]
            return {from_item(item)["id"] for item in items}

        store = dynamodb_store
        await store.append("a", [deposit()], expected_sequence=0, actions=[write("one")])
        await store.append("a", [], expected_sequence=1, actions=[write("two")])
        assert await written() == {"one", "two"}
        for expected, action, error in (
            (0, write("three"), ConcurrencyError),
            (2, write("three"), ConcurrencyError),
            (1, write("one", "attribute_not_exists(id)"), ConditionFailedError),
        ):
            with pytest.raises(error):
                await store.append("a", [deposit()], expected_sequence=expected, actions=[action])
        # Without events too, what was decided on must be the last.
        with pytest.raises(ConcurrencyError):
            await store.append("a", [], expected_sequence=0, actions=[write("three")])
        missing = {"Put": {"TableName": "nowhere", "Item": {"id": {"S": "x"}}}}
        with pytest.raises(StorageDeniedError, match=r"tables 'event-store-.*', 'nowhere'"):
            await store.append("a", [deposit()], expected_sequence=1, actions=[missing])
        assert await written() == {"one", "two"}
        assert await store.last_sequence("a") == 1


# ---------------------------------------------------------------------- pages


async def test_pages_end_at_a_megabyte(dynamodb_store: DynamoDBEventStore) -> None:
    """Four events of 250,000 bytes fill a page nearly, and the fifth begins another."""
    name = new_id()
    async with DynamoDBEventStore(dynamodb_store.config, registry=contract_registry) as store:
        for expected in range(0, 9, 3):
            events = [Changed(number=expected + number, text="x" * LARGE) for number in range(3)]
            await store.append(name, events, expected_sequence=expected)
        raw = await store.table.read(name, after=0)
        assert raw.next is not None
        assert len(raw.items) < 9
        for limit in (None, 1, 4, 5, 9):
            pages = [[event.sequence for event in page] async for page in store.pages(name, limit=limit)]
            assert [number for page in pages for number in page] == list(range(1, 10)), limit
            assert len(pages) > 1, limit
        types = [event async for event in store.events_by_type("contract.Changed")]
        assert [event.sequence for event in types if event.aggregate_id == name] == list(range(1, 10))


async def test_a_limit_that_ends_with_the_history_costs_an_empty_page(dynamodb_store: DynamoDBEventStore) -> None:
    """DynamoDB says that there may be more where the limit was reached, and looks no further."""
    await dynamodb_store.append("a", [deposit()] * 4, expected_sequence=0)
    page = await dynamodb_store.table.read("a", after=2, limit=2)
    assert (len(page.items), page.next is not None) == (2, True)
    assert await dynamodb_store.table.read("a", after=4, limit=2) == ItemPage([], None)
    sizes = [len(page) async for page in dynamodb_store.pages("a", limit=2)]
    assert sizes == [2, 2]


# ---------------------------------------------------------------------- restored and copied tables


async def copy_of(
    dynamo: DynamoClient, source: DynamoDBEventStore, name: str, *, without: tuple[str, int] | None = None
) -> int:
    """Puts the items of a table into another, as a restore of a backup does; gives how many."""
    items = (await dynamo.call("Scan", {"TableName": source.table.name}, table=name))["Items"]
    kept = [item for item in items if (item["AggregateId"]["S"], int(item["EventSequence"]["N"])) != without]
    for item in kept:
        await dynamo.call("PutItem", {"TableName": name, "Item": item}, table=name)
    return len(kept)


async def test_a_restored_table_goes_on_where_it_ended(
    aws: Settings, dynamo: DynamoClient, dynamodb_store: DynamoDBEventStore
) -> None:
    before = await dynamodb_store.append("a", [deposit()] * 3, expected_sequence=0, command_id="c")
    await dynamodb_store.append("b", [deposit()], expected_sequence=0)
    async with fresh_table(dynamo, EVENT_STORE, "restored") as name:
        assert await copy_of(dynamo, dynamodb_store, name) == 5
        async with DynamoDBEventStore(config_of(aws, name), registry=registry) as store:
            found = await history(store, "a")
            assert [event.encoded.json for event in found] == [event.encoded.json for event in before]
            assert len([event async for event in store.events_by_type("TransactionProcessed")]) == 4
            with pytest.raises(DuplicateCommandError):
                await store.append("a", [deposit()], expected_sequence=3, command_id="c")
            [event] = await store.append("a", [deposit()], expected_sequence=3)
            assert event.encoded.source == name != found[0].encoded.source
            assert await store.last_sequence("a") == 4


async def test_a_history_with_a_gap_is_not_read(
    aws: Settings, dynamo: DynamoClient, dynamodb_store: DynamoDBEventStore
) -> None:
    """A backup is not taken in one moment: of an append it may have a later event alone."""
    await dynamodb_store.append("a", [deposit()] * 4, expected_sequence=0)
    async with fresh_table(dynamo, EVENT_STORE, "torn") as name:
        await copy_of(dynamo, dynamodb_store, name, without=("a", 3))
        async with DynamoDBEventStore(config_of(aws, name), registry=registry, clock=Hurried()) as store:
            with pytest.raises(EventUnreadableError, match=r"^a@3: the event is missing, but later ones are ther"):
                await history(store, "a")
            assert [event.sequence for event in await history(store, "a", up_to=2)] == [1, 2]
            # From a snapshot after the gap on.
            assert [event.sequence for event in await history(store, "a", after=3)] == [4]
