from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from oms_events.errors import ConditionFailedError
from oms_events.outbox.memory import MemoryOutboxStore
from oms_events.outbox.store import Action
from oms_events.testing.outbox_contract import OutboxStoreContract
from oms_events.testing.outbox_contract.support import make_record, read_all, sks


@pytest.fixture
async def store() -> AsyncIterator[MemoryOutboxStore]:
    store = MemoryOutboxStore()
    await store.open()
    yield store
    await store.close()


class TestMemoryOutboxStore(OutboxStoreContract):
    pass


_ORDER: Action = {"Put": {"TableName": "orders", "Item": {"pk": {"S": "order 1"}}}}
_STOCK: Action = {"Update": {"TableName": "stock", "Key": {"pk": {"S": "item 1"}}}}


async def test_keeps_the_business_actions_beside_the_records() -> None:
    store = MemoryOutboxStore()
    record = make_record(1)
    actions = [_ORDER, store.put_action(record), _STOCK]
    await store.commit(actions, "token")
    await store.commit(actions, "token")
    assert store.committed == [_ORDER, _STOCK]
    assert sks(await read_all(store)) == [record.sk]


async def test_a_refused_business_action_cancels_the_events_with_it() -> None:
    store = MemoryOutboxStore(refuse=lambda action: action is _STOCK)
    actions = [_ORDER, store.put_action(make_record(1)), _STOCK]
    with pytest.raises(ConditionFailedError) as refused:
        await store.commit(actions, uuid4().hex)
    assert list(refused.value.reasons) == ["None", "None", "ConditionalCheckFailed"]
    assert store.committed == []
    assert await read_all(store) == []


async def test_a_refused_record_cancels_the_business_actions_with_it() -> None:
    store = MemoryOutboxStore()
    await store.commit([store.put_action(make_record(1))], uuid4().hex)
    with pytest.raises(ConditionFailedError):
        await store.commit([_ORDER, store.put_action(make_record(1))], uuid4().hex)
    assert store.committed == []


async def test_writes_to_another_table_are_the_business_of_others() -> None:
    store, other = MemoryOutboxStore(table="outbox"), MemoryOutboxStore(table="outbox-2")
    await store.commit([other.put_action(make_record(1))], uuid4().hex)
    assert len(store.committed) == 1
    assert await read_all(store) == []
