"""Keys and fingerprints."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events import InvalidEventError, build_event, encode
from oms_events.errors import IdempotencyArgumentError
from oms_events.idempotency.records import RunRecord, RunState, expiry, fingerprint, item_key

UNIQUE = UUID("6d2f0c4c-7f9e-4f0e-9f5f-0a4f3b7f4c11")


def test_an_expiry_is_rounded_up() -> None:
    assert expiry(datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 60) == 1767225600 + 61


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("A-1", "orders#A-1"),
        (7, "orders#7"),
        (UNIQUE, f"orders#{UNIQUE}"),
        (
            build_event("t", "/shop/web", id="A 1"),
            f"orders#{encode(build_event('t', '/shop/web', id='A 1')).identity}",
        ),
        ("ü b#c", "orders#ü b#c"),
    ],
)
def test_the_key_can_be_read(key: object, expected: str) -> None:
    assert item_key("orders", key) == expected


@pytest.mark.parametrize("key", ["x" * 1025, "ü" * 513, "line\nline", "\ud800"])
def test_a_long_or_unprintable_key_becomes_a_digest(key: str) -> None:
    made = item_key("orders", key)
    assert made.startswith("orders#sha256:")
    assert len(made) == len("orders#sha256:") + 64
    assert made != item_key("orders", key + "y")


@given(key=st.text(min_size=1), prefix=st.text(min_size=1, max_size=255))
def test_every_key_fits_dynamodb_and_tells_its_prefix(key: str, prefix: str) -> None:
    prefix = prefix.replace("#", "_").encode("utf-8", "replace").decode()
    made = item_key(prefix, key)
    assert len(made.encode()) <= 2048
    assert made.partition("#")[0] == prefix


@pytest.mark.parametrize("key", [None, "", True, 1.5, ["A-1"], {"id": 1}, b"A-1", object()])
def test_what_is_no_key_is_refused(key: object) -> None:
    with pytest.raises(IdempotencyArgumentError, match="the key of orders is"):
        item_key("orders", key)


@pytest.mark.parametrize("prefix", ["", "a#b", "x" * 256])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(IdempotencyArgumentError, match="prefix = "):
        item_key(prefix, "A-1")


def test_an_invalid_event_is_called_by_its_name() -> None:
    with pytest.raises(InvalidEventError, match="data cannot be written"):
        item_key("orders", build_event("t", "/s", {"numbers": {1, 2}}))


def test_the_same_payload_written_otherwise_has_the_same_fingerprint() -> None:
    assert fingerprint({"a": 1, "b": [1.0, True]}) == fingerprint({"b": (1, True), "a": 1.0})


@pytest.mark.parametrize(
    "other", [{"a": 2}, {"a": "1"}, {"a": True}, {"a": 1.5}, {"b": 1}, [1], None, b'{"a":1}x']
)
def test_another_payload_has_another_fingerprint(other: object) -> None:
    assert fingerprint({"a": 1}) != fingerprint(other)


def test_of_an_event_its_type_and_data_count() -> None:
    event = build_event("t", "/s", {"a": 1, "b": 2.0}, id="1")
    again = build_event("t", "/s", {"b": 2, "a": 1}, id="1", traceparent="00-a-b-01")
    assert fingerprint(event) == fingerprint(encode(again))
    others = [build_event("u", "/s", {"a": 1, "b": 2}), build_event("t", "/s", {"a": 1}), build_event("t", "/s")]
    assert fingerprint(event) not in [fingerprint(other) for other in others]
    text, binary = (
        build_event("t", "/s", data, datacontenttype=kind) for data, kind in (("x", "text/plain"), (b"y", "a/b"))
    )
    assert fingerprint(text) != fingerprint(binary)


@pytest.mark.parametrize("payload", [{1, 2}, float("nan"), object(), {"at": datetime.now(UTC)}])
def test_a_payload_that_is_no_json_is_refused(payload: object) -> None:
    with pytest.raises(IdempotencyArgumentError, match="no JSON"):
        fingerprint(payload)


def test_payloads_contradict_only_where_both_were_checked() -> None:
    checked = RunRecord("k", "t", RunState.COMPLETED, 1, "f")
    unchecked = RunRecord("k", "t", RunState.COMPLETED, 1)
    assert checked.contradicts("g")
    assert not checked.contradicts("f")
    assert not checked.contradicts("")
    assert not unchecked.contradicts("g")
