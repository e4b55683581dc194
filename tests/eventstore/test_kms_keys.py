"""Keys of people that KMS wraps: on the emulator's KMS, and what its refusals mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms_events._aws.dynamodb import DynamoClient
from oms_events.devstack import Delay, Denied, FaultProxy, Hang, LoseAnswer, ServerError, Throttle
from oms_events.errors import (
    ConfigurationError,
    PersonalDataError,
    StorageDeniedError,
    StorageRejectedError,
    StorageUnavailableError,
)
from oms_events.eventstore.config import KmsConfig, PersonalKeysConfig
from oms_events.eventstore.personal.dynamodb import DynamoDBSubjectKeys
from oms_events.eventstore.personal.keys import SubjectKey
from oms_events.eventstore.personal.kms import KmsKeyWrapper
from oms_events.eventstore.schema import PERSONAL_KEYS
from oms_events.resilience.backoff import RetryConfig
from oms_events.testing.subject_keys_contract import SubjectKeysContract, secret_of
from tests.eventstore.support import fresh_table
from tests.outbox.support import Settings, items_of, session_of

ANN = "customer-1"
KEY = bytes(range(32))


@pytest.fixture(scope="module")
async def kms(aws: Settings) -> AsyncIterator[Any]:
    async with session_of(aws).client("kms", endpoint_url=aws["endpoint_url"]) as client:
        yield client


@pytest.fixture(scope="module")
async def key_id(kms: Any) -> str:
    created = await kms.create_key(Description="people's keys")
    return str(created["KeyMetadata"]["KeyId"])


@pytest.fixture
async def wrapper(aws: Settings, key_id: str) -> AsyncIterator[KmsKeyWrapper]:
    async with KmsKeyWrapper(KmsConfig(key_id=key_id, **aws)) as wrapper:
        yield wrapper


@pytest.fixture(scope="module")
async def shared_table(dynamo: DynamoClient) -> AsyncIterator[str]:
    async with fresh_table(dynamo, PERSONAL_KEYS, "personal-keys") as name:
        yield name


class TestDynamoDBWithKms(SubjectKeysContract):
    @pytest.fixture
    async def keys(
        self, aws: Settings, shared_table: str, wrapper: KmsKeyWrapper
    ) -> AsyncIterator[DynamoDBSubjectKeys]:
        config = PersonalKeysConfig(table_name=shared_table, **aws)
        async with DynamoDBSubjectKeys(config, wrapper=wrapper) as keys:
            yield keys

    async def test_the_key_is_stored_only_as_kms_wrote_it(
        self, keys: DynamoDBSubjectKeys, dynamo: DynamoClient, wrapper: KmsKeyWrapper
    ) -> None:
        key = await keys.get_or_create(ANN)
        (item,) = [item for item in await items_of(dynamo, keys.name) if item["Subject"] == ANN]
        assert secret_of(key) not in item["DataKey"]
        assert await wrapper.unwrap(item["DataKey"], subject=ANN) == secret_of(key)
        # Stored for one person, it is of no use for another.
        moved = {"Subject": {"S": "bob"}, "KeyVersion": {"N": "1"}, "DataKey": {"B": item["DataKey"]}}
        await dynamo.call("PutItem", {"TableName": keys.name, "Item": moved}, table=keys.name)
        with pytest.raises(PersonalDataError, match="'bob' was not wrapped by this KMS key, or not for") as caught:
            await keys.get(["bob", ANN])
        assert caught.value.subject == "bob"
        await keys.delete("bob")
        assert await keys.get_or_create("bob") == SubjectKey(1, None)


async def test_it_opens_by_itself_and_after_it_was_closed_only_when_it_is_told_to(
    aws: Settings, key_id: str
) -> None:
    wrapper = KmsKeyWrapper(KmsConfig(key_id=key_id, **aws))
    wrapped = await wrapper.wrap(KEY, subject=ANN)
    for _ in range(2):
        await wrapper.close()
        with pytest.raises(StorageUnavailableError, match="the connection to KMS was closed"):
            await wrapper.unwrap(wrapped, subject=ANN)
    await wrapper.open()
    assert await wrapper.unwrap(wrapped, subject=ANN) == KEY
    await wrapper.close()


async def test_a_borrowed_client_does_as_well_and_stays_open(
    kms: Any, key_id: str, wrapper: KmsKeyWrapper
) -> None:
    async with KmsKeyWrapper(KmsConfig(key_id=key_id), client=kms) as borrowed:
        wrapped = await borrowed.wrap(KEY, subject=ANN)
    await kms.list_keys()
    assert await wrapper.unwrap(wrapped, subject=ANN) == KEY


async def test_what_is_cancelled_inside_does_not_look_as_if_the_caller_had_to_end(
    aws: Settings, key_id: str
) -> None:
    async def look_up(**_: Any) -> None:
        raise asyncio.CancelledError

    async with session_of(aws).client("kms", endpoint_url=aws["endpoint_url"]) as client:
        client.meta.events.register("before-send", look_up)
        retry = RetryConfig(max_attempts=1)
        async with KmsKeyWrapper(KmsConfig(key_id=key_id, retry=retry), client=client) as wrapper:
            with pytest.raises(StorageUnavailableError, match="what waited for the answer was cancelled"):
                await wrapper.wrap(KEY, subject=ANN)


async def test_another_key_may_follow_while_the_old_one_can_be_used(kms: Any, aws: Settings, wrapper: Any) -> None:
    before = await wrapper.wrap(KEY, subject=ANN)
    created = await kms.create_key()
    async with KmsKeyWrapper(KmsConfig(key_id=created["KeyMetadata"]["KeyId"], **aws)) as newer:
        assert await newer.unwrap(before, subject=ANN) == KEY
        await kms.disable_key(KeyId=created["KeyMetadata"]["KeyId"])
        with pytest.raises(StorageDeniedError, match="that it is enabled") as caught:
            await newer.wrap(KEY, subject=ANN)
        assert caught.value.code in ("DisabledException", "KMSInvalidStateException")


async def test_a_missing_key_is_told(aws: Settings) -> None:
    missing = "00000000-0000-0000-0000-000000000000"
    async with KmsKeyWrapper(KmsConfig(key_id=missing, **aws)) as wrapper:
        with pytest.raises(StorageDeniedError, match=r"KMS Encrypt: .*check the key's id and Region"):
            await wrapper.wrap(KEY, subject=ANN)


async def test_what_is_no_wrapped_key_is_told(wrapper: KmsKeyWrapper) -> None:
    with pytest.raises(PersonalDataError, match="'customer-1' was not wrapped by this KMS key"):
        await wrapper.unwrap(b"nothing of KMS", subject=ANN)


async def test_a_region_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="aws_region"):
        await KmsKeyWrapper(KmsConfig(key_id="alias/people")).open()


# ---------------------------------------------------------------------- faults


@pytest.fixture
async def faulty(aws: Settings, key_id: str, oms_fault_proxy: FaultProxy) -> AsyncIterator[KmsKeyWrapper]:
    fields = {**aws, "endpoint_url": oms_fault_proxy.endpoint_url}
    retry = RetryConfig(max_attempts=3, initial=0.001, maximum=0.01)
    async with KmsKeyWrapper(KmsConfig(key_id=key_id, retry=retry, **fields)) as wrapper:
        yield wrapper


@pytest.mark.parametrize("fault", [LoseAnswer(), Throttle(), ServerError()])
async def test_calls_are_tried_again_and_then_given_up(
    faulty: KmsKeyWrapper, oms_fault_proxy: FaultProxy, fault: Any
) -> None:
    oms_fault_proxy.script(fault, fault)
    wrapped = await faulty.wrap(KEY, subject=ANN)
    oms_fault_proxy.script(fault, fault)
    assert await faulty.unwrap(wrapped, subject=ANN) == KEY
    oms_fault_proxy.always(fault)
    with pytest.raises(StorageUnavailableError, match="KMS Decrypt"):
        await faulty.unwrap(wrapped, subject=ANN)
    assert len(oms_fault_proxy.calls) == 9


async def test_a_call_without_an_answer_is_given_up(
    aws: Settings, key_id: str, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(Hang())
    fields = {**aws, "endpoint_url": oms_fault_proxy.endpoint_url, "read_timeout": 0.1, "connect_timeout": 0.1}
    async with KmsKeyWrapper(KmsConfig(key_id=key_id, retry=RetryConfig(max_attempts=1), **fields)) as wrapper:
        with pytest.raises(StorageUnavailableError, match="KMS Encrypt"):
            await wrapper.wrap(KEY, subject=ANN)


async def test_a_missing_permission_is_named(faulty: KmsKeyWrapper, oms_fault_proxy: FaultProxy) -> None:
    oms_fault_proxy.always(Denied())
    with pytest.raises(StorageDeniedError, match="allow kms:Encrypt on the key to these credentials"):
        await faulty.wrap(KEY, subject=ANN)
    oms_fault_proxy.always(Denied(code="ExpiredTokenException"))
    with pytest.raises(StorageDeniedError, match="ExpiredTokenException") as caught:
        await faulty.wrap(KEY, subject=ANN)
    assert "allow" not in str(caught.value)
    assert len(oms_fault_proxy.calls) == 2


async def test_what_kms_can_never_do_is_not_tried_again(
    faulty: KmsKeyWrapper, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(Denied(code="ValidationException"))
    with pytest.raises(StorageRejectedError, match="ValidationException"):
        await faulty.unwrap(b"x", subject=ANN)
    assert len(oms_fault_proxy.calls) == 1


async def test_calls_wait_for_a_connection_without_losing_their_own_time(
    aws: Settings, key_id: str, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(Delay(0.15))
    fields = {**aws, "endpoint_url": oms_fault_proxy.endpoint_url, "read_timeout": 0.5, "connect_timeout": 0.5}
    config = KmsConfig(key_id=key_id, connections=1, retry=RetryConfig(max_attempts=1), **fields)
    async with KmsKeyWrapper(config) as wrapper:
        # Together they take longer than one call may.
        await asyncio.gather(*(wrapper.wrap(KEY, subject=ANN) for _ in range(5)))
    assert len(oms_fault_proxy.calls) == 5
