from __future__ import annotations

from typing import Any

import pytest

from oms_events import build_event
from oms_events.errors import OutboxLimitError
from oms_events.events import encode
from oms_events.outbox import expressions, schema
from oms_events.outbox.records import (
    NEW,
    Bucket,
    DeadLetter,
    Lease,
    NewRecord,
    Partition,
    PlatformState,
    RecordState,
    partition_key,
    sequence_key,
)
from oms_events.publishing import Plan

PARTITION = Partition(Bucket(1, 3), keyed=True)
PLAN = Plan("orders", "ALL_PLATFORMS", ("nats", "eventbridge"), first_that_works=False)
ADDED = 1_767_225_600_000


def record(data: Any = None, **fields: Any) -> NewRecord:
    event = encode(build_event("com.foundry.oms.order.created", "/oms", data, id="e-1"))
    return NewRecord(PARTITION, sequence_key(7), "order-1", event, ADDED)._replace(**fields)


def letter(**fields: Any) -> DeadLetter:
    facts: dict[str, Any] = {
        "platform": "nats", "platforms": ("nats",), "key": "order-1", "event": record().event, "reason": "no",
        "code": "x", "attempts": 1, "added": ADDED, "failed": ADDED + 1, "origin": PARTITION,
        "origin_sk": sequence_key(7),
    }  # fmt: skip
    return DeadLetter(**{**facts, **fields})


# ---------------------------------------------------------------------- keys


def test_a_key_stays_in_its_bucket_in_every_release() -> None:
    # Another function would split a key over two buckets, and break its order.
    assert [schema.bucket_of(key, 32) for key in ("order-1", "order-2", "", "ключ")] == [29, 27, 20, 0]
    assert {schema.bucket_of(f"order-{number}", 32) for number in range(500)} == set(range(32))


@pytest.mark.parametrize("partition", [PARTITION, Partition(Bucket(12, 1023), keyed=False)])
def test_a_partition_is_read_from_its_key(partition: Partition) -> None:
    assert schema.parse_partition(partition_key(partition)) == partition


@pytest.mark.parametrize("pk", ["n#0001#0003", "dead", "k#1", "k#x#1"])
def test_other_keys_are_no_partitions(pk: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        schema.parse_partition(pk)


# ---------------------------------------------------------------------- records


def test_a_new_record_has_short_names_and_nothing_that_it_does_not_need() -> None:
    made = record({"n": 1})
    assert schema.record_item(made) == {
        "pk": {"S": "k#0001#0003"},
        "sk": {"S": "00000000000000000007"},
        "v": {"N": "1"},
        "k": {"S": "order-1"},
        "a": {"N": str(ADDED)},
        "g": {"N": "0"},
        "s": {"M": {}},
        "e": {"S": made.event.head.decode()},
        "d": {"S": '{"n":1}'},
    }


def test_a_record_that_nobody_has_tried_shares_one_state() -> None:
    assert schema.read_record(PARTITION, schema.record_item(record())).state is NEW


def test_a_record_of_another_format_keeps_its_key_and_is_not_looked_into() -> None:
    item = {**schema.record_item(record()), "v": {"N": "2"}, "e": {"N": "1"}, "s": {"S": "another shape"}}
    found = schema.read_record(PARTITION, item)
    assert (found.format, found.key, found.added, found.event, found.problem) == (2, "order-1", ADDED, None, None)
    assert found.size == schema.item_size(item)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"e": None}, "no attribute 'e'"),
        ({"d": None}, "no attribute 'd'"),
        ({"s": None}, "no attribute 's'"),
        ({"g": None}, "no attribute 'g'"),
        ({"v": None}, "no attribute 'v'"),
        ({"a": None}, "no attribute 'a'"),
        ({"v": {"N": "one"}}, "cannot be read"),
        ({"e": {"S": "{"}}, "cannot be read"),
        ({"e": {"S": '{"id":"1"}'}}, "cannot be read"),
        ({"e": {"S": "[]"}}, "cannot be read"),
        ({"e": {"B": b"x"}}, "no attribute 'S'"),
        ({"t": {"S": "odd"}}, "data kind 'odd'"),
        ({"t": {"S": "base64"}, "d": {"S": "?"}}, "cannot be read"),
        ({"p": {"S": "[1]"}}, "cannot be read"),
        ({"s": {"M": {"nats": {"S": "odd"}}}}, "'odd' is not a valid PlatformState"),
        ({"h": {"S": "["}}, "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why_and_keeps_its_item(change: dict[str, Any], problem: str) -> None:
    item = {**schema.record_item(record()), **change}
    item = {name: value for name, value in item.items() if value is not None}
    found = schema.read_record(PARTITION, item)
    assert found.event is None
    assert problem in (found.problem or "")
    assert (found.sk, found.key, found.raw) == (sequence_key(7), "order-1", item)


def test_a_record_up_to_its_limit_is_taken() -> None:
    room = schema.RECORD_LIMIT - schema.item_size(schema.record_item(record("")))
    schema.record_item(record("x" * room))
    with pytest.raises(OutboxLimitError, match=r"event 'e-1'.*claim check") as caught:
        schema.record_item(record("x" * (room + 1)))
    assert (caught.value.limit, caught.value.actual) == (schema.RECORD_LIMIT, schema.RECORD_LIMIT + 1)


def test_of_a_long_history_the_newest_entries_stay() -> None:
    history = [{"attempt": number, "error": "x" * 100} for number in range(200)]
    found = schema.read_record(PARTITION, schema.record_item(record(history=history)))
    assert list(found.history) == history[-len(found.history) :]
    assert 20 < len(found.history) < 40


def test_a_dead_letter_of_the_largest_record_fits() -> None:
    room = schema.RECORD_LIMIT - schema.item_size(schema.record_item(record("")))
    history = [{"attempt": number, "error": "ü" * 100} for number in range(200)]
    made = letter(event=record("x" * room).event, reason="ü" * 9000, plan=PLAN, history=history, held=True)
    assert schema.item_size(schema.letter_item(made)) < schema.ITEM_LIMIT


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"ab": {"S": "xyz"}}, 5),
        ({"ü": {"S": "ü"}}, 4),
        ({"a": {"N": "12345"}}, 5),
        ({"a": {"BOOL": True}, "b": {"NULL": True}}, 4),
        ({"a": {"B": b"xyz"}}, 4),
        ({"a": {"M": {}}}, 4),
        ({"a": {"M": {"bc": {"S": "d"}}}}, 8),
        ({"a": {"L": [{"S": "bc"}, {"BOOL": False}]}}, 9),
        ({"a": {"SS": ["b", "cd"]}}, 4),
    ],
)
def test_items_are_as_large_as_dynamodb_says(item: dict[str, Any], size: int) -> None:
    assert schema.item_size(item) == size


# ---------------------------------------------------------------------- expressions


def test_an_update_keeps_what_is_there_but_for_dead_platforms() -> None:
    states = {"nats": PlatformState.DEAD, "eventbridge": PlatformState.DELIVERED}
    update = expressions.state_update(RecordState(PLAN, states, 3, 1.5, 2), dead=("nats",))
    assert update.update == (
        "SET n = :n, f = :f, p = if_not_exists(p, :p), s.#p0 = :p0, s.#p1 = if_not_exists(s.#p1, :p1)"
    )
    assert update.names == {"#p0": "nats", "#p1": "eventbridge"}
    assert update.values == {
        ":g": {"N": "2"},
        ":n": {"N": "3"},
        ":f": {"N": "1.5"},
        ":p": {"S": '["orders","ALL_PLATFORMS",["nats","eventbridge"],false]'},
        ":p0": {"S": "dead"},
        ":p1": {"S": "delivered"},
    }


@pytest.mark.parametrize(
    ("lease", "condition"),
    [
        (Lease(Bucket(1, 3)), "attribute_not_exists(n) AND attribute_not_exists(w)"),
        (Lease(Bucket(1, 3), "me", 4, 2), "n = :n AND o = :o AND w = :w"),
    ],
)
def test_a_lease_is_as_it_was_read(lease: Lease, condition: str) -> None:
    found, values = expressions.lease_condition(lease, wake=True)
    assert found == condition
    assert all(name in condition for name in values)
    assert " AND ".join(expressions.lease_condition(lease)[0].split(" AND ")) == condition.rpartition(" AND ")[0]
