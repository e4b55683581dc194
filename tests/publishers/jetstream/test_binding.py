from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from oms_events._nats.messages import from_nats_message
from oms_events.errors import EventRejectedError, InvalidEventError
from oms_events.events import build_event, encode
from oms_events.publishers.jetstream.binding import (
    attribute_text,
    binary_message,
    read_header_block,
    structured_message,
)
from tests.strategies import events

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


def test_binary_mode_has_every_attribute_as_header() -> None:
    event = encode(
        build_event(
            "com.foundry.oms.schema.created",
            "/oms/main",
            {"a": 1},
            id='Ü 1@"x"',
            time=datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC),
            datacontenttype="application/json",
            branch="50% done",
            flag=True,
            number=-3,
        )
    )
    block, payload = binary_message(event)
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    assert read_header_block(block) == {
        "Nats-Msg-Id": "%C3%9C%201%40%22x%22@/oms/main",
        "ce-id": "%C3%9C%201@%22x%22",
        "ce-specversion": "1.0",
        "ce-type": "com.foundry.oms.schema.created",
        "ce-source": "/oms/main",
        "ce-time": "2026-01-02T03:04:05.600000Z",
        "ce-datacontenttype": "application/json",
        "ce-branch": "50%25%20done",
        "ce-flag": "true",
        "ce-number": "-3",
    }
    assert payload == b'{"a":1}'


def test_structured_mode_is_the_json_form() -> None:
    event = encode(build_event("t", "/s", {"a": 1}, id="1"))
    block, payload = structured_message(event)
    assert read_header_block(block) == {
        "Nats-Msg-Id": "1@/s",
        "Content-Type": "application/cloudevents+json",
    }
    assert payload == event.json


def test_equal_values_of_different_types_keep_their_text() -> None:
    for value, text in ((1, "1"), (True, "true"), ("1", "1"), (0, "0"), (False, "false")):
        headers = read_header_block(binary_message(encode(CloudEvent({**base(), "x": value})))[0])
        assert headers["ce-x"] == text


def test_offsets_with_seconds_become_utc() -> None:
    zone = timezone(timedelta(minutes=53, seconds=28))
    assert attribute_text("time", datetime(1890, 1, 1, tzinfo=zone)) == "1889-12-31T23:06:32Z"
    zone = timezone(timedelta(hours=-5, minutes=-30))
    assert attribute_text("time", datetime(2026, 1, 1, tzinfo=zone)) == "2026-01-01T00:00:00-05:30"


def test_an_attribute_without_text_form_rejects_the_event() -> None:
    with pytest.raises(EventRejectedError, match="'x' is list"):
        attribute_text("x", [1])


def base() -> dict[str, Any]:
    return {"id": "1", "source": "/s", "type": "t"}


@given(events())
def test_binary_mode_comes_back(event: CloudEvent) -> None:
    block, payload = binary_message(encode(event))
    back = from_nats_message(read_header_block(block), payload)
    expected = {
        name: value if name == "time" else attribute_text(name, value)
        for name, value in event.get_attributes().items()
    }
    assert back.get_attributes() == expected
    assert back.get_data() == (event.get_data() if payload else None)


@given(events())
def test_structured_mode_comes_back(event: CloudEvent) -> None:
    block, payload = structured_message(encode(event))
    back = from_nats_message(read_header_block(block), payload)
    assert back.get_attributes() == event.get_attributes()


@given(events())
def test_headers_are_visible_ascii_that_says_the_value(event: CloudEvent) -> None:
    block, _ = binary_message(encode(event))
    assert not set(block) - set(range(0x20, 0x7F)) - set(b"\r\n")
    headers = read_header_block(block)
    assert len(block.split(b"\r\n")) == len(headers) + 3
    for name, value in event.get_attributes().items():
        header = headers[f"ce-{name}"]
        assert not set(header) & set(' "')
        assert unquote(header) == attribute_text(name, value)


def test_header_names_are_read_in_any_case() -> None:
    headers = {name.upper(): value for name, value in BINARY.items()}
    assert from_nats_message(headers, b"1").get_attributes() == {
        "specversion": "1.0", "id": "1", "source": "/s", "type": "t",
    }  # fmt: skip


def test_other_headers_are_ignored() -> None:
    back = from_nats_message({**BINARY, "Nats-Msg-Id": "x", "Content-Type": "application/json"}, b"{}")
    assert set(back.get_attributes()) == {"specversion", "id", "source", "type"}


@pytest.mark.parametrize(
    "content_type",
    ["application/cloudevents+json", "Application/CloudEvents+JSON; charset=utf-8", "application/cloudevents"],
)
def test_structured_mode_is_known_by_its_content_type(content_type: str) -> None:
    payload = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1]}'
    assert from_nats_message({"content-type": content_type}, payload).get_data() == [1]


@pytest.mark.parametrize(
    ("headers", "payload", "field"),
    [
        (None, b"{}", "specversion"),
        ({}, b"", "specversion"),
        ({**BINARY, "ce-id": "%FF"}, b"", "id"),
        ({name: value for name, value in BINARY.items() if name != "ce-source"}, b"", "source"),
        ({**BINARY, "ce-specversion": "0.3"}, b"", "specversion"),
        ({**BINARY, "ce-time": "yesterday"}, b"", "time"),
        ({**BINARY, "ce-datacontenttype": "application/json"}, b"{", "data"),
        ({"Content-Type": "application/cloudevents+json"}, b"[]", "event"),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"[]", "event"),
        ({"Content-Type": "application/cloudevents+avro"}, b"", "event"),
    ],
)
def test_what_is_no_event_is_refused(headers: dict[str, str] | None, payload: bytes, field: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        from_nats_message(headers, payload)
    assert caught.value.field == field
