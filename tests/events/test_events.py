from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import cloudevents.v1.http
import cloudevents.v1.pydantic
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from oms_events.errors import InvalidEventError
from oms_events.events import build_event, encode, parse_event, read_payload
from tests.strategies import events, json_values


class NotANumber(Enum):
    VALUE = math.nan


@given(events())
def test_encoding_means_the_same_as_the_sdk_s_own(event: CloudEvent) -> None:
    ours = json.loads(encode(event).json)
    assert ours == json.loads(JSONFormat().write(event)) | _null_data(event)


def _null_data(event: CloudEvent) -> dict[str, None]:
    """The one difference: the SDK drops JSON null data, which a JSON content type announces."""
    return {"data": None} if event.get_data() is None and event.get_datacontenttype() else {}


@given(events())
def test_the_sdk_reads_what_we_write(event: CloudEvent) -> None:
    back = JSONFormat().read(None, encode(event).json)
    assert back.get_attributes() == event.get_attributes()
    assert back.get_data() == event.get_data()


@given(events())
def test_parsing_gives_the_event_back(event: CloudEvent) -> None:
    back = parse_event(encode(event).json)
    assert back.get_attributes() == event.get_attributes()
    assert back.get_data() == event.get_data()


@given(json_values)
def test_json_payloads_are_json(data: Any) -> None:
    encoded = encode(build_event("t", "/s", data, datacontenttype="application/json"))
    assert json.loads(encoded.payload) == data
    assert read_payload(encoded.payload, "application/json") == data


def test_data_is_json_text_bytes_null_or_absent() -> None:
    def forms(data: Any, content_type: str | None = None) -> tuple[bytes, dict[str, Any]]:
        encoded = encode(build_event("t", "/s", data, id="1", datacontenttype=content_type))
        document = json.loads(encoded.json)
        return encoded.payload, {
            key: document[key] for key in document if key.startswith("data") and key != "datacontenttype"
        }

    assert forms({"a": 1}) == (b'{"a":1}', {"data": {"a": 1}})
    assert forms("text", "text/plain") == (b"text", {"data": "text"})
    assert forms("text") == (b'"text"', {"data": "text"})
    assert forms(b"\x00\xff", "image/png") == (
        b"\x00\xff",
        {"data_base64": base64.b64encode(b"\x00\xff").decode()},
    )
    assert forms(None) == (b"", {})
    assert forms(None, "application/json") == (b"null", {"data": None})


def test_each_encoding_is_made_once() -> None:
    encoded = encode(build_event("t", "/s", {"a": 1}))
    assert encoded.json is encoded.json
    assert encode(encoded) is encoded


@pytest.mark.parametrize(
    ("data", "content_type", "reason"),
    [
        ({"x": math.nan}, None, "NaN"),
        ([1, [math.inf]], None, "infinity"),
        ({"x": NotANumber.VALUE}, None, "NaN"),
        ({"x": object()}, None, "cannot be written as JSON"),
        ({"x": {1, 2}}, None, "cannot be written as JSON"),
        ("\ud800", "text/plain", "surrogate"),
        ({"x": "\ud800"}, None, "surrogate"),
        ({"a": 1}, "text/plain", "give text or bytes"),
    ],
)
def test_data_that_cannot_be_encoded_is_an_error_that_names_it(
    data: Any, content_type: str | None, reason: str
) -> None:
    with pytest.raises(InvalidEventError, match=reason) as caught:
        encode(build_event("t", "/s", data, datacontenttype=content_type))
    assert caught.value.field == "data"


def test_what_json_allows_and_orjson_does_not_is_written_as_the_sdk_does() -> None:
    data = {"big": 2**70, "when": datetime(2026, 1, 1, tzinfo=UTC), 5: "number as key"}
    event = build_event("t", "/s", data)
    assert json.loads(encode(event).json) == json.loads(JSONFormat().write(event))


@pytest.mark.parametrize("thing", [None, 5, "event", {"type": "t", "source": "/s", "id": "1"}, object()])
def test_what_is_no_event_is_refused(thing: object) -> None:
    with pytest.raises(InvalidEventError, match="is no CloudEvent"):
        encode(thing)


@pytest.mark.parametrize(
    ("attributes", "field"),
    [
        ({"type": ""}, "type"),
        ({"source": ""}, "source"),
        ({"id": ""}, "id"),
        ({"subject": ""}, "subject"),
        ({"Upper": "x"}, "Upper"),
        ({"time": datetime(2026, 1, 1)}, "time"),  # noqa: DTZ001
    ],
)
def test_a_bad_attribute_is_named(attributes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidEventError, match=field) as caught:
        build_event(**({"type": "t", "source": "/s"} | attributes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "value",
    [object(), {"a": 1}, 1.5, None, b"bytes", 2**31, -(2**31) - 1, datetime(2026, 1, 1)],  # noqa: DTZ001
)
def test_an_attribute_that_cloudevents_does_not_know_is_named(value: object) -> None:
    with pytest.raises(InvalidEventError, match="'thing'") as caught:
        encode(CloudEvent({"type": "t", "source": "/s", "thing": value}))
    assert caught.value.field == "thing"


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", None), ("id", 7), ("type", ""), ("source", 5), ("time", "x"), ("datacontenttype", 7), ("subject", 1)],
)
def test_an_event_that_was_damaged_after_it_was_made_is_refused(name: str, value: object) -> None:
    event = build_event("t", "/s", {"a": 1})
    event.get_attributes()[name] = value
    with pytest.raises(InvalidEventError, match=f"'{name}'"):
        encode(event)
    del event.get_attributes()[name]
    if name in ("id", "type", "source"):
        with pytest.raises(InvalidEventError, match=f"'{name}'"):
            encode(event)


def test_what_happens_to_an_event_after_encoding_changes_nothing() -> None:
    data = bytearray(b"abc")
    event = build_event("t", "/s", data, branch="main")  # type: ignore[arg-type]
    encoded = encode(event)
    data[:] = b"XYZ"
    event.get_attributes()["branch"] = "other"
    assert encoded.payload == b"abc"
    assert json.loads(encoded.json)["data_base64"] == base64.b64encode(b"abc").decode()
    assert encoded.attributes["branch"] == "main"


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json ; charset=utf-8", "model/gltf+json", "TEXT/JSON"]
)
def test_json_is_known_by_its_media_type(content_type: str) -> None:
    assert encode(build_event("t", "/s", {"a": 1}, datacontenttype=content_type)).payload == b'{"a":1}'


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "JSON object"),
        (b'{"type":"t","source":"/s","specversion":"1.0"}', "'id' is missing"),
        (b'{"id":"1","source":"/s","specversion":"1.0"}', "'type'"),
        (b'{"id":"1","type":"t","source":"/s","specversion":"0.3"}', "specversion"),
        (b'{"id":"1","type":"t","source":"/s","specversion":"1.0","time":"yesterday"}', "RFC 3339"),
        (b'{"id":"1","type":"t","source":"/s","specversion":"1.0","data_base64":"*"}', "base64"),
        (b'{"id":"1","type":"t","source":"/s","specversion":"1.0","data":1,"data_base64":"aA=="}', "both"),
    ],
)
def test_documents_that_are_no_events_are_refused(document: bytes, reason: str) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        parse_event(document)


def test_an_event_without_time_keeps_none() -> None:
    event = parse_event(b'{"id":"1","type":"t","source":"/s","specversion":"1.0"}')
    assert event.get_time() is None
    assert b'"time"' not in encode(event).json


@pytest.mark.parametrize(
    "legacy",
    [
        cloudevents.v1.http.CloudEvent({"type": "t", "source": "/s", "branch": "main"}, {"a": 1}),
        cloudevents.v1.pydantic.CloudEvent(type="t", source="/s", branch="main", data={"a": 1}),
    ],
)
def test_older_sdk_events_are_taken_at_the_door(legacy: Any) -> None:
    event = encode(legacy)
    assert (event.type, event.source, event.id) == ("t", "/s", legacy["id"])
    assert event.attributes["branch"] == "main"
    assert json.loads(event.payload) == {"a": 1}
    assert isinstance(event.attributes["time"], datetime)


def test_times_keep_their_offset() -> None:
    time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert json.loads(encode(build_event("t", "/s", time=time)).json)["time"] == "2026-01-02T03:04:05+02:00"


def test_an_offset_with_seconds_becomes_utc_and_stays_the_same_moment() -> None:
    time = datetime(1890, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(minutes=53, seconds=28)))
    encoded = encode(build_event("t", "/s", time=time, expirytime=time))
    assert json.loads(encoded.json)["time"] == "1890-01-02T02:10:37Z"
    assert parse_event(encoded.json).get_time() == time
    assert encoded.attributes["expirytime"] == time


@given(st.tuples(events(), events()))
def test_identities_are_equal_exactly_for_the_same_source_and_id(pair: tuple[CloudEvent, CloudEvent]) -> None:
    one, two = (encode(event) for event in pair)
    assert (one.identity == two.identity) == ((one.source, one.id) == (two.source, two.id))
    assert one.identity.isascii()
    assert one.identity.isprintable()
    assert " " not in one.identity


def test_an_identity_is_unambiguous_where_ids_hold_separators() -> None:
    one = encode(build_event("t", "b@/s", id="a"))
    two = encode(build_event("t", "/s", id="a@b"))
    assert one.identity != two.identity


@given(st.lists(st.integers(-(2**70), 2**70) | st.floats(-1e40, 1e40) | st.just("12345678901234567890")))
def test_integers_over_64_bits_are_read_as_they_were_written(numbers: list[Any]) -> None:
    event = build_event("a.b", "/s", {"n": numbers})
    for document in (encode(event).json, encode(event).json.decode()):
        assert parse_event(document).get_data() == event.get_data()
        assert list(map(type, parse_event(document).get_data()["n"])) == list(map(type, numbers))
    assert read_payload(encode(event).payload, None) == event.get_data()


def test_a_large_integer_far_down_is_still_read() -> None:
    document = b'{"id":"1","type":"t","source":"/s","specversion":"1.0","data":%s18446744073709551616%s}'
    depth = 1000
    data = parse_event(document % (b"[" * depth, b"]" * depth)).get_data()
    while isinstance(data, list):
        (data,) = data
    assert data == 2**64
