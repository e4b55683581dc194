from __future__ import annotations

import asyncio
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from oms_events.errors import AppendLimitError, EventUnreadableError, InvalidEventError
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.eventstore.author import Author
from oms_events.eventstore.items import (
    checksum,
    event_item,
    event_key,
    is_event,
    marker_item,
    marker_key,
    position_of,
    read_item,
    read_marker,
    sequence_of,
)
from oms_events.eventstore.records import CommandMarker, RecordedEvent, recorded_of
from oms_events.eventstore.registry import EventRegistry
from oms_events.eventstore.schema import event_time
from oms_events.outbox.schema import ITEM_LIMIT, item_size
from oms_events.testing import ManualClock

NOON = datetime(2026, 1, 31, 12, 30, 15, 123_456, tzinfo=UTC)
registry = EventRegistry()


class Address(BaseModel):
    street: str = Field(alias="Street")
    zip_code: str | None = None


@registry.event(type="things.put", version=7)
class ThingPut(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    amount: Decimal
    at: datetime
    day: date
    took: timedelta
    number: int
    ratio: float
    flag: bool | None
    names: dict[str, tuple[str, ...]]
    address: Address | None = Field(alias="postalAddress")


texts = st.text(st.characters(codec="utf-8"), max_size=20)
ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
    lambda text: not text.startswith("command#")
)
zones = st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30)), None])
things = st.builds(
    ThingPut,
    amount=st.decimals(allow_nan=False, allow_infinity=False, places=4),
    at=st.datetimes(timezones=zones),
    day=st.dates(),
    took=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1000)),
    number=st.integers(-(2**80), 2**80),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.sampled_from([True, False, None]),
    names=st.dictionaries(texts, st.lists(texts, max_size=3).map(tuple), max_size=3),
    address=st.none() | st.builds(Address, Street=texts, zip_code=st.none() | texts),
)


def recorded(
    event: BaseModel,
    aggregate_id: str = "thing-1",
    *,
    after: int = 0,
    types: EventRegistry = registry,
    **more: Any,
) -> RecordedEvent:
    author = Author("things", types, None, clock=ManualClock(NOON), rng=random.Random(7))
    options = {"correlation_id": None, "causation_id": None, "attributes": {}, **more}
    [one] = asyncio.run(author.write(aggregate_id, [event], after=after, **options))
    return one


def thing(**fields: Any) -> ThingPut:
    given = {
        "amount": 1, "at": NOON, "day": NOON.date(), "took": 1, "number": 1, "ratio": 1, "flag": None, "names": {},
        "address": None,
    }  # fmt: skip
    return ThingPut.model_validate({**given, **fields})


# ---------------------------------------------------------------------- events


@given(things, ids, st.integers(0, 10**16 - 2), st.dictionaries(st.sampled_from(["tenant", "flow"]), texts))
def test_an_item_gives_the_event_back(
    event: ThingPut, aggregate_id: str, after: int, attributes: dict[str, str]
) -> None:
    written = recorded(event, aggregate_id, after=after, correlation_id="c ü", attributes=attributes)
    # As the wire has it.
    item = orjson.loads(orjson.dumps(event_item(written)))
    found = read_item(item, registry)
    assert (found.aggregate_id, found.sequence, found.type, found.version) == (
        aggregate_id,
        after + 1,
        "things.put",
        7,
    )
    assert found.domain_event == event == written.domain_event
    assert (found.encoded.json, found.encoded.attributes) == (written.encoded.json, written.encoded.attributes)
    assert (found.payload, found.data) == (written.payload, written.data)
    assert (found.id, found.time, found.time_key) == (written.id, NOON, event_time(NOON, aggregate_id, after + 1))
    assert event_item(found) == item
    assert is_event(item)
    assert (position_of(item), sequence_of(item)) == (f"{aggregate_id}@{after + 1}", after + 1)
    assert recorded_of(found.encoded, registry).domain_event == event


def test_an_item_has_the_layout_that_is_documented() -> None:
    """Stored for ever: another layout must be read beside this one."""
    item = event_item(recorded(thing(address={"Street": "ü"}), after=8))
    head = orjson.loads(item["CloudEvent"]["S"])
    digest = item["Checksum"]["S"]
    assert item == {
        "AggregateId": {"S": "thing-1"},
        "EventSequence": {"N": "9"},
        "EventTypeShard": {"S": "things.put#05"},
        "EventTime": {"S": "2026-01-31T12:30:15.123456Z#thing-1#0000000000000009"},
        "EventType": {"S": "things.put"},
        "SchemaVersion": {"N": "7"},
        "CloudEvent": {"S": item["CloudEvent"]["S"]},
        "Data": {
            "S": '{"amount":"1","at":"2026-01-31T12:30:15.123456Z","day":"2026-01-31","took":"PT1S","number":1,'
            '"ratio":1.0,"flag":null,"names":{},"postalAddress":{"Street":"ü","zip_code":null}}'
        },
        "Checksum": {"S": checksum("thing-1", 9, item["CloudEvent"]["S"], item["Data"]["S"])},
    }
    assert head == {
        "specversion": "1.0",
        "id": head["id"],
        "source": "things",
        "type": "things.put",
        "subject": "thing-1",
        "time": "2026-01-31T12:30:15.123456Z",
        "sequence": "0000000000000009",
        "partitionkey": "thing-1",
        "dataschema": "urn:oms-events:schema:things.put:7",
        "datacontenttype": "application/json",
    }
    assert len(digest) == 32


@given(
    st.tuples(ids, st.integers(1, 99), texts, texts),
    st.tuples(ids, st.integers(1, 99), texts, texts),
)
def test_a_checksum_is_another_for_all_that_is_another(one: Any, other: Any) -> None:
    assert (checksum(*one) == checksum(*other)) is (one == other)


def test_a_checksum_stays_the_same_in_every_release() -> None:
    assert checksum("account-1", 1, '{"id":"a"}', '{"b":"ü"}') == "d1cfec903be685688498ff34f12d816e"
    # What one part loses, the next does not gain.
    assert checksum("a", 11, "", "") != checksum("a1", 1, "", "")
    assert checksum("a", 1, "ab", "c") != checksum("a", 1, "a", "bc")


def test_an_item_of_400_kb_fits_and_no_larger_one() -> None:
    class Note(BaseModel):
        text: str

    types = EventRegistry()
    types.event(Note)
    empty = item_size(event_item(recorded(Note(text=""), types=types)))
    longest = event_item(recorded(Note(text="x" * (ITEM_LIMIT - empty)), types=types))
    # Of each number a byte too many may be counted.
    assert ITEM_LIMIT - 2 <= item_size(longest) <= ITEM_LIMIT
    for text in ("x" * (ITEM_LIMIT - empty + 1), "ü" * (ITEM_LIMIT // 2), "🎟" * 103_000):
        with pytest.raises(AppendLimitError, match=r"event thing-1@1 \(Note\) has \d+ bytes") as refused:
            event_item(recorded(Note(text=text), types=types))
        assert refused.value.limit == ITEM_LIMIT < refused.value.actual


# ---------------------------------------------------------------------- what is damaged


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"EventType": None}, "thing-1@1: the item has no 'EventType'"),
        ({"Data": {"N": "1"}}, "thing-1@1: the item has no 'S'"),
        ({"Data": "text"}, "thing-1@1: the item cannot be read"),
        ({"EventSequence": {"N": "x"}}, "thing-1@x: the item cannot be read: invalid literal"),
        ({"SchemaVersion": {"N": "1.5"}}, "thing-1@1: the item cannot be read: invalid literal"),
    ],
)
def test_what_is_no_event_is_refused_with_its_place(changes: dict[str, Any], text: str) -> None:
    item = {**event_item(recorded(thing())), **changes}
    item = {name: value for name, value in item.items() if value is not None}
    with pytest.raises(EventUnreadableError) as refused:
        read_item(item, registry)
    assert str(refused.value).startswith(text)


@pytest.mark.parametrize(
    "head", ["", "no json", "[]", "7", '{"id":"a"}', '{"id":"a","type":"t","source":"s","time":"soon"}',
             '{"id":"a","type":"t","source":"s"}']
)  # fmt: skip
def test_damaged_attributes_are_told_when_they_are_asked_for(head: str) -> None:
    event = read_item({**event_item(recorded(thing())), "CloudEvent": {"S": head}}, registry)
    assert event.domain_event == thing()
    for name in ("encoded", "id", "time", "time_key", "event"):
        with pytest.raises(EventUnreadableError, match=r"^thing-1@1: the item cannot be read") as refused:
            getattr(event, name)
        assert (refused.value.event_type, refused.value.version) == ("things.put", 7)
    assert repr(event) == "<RecordedEvent thing-1@1 things.put version 7>"


def test_what_was_revealed_is_read_and_what_was_stored_is_published() -> None:
    for event in (recorded(thing()), read_item(event_item(recorded(thing())), registry)):
        clear = event.payload.replace(b'"number":1', b'"number":2')
        revealed = event.revealed(clear)
        assert (revealed.payload, revealed.data["number"]) == (clear, 2)
        assert revealed.domain_event == thing(number=2)
        assert revealed.encoded.payload == event.payload
        assert (revealed.position, revealed.id, revealed.version) == (event.position, event.id, event.version)


# ---------------------------------------------------------------------- commands


@given(st.lists(st.tuples(ids, ids), min_size=2, max_size=2, unique=True))
def test_commands_of_other_aggregates_have_other_keys(pairs: list[tuple[str, str]]) -> None:
    one, other = (marker_key(*pair) for pair in pairs)
    assert one != other


@given(ids, ids, ids, st.integers(1, 10**15), st.integers(0, 100), texts)
def test_a_marker_is_no_event_and_is_read_back(
    aggregate_id: str, command_id: str, other: str, first: int, events: int, fingerprint: str
) -> None:
    marker = CommandMarker(first, events, fingerprint)
    item = orjson.loads(orjson.dumps(marker_item(aggregate_id, command_id, marker)))
    assert read_marker(item) == marker
    assert not is_event(item)
    assert sequence_of(item) == 0
    assert item["AggregateId"] != event_key(other, 1)["AggregateId"]


# ---------------------------------------------------------------------- from platforms


def delivered(**changes: Any) -> EncodedEvent:
    given = {
        "subject": "thing-1", "sequence": "0000000000000003", "time": NOON,
        "dataschema": "urn:oms-events:schema:things.put:7",
    }  # fmt: skip
    attributes = {name: value for name, value in {**given, **changes}.items() if value is not None}
    encoded = encode(
        build_event("things.put", "things", thing().model_dump(mode="json", by_alias=True), **attributes)
    )
    if "time" not in attributes:
        del encoded.attributes["time"]  # type: ignore[attr-defined]
    return encoded


def test_an_event_that_a_platform_delivered_is_a_recorded_one() -> None:
    event = recorded_of(delivered(), registry)
    assert (event.position, event.type, event.version, event.time) == ("thing-1@3", "things.put", 7, NOON)
    assert event.domain_event == thing()
    assert recorded_of(delivered(dataschema=None), registry).version == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"subject": None}, "subject"),
        ({"sequence": None}, "sequence"),
        ({"sequence": "0"}, "sequence"),
        ({"sequence": "-1"}, "sequence"),
        ({"sequence": "1.0"}, "sequence"),
        ({"sequence": "³"}, "sequence"),
        ({"sequence": "9" * 5000}, "sequence"),
        ({"time": None}, "time"),
    ],
)
def test_an_event_of_another_source_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidEventError, match="route only") as refused:
        recorded_of(delivered(**changes), registry)
    assert refused.value.field == field
