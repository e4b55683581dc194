"""The keys of people: in memory, on DynamoDB, wrapped or not, and what lost answers leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events._aws.marshal import from_item
from oms_events.devstack import FaultProxy, Hang, LoseAnswer, Throttle
from oms_events.errors import ConfigurationError, PersonalDataError, StorageUnavailableError
from oms_events.eventstore.config import PersonalKeysConfig
from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys
from oms_events.eventstore.personal.keys import KEY_BYTES, MemorySubjectKeys, SubjectKey
from oms_events.eventstore.schema import PERSONAL_KEYS, SNAPSHOTS
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing import ManualClock
from oms_events.testing.subject_keys_contract import SubjectKeysContract, secret_of
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings, items_of, session_of

Open = Callable[..., Any]
ANN = "customer-1"


class Reversed:
    """A wrapper that shows for whom it was used."""

    async def wrap(self, key: bytes, *, subject: str) -> bytes:
        return subject.encode() + b"|" + key[::-1]

    async def unwrap(self, wrapped: bytes, *, subject: str) -> bytes:
        await asyncio.sleep(0)
        name, _, key = wrapped.partition(b"|")
        if name != subject.encode():
            raise PersonalDataError("wrapped for somebody else", subject=subject)
        return key[::-1]


@pytest.fixture
async def table(dynamo: DynamoClient) -> AsyncIterator[str]:
    async with fresh_table(dynamo, PERSONAL_KEYS, "personal-keys") as name:
        yield name


@pytest.fixture
async def open_keys(aws: Settings, table: str) -> AsyncIterator[Open]:
    """Opens keys on this test's table, as another process would."""
    async with AsyncExitStack() as stack:

        async def open_more(*, options: Any = None, **fields: Any) -> DynamoDBSubjectKeys:
            config = PersonalKeysConfig(table_name=table, **{**aws, **fields})
            return await stack.enter_async_context(DynamoDBSubjectKeys(config, **(options or {})))

        yield open_more


class TestMemory(SubjectKeysContract):
    @pytest.fixture
    def keys(self) -> MemorySubjectKeys:
        return MemorySubjectKeys()


@pytest.fixture(scope="module")
async def shared_table(dynamo: DynamoClient) -> AsyncIterator[str]:
    """A table for all tests of the contract: each has people of its own."""
    async with fresh_table(dynamo, PERSONAL_KEYS, "personal-keys") as name:
        yield name


class TestDynamoDB(SubjectKeysContract):
    """Wrapped keys pass it with KMS."""

    @pytest.fixture
    async def keys(self, aws: Settings, shared_table: str) -> AsyncIterator[DynamoDBSubjectKeys]:
        async with DynamoDBSubjectKeys(PersonalKeysConfig(table_name=shared_table, **aws)) as keys:
            yield keys


async def test_two_processes_that_write_at_once_have_the_same_keys(open_keys: Open) -> None:
    processes = [await open_keys() for _ in range(3)]
    for number in range(10):
        made = await asyncio.gather(*(keys.get_or_create(f"person-{number}") for keys in processes))
        assert len(set(map(secret_of, made))) == 1


async def test_the_item_is_as_documented_and_keeps_nothing_of_a_deleted_key(
    open_keys: Open, dynamo: DynamoClient, table: str
) -> None:
    keys = await open_keys(options={"clock": ManualClock()})
    key = await keys.get_or_create(ANN)
    at = "2026-01-01T00:00:00+00:00"
    assert await items_of(dynamo, table) == [
        {"Subject": ANN, "KeyVersion": 1, "DataKey": secret_of(key), "CreatedAt": at}
    ]
    await keys.delete(ANN)
    assert await items_of(dynamo, table) == [{"Subject": ANN, "KeyVersion": 1, "ForgottenAt": at}]


async def test_a_wrapped_key_is_stored_only_wrapped_and_deleted_without_unwrapping(
    open_keys: Open, dynamo: DynamoClient, table: str
) -> None:
    wrapped, plain = await open_keys(options={"wrapper": Reversed()}), await open_keys()
    key = await wrapped.get_or_create(ANN)
    (item,) = await items_of(dynamo, table)
    assert item["DataKey"] == ANN.encode() + b"|" + secret_of(key)[::-1]
    # Whoever forgets need not be able to read.
    await plain.delete(ANN)
    assert await wrapped.get_or_create(ANN) == SubjectKey(1, None)


async def test_a_key_that_cannot_be_unwrapped_names_its_person(
    open_keys: Open, dynamo: DynamoClient, table: str
) -> None:
    keys = await open_keys(options={"wrapper": Reversed()})
    await asyncio.gather(*(keys.get_or_create(f"person-{number}") for number in range(30)))
    stolen = {"Subject": {"S": ANN}, "KeyVersion": {"N": "1"}, "DataKey": {"B": b"person-1|abc"}}
    await dynamo.call("PutItem", {"TableName": table, "Item": stolen}, table=table)
    with pytest.raises(PersonalDataError, match="somebody else") as caught:
        await keys.get([ANN, "person-1"])
    assert caught.value.subject == ANN


@pytest.mark.parametrize("item", [{}, {"KeyVersion": {"S": "1"}, "DataKey": {"B": b"k" * KEY_BYTES}}])
async def test_an_item_that_is_no_key_is_told_without_what_is_in_it(
    open_keys: Open, dynamo: DynamoClient, table: str, item: dict[str, Any]
) -> None:
    await dynamo.call("PutItem", {"TableName": table, "Item": {"Subject": {"S": ANN}, **item}}, table=table)
    keys = await open_keys()
    for act in (keys.get_or_create(ANN), keys.get([ANN]), keys.delete(ANN)):
        with pytest.raises(
            PersonalDataError, match="what is stored as the key of subject 'customer-1' is none"
        ) as e:
            await act
        assert "kkkk" not in repr(e.value)
        assert "a2tr" not in repr(e.value)


async def test_a_borrowed_client_does_as_well(aws: Settings, open_keys: Open) -> None:
    own = await open_keys()
    async with session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"]) as client:
        keys = await open_keys(options={"client": client})
        key = await keys.get_or_create(ANN)
        assert dict(await keys.get([ANN])) == {ANN: key} == dict(await own.get([ANN]))
        await keys.delete(ANN)
        await client.list_tables()
    assert await own.get_or_create(ANN) == SubjectKey(1, None)


async def test_a_table_of_another_shape_is_refused(aws: Settings, dynamo: DynamoClient) -> None:
    async with fresh_table(dynamo, SNAPSHOTS, "snapshots") as name:
        with pytest.raises(ConfigurationError, match=r"Subject \(S, HASH\)"):
            await DynamoDBSubjectKeys(PersonalKeysConfig(table_name=name, **aws)).open()


# ---------------------------------------------------------------------- faults


@pytest.fixture
async def faulty(oms_fault_proxy: FaultProxy, open_keys: Open) -> DynamoDBSubjectKeys:
    """Keys that are reached through the proxy."""
    retry = RetryConfig(max_attempts=4, initial=0.001, maximum=0.01)
    fields = {"endpoint_url": oms_fault_proxy.endpoint_url, "read_timeout": 0.5, "retry": retry}
    keys: DynamoDBSubjectKeys = await open_keys(**fields)
    await keys.get_or_create("warm-up")
    oms_fault_proxy.forget_calls()
    return keys


@pytest.mark.parametrize("fault", [LoseAnswer(), Throttle()])
async def test_a_write_that_is_repeated_makes_one_key(
    faulty: DynamoDBSubjectKeys, oms_fault_proxy: FaultProxy, fault: Any
) -> None:
    oms_fault_proxy.script(fault, operation="PutItem")
    key = await faulty.get_or_create(ANN)
    assert len(oms_fault_proxy.calls_of("PutItem")) == 2
    assert dict(await faulty.get([ANN])) == {ANN: key}
    oms_fault_proxy.script(fault, operation="UpdateItem")
    await faulty.delete(ANN)
    oms_fault_proxy.script(fault, operation="PutItem")
    key = await faulty.renew(ANN)
    assert dict(await faulty.get([ANN])) == {ANN: key}
    assert key.version == 2


async def test_an_unknown_person_is_forgotten_though_the_answer_is_lost(
    faulty: DynamoDBSubjectKeys, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(LoseAnswer(), operation="UpdateItem")
    await faulty.delete(ANN)
    assert await faulty.get_or_create(ANN) == SubjectKey(0, None)


async def test_a_deletion_that_comes_late_leaves_a_newer_key_alone(
    open_keys: Open, dynamo: DynamoClient, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await open_keys()
    await keys.get_or_create(ANN)
    sent: list[dict[str, Any]] = []
    call = keys.repeat

    async def noted(operation: str, **parameters: Any) -> Any:
        if operation == "UpdateItem":
            sent.append(parameters)
        return await call(operation, **parameters)

    monkeypatch.setattr(keys, "repeat", noted)
    await keys.delete(ANN)
    key = await keys.renew(ANN)
    # The same request once more: one that hung in the network until now.
    with pytest.raises(Exception, match="conditional request failed"):
        await call("UpdateItem", **sent[0])
    assert dict(await keys.get([ANN])) == {ANN: key}


async def test_reads_are_tried_again_and_then_given_up(
    faulty: DynamoDBSubjectKeys, oms_fault_proxy: FaultProxy
) -> None:
    key = await faulty.get_or_create(ANN)
    oms_fault_proxy.script(Throttle(), LoseAnswer(), operation="BatchGetItem")
    assert dict(await faulty.get([ANN])) == {ANN: key}
    oms_fault_proxy.always(Throttle(), operation="BatchGetItem")
    with pytest.raises(StorageUnavailableError):
        await faulty.get([ANN])


class Hurried:
    """A `dynamodb` client whose DynamoDB reads only some keys of a batch, and at last none."""

    def __init__(self, client: Any, *limits: int) -> None:
        self._client = client
        self._limits = list(limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def batch_get_item(self, **parameters: Any) -> Any:
        limit = self._limits.pop(0)
        ((table, request),) = parameters["RequestItems"].items()
        now, later = request["Keys"][:limit], request["Keys"][limit:]
        answer: Any = {"Responses": {table: []}}
        if now:
            answer = await self._client.batch_get_item(RequestItems={table: {**request, "Keys": now}})
        return {**answer, "UnprocessedKeys": {table: {**request, "Keys": later}} if later else {}}


async def test_keys_that_were_left_unread_are_read_later_or_told(aws: Settings, open_keys: Open) -> None:
    retry = RetryConfig(max_attempts=3, initial=0.001, maximum=0.01)
    names = [f"person-{number}" for number in range(12)]
    async with session_of(aws).client("dynamodb", endpoint_url=aws["endpoint_url"]) as client:
        keys = await open_keys(options={"client": Hurried(client, 5, 0, 3, 0, 9, 5, 0, 0, 0, 0)}, retry=retry)
        made = {name: await keys.get_or_create(name) for name in names}
        assert dict(await keys.get(names)) == made
        with pytest.raises(StorageUnavailableError, match="leaves keys unread"):
            await keys.get(names)


async def test_a_cancelled_deletion_may_be_done_again(
    faulty: DynamoDBSubjectKeys, oms_fault_proxy: FaultProxy, dynamo: DynamoClient, table: str
) -> None:
    await faulty.get_or_create(ANN)
    oms_fault_proxy.script(Hang(), operation="UpdateItem")
    deleting = asyncio.create_task(faulty.delete(ANN))
    await oms_fault_proxy.wait_for_calls(1, operation="UpdateItem")
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    await faulty.delete(ANN)
    answer = await dynamo.call("GetItem", {"TableName": table, "Key": {"Subject": {"S": ANN}}}, table=table)
    assert "DataKey" not in from_item(answer["Item"])
