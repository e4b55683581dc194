"""The outbox's items: keys, attributes, conditions, and how records and the rest become items and back. Pure.

Items are DynamoDB's JSON. Every attribute that a newer format may change is read only from records of our own
format; `k`, the order key, `v`, the format, and `a`, when the event was added, mean the same in every format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import orjson

from oms_events._aws.marshal import from_value, to_value
from oms_events._aws.tables import TableShape
from oms_events.errors import ConfigurationError, InvalidEventError, OutboxLimitError
from oms_events.events import EncodedEvent
from oms_events.outbox.codec import read_event, to_stored
from oms_events.outbox.records import (
    FORMAT,
    NEW,
    UNREADABLE,
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
History = Sequence[Mapping[str, Any]]

TABLE: Final = TableShape(hash_key="pk", range_key="sk")
"""No index and no TTL: records are read by their keys, and deleted by those who saw them settled."""

# ---------------------------------------------------------------------- limits

ITEM_LIMIT: Final = 400 * 1024
"""Bytes that DynamoDB takes in one item."""
RECORD_LIMIT: Final = ITEM_LIMIT - 16 * 1024
"""Bytes of a new record: the rest is for its plan and states, and for a dead letter's reason and history."""
HISTORY_LIMIT: Final = 4 * 1024
"""Bytes of a history as JSON; of a longer one the newest entries are kept."""
REASON_LIMIT: Final = 2 * 1024
"""Characters of a dead letter's reason."""
LAST_ERROR_LIMIT: Final = 300
"""Characters of a record's last error."""

_NUMBER_LIMIT: Final = 21
"""Bytes that a number takes at most."""

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

_SURELY_FITS: Final = RECORD_LIMIT // 2
"""Bytes of a new record's event: so far below the limit its exact size need not be known."""


def record_item(record: NewRecord) -> Item:
    """The item of a record to be put. Raises `OutboxLimitError` when it is too large."""
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
    if record.state.last_error is not None:
        item["m"] = {"S": last_error(record.state.last_error)}
    item |= _history_attribute(record.history)
    # What was in the outbox before has its plan and history in the room that a new record leaves for them.
    is_new = record.state == NEW and not record.history
    if (
        is_new
        and 4 * len(record.key or "") + len(record.event.head) + 2 * len(record.event.payload) < _SURELY_FITS
    ):
        return item
    limit = RECORD_LIMIT if is_new else ITEM_LIMIT
    size = item_size(item)
    if size > limit:
        raise OutboxLimitError(
            f"the record of event {record.event.id!r} has {size} bytes; at most {limit} of DynamoDB's "
            f"{ITEM_LIMIT} are for {'a new' if is_new else 'this'} one: make its data smaller, or configure a "
            "claim check",
            limit=limit,
            actual=size,
        )
    return item


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
        history = _read_history(item)
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
    if "n" not in item and "p" not in item and "m" not in item and not states and generation == "0":
        return NEW
    return RecordState(
        plan=_read_plan(item["p"]["S"]) if "p" in item else None,
        states={platform: PlatformState(value["S"]) for platform, value in states.items()},
        attempts=int(item["n"]["N"]) if "n" in item else 0,
        tried_for=float(item["f"]["N"]) if "f" in item else 0.0,
        generation=int(generation),
        last_error=item["m"]["S"] if "m" in item else None,
    )


def last_error(text: str) -> str:
    """A record's last error as it is stored."""
    return text[:LAST_ERROR_LIMIT]


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


def joined_history(old: History, new: History) -> list[Mapping[str, Any]]:
    """Two histories as one, of which the newest entries are kept; a letter's own begins with its record's."""
    return _kept([*old, *(entry for entry in new if entry not in old)])


def history_with(item: Mapping[str, Mapping[str, Any]], new: History) -> Item:
    """The attribute of a record's history with more entries; one that cannot be read is left as it is."""
    try:
        return _history_attribute(joined_history(_read_history(item), new))
    except (ValueError, TypeError, KeyError):
        return {"h": dict(item["h"])}


def _read_history(item: Mapping[str, Mapping[str, Any]]) -> History:
    if "h" not in item:
        return ()
    history = orjson.loads(item["h"]["S"])
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise ValueError("its history is no list of entries")
    return history


def _history_attribute(history: History) -> Item:
    kept = _kept(history)
    return {"h": {"S": orjson.dumps(kept).decode()}} if kept else {}


def _kept(history: History) -> list[Mapping[str, Any]]:
    kept = list(history)
    while kept and len(orjson.dumps(kept)) > HISTORY_LIMIT:
        del kept[0]
    return kept


def _text(item: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    value = item.get(name, {}).get("S")
    return value if isinstance(value, str) else None


# ---------------------------------------------------------------------- dead letters


def letter_item(letter: DeadLetter) -> Item:
    """The item of a dead letter."""
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
    if letter.raw is not None:
        item["raw"] = to_value(letter.raw, path="raw")
    return item | _history_attribute(letter.history)


def read_letter(item: Mapping[str, Mapping[str, Any]]) -> DeadLetter:
    """The dead letter of an item; one that cannot be read, or is of another format, has a `problem`."""
    try:
        version = int(item["v"]["N"])
        if version != FORMAT:
            return _unread_letter(item, f"the dead letter has format {version}: use the release that wrote it")
        letter = _read_letter(item)
        if letter.id == item["sk"]["S"]:
            return letter
        problem = f"the dead letter names itself {letter.id!r}"
    except KeyError as error:
        problem = f"the dead letter has no attribute {error}"
    except (InvalidEventError, ValueError, TypeError, AttributeError) as error:
        problem = f"the dead letter cannot be read: {error}"
    return _unread_letter(item, problem)


def parse_letter_id(id: str) -> tuple[str, int, Partition, str]:  # noqa: A002 - what it is called everywhere else
    """The platform, `added`, origin and `origin_sk` in a dead letter's id. Raises `ValueError` when it is none."""
    platform, added, kind, epoch, bucket, sk = id.rsplit("#", 5)
    return platform, int(added), parse_partition(f"{kind}#{epoch}#{bucket}"), sk


def _unread_letter(item: Mapping[str, Mapping[str, Any]], problem: str) -> DeadLetter:
    """What can be told of a letter that cannot be read: enough to show it, and to purge it with what it holds."""
    id = item["sk"]["S"]  # noqa: A001
    try:
        platform, added, origin, sk = parse_letter_id(id)
    except ValueError:
        platform, added, origin, sk = id.partition("#")[0], 0, Partition(Bucket(0, 0), keyed=False), ""
    return DeadLetter(
        platform=platform,
        platforms=_platforms_of_letter(item) or (platform,),
        key=_text(item, "k"),
        event=None,
        reason=problem,
        code=UNREADABLE,
        attempts=0,
        added=added,
        failed=0,
        origin=origin,
        origin_sk=sk,
        # When it does not say: purging looks whether the record is held indeed.
        held=origin.keyed and item.get("x") != {"BOOL": False},
        raw=item,
        problem=problem,
        stored_id=id,
    )


def _platforms_of_letter(item: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The platforms of a letter of any format; none when it does not say."""
    try:
        found = orjson.loads(_text(item, "ps") or "[]")
    except ValueError:
        return ()
    is_list = isinstance(found, list) and all(isinstance(platform, str) for platform in found)
    return tuple(found) if is_list else ()


def _read_letter(item: Mapping[str, Mapping[str, Any]]) -> DeadLetter:
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
        history=_read_history(item),
        raw=from_value(item["raw"]) if "raw" in item else None,
    )


# ---------------------------------------------------------------------- layout and coordination


def layout_item(layout: Layout) -> Item:
    epochs = [[epoch.number, epoch.buckets, epoch.is_open] for epoch in layout.epochs]
    return {**LAYOUT_KEY, "r": {"N": str(layout.revision)}, "e": {"S": orjson.dumps(epochs).decode()}}


def read_layout(item: Mapping[str, Mapping[str, Any]]) -> Layout:
    """The layout of an item. Raises `ConfigurationError` for one that another release made."""
    epochs = orjson.loads(item["e"]["S"])
    if unknown := [fields for fields in epochs if len(fields) != len(Epoch.__slots__)]:
        problem = f"epoch {unknown[0]} was made by a newer release: use that one, or a later one"
        raise ConfigurationError("outbox layout", [problem])
    return Layout(int(item["r"]["N"]), tuple(Epoch(*fields) for fields in epochs))


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
            return _number_size(value)
        case "M":
            return 3 + item_size(value) + len(value)
        case "L":
            return 3 + sum(map(_value_size, value)) + len(value)
        case "NS":
            return sum(map(_number_size, value))
        case "SS" | "BS":
            return _sum_bytes(value)
    return 1


def _number_size(number: str) -> int:
    """One byte, one per two digits from the point on (zeros at the ends do not count), and one for a minus."""
    digits = number.upper().partition("E")[0].lstrip("+-").replace(".", "").strip("0")
    if not digits:
        return 1
    return min(_NUMBER_LIMIT, len(digits) // 2 + 2 + number.startswith("-"))


def _sum_bytes(values: Iterable[str | bytes]) -> int:
    return sum(map(_bytes_of, values))


def _bytes_of(value: str | bytes) -> int:
    return len(value) if isinstance(value, bytes) or value.isascii() else len(value.encode())
