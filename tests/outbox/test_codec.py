from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from oms_events.errors import InvalidEventError
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.outbox.codec import StoredEvent, from_stored, to_stored
from tests.strategies import events


def _wire(event: EncodedEvent) -> tuple[Any, ...]:
    """Everything that publishers take from an event."""
    return event.json, event.head, event.payload, event.kind, event.identity, event.type, event.source, event.id


@given(events())
def test_a_stored_event_is_published_as_the_event_itself(event: CloudEvent) -> None:
    encoded = encode(event)
    back = from_stored(to_stored(encoded))
    assert _wire(back) == _wire(encoded)
    assert dict(back.attributes) == dict(encoded.attributes)
    assert back.data == encoded.data
    assert _wire(from_stored(to_stored(back))) == _wire(encoded)


def test_times_come_back_as_times() -> None:
    time = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
    back = from_stored(to_stored(encode(build_event("com.example.made", "/s", {}, time=time))))
    assert back.attributes["time"] == time


@pytest.mark.parametrize("payload", ['{"a":1}', "text ü"])
def test_text_is_stored_as_text(payload: str) -> None:
    kind = "application/json" if payload.startswith("{") else "text/plain"
    data = {"a": 1} if payload.startswith("{") else payload
    assert to_stored(encode(build_event("com.example.made", "/s", data, datacontenttype=kind))).data == payload


_GOOD = to_stored(encode(build_event("com.example.made", "/s", {"a": 1})))


@pytest.mark.parametrize(
    "damaged",
    [
        _GOOD._replace(kind="avro"),
        _GOOD._replace(head="{"),
        _GOOD._replace(head="[]"),
        _GOOD._replace(head="null"),
        _GOOD._replace(head='{"type":"t","source":"s"}'),
        _GOOD._replace(head=_GOOD.head.replace('"time":"', '"time":"x')),
        _GOOD._replace(head='{"time":5,"id":"1","type":"t","source":"s"}'),
        _GOOD._replace(kind="base64", data="no base64!"),
        _GOOD._replace(kind="base64", data="ü"),
    ],
)
def test_what_cannot_be_read_says_so(damaged: StoredEvent) -> None:
    assert damaged != _GOOD
    with pytest.raises(InvalidEventError):
        from_stored(damaged)
