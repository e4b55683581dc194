from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from oms_events.errors import AddressDeniedError, EventRejectedError, InvalidEventError
from oms_events.events import build_event, encode
from oms_events.publishers.eventbridge import EventBridgeConfig, from_eventbridge_event
from oms_events.publishers.eventbridge.entries import entry_size
from oms_events.publishers.eventbridge.mapping import EventMapper
from tests.strategies import events, json_values, texts

TIME = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)


def document(event: CloudEvent, **settings: Any) -> dict[str, Any]:
    return EventMapper(EventBridgeConfig(**settings)).entry(encode(event), 0).document


def delivered(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as EventBridge gives it to a target."""
    return {
        "version": "0", "id": "1", "account": "1", "region": "r", "time": "2026-01-01T00:00:00Z",
        "resources": entry.get("Resources", []), "source": entry["Source"],
        "detail-type": entry["DetailType"], "detail": orjson.loads(entry["Detail"]),
    }  # fmt: skip


def same(one: CloudEvent, other: CloudEvent) -> bool:
    return one.get_attributes() == other.get_attributes() and one.get_data() == other.get_data()


@pytest.mark.parametrize(
    ("source", "prefix", "expected"),
    [
        ("/oms/main", None, "oms.main"),
        ("/oms/main/", None, "oms.main"),
        ("oms.main", None, "oms.main"),
        ("https://oms.example.com/a/b?q=1#f", None, "oms.example.com.a.b"),
        ("https://user:secret@oms.example.com:8443/a", None, "oms.example.com.a"),
        ("//oms.example.com/a", None, "oms.example.com.a"),
        ("urn:acme:tickets", None, "urn.acme.tickets"),
        ("http://[broken/a", None, "http:.[broken.a"),
        ("/oms/main", "com.acme", "com.acme.oms.main"),
        ("/oms/main", "com.acme.", "com.acme.oms.main"),
        ("/com/acme/oms", "com.acme", "com.acme.oms"),
        ("com.acme.oms", "com.acme", "com.acme.oms"),
        ("com.acme", "com.acme", "com.acme"),
        ("com.acmeister", "com.acme", "com.acme.com.acmeister"),
        ("/", "com.acme", "com.acme"),
        ("aws.mine", "com.acme", "com.acme.aws.mine"),
    ],
)
def test_the_source_is_dotted_and_prefixed_once(source: str, prefix: str | None, expected: str) -> None:
    assert document(build_event("a.b", source), source_prefix=prefix)["Source"] == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("com.foundry.oms.objecttype.created", "Objecttype Created"),
        ("com.foundry.oms.link_type.soft_deleted", "Link Type Soft Deleted"),
        ("created", "Created"),
        ("a..b.", "A B"),
        ("x." + "y" * 200, ("X Y" + "y" * 200)[:128]),
    ],
)
def test_the_detail_type_is_two_segments_in_title_case(kind: str, expected: str) -> None:
    assert document(build_event(kind, "/s"))["DetailType"] == expected


@pytest.mark.parametrize("hours", [-9, 0, 5.5])
def test_the_time_is_the_same_moment_wherever_it_was_told(hours: float) -> None:
    time = TIME.astimezone(timezone(timedelta(hours=hours)))
    assert document(build_event("a.b", "/s", time=time))["Time"] == 1770091506


def test_wrapped_has_the_event_its_context_and_the_conversion() -> None:
    event = build_event(
        "com.foundry.oms.branch.merged", "/oms/main", {"ü": [1, None]}, id="1", time=TIME, branch="main", level=3
    )
    entry = document(event, event_bus_name="oms", resources=("arn:aws:x",))
    detail = json.loads(entry.pop("Detail"))
    assert entry == {
        "Source": "oms.main", "DetailType": "Branch Merged", "EventBusName": "oms",
        "Time": int(TIME.timestamp()), "Resources": ["arn:aws:x"],
    }  # fmt: skip
    assert detail == {
        "cloudEvents": {
            "specversion": "1.0", "id": "1", "type": "com.foundry.oms.branch.merged", "source": "/oms/main",
            "time": "2026-02-03T04:05:06.789000Z", "branch": "main", "level": 3, "data": {"ü": [1, None]},
        },
        "omsContext": {"branch": "main", "level": 3},
        "eventBridgeMetadata": {"mapping": "wrapped", "converter": "oms-events", "version": 1},
    }  # fmt: skip


def test_plain_is_the_data_itself_beside_the_attributes() -> None:
    event = build_event("com.acme.AccountCreated", "ticket.service", {"account": 7}, id="1", time=TIME, tenant="t")
    entry = document(event, mapping="plain")
    assert (entry["Source"], entry["DetailType"]) == ("ticket.service", "AccountCreated")
    assert json.loads(entry["Detail"]) == {
        "account": 7,
        "cloudEvents": {
            "specversion": "1.0", "id": "1", "type": "com.acme.AccountCreated", "source": "ticket.service",
            "time": "2026-02-03T04:05:06.789000Z", "tenant": "t",
        },
    }  # fmt: skip


def test_plain_takes_detail_types_from_the_table() -> None:
    table = {"com.acme.AccountCreated": "Account Created"}
    made = [
        document(build_event(kind, "s", {}), mapping="plain", detail_types=table)["DetailType"]
        for kind in ("com.acme.AccountCreated", "com.acme.AccountClosed")
    ]
    assert made == ["Account Created", "AccountClosed"]


@pytest.mark.parametrize("data", [[1], "text", b"{}", 7, None, [{}]])
def test_plain_refuses_data_that_is_no_object(data: Any) -> None:
    with pytest.raises(EventRejectedError, match="JSON objects only"):
        document(build_event("a.B", "s", data), mapping="plain")


def test_plain_refuses_data_with_a_key_of_its_own_on_top_only() -> None:
    with pytest.raises(EventRejectedError, match="'cloudEvents'"):
        document(build_event("a.B", "s", {"cloudEvents": 1}), mapping="plain")
    with pytest.raises(EventRejectedError, match="'eventBridgeMetadata'"):
        document(build_event("a.B", "s", {"eventBridgeMetadata": 1}), mapping="plain")
    assert document(build_event("a.B", "s", {"inner": {"cloudEvents": "cloudEvents"}}), mapping="plain")


def test_sources_that_aws_keeps_are_denied_here() -> None:
    for settings in ({}, {"mapping": "plain"}):
        with pytest.raises(AddressDeniedError, match="source_prefix"):
            document(build_event("a.b", "aws.ec2", {}), **settings)


@pytest.mark.parametrize(
    ("event", "settings"),
    [
        (build_event("a.b", "/"), {}),
        (build_event(".", "/s"), {}),
        (build_event("a.", "/s", {}), {"mapping": "plain"}),
        (build_event("y" * 129, "/s", {}), {"mapping": "plain"}),
    ],
)
def test_what_leaves_no_source_or_detail_type_is_rejected(event: CloudEvent, settings: dict[str, Any]) -> None:
    with pytest.raises(EventRejectedError):
        document(event, **settings)


@pytest.fixture
def deep_recursion() -> Iterator[None]:
    """Python 3.11 counts the levels of the JSON writer against the limit of its own calls."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("deep_recursion")
@pytest.mark.parametrize(("settings", "around"), [({}, 2), ({"mapping": "plain"}, 0)])
def test_nesting_is_limited_to_a_thousand_levels_in_all(settings: dict[str, Any], around: int) -> None:
    def nested(levels: int) -> CloudEvent:
        value: dict[str, Any] = {"text": '[[{"\\'}
        for _ in range(levels - 1):
            value = {"n": value}
        return build_event("a.b", "/s", value)

    assert document(nested(1000 - around), **settings)
    with pytest.raises(EventRejectedError, match=f"{1001 - around} levels"):
        document(nested(1001 - around), **settings)
    wide = build_event("a.b", "/s", {"flat": [[]] * 2000})
    assert document(wide, **settings)


def test_an_entry_too_large_names_size_and_limit() -> None:
    event = build_event("a.b", "/s", "x" * 1000)
    size = EventMapper(EventBridgeConfig()).entry(encode(event), 0).size
    assert EventMapper(EventBridgeConfig(max_request_bytes=size + 1)).entry(encode(event), 0).size == size
    with pytest.raises(EventRejectedError, match=f"{size} bytes .* less than {size}"):
        document(event, max_request_bytes=size)


@given(events())
def test_wrapped_comes_back_the_same(event: CloudEvent) -> None:
    try:
        entry = EventMapper(EventBridgeConfig(resources=("arn:ü",))).entry(encode(event), 5)
    except (EventRejectedError, AddressDeniedError):
        return
    made = entry.document
    assert entry.index == 5
    assert entry.size == entry_size(
        made["Source"], made["DetailType"], made["Detail"].encode(), ("arn:ü",), timed=True
    )
    for form in (delivered(made), json.dumps(delivered(made)), orjson.dumps(delivered(made))):
        assert same(from_eventbridge_event(form), event)


@given(events(), json_values, texts)
def test_plain_comes_back_the_same(event: CloudEvent, value: Any, key: str) -> None:
    attributes = {n: v for n, v in event.get_attributes().items() if n != "datacontenttype"}
    event = CloudEvent(attributes, {key: value})
    try:
        made = document(event, mapping="plain")
    except (EventRejectedError, AddressDeniedError):
        return
    assert same(from_eventbridge_event(delivered(made)), event)


@pytest.mark.parametrize(
    "form",
    [
        "no json",
        b"\xff",
        "[]",
        "null",
        {},
        {"detail": "text"},
        {"detail": {"state": "running"}},
        {"detail": {"cloudEvents": "text"}},
        {"detail": {"cloudEvents": {}}},
        {"detail": {"cloudEvents": {"specversion": "1.0", "type": "t", "source": "s"}}},
        {"detail": {"cloudEvents": {"specversion": "1.0", "id": "1", "type": "t"}, "eventBridgeMetadata": {}}},
    ],
)
def test_what_is_no_mapped_event_is_invalid(form: Any) -> None:
    with pytest.raises(InvalidEventError):
        from_eventbridge_event(form)


@pytest.mark.parametrize("mapping", ["wrapped", "plain"])
def test_integers_over_64_bits_come_back_as_they_were(mapping: str) -> None:
    event = build_event("a.b", "/s", {"n": [2**64, -(2**63) - 1, 10**200]})
    message = delivered(document(event, mapping=mapping)) | {"detail": "DETAIL"}
    text = json.dumps(message).replace('"DETAIL"', document(event, mapping=mapping)["Detail"])
    for body in (text, text.encode(), json.loads(text)):
        assert from_eventbridge_event(body).get_data() == event.get_data()


def test_plain_finds_its_own_key_beside_an_integer_that_no_float_can_hold() -> None:
    beside = build_event("a.b", "/s", {"n": 10**400, "text": "cloudEvents"})
    assert str(10**400) in document(beside, mapping="plain")["Detail"]
    with pytest.raises(EventRejectedError, match="cloudEvents"):
        document(build_event("a.b", "/s", {"n": 10**400, "cloudEvents": 1}), mapping="plain")
