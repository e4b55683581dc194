from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from oms_events.devstack import NatsServer
from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import build_event, encode
from oms_events.publishers.jetstream import ContentMode, JetStreamOptions, JetStreamPublisher
from oms_events.publishing import Publisher, Receipt
from tests.publishers.jetstream.conftest import TYPE, Stream, make_events, make_stream, until

Open = Callable[..., JetStreamPublisher]


def failures(results: Any) -> list[type]:
    return [type(result) for result in results]


async def test_an_event_arrives_field_by_field(publisher: JetStreamPublisher, stream: Stream) -> None:
    event = build_event(
        TYPE,
        "/oms/main",
        {"name": "Grüße", "list": [1, None]},
        id="id @ 1",
        time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        subject="object_type/User",
        branch="main 100%",
        flag=True,
    )
    assert isinstance(publisher, Publisher)
    assert await publisher.publish([encode(event)], timeout=5) == [Receipt(None, stream.name, 1, False)]
    message = await stream.message(1)
    assert message.subject == f"{stream.name}.oms.schema.created"
    assert message.headers["Nats-Msg-Id"] == encode(event).identity
    (back,) = await stream.read()
    assert back.get_attributes() == {**event.get_attributes(), "flag": "true"}
    assert back.get_data() == event.get_data()


async def test_structured_mode_arrives(open_with: Open, stream: Stream, fast_path: bool) -> None:
    event = encode(build_event(TYPE, "/oms/main", b"\x00\xff", datacontenttype="image/png"))
    async with open_with(mode=ContentMode.STRUCTURED, fast_path=fast_path) as publisher:
        await publisher.publish([event], timeout=5)
    message = await stream.message(1)
    assert message.data == event.json
    assert message.headers["Content-Type"] == "application/cloudevents+json"
    (back,) = await stream.read()
    assert back.get_attributes() == event.attributes
    assert back.get_data() == b"\x00\xff"


async def test_many_events_keep_their_order(publisher: JetStreamPublisher, stream: Stream) -> None:
    events = make_events(3000)
    results = await publisher.publish(events, timeout=20)
    assert [result.sequence for result in results if isinstance(result, Receipt)] == list(range(1, 3001))
    for sequence in (1, 1500, 3000):
        assert (await stream.message(sequence)).headers["ce-id"] == events[sequence - 1].id


async def test_concurrent_calls_share_a_small_window(open_with: Open, stream: Stream, fast_path: bool) -> None:
    async with open_with(max_pending=8, fast_path=fast_path) as publisher:
        most = 0
        batches = [make_events(count) for count in (1, 300, 5, 64, 1)]
        tasks = [asyncio.create_task(publisher.publish(batch, timeout=20)) for batch in batches]
        while not all(task.done() for task in tasks):
            most = max(most, publisher.describe()["in_flight"])
            await asyncio.sleep(0)
        results = [task.result() for task in tasks]
        assert [len(result) for result in results] == [1, 300, 5, 64, 1]
        sequences = [one.sequence for result in results for one in result if isinstance(one, Receipt)]
        assert sorted(sequence or 0 for sequence in sequences) == list(range(1, 372))
        assert 1 < most <= 8
        assert publisher.describe()["in_flight"] == 0
    ids = [event.get_id() for event in await stream.read()]
    for batch in batches:
        wanted = [event.id for event in batch]
        assert [id_ for id_ in ids if id_ in set(wanted)] == wanted


async def test_a_single_event_waits_for_one_turn_of_a_large_call(open_with: Open, fast_path: bool) -> None:
    async with open_with(max_pending=64, fast_path=fast_path) as publisher:
        large = asyncio.create_task(publisher.publish(make_events(5000), timeout=20))
        await asyncio.sleep(0)
        (single,) = await publisher.publish(make_events(1), timeout=20)
        assert isinstance(single, Receipt)
        assert not large.done()
        assert (single.sequence or 9999) < 1000
        await large


async def test_a_copy_is_flagged_as_duplicate(publisher: JetStreamPublisher, stream: Stream) -> None:
    events = make_events(2)
    await publisher.publish(events[:1], timeout=5)
    results = await publisher.publish(events, timeout=5)
    assert [result.duplicate for result in results if isinstance(result, Receipt)] == [True, False]
    assert await stream.size() == 2


async def test_bad_events_among_good_ones(publisher: JetStreamPublisher, stream: Stream) -> None:
    events = make_events(1000)
    limit = publisher.describe()["max_payload"]
    events[3] = encode(build_event(TYPE, "/s", "x" * (limit + 1)))
    events[500] = encode(build_event("com.foundry." + "y" * 600, "/s"))
    events[999] = encode(build_event(TYPE, "/s", "x" * (limit - 20)))
    results = await publisher.publish(events, timeout=20)
    bad = {index: type(result) for index, result in enumerate(results) if not isinstance(result, Receipt)}
    assert bad == dict.fromkeys((3, 500, 999), EventRejectedError)
    assert "max_payload" in str(results[3])
    assert await stream.size() == 997


async def test_a_message_of_just_the_limit_is_taken(publisher: JetStreamPublisher, stream: Stream) -> None:
    def event(size: int) -> Any:
        return encode(build_event(TYPE, "/s", b"x" * size, id="same", time=datetime(2026, 1, 1, tzinfo=UTC)))

    limit = publisher.describe()["max_payload"]
    await publisher.publish([event(1)], timeout=5)
    headers = (await stream.message(1)).headers
    block = len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n") for name, value in headers.items())
    fits, too_large = await publisher.publish([event(limit - block), event(limit - block + 1)], timeout=5)
    assert isinstance(fits, Receipt)
    assert isinstance(too_large, EventRejectedError)


async def test_hostile_types_and_attributes_stay_one_message_each(
    publisher: JetStreamPublisher, stream: Stream
) -> None:
    hostile = "x\r\nPUB evil 0\r\n\r\n"
    event = build_event(f"a {hostile}.*.>", f"/s {hostile}", {"a": 1}, id=hostile, branch=hostile)
    (result,) = await publisher.publish([encode(event)], timeout=5)
    assert isinstance(result, Receipt)
    (back,) = await stream.read()
    assert back.get_attributes() == event.get_attributes()


async def test_more_than_the_stream_takes_is_rejected(client: Client, fast_path: bool) -> None:
    async with (
        make_stream(client, max_msg_size=2000) as stream,
        JetStreamPublisher(client, options=stream.options(fast_path=fast_path)) as publisher,
    ):
        big = encode(build_event(TYPE, "/s", "x" * 3000))
        rejected, fine = await publisher.publish([big, *make_events(1)], timeout=5)
    assert isinstance(rejected, EventRejectedError)
    assert rejected.code == "10054"
    assert isinstance(fine, Receipt)


async def test_a_full_stream_that_discards_new_is_transient(client: Client, fast_path: bool) -> None:
    async with (
        make_stream(client, max_msgs=2, discard=nats.js.api.DiscardPolicy.NEW) as stream,
        JetStreamPublisher(client, options=stream.options(fast_path=fast_path)) as publisher,
    ):
        results = await publisher.publish(make_events(3), timeout=5)
    assert failures(results) == [Receipt, Receipt, TransientError]
    assert "maximum messages exceeded" in str(results[2])


async def test_a_subject_that_no_stream_takes(client: Client, stream: Stream, fast_path: bool) -> None:
    template = f"{{covered|{stream.name}}}.{{type}}"
    async with JetStreamPublisher(
        client, options=stream.options(subject=template, fast_path=fast_path)
    ) as publisher:
        stray = encode(build_event(TYPE, "/s", covered="nowhere"))
        results = await publisher.publish([stray, *make_events(1)], timeout=5)
        assert failures(results) == [AddressDeniedError, Receipt]
        assert "add it to a stream's subjects" in str(results[0])


async def test_a_configured_stream_that_went_away(client: Client, fast_path: bool) -> None:
    async with make_stream(client) as stream:
        publisher = JetStreamPublisher(client, options=stream.options(fast_path=fast_path))
        await publisher.open()
    (result,) = await publisher.publish(make_events(1), timeout=5)
    assert isinstance(result, PlatformDeniedError)
    assert f"stream '{stream.name}' does not exist" in str(result)
    with pytest.raises(PlatformDeniedError):
        await publisher.check()
    await publisher.close()


async def test_a_stream_known_from_acks_may_go_away(client: Client) -> None:
    async with JetStreamPublisher(client, options=JetStreamOptions()) as publisher:
        async with make_stream(client, subjects=["oms.schema.*"]) as stream:
            (result,) = await publisher.publish(make_events(1), timeout=5)
            assert isinstance(result, Receipt)
            await publisher.check()
            assert publisher.describe()["stream"] == stream.name
        await publisher.check()
        assert publisher.describe()["stream"] is None


async def test_no_stream_at_all_is_the_platforms_fault(fast_path: bool) -> None:
    async with NatsServer() as server:
        client = await nats.connect(server.url)
        async with JetStreamPublisher(client, options=JetStreamOptions(fast_path=fast_path)) as publisher:
            (result,) = await publisher.publish(make_events(1), timeout=5)
            assert isinstance(result, PlatformDeniedError)
            assert "no stream exists" in str(result)
            await publisher.check()
        await client.close()


async def test_jetstream_turned_off_is_the_platforms_fault(fast_path: bool) -> None:
    config = "accounts { A { users: [{user: a, password: a}] } }\nno_auth_user: a"
    async with NatsServer(config=config) as server:
        client = await nats.connect(server.url)
        async with JetStreamPublisher(client, options=JetStreamOptions(fast_path=fast_path)) as publisher:
            (result,) = await publisher.publish(make_events(1), timeout=5)
            assert isinstance(result, PlatformDeniedError)
            with pytest.raises(PlatformDeniedError):
                await publisher.check()
        await client.close()


async def test_cancelling_leaves_the_window_whole(
    open_with: Open, oms_nats_server: NatsServer, stream: Stream, fast_path: bool
) -> None:
    async with open_with(max_pending=4, fast_path=fast_path) as publisher:
        for turns in range(12):
            task = asyncio.create_task(publisher.publish(make_events(50), timeout=10))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        results = await publisher.publish(make_events(40), timeout=10)
        assert failures(results) == [Receipt] * 40
        assert publisher.describe()["in_flight"] == 0


async def test_the_deadline_passes_before_all_are_sent(
    oms_nats_server: NatsServer, open_with: Open, fast_path: bool
) -> None:
    async with open_with(max_pending=10, fast_path=fast_path) as publisher:
        oms_nats_server.pause()
        try:
            results = await publisher.publish(make_events(30), timeout=0.3)
        finally:
            oms_nats_server.resume()
        assert failures(results) == [UnknownOutcomeError] * 10 + [TransientError] * 20


async def test_no_time_sends_nothing(publisher: JetStreamPublisher, stream: Stream) -> None:
    assert failures(await publisher.publish(make_events(2), timeout=0)) == [TransientError] * 2
    assert await stream.size() == 0


async def test_a_silent_server_leaves_events_unknown_and_the_retry_is_a_duplicate(
    open_with: Open, oms_nats_server: NatsServer, stream: Stream, fast_path: bool
) -> None:
    async with open_with(ack_timeout=0.2, fast_path=fast_path) as publisher:
        events = make_events(20)
        oms_nats_server.pause()
        try:
            results = await publisher.publish(events, timeout=5)
        finally:
            oms_nats_server.resume()
        assert failures(results) == [UnknownOutcomeError] * 20
        assert "ack_timeout = 0.2" in str(results[0])
        again = await publisher.publish(events, timeout=5)
        assert [result.duplicate for result in again if isinstance(result, Receipt)] == [True] * 20
    assert await stream.size() == 20


async def test_publishing_without_opening_and_after_closing(open_with: Open, stream: Stream) -> None:
    publisher = open_with()
    (before,) = await publisher.publish(make_events(1), timeout=5)
    await publisher.open()
    await publisher.open()
    (during,) = await publisher.publish(make_events(1), timeout=5)
    await publisher.close()
    await publisher.close()
    (after,) = await publisher.publish(make_events(1), timeout=5)
    assert failures((before, during, after)) == [TransientError, Receipt, TransientError]
    await publisher.open()
    (again,) = await publisher.publish(make_events(1), timeout=5)
    assert isinstance(again, Receipt)
    await publisher.close()


async def test_closing_settles_what_is_in_flight(
    open_with: Open, oms_nats_server: NatsServer, fast_path: bool
) -> None:
    publisher = open_with(max_pending=4, fast_path=fast_path)
    await publisher.open()
    oms_nats_server.pause()
    try:
        task = asyncio.create_task(publisher.publish(make_events(10), timeout=5))
        await until(lambda: publisher.describe()["in_flight"] == 4)
        await publisher.close()
        results = await task
    finally:
        oms_nats_server.resume()
    assert failures(results) == [UnknownOutcomeError] * 4 + [TransientError] * 6


async def test_a_borrowed_client_stays_the_users(
    client: Client, open_with: Open, oms_nats_server: NatsServer, fast_path: bool
) -> None:
    parser, callback = type(client._ps), client._error_cb
    subscriptions = len(client._subs)
    async with open_with(fast_path=fast_path) as publisher:
        await publisher.publish(make_events(10), timeout=5)
        received = await client.subscribe("hello.*")
        await client.publish("hello.you", b"1", headers={"a": "b"})
        assert (await received.next_msg(timeout=5)).data == b"1"
        await received.unsubscribe()
    assert client.is_connected
    assert (type(client._ps), client._error_cb) == (parser, callback)
    # The one that stays is the client's own, for answers to requests.
    assert len(client._subs) <= subscriptions + 1
    await client.flush()


async def test_two_publishers_on_one_client(client: Client, stream: Stream) -> None:
    async with (
        JetStreamPublisher(client, options=stream.options()) as one,
        JetStreamPublisher(client, options=stream.options()) as two,
    ):
        results = await asyncio.gather(
            *(publisher.publish(make_events(200), timeout=10) for publisher in (one, two, one, two))
        )
    assert all(isinstance(result, Receipt) for batch in results for result in batch)
    assert await stream.size() == 800


async def test_describe_tells_no_secret_and_what_is_known(client: Client, stream: Stream) -> None:
    publisher = JetStreamPublisher(client, options=stream.options())
    assert publisher.describe()["connected"] is False
    async with publisher:
        described = publisher.describe()
    url = client.connected_url
    assert url is not None
    assert described == {
        "kind": "jetstream",
        "servers": [f"127.0.0.1:{url.port}"],
        "own_connection": False,
        "connected": True,
        "connected_to": f"127.0.0.1:{url.port}",
        "reconnects": 0,
        "max_payload": 1048576,
        "fast_path": True,
        "stream": stream.name,
        "duplicate_window": 120.0,
        "in_flight": 0,
        "max_pending": 2048,
    }


async def test_an_error_is_no_result_shared_by_mistake(publisher: JetStreamPublisher) -> None:
    results = await publisher.publish([*make_events(1), *make_events(1)], timeout=5)
    assert not any(isinstance(result, PublishError) for result in results)
    assert results[0] != results[1]
