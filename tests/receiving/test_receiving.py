"""What a receiver does with what JetStream delivers, on the real server."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from nats.aio.client import Client

from oms_events.errors import EventRejectedError, InvalidEventError
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.publishers.jetstream import ContentMode, JetStreamPublisher, NatsConfig
from oms_events.receiving import JetStreamReceiver
from tests.publishers.jetstream.conftest import Stream
from tests.receiving.conftest import Drops, Handler, all_acknowledged, config_for, is_full, publish, until

pytestmark = pytest.mark.serial


async def test_all_events_come_in_order_in_batches(
    connection: Client | NatsConfig, client: Client, stream: Stream, handler: Handler
) -> None:
    before = await publish(stream, client, 30)
    async with JetStreamReceiver(connection, config_for(stream, batch=8), handler) as receiver:
        during = await publish(stream, client, 30)
        await until(lambda: len(handler.ids) == 60)
        await all_acknowledged(stream)
        assert receiver.describe()["handled"] == 60
        assert receiver.describe()["trouble"] is None
    assert handler.ids == before + during
    assert max(map(len, handler.batches)) == 8
    assert receiver.describe()["open"] is False


@pytest.mark.parametrize("mode", list(ContentMode))
async def test_events_are_as_they_were(client: Client, stream: Stream, mode: ContentMode) -> None:
    time = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
    sent = [
        encode(
            build_event("t", "/s", {"a": [1, None, "ü"]}, id="Ü 1", subject="a/b c", time=time, sequence="0007")
        ),
        encode(build_event("t", "/s", "text", datacontenttype="text/plain")),
        encode(build_event("t", "/s", b"\x00\xff", datacontenttype="application/octet-stream")),
        encode(build_event("t", "/s", None)),
    ]
    async with JetStreamPublisher(client, options=stream.options(mode=mode)) as publisher:
        await publisher.publish(sent, timeout=5)
    got: list[EncodedEvent] = []

    async def handle(events: Any) -> list[None]:
        got.extend(events)
        return [None] * len(events)

    async with JetStreamReceiver(client, config_for(stream), handle):
        await until(lambda: len(got) == 4)
    assert [(one.attributes, one.data) for one in got] == [(one.attributes, one.data) for one in sent]


async def test_only_the_wanted_subjects_come(client: Client, stream: Stream, handler: Handler) -> None:
    for name in ("a", "b", "c"):
        message = encode(build_event(name, "/s", {}, id=name)).json
        kind = {"Content-Type": "application/cloudevents+json"}
        await stream.js.publish(f"{stream.name}.{name}", message, headers=kind)
    async with JetStreamReceiver(client, config_for(stream, subjects=(f"{stream.name}.b",)), handler):
        await until(lambda: handler.ids == ["b"])
        await all_acknowledged(stream)
    # Changed to agree at the next opening; what was passed over stays so.
    await stream.js.publish(f"{stream.name}.c", encode(build_event("c", "/s", {}, id="c2")).json, headers=kind)
    wider = config_for(stream, subjects=(f"{stream.name}.b", f"{stream.name}.c"))
    async with JetStreamReceiver(client, wider, handler):
        await until(lambda: "c2" in handler.ids)
    info = await stream.js.consumer_info(stream.name, "projections")
    assert info.config.filter_subjects == [f"{stream.name}.b", f"{stream.name}.c"]
    assert "a" not in handler.ids


async def test_only_what_was_not_handled_comes_again(client: Client, stream: Stream, handler: Handler) -> None:
    ids = await publish(stream, client, 5)
    failures = [2]

    def fail_twice(event: EncodedEvent) -> Exception | None:
        if event.id == ids[1] and failures[0]:
            failures[0] -= 1
            return OSError("not now")
        return None

    handler.answer = fail_twice
    async with JetStreamReceiver(client, config_for(stream), handler) as receiver:
        await until(lambda: len(handler.ids) == 7)
        await all_acknowledged(stream)
        assert (receiver.describe()["handled"], receiver.describe()["failed"]) == (5, 2)
    assert sorted(handler.ids) == sorted([*ids, ids[1], ids[1]])


@pytest.mark.parametrize("fault", ["raises", "too few results", "no results", "is cancelled inside"])
async def test_a_handler_that_fails_as_a_whole_gets_the_batch_again(
    client: Client, stream: Stream, fault: str
) -> None:
    ids = await publish(stream, client, 4)
    calls: list[list[str]] = []

    async def handle(events: Any) -> Any:
        calls.append([event.id for event in events])
        if len(calls) > 1:
            return [None] * len(events)
        if fault == "raises":
            raise RuntimeError("a bug")
        if fault == "is cancelled inside":
            raise asyncio.CancelledError
        return [None] if fault == "too few results" else None

    async with JetStreamReceiver(client, config_for(stream), handle) as receiver:
        # The first batch may have come before all four were in the stream.
        await until(lambda: {event_id for call in calls[1:] for event_id in call} == set(ids))
        await all_acknowledged(stream)
        assert receiver.describe()["failed"] == len(calls[0])
    assert sorted(event_id for call in calls[1:] for event_id in call) == sorted(ids)


async def test_what_is_no_event_is_dropped_told_and_harms_no_other(
    client: Client, stream: Stream, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    structured = {"Content-Type": "application/cloudevents+json"}
    await stream.js.publish(f"{stream.name}.t", b"hello", headers={"X": "1"})
    await stream.js.publish(f"{stream.name}.t", b"[" * 100_000, headers=structured)
    await stream.js.publish(f"{stream.name}.t", b'{"specversion":"1.0","id":"1"}', headers=structured)
    await stream.js.publish(f"{stream.name}.t")
    (good,) = await publish(stream, client, 1)
    drops = Drops()
    with caplog.at_level(logging.WARNING, "oms_events"):
        async with JetStreamReceiver(client, config_for(stream), handler, on_dropped=drops) as receiver:
            await until(lambda: handler.ids == [good] and len(drops.all) == 4)
            await all_acknowledged(stream)
            assert receiver.describe()["dropped"] == 4
    first = drops.all[0]
    assert (first.stream, first.sequence, first.subject) == (stream.name, 1, f"{stream.name}.t")
    assert (first.deliveries, first.event, first.payload) == (1, None, b"hello")
    assert first.headers == {"X": "1"}
    assert all(isinstance(one.error, InvalidEventError) for one in drops.all)
    assert sum("is dropped" in record.message for record in caplog.records) == 4
    # Nothing is lost: the stream keeps it.
    assert (await stream.message(1)).data == b"hello"


@pytest.mark.parametrize("error", [EventRejectedError("too large"), InvalidEventError("from no event store")])
async def test_what_the_handler_refuses_for_good_is_dropped(
    client: Client, stream: Stream, handler: Handler, error: Exception
) -> None:
    ids = await publish(stream, client, 3)
    handler.answer = lambda event: error if event.id == ids[1] else None
    drops = Drops()
    async with JetStreamReceiver(client, config_for(stream), handler, on_dropped=drops):
        await until(lambda: bool(drops.all))
        await all_acknowledged(stream)
    assert handler.ids == ids
    (dropped,) = drops.all
    assert dropped.error is error
    assert dropped.event is not None
    assert dropped.event.id == ids[1]


async def test_after_the_last_delivery_it_is_dropped(client: Client, stream: Stream, handler: Handler) -> None:
    ids = await publish(stream, client, 2)
    handler.answer = lambda event: OSError("never") if event.id == ids[0] else None
    drops = Drops()
    config = config_for(stream, max_deliveries=3)
    async with JetStreamReceiver(client, config, handler, on_dropped=drops):
        await until(lambda: bool(drops.all))
        await all_acknowledged(stream)
    assert handler.ids.count(ids[0]) == 3
    assert [(one.deliveries, str(one.error)) for one in drops.all] == [(3, "never")]


@pytest.mark.parametrize("fault", [OSError, asyncio.CancelledError])
async def test_nothing_is_dropped_that_nobody_could_be_told_of(
    client: Client, stream: Stream, handler: Handler, fault: type[BaseException]
) -> None:
    await stream.js.publish(f"{stream.name}.t", b"no event")
    told: list[int] = []

    async def store(dropped: Any) -> None:
        told.append(dropped.deliveries)
        if len(told) < 3:
            raise fault("the place for dropped messages is gone")

    async with JetStreamReceiver(client, config_for(stream), handler, on_dropped=store):
        (good,) = await publish(stream, client, 1)
        await until(lambda: len(told) == 3)
        await all_acknowledged(stream)
    assert told == [1, 2, 3]
    assert handler.ids == [good]


async def test_failures_wait_longer_each_time(client: Client, stream: Stream) -> None:
    await publish(stream, client, 1)
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def handle(events: Any) -> list[Exception | None]:
        times.append(loop.time())
        return [None if len(times) == 4 else OSError("not now")]

    async with JetStreamReceiver(client, config_for(stream, retry_initial=0.1, retry_maximum=0.3), handle):
        await until(lambda: len(times) == 4)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for pause, (least, most) in zip(pauses, [(0.075, 0.2), (0.15, 0.35), (0.225, 0.5)], strict=True):
        assert least <= pause <= most + 0.5
    assert pauses[0] < pauses[2]


async def test_a_slow_handler_keeps_its_events(client: Client, stream: Stream, handler: Handler) -> None:
    handler.gate.clear()
    ids = await publish(stream, client, 4)
    # Two in the handler and two that wait, all longer than the server waits without a sign of life.
    async with (
        JetStreamReceiver(client, config_for(stream, batch=2, ack_wait=0.3), handler),
        JetStreamReceiver(client, config_for(stream, batch=2, ack_wait=0.3, manage=False), other := Handler()),
    ):
        await until(lambda: len(handler.ids) + len(other.ids) >= 2)
        await asyncio.sleep(1.0)
        handler.gate.set()
        await until(lambda: len(handler.ids) + len(other.ids) >= 4)
        await all_acknowledged(stream)
    assert sorted(handler.ids + other.ids) == sorted(ids)


async def test_what_is_in_memory_is_bounded(client: Client, stream: Stream, handler: Handler) -> None:
    handler.gate.clear()
    ids = await publish(stream, client, 100)
    async with JetStreamReceiver(client, config_for(stream, batch=5), handler) as receiver:
        await until(lambda: is_full(receiver, 5))
        info = await stream.js.consumer_info(stream.name, "projections")
        held = receiver.describe()["in_hand"] + receiver.describe()["waiting"]
        assert held <= 10
        assert (info.num_ack_pending, info.num_pending) == (held, 100 - held)
        handler.gate.set()
        await until(lambda: len(handler.ids) == 100)
    assert handler.ids == ids


async def test_two_receivers_share_a_consumer(client: Client, stream: Stream, handler: Handler) -> None:
    other = Handler()
    async with (
        JetStreamReceiver(client, config_for(stream, batch=5), handler),
        JetStreamReceiver(client, config_for(stream, batch=5), other),
    ):
        ids = await publish(stream, client, 200)
        await until(lambda: len(handler.ids) + len(other.ids) >= 200)
        await all_acknowledged(stream)
    assert sorted(handler.ids + other.ids) == sorted(ids)
    assert handler.ids
    assert other.ids


async def test_attributes_that_cannot_be_read_do_no_harm(client: Client, stream: Stream, handler: Handler) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-time": "yesterday"}
    await stream.js.publish(f"{stream.name}.t", b"{}", headers=headers)
    json_body = {"specversion": "1.0", "id": "2", "source": "/s", "type": "t", "nested": {"a": 1}}
    await stream.js.publish(
        f"{stream.name}.t",
        json.dumps(json_body).encode(),
        headers={"Content-Type": "application/cloudevents+json"},
    )
    drops = Drops()
    async with JetStreamReceiver(client, config_for(stream), handler, on_dropped=drops):
        await until(lambda: len(drops.all) == 2)
    assert [one.error.field for one in drops.all if isinstance(one.error, InvalidEventError)] == ["time", "nested"]
