from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from oms_events.publishers.jetstream.frames import FrameSender, _AckParser, make_sender

INBOX = "_INBOX.abc."
ACK = b'{"stream":"S", "seq":%d}'


def wire(subject: str, sid: int, payload: bytes) -> bytes:
    return b"MSG %b %d %d\r\n%b\r\n" % (subject.encode(), sid, len(payload), payload)


def no_error(error: Exception) -> None:
    raise error


class Sink:
    def __init__(self, got: list[Any], prefix: str) -> None:
        self._got, self._prefix = got, prefix

    def cancelled(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        self._got.append((message.subject.removeprefix(self._prefix), message.data))


def listening() -> tuple[Client, list[Any], list[Any]]:
    """A client with an inbox and a subscription of the user's, and what each received."""
    client = Client()
    acks: list[Any] = []
    others: list[Any] = []
    mine: Any = Sink(acks, INBOX)
    theirs: Any = Sink(others, "")
    client._subs = {
        1: Subscription(client, 1, f"{INBOX}*", future=mine),
        2: Subscription(client, 2, "other", future=theirs),
    }
    return client, acks, others


messages = st.lists(
    st.one_of(
        st.integers(0, 10**6).map(lambda n: ("ack", str(n), ACK % n)),
        st.binary(max_size=40).map(lambda payload: ("other", "other", payload)),
        # What looks like an ack, and is the payload of another message.
        st.integers(0, 9).map(lambda n: ("other", "other", wire(f"{INBOX}{n}", 1, ACK % n))),
        st.sampled_from([b"", b"+OK", b'{"a":\r\n1}', b'{"a":"}\r\n"}']).map(lambda p: ("ack", "7", p)),
    ),
    max_size=20,
)


@given(messages, st.lists(st.integers(1, 60)))
async def test_the_short_way_reads_what_the_clients_parser_reads(
    messages: list[tuple[str, str, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(
        wire(INBOX + name if kind == "ack" else name, 1 if kind == "ack" else 2, payload) + b"+OK\r\n"
        for kind, name, payload in messages
    )
    client, acks, others = listening()
    _AckParser.install(
        client, INBOX, client._subs[1], lambda token, payload, _: acks.append((str(token), payload)), no_error
    )
    assert type(client._ps) is _AckParser
    position = 0
    for cut in [*cuts, len(stream)]:
        await client._ps.parse(stream[position : position + cut])
        position += cut
    assert acks == [(name, payload) for kind, name, payload in messages if kind == "ack"]
    assert others == [(name, payload) for kind, name, payload in messages if kind == "other"]
    assert client.stats["in_msgs"] == len(messages)
    assert client.stats["in_bytes"] == sum(len(payload) for _, _, payload in messages)


async def test_the_parser_goes_back_in_the_middle_of_a_message() -> None:
    client, acks, _ = listening()

    def on_ack(token: int, payload: bytes, status: str | None) -> None:
        acks.append((str(token), payload))

    data = wire(f"{INBOX}1", 1, ACK % 1) + wire(f"{INBOX}2", 1, ACK % 2)
    _AckParser.install(client, INBOX, client._subs[1], on_ack, no_error)
    await client._ps.parse(data[:-10])
    _AckParser.remove(client, on_ack)
    assert type(client._ps) is Parser
    await client._ps.parse(data[-10:])
    assert acks == [("1", ACK % 1), ("2", ACK % 2)]


async def test_an_error_of_ours_does_not_end_the_clients_reading(caplog: pytest.LogCaptureFixture) -> None:
    client, _, others = listening()

    def on_ack(token: int, payload: bytes, status: str | None) -> None:
        raise LookupError

    _AckParser.install(client, INBOX, client._subs[1], on_ack, no_error)
    await client._ps.parse(wire(f"{INBOX}1", 1, ACK % 1) + wire("other", 2, b"x"))
    assert others == [("other", b"x")]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_unknown_parser_stays() -> None:
    class Another(Parser):
        pass

    client, _, _ = listening()
    client._ps = Another(client)
    _AckParser.install(client, INBOX, client._subs[1], lambda *_: None, no_error)
    assert type(client._ps) is Another


def test_a_client_of_another_shape_takes_the_public_way() -> None:
    client = Client()
    assert not isinstance(make_sender(client, INBOX, fast_path=True), FrameSender)


DENIED = b"-ERR 'Permissions Violation for Publish to \"%b\"'\r\n"


@given(st.lists(st.integers(1, 60)))
async def test_each_error_of_the_server_is_heard_once(cuts: list[int]) -> None:
    client, acks, others = listening()
    client._error_cb = ignore
    heard: list[str] = []
    _AckParser.install(
        client,
        INBOX,
        client._subs[1],
        lambda token, payload, _: acks.append((str(token), payload)),
        lambda error: heard.append(str(error)),
    )
    stream = wire("other", 2, DENIED % b"no.error") + DENIED % b"a" + DENIED % b"b"
    stream += wire(f"{INBOX}1", 1, ACK % 1) + DENIED % b"c" + wire(f"{INBOX}2", 1, ACK % 2) + b"PONG\r\n"
    position = 0
    for cut in [*cuts, len(stream)]:
        await client._ps.parse(stream[position : position + cut])
        position += cut
    assert heard == [f'nats: permissions violation for publish to "{subject}"' for subject in "abc"]
    assert acks == [("1", ACK % 1), ("2", ACK % 2)]
    assert others == [("other", DENIED % b"no.error")]


async def test_an_error_in_hearing_does_not_end_the_clients_reading(caplog: pytest.LogCaptureFixture) -> None:
    client, _, others = listening()
    client._error_cb = ignore
    _AckParser.install(client, INBOX, client._subs[1], lambda *_: None, no_error)
    await client._ps.parse(DENIED % b"a" + wire("other", 2, b"x"))
    assert others == [("other", b"x")]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def ignore(_: Exception) -> None:
    pass
