from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from oms_events.errors import (
    ConditionFailedError,
    InvalidEventError,
    OutboxClosedError,
    OutboxLimitError,
    StorageRejectedError,
)
from oms_events.oms.service import EnhancedEventService
from oms_events.outbox.config import WriterConfig
from oms_events.outbox.limits import MAX_BYTES
from oms_events.outbox.outbox import MemoryOutbox, Outbox
from oms_events.outbox.schema import item_size
from oms_events.outbox.signals import Committed, Voided
from oms_events.outbox.transaction import Transaction
from tests.outbox.writing import FaultyStore, event, ids_of, listen, longest, order, records_of, transact


def _outbox(store: FaultyStore | None = None) -> Outbox:
    return Outbox(store or FaultyStore(), WriterConfig())


# ---------------------------------------------------------------------- all or nothing


async def test_one_call_has_the_business_write_and_the_event() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    placed = event()
    async with outbox.transaction() as tx:
        tx.put("orders", order(), condition="attribute_not_exists(pk)")
        tx.add(placed)
        assert store.commits == []
    ((actions, token),) = store.commits
    assert [next(iter(action)) for action in actions] == ["Put", "Put"]
    assert len(token) <= 36
    assert await ids_of(outbox) == [placed.get_id()]


async def test_nothing_is_sent_when_the_body_raises() -> None:
    store = FaultyStore()

    def fail(tx: Transaction) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await transact(_outbox(store), lambda tx: tx.put("orders", order()), lambda tx: tx.add(event()), fail)
    assert store.commits == []
    assert store.reserved == []


async def test_an_empty_transaction_sends_nothing() -> None:
    store = FaultyStore()
    async with _outbox(store).transaction():
        pass
    assert store.commits == []


async def test_a_transaction_without_events_reserves_nothing_and_tells_nobody() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    heard = listen(outbox)
    async with outbox.transaction() as tx:
        tx.put("orders", order())
    assert len(store.committed) == 1
    assert store.reserved == []
    assert heard == []


async def test_events_of_a_key_keep_the_order_in_which_they_were_added() -> None:
    outbox = _outbox()
    events = [event() for _ in range(20)]
    async with outbox.transaction() as tx:
        for one in events:
            tx.add(one)
    assert await ids_of(outbox) == [one.get_id() for one in events]


# ---------------------------------------------------------------------- the actions


async def test_items_are_python_values_and_expressions_are_dynamodbs() -> None:
    store = FaultyStore()
    async with _outbox(store).transaction() as tx:
        tx.put(
            "orders",
            {"pk": "a", "total": Decimal("1.50"), "paid": False, "note": None, "raw": b"\x00", "tags": {"x"}},
            condition="attribute_not_exists(#p) OR version = :old",
            names={"#p": "pk"},
            values={":old": 3},
        )
        tx.update("stock", {"sku": "s"}, "SET n = n - :one", condition="n >= :one", values={":one": 1})
        tx.delete("carts", {"id": 7}, condition="attribute_exists(id)")
        tx.check("users", {"id": "u"}, "active = :yes", values={":yes": True})
        tx.add_action({"Delete": {"TableName": "raw", "Key": {"id": {"S": "r"}}}})
    ((actions, _),) = store.commits
    assert actions == [
        {
            "Put": {
                "TableName": "orders",
                "Item": {
                    "pk": {"S": "a"},
                    "total": {"N": "1.50"},
                    "paid": {"BOOL": False},
                    "note": {"NULL": True},
                    "raw": {"B": b"\x00"},
                    "tags": {"SS": ["x"]},
                },
                "ConditionExpression": "attribute_not_exists(#p) OR version = :old",
                "ExpressionAttributeNames": {"#p": "pk"},
                "ExpressionAttributeValues": {":old": {"N": "3"}},
            }
        },
        {
            "Update": {
                "TableName": "stock",
                "Key": {"sku": {"S": "s"}},
                "UpdateExpression": "SET n = n - :one",
                "ConditionExpression": "n >= :one",
                "ExpressionAttributeValues": {":one": {"N": "1"}},
            }
        },
        {
            "Delete": {
                "TableName": "carts",
                "Key": {"id": {"N": "7"}},
                "ConditionExpression": "attribute_exists(id)",
            }
        },
        {
            "ConditionCheck": {
                "TableName": "users",
                "Key": {"id": {"S": "u"}},
                "ConditionExpression": "active = :yes",
                "ExpressionAttributeValues": {":yes": {"BOOL": True}},
            }
        },
        {"Delete": {"TableName": "raw", "Key": {"id": {"S": "r"}}}},
    ]


async def test_a_value_that_dynamodb_does_not_have_is_refused_where_it_is_given() -> None:
    async with _outbox().transaction() as tx:
        with pytest.raises(StorageRejectedError, match=r"item\.when"):
            tx.put("orders", {"pk": "a", "when": object()})


async def test_an_action_is_copied_where_it_is_added() -> None:
    store = FaultyStore()
    item = {"pk": {"S": "a"}, "raw": {"B": bytearray(b"\x00")}}
    async with _outbox(store).transaction() as tx:
        tx.add_action({"Put": {"TableName": "orders", "Item": item}})
        item["pk"] = {"S": "changed"}
    ((actions, _),) = store.commits
    assert actions == [{"Put": {"TableName": "orders", "Item": {"pk": {"S": "a"}, "raw": {"B": b"\x00"}}}}]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"Put": None}, "action 1: Put is NoneType"),
        ({"Put": {"TableName": "t"}}, "action 1: Put has no Item"),
        ({"Update": {"TableName": "t"}}, "action 1: Update has no Key, UpdateExpression"),
        ({"ConditionCheck": {"TableName": "t", "Key": {}}}, "action 1: ConditionCheck has no ConditionExpression"),
        ({"Put": {"TableName": 5, "Item": {}}}, r"action 1: Put\.TableName = 5: give text"),
        ({"Put": {"TableName": "t", "Item": {"pk": "a"}}}, r"action 1: Put\.Item\.pk = 'a': give a value"),
        ({"Put": {"TableName": "t", "Item": {"n": {"N": 5}}}}, r"action 1: Put\.Item\.n = 5: give text"),
        ({"Delete": {"TableName": "t", "Key": {"n": {}}}}, r"action 1: Delete\.Key\.n = {}"),
        ({"Delete": {"TableName": "t", "Key": {}, "Keys": {}}}, r"action 1: Delete\.Keys is none of"),
        (
            {"Delete": {"TableName": "t", "Key": {}, "ExpressionAttributeNames": {"#a": 1}}},
            r"action 1: Delete\.ExpressionAttributeNames\['#a'\] = 1: give text",
        ),
        (
            {"Delete": {"TableName": "t", "Key": {}, "ExpressionAttributeValues": {":a": 1}}},
            r"action 1: Delete\.ExpressionAttributeValues\.:a = 1",
        ),
        ({"Delete": {"TableName": "t", "Key": {}, "ConditionExpression": "\ud800"}}, "has a lone surrogate"),
        (5, "action 1: an action has one key.* this one has 'int'"),
    ],
)
async def test_a_malformed_action_is_told_by_its_place_and_field(action: Any, message: str) -> None:
    store = FaultyStore()
    async with _outbox(store).transaction() as tx:
        tx.add(event())
        with pytest.raises(StorageRejectedError, match=message):
            tx.add_action(action)
        assert store.reserved == []


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda tx: tx.put("orders", {"pk": "\ud800"}), r"item\.pk has a lone surrogate"),
        (lambda tx: tx.put(None, order()), "table = None: give text"),
        (lambda tx: tx.put("orders", order(), condition=True), "condition = True: give text"),
        (lambda tx: tx.put("orders", order(), names={"#p": None}), r"names\['#p'\] = None: give text"),
        (lambda tx: tx.delete("orders", {"pk": "a"}, values={":v": "\udfff"}), r"values\.:v has a lone surrogate"),
        (lambda tx: tx.update("orders", {"pk": "a"}, "SET a = \ud800"), "update has a lone surrogate"),
    ],
)
async def test_what_the_wire_cannot_carry_is_told_by_its_path(
    step: Callable[[Transaction], None], message: str
) -> None:
    async with _outbox().transaction() as tx:
        with pytest.raises(StorageRejectedError, match=message):
            step(tx)


@pytest.mark.parametrize("action", [{}, {"Get": {}}, {"Put": {}, "Delete": {}}])
async def test_what_is_no_action_is_refused_where_it_is_added(action: dict[str, Any]) -> None:
    async with _outbox().transaction() as tx:
        with pytest.raises(StorageRejectedError, match="an action has one key, of Put, Update, Delete, Cond"):
            tx.add_action(action)


async def test_what_is_no_event_is_refused_where_it_is_added() -> None:
    async with _outbox().transaction() as tx:
        with pytest.raises(InvalidEventError):
            tx.add({"type": "no event"})


# ---------------------------------------------------------------------- one use


async def test_a_transaction_is_used_once_and_only_inside_its_block() -> None:
    store = FaultyStore()
    tx = _outbox(store).transaction()
    with pytest.raises(OutboxClosedError):
        tx.add(event())
    async with tx:
        tx.add(event())
    with pytest.raises(OutboxClosedError):
        tx.put("orders", order())
    with pytest.raises(OutboxClosedError, match="make another"):
        async with tx:
            pass
    assert len(store.commits) == 1


# ---------------------------------------------------------------------- limits


async def test_more_than_100_actions_are_refused_where_the_101st_is_added() -> None:
    store = FaultyStore()
    steps = [*[lambda tx: tx.put("orders", order())] * 60, *[lambda tx: tx.add(event())] * 41]
    with pytest.raises(OutboxLimitError, match="101 actions") as caught:
        await transact(_outbox(store), *steps)
    assert (caught.value.limit, caught.value.actual) == (100, 101)
    assert store.commits == []


async def test_100_actions_are_fine() -> None:
    store = FaultyStore()
    async with _outbox(store).transaction() as tx:
        for number in range(50):
            tx.put("orders", order(str(number)))
            tx.add(event())
    assert len(store.commits[0][0]) == 100


async def test_an_item_over_400_kb_is_refused_before_anything_is_sent() -> None:
    store = FaultyStore()
    async with _outbox(store).transaction() as tx:
        tx.put("orders", {"pk": "fits", "text": "x" * (400 * 1024 - 10)})
        with pytest.raises(OutboxLimitError, match="the item for table 'orders' has 409601 bytes") as caught:
            tx.put("orders", {"pk": "fits", "text": "x" * (400 * 1024 - 9)})
    assert (caught.value.limit, caught.value.actual) == (409_600, 409_601)
    assert len(store.commits[0][0]) == 1


async def test_more_than_4_mb_are_refused_before_anything_is_sent() -> None:
    store = FaultyStore()
    steps = [
        *[lambda tx: tx.put("orders", {"pk": "a", "text": "x" * 400_000})] * 5,
        *[lambda tx: tx.add(event(data={"text": "x" * 370_000}))] * 6,
    ]
    with pytest.raises(OutboxLimitError, match="a transaction takes 4194304") as caught:
        await transact(_outbox(store), *steps)
    assert caught.value.limit == 4 * 1024 * 1024
    assert store.commits == []


@pytest.mark.parametrize("key", ["k", "ü" * 3000])
@pytest.mark.parametrize(("data", "content_type"), [("x", "text/plain"), (b"x", None), ("x", None)])
async def test_the_largest_event_that_is_taken_is_committed(
    data: str | bytes, content_type: str | None, key: str
) -> None:
    store = FaultyStore()
    outbox = Outbox(store, WriterConfig(key_of=lambda _: key))
    await outbox.add(await longest(outbox, lambda size: event(None, data * size, datacontenttype=content_type)))
    (record,) = await records_of(outbox, key)
    assert record.key == key


async def test_an_event_too_large_for_an_item_is_named_with_the_remedy() -> None:
    store = FaultyStore()
    with pytest.raises(OutboxLimitError, match=r"event 'big' has .* bytes.* configure a claim check"):
        await transact(
            _outbox(store),
            lambda tx: tx.put("orders", order()),
            lambda tx: tx.add(event(id="big", data={"text": "x" * 410_000})),
        )
    assert store.commits == []
    assert store.reserved == []


# ---------------------------------------------------------------------- conditions


async def test_a_failed_condition_names_the_action_and_leaves_nothing() -> None:
    outbox = MemoryOutbox(refuse=lambda action: action.get("Put", {}).get("TableName") == "orders")
    heard = listen(outbox)
    with pytest.raises(ConditionFailedError, match=r"action 1 \(Put, table 'orders'\)") as caught:
        await transact(
            outbox,
            lambda tx: tx.add(event()),
            lambda tx: tx.put("orders", order(), condition="attribute_not_exists(pk)"),
            lambda tx: tx.delete("carts", {"id": 1}),
        )
    assert list(caught.value.reasons) == ["None", "ConditionalCheckFailed", "None"]
    assert await records_of(outbox) == []
    assert outbox.store.committed == []
    assert [type(signal) for signal in heard] == [Voided]


async def test_a_taken_sequence_number_names_the_event_and_asks_for_the_counters() -> None:
    store = FaultyStore()
    first, second = Outbox(store, WriterConfig()), Outbox(FaultyStore(), WriterConfig())
    await first.add(event())
    # A store whose counters begin again over the same records, as after a restore of some items only.
    second.store._rows = store._rows  # type: ignore[attr-defined]
    with pytest.raises(ConditionFailedError, match=r"action 0 \(event new@/orders, .* counters") as caught:
        await second.add(event(id="new"))
    assert list(caught.value.reasons) == ["ConditionalCheckFailed"]


# ---------------------------------------------------------------------- signals


async def test_listeners_hear_of_commits_with_the_records_as_they_are_stored() -> None:
    outbox = _outbox()
    heard = listen(outbox)
    placed = event()
    await outbox.add(placed)
    ((committed),) = heard
    assert isinstance(committed, Committed)
    (record,) = committed.records
    (stored,) = await records_of(outbox)
    assert (record.partition, record.sk, record.key) == (stored.partition, stored.sk, stored.key)
    assert record.event.id == placed.get_id()


async def test_who_has_left_hears_no_more() -> None:
    outbox = _outbox()
    heard: list[object] = []
    leave = outbox.subscribe(heard.append)
    await outbox.add(event())
    leave()
    leave()
    await outbox.add(event())
    assert len(heard) == 1


async def test_an_error_in_a_listener_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    outbox = _outbox()

    def fail(signal: object) -> None:
        raise RuntimeError("broken listener")

    outbox.subscribe(fail)
    heard = listen(outbox)
    with caplog.at_level(logging.ERROR, "oms_events"):
        await outbox.add(event())
    assert "broken listener" in caplog.text
    assert len(heard) == 1


# ---------------------------------------------------------------------- adding without a transaction


async def test_add_many_takes_as_many_transactions_as_it_needs_and_keeps_the_order() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    events = [event() for _ in range(230)]
    await outbox.add_many(events)
    assert [len(actions) for actions, _ in store.commits] == [100, 100, 30]
    found = [record.event.id for record in await _all(outbox) if record.event is not None]
    assert found == [one.get_id() for one in events]


async def _all(outbox: Outbox) -> list[Any]:
    (partition,) = {record.partition for record in await records_of(outbox)}
    page = await outbox.store.read(partition, limit=1000)
    return list(page.records)


async def test_add_many_begins_a_new_transaction_at_4_mb() -> None:
    store = FaultyStore()
    await _outbox(store).add_many([event(data={"text": "x" * 380_000}) for _ in range(12)])
    assert [len(actions) for actions, _ in store.commits] == [11, 1]


async def test_no_transaction_of_add_many_has_more_than_4_mb() -> None:
    store = FaultyStore()
    await _outbox(store).add_many([event("k" * 2000, "x" * 39_500) for _ in range(100)])
    sizes = [sum(item_size(action["Put"]["Item"]) for action in actions) for actions, _ in store.commits]
    assert len(sizes) == 2
    assert MAX_BYTES - 50_000 < sizes[0] <= MAX_BYTES


async def test_add_many_adds_nothing_when_one_event_is_a_little_too_large() -> None:
    store = FaultyStore()
    outbox = _outbox(store)
    fits = await longest(outbox, lambda size: event("A", "x" * size))
    over = event("A", str(fits.get_data()) + "x" * 40)
    with pytest.raises(OutboxLimitError) as caught:
        await outbox.add_many([*[event("B")] * 100, over])
    assert not hasattr(caught.value, "__notes__")
    assert store.commits == []


async def test_add_many_adds_nothing_when_one_event_is_invalid() -> None:
    store = FaultyStore()
    with pytest.raises(InvalidEventError):
        await _outbox(store).add_many([*(event() for _ in range(150)), "no event"])
    assert store.commits == []


async def test_add_many_tells_how_many_were_added_before_it_failed() -> None:
    store = FaultyStore()
    store.before.extend([None, StorageRejectedError("broken")])
    with pytest.raises(StorageRejectedError) as caught:
        await _outbox(store).add_many([event() for _ in range(150)])
    assert caught.value.__notes__ == ["100 of 150 events were added before"]


async def test_the_event_service_writes_through_the_outbox() -> None:
    outbox = MemoryOutbox()
    placed = event()
    async with EnhancedEventService(outbox=outbox) as service:
        assert await service.publish_event(placed) is None
    assert await ids_of(outbox) == [placed.get_id()]


# ---------------------------------------------------------------------- opening and closing


async def test_an_outbox_that_is_closed_while_it_opens_stays_closed() -> None:
    outbox = _outbox()
    opening = asyncio.create_task(outbox.open())
    await asyncio.sleep(0)
    await outbox.close()
    await opening
    with pytest.raises(OutboxClosedError):
        await outbox.add(event())


async def test_a_closed_outbox_takes_nothing() -> None:
    async with _outbox() as outbox:
        await outbox.add(event())
    await outbox.close()
    with pytest.raises(OutboxClosedError):
        await outbox.add(event())
    with pytest.raises(OutboxClosedError):
        async with outbox.transaction():
            pass
