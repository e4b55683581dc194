"""The outbox's items: keys, attributes, conditions, and how records and the rest become items and back. Pure.

Items are DynamoDB's JSON. Every attribute that a newer format may change is read only from records of our own
format; `k`, the order key, `v`, the format, and `a`, when the event was added, mean the same in every format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import orjson

from oms_events.errors import InvalidEventError, OutboxLimitError
from oms_events.events import EncodedEvent
from oms_events.outbox.codec import read_event, to_stored
from oms_events.outbox.records import (
    FORMAT,
    NEW,
    Bucket,
    DeadLetter,
    Epoch,
    Layout,
    Lease,
    Member,
    NewRecord,
    Partition,
    PlatformState,
    RecordState,
    StoredRecord,
    partition_key,
)
from oms_events.publishing import Plan

Item = dict[str, dict[str, Any]]
Key = dict[str, dict[str, str]]

# ---------------------------------------------------------------------- limits

ITEM_LIMIT: Final = 400 * 1024
"""Bytes that DynamoDB takes in one item."""
RECORD_LIMIT: Final = ITEM_LIMIT - 16 * 1024
"""Bytes of a new record: the rest is for its plan and states, and for a dead letter's reason and history."""
HISTORY_LIMIT: Final = 4 * 1024
"""Bytes of a history as JSON; of a longer one the newest entries are kept."""
REASON_LIMIT: Final = 2 * 1024
"""Characters of a dead letter's reason."""

# ---------------------------------------------------------------------- partitions

DEAD: Final = "dead"
COORDINATION: Final = "coordination"
LAYOUT_KEY: Final[Key] = {"pk": {"S": "layout"}, "sk": {"S": "layout"}}
MEMBER: Final = "m#"
LEASE: Final = "l#"

NOT_THERE: Final = "attribute_not_exists(pk)"
"""A place is never used twice: what is there was put by somebody else and must not be lost. All puts have it."""

# ---------------------------------------------------------------------- keys


def bucket_of(key: str, buckets: int) -> int:
    """The number of the bucket that has all events of a key; the same in every release and on every machine."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % buckets


def item_key(pk: str, sk: str) -> Key:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def record_key(partition: Partition, sk: str) -> Key:
    return item_key(partition_key(partition), sk)


def counter_key(bucket: Bucket) -> Key:
    return item_key(f"n#{bucket.epoch:04d}#{bucket.number:04d}", "counter")


def letter_key(letter: DeadLetter) -> Key:
    return item_key(DEAD, letter.id)


def member_key(member: Member) -> Key:
    return item_key(COORDINATION, MEMBER + member.id)


def lease_key(bucket: Bucket) -> Key:
    return item_key(COORDINATION, f"{LEASE}{bucket.epoch:04d}#{bucket.number:04d}")


def parse_partition(pk: str) -> Partition:
    """The partition of a `pk`. Raises `ValueError` when it is none."""
    kind, epoch, number = pk.split("#")
    if kind not in ("k", "u"):
        raise ValueError(f"{pk!r} is no partition of records")
    return Partition(Bucket(int(epoch), int(number)), kind == "k")


# ---------------------------------------------------------------------- records


def record_item(record: NewRecord) -> Item:
    """The item of a new record. Raises `OutboxLimitError` when it is too large, its history apart."""
    item: Item = {
        "pk": {"S": partition_key(record.partition)},
        "sk": {"S": record.sk},
        "v": {"N": str(FORMAT)},
        "a": {"N": str(record.added)},
        "g": {"N": str(record.state.generation)},
        # Always there: an update of one platform's state needs the map to be.
        "s": {"M": {platform: {"S": state.value} for platform, state in record.state.states.items()}},
        **_event_attributes(record.key, record.event),
    }
    if record.state.attempts or record.state.tried_for:
        item["n"] = {"N": str(record.state.attempts)}
        item["f"] = {"N": repr(record.state.tried_for)}
    if record.state.plan is not None:
        item["p"] = {"S": plan_text(record.state.plan)}
    size = item_size(item)
    if size > RECORD_LIMIT:
        raise OutboxLimitError(
            f"the record of event {record.event.id!r} has {size} bytes; at most {RECORD_LIMIT} of DynamoDB's "
            f"{ITEM_LIMIT} are for a new one: make its data smaller, or configure a claim check",
            limit=RECORD_LIMIT,
            actual=size,
        )
    return item | _history_attribute(record.history)


def read_record(partition: Partition, item: Mapping[str, Mapping[str, Any]]) -> StoredRecord:
    """The record of an item; one that cannot be read has a `problem`, one of another format only its key."""
    sk = item["sk"]["S"]
    try:
        key = item["k"]["S"] if "k" in item else None
        added = int(item["a"]["N"])
        version = int(item["v"]["N"])
        if version != FORMAT:
            return StoredRecord(partition, sk, key, None, added, NEW, version, item_size(item))
        event = _read_event(item)
        history = orjson.loads(item["h"]["S"]) if "h" in item else ()
        size = len(event.head) + len(event.payload)
        return StoredRecord(partition, sk, key, event, added, read_state(item), FORMAT, size, history)
    except KeyError as error:
        problem = f"the record has no attribute {error}"
    except (InvalidEventError, ValueError, TypeError, AttributeError) as error:
        problem = f"the record cannot be read: {error}"
    return StoredRecord(
        partition, sk, _text(item, "k"), None, 0, NEW, size=item_size(item), problem=problem, raw=item
    )


def read_added(item: Mapping[str, Mapping[str, Any]]) -> int | None:
    """When a record was added; None when it does not say."""
    return int(item["a"]["N"]) if "a" in item else None


def read_state(item: Mapping[str, Mapping[str, Any]]) -> RecordState:
    """The state in a record's item. Raises `KeyError` and `ValueError` for what cannot be read."""
    states = item["s"]["M"]
    generation = item["g"]["N"]
    if "n" not in item and "p" not in item and not states and generation == "0":
        return NEW
    return RecordState(
        plan=_read_plan(item["p"]["S"]) if "p" in item else None,
        states={platform: PlatformState(value["S"]) for platform, value in states.items()},
        attempts=int(item["n"]["N"]) if "n" in item else 0,
        tried_for=float(item["f"]["N"]) if "f" in item else 0.0,
        generation=int(generation),
    )


def plan_text(plan: Plan) -> str:
    """A plan as the records have it."""
    return orjson.dumps([plan.rule, plan.strategy, plan.platforms, plan.first_that_works]).decode()


def _read_plan(text: str) -> Plan:
    rule, strategy, platforms, first_that_works = orjson.loads(text)
    return Plan(rule, strategy, tuple(platforms), first_that_works)


def _event_attributes(key: str | None, event: EncodedEvent) -> Item:
    stored = to_stored(event)
    item: Item = {"e": {"S": stored.head}, "d": {"S": stored.data}}
    if stored.kind != "json":
        item["t"] = {"S": stored.kind}
    if key is not None:
        item["k"] = {"S": key}
    return item


def _read_event(item: Mapping[str, Mapping[str, Any]]) -> EncodedEvent:
    return read_event(item["e"]["S"], item["d"]["S"], item["t"]["S"] if "t" in item else "json")


def _history_attribute(history: Sequence[Mapping[str, Any]]) -> Item:
    kept = list(history)
    while kept and len(text := orjson.dumps(kept)) > HISTORY_LIMIT:
        del kept[0]
    return {"h": {"S": text.decode()}} if kept else {}


def _text(item: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    value = item.get(name, {}).get("S")
    return value if isinstance(value, str) else None


# ---------------------------------------------------------------------- dead letters


def letter_item(letter: DeadLetter) -> Item:
    """The item of a dead letter, but for its `raw`, which the store adds as the attribute `raw`."""
    item: Item = {
        **letter_key(letter),
        "v": {"N": str(FORMAT)},
        "pf": {"S": letter.platform},
        "ps": {"S": orjson.dumps(letter.platforms).decode()},
        "m": {"S": letter.reason[:REASON_LIMIT]},
        "c": {"S": letter.code},
        "n": {"N": str(letter.attempts)},
        "a": {"N": str(letter.added)},
        "f": {"N": str(letter.failed)},
        "op": {"S": partition_key(letter.origin)},
        "os": {"S": letter.origin_sk},
        "x": {"BOOL": letter.held},
    }
    if letter.event is not None:
        item |= _event_attributes(letter.key, letter.event)
    elif letter.key is not None:
        item["k"] = {"S": letter.key}
    if letter.plan is not None:
        item["p"] = {"S": plan_text(letter.plan)}
    return item | _history_attribute(letter.history)


def read_letter(item: Mapping[str, Mapping[str, Any]], raw: Mapping[str, Any] | None) -> DeadLetter:
    """The dead letter of an item. Raises `KeyError` and `ValueError` for what is none."""
    return DeadLetter(
        platform=item["pf"]["S"],
        platforms=tuple(orjson.loads(item["ps"]["S"])),
        key=_text(item, "k"),
        event=_read_event(item) if "e" in item else None,
        reason=item["m"]["S"],
        code=item["c"]["S"],
        attempts=int(item["n"]["N"]),
        added=int(item["a"]["N"]),
        failed=int(item["f"]["N"]),
        origin=parse_partition(item["op"]["S"]),
        origin_sk=item["os"]["S"],
        plan=_read_plan(item["p"]["S"]) if "p" in item else None,
        held=item["x"]["BOOL"],
        history=orjson.loads(item["h"]["S"]) if "h" in item else (),
        raw=raw,
    )


# ---------------------------------------------------------------------- layout and coordination


def layout_item(layout: Layout) -> Item:
    epochs = [[epoch.number, epoch.buckets, epoch.is_open] for epoch in layout.epochs]
    return {**LAYOUT_KEY, "r": {"N": str(layout.revision)}, "e": {"S": orjson.dumps(epochs).decode()}}


def read_layout(item: Mapping[str, Mapping[str, Any]]) -> Layout:
    epochs = tuple(Epoch(*fields) for fields in orjson.loads(item["e"]["S"]))
    return Layout(int(item["r"]["N"]), epochs)


def member_item(member: Member) -> Item:
    info = orjson.dumps(dict(member.info)).decode()
    return {**member_key(member), "b": {"N": str(member.beat)}, "i": {"S": info}}


def read_member(item: Mapping[str, Mapping[str, Any]]) -> Member:
    return Member(item["sk"]["S"].removeprefix(MEMBER), int(item["b"]["N"]), orjson.loads(item["i"]["S"]))


def read_lease(item: Mapping[str, Mapping[str, Any]]) -> Lease:
    """The lease of an item; what is missing was never set."""
    epoch, number = item["sk"]["S"].removeprefix(LEASE).split("#")
    version, wake, low = (int(item[name]["N"]) if name in item else 0 for name in ("n", "w", "l"))
    return Lease(Bucket(int(epoch), int(number)), _text(item, "o"), version, wake, low)


# ---------------------------------------------------------------------- sizes


def item_size(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of an item as DynamoDB counts them; of numbers at most one too many.

    Developer guide, "DynamoDB item sizes and formats".
    """
    return sum(_bytes_of(name) + _value_size(value) for name, value in item.items())


def _value_size(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    match kind:
        case "S" | "B":
            return _bytes_of(value)
        case "N":
            return (len(value) + 1) // 2 + 1
        case "M":
            return 3 + item_size(value) + len(value)
        case "L":
            return 3 + sum(map(_value_size, value)) + len(value)
        case "SS" | "BS" | "NS":
            return _sum_bytes(value)
    return 1


def _sum_bytes(values: Iterable[str | bytes]) -> int:
    return sum(map(_bytes_of, values))


def _bytes_of(value: str | bytes) -> int:
    return len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode())
