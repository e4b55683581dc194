from __future__ import annotations

from typing import Any

import pytest

from oms_events import build_event
from oms_events.errors import ConfigurationError, OutboxLimitError
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


def test_what_was_in_the_outbox_before_may_use_the_room_of_its_plan_and_history() -> None:
    room = schema.RECORD_LIMIT - schema.item_size(schema.record_item(record("")))
    largest = record("x" * room)
    for again in (
        largest._replace(state=RecordState(plan=PLAN)),
        largest._replace(history=[{"error": "x" * 500}] * 50),
    ):
        assert schema.RECORD_LIMIT < schema.item_size(schema.record_item(again)) < schema.ITEM_LIMIT
    beyond = record("x" * (schema.ITEM_LIMIT - schema.RECORD_LIMIT + room), state=RecordState(plan=PLAN))
    with pytest.raises(OutboxLimitError) as caught:
        schema.record_item(beyond)
    assert caught.value.limit == schema.ITEM_LIMIT


def test_the_last_error_of_a_record_is_kept_short() -> None:
    item = schema.record_item(record(state=RecordState(last_error="nats: denied: " + "x" * 1000)))
    error = schema.read_state(item).last_error
    assert error is not None
    assert error.startswith("nats: denied: xxx")
    assert len(error) == schema.LAST_ERROR_LIMIT


def test_joined_histories_have_each_entry_once_and_the_newest_when_they_are_long() -> None:
    one, two, three = ({"code": name} for name in ("one", "two", "three"))
    assert schema.joined_history([one, two], [one, three]) == [one, two, three]
    long = [{"attempt": number, "error": "x" * 100} for number in range(200)]
    joined = schema.joined_history([one], long)
    assert joined == long[-len(joined) :]
    assert schema.history_with({"h": {"S": "["}}, [one]) == {"h": {"S": "["}}


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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"v": {"N": "2"}}, "format 2: use the release that wrote it"),
        ({"v": None}, "no attribute 'v'"),
        ({"ps": None}, "no attribute 'ps'"),
        ({"ps": {"S": "["}}, "cannot be read"),
        ({"e": {"S": "{"}}, "cannot be read"),
        ({"op": {"S": "dead"}}, "cannot be read"),
        ({"x": {"S": "yes"}}, "no attribute 'BOOL'"),
        ({"h": {"S": "5"}}, "its history is no list of entries"),
        ({"raw": {"odd": 1}}, "cannot be read"),
        ({"p": {"S": "5"}}, "cannot be read"),
        ({"pf": {"S": "eventbridge"}}, "names itself 'eventbridge#"),
        ({"sk": {"S": "nats"}}, "names itself 'nats#"),
    ],
)
def test_a_letter_that_cannot_be_read_says_why_and_keeps_its_item(change: dict[str, Any], problem: str) -> None:
    item = {**schema.letter_item(letter(held=True)), **change}
    item = {name: value for name, value in item.items() if value is not None}
    found = schema.read_letter(item)
    assert problem in (found.problem or "")
    assert (found.id, found.platform, found.event, found.raw) == (item["sk"]["S"], "nats", None, item)
    if "sk" not in change:
        assert (found.added, found.origin, found.origin_sk) == (ADDED, PARTITION, sequence_key(7))


def test_a_letter_that_cannot_be_read_tells_its_platforms_and_whether_it_holds_where_it_can() -> None:
    item = {**schema.letter_item(letter(platforms=("nats", "eventbridge"), held=True)), "v": {"N": "2"}}
    found = schema.read_letter(item)
    assert (found.platforms, found.held) == (("nats", "eventbridge"), True)
    assert not schema.read_letter({**item, "x": {"BOOL": False}}).held
    bare = schema.read_letter({"pk": {"S": "dead"}, "sk": item["sk"]})
    assert (bare.platforms, bare.held) == (("nats",), True)


def test_a_letter_comes_back_with_its_raw_item() -> None:
    made = letter(event=None, raw={"pk": {"S": "k"}, "odd": {"B": b"\x00"}})
    assert schema.read_letter(schema.letter_item(made)) == made


# ---------------------------------------------------------------------- layout


def test_a_layout_of_a_newer_release_is_refused_by_name() -> None:
    item = {**schema.LAYOUT_KEY, "r": {"N": "1"}, "e": {"S": '[[1,8,true,"new"]]'}}
    with pytest.raises(ConfigurationError, match="made by a newer release"):
        schema.read_layout(item)


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"ab": {"S": "xyz"}}, 5),
        ({"ü": {"S": "ü"}}, 4),
        ({"a": {"N": "12345"}}, 5),
        ({"a": {"N": "-12345"}}, 6),
        ({"a": {"N": "0"}}, 2),
        ({"a": {"N": "1000000000000"}}, 3),
        ({"a": {"N": "1E+125"}}, 3),
        ({"a": {"N": "0.00001"}}, 3),
        ({"a": {"N": "123" * 12 + "45"}}, 22),
        ({"a": {"L": [{"N": "1000000000000"}] * 10}}, 34),
        ({"a": {"NS": ["100000000000001", "100000000000003"]}}, 19),
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


def test_an_update_keeps_the_last_error_unless_there_is_a_newer_one() -> None:
    assert "m" not in expressions.state_update(RecordState(PLAN)).update
    update = expressions.state_update(RecordState(PLAN, last_error="nats: denied: " + "x" * 1000))
    assert "m = :m" in update.update
    assert len(update.values[":m"]["S"]) == schema.LAST_ERROR_LIMIT


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
