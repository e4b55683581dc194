"""Reading deliveries, the words of acknowledgement, and the configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.errors import ConfigurationError, InvalidEventError
from oms_events.receiving import ReceiverConfig
from oms_events.receiving.deliveries import Delivery, again, never_again, retry_delay

SHORT = "$JS.ACK.ORDERS.projections.3.42.7.1700000000000000000.5"
LONG = "$JS.ACK.hub.ACCOUNT.ORDERS.projections.3.42.7.1700000000000000000.5"


@pytest.mark.parametrize("reply", [SHORT, LONG, f"{LONG}.random", f"{LONG}.random.more"])
def test_a_delivery_says_where_it_is_and_how_often_it_came(reply: str) -> None:
    delivery = Delivery.read("orders.a", reply, None, b"x")
    assert delivery is not None
    assert (delivery.stream, delivery.sequence, delivery.deliveries) == ("ORDERS", 42, 3)


@pytest.mark.parametrize(
    "reply", ["", "_INBOX.x.1", "$JS.ACK.a", "$JS.ACK.S.c.x.42.7.1.5", SHORT.replace("ACK", "FC"), f"{SHORT}.1"]
)
def test_what_jetstream_did_not_deliver_is_none(reply: str) -> None:
    assert Delivery.read("orders.a", reply, None, b"x") is None


@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=4))
def test_any_message_is_an_event_or_told_to_be_none(payload: bytes, headers: dict[str, str]) -> None:
    for more in ({}, {"Content-Type": "application/cloudevents+json"}, {"ce-id": "1", "ce-specversion": "1.0"}):
        delivery = Delivery("s", SHORT, {**headers, **more}, payload, "S", 1, 1)
        with pytest.raises(InvalidEventError):
            delivery.event()


def test_the_words_are_those_of_jetstream() -> None:
    assert again(0) == b"-NAK"
    assert again(1.5) == b'-NAK {"delay": 1500000000}'
    assert never_again(ValueError("no\r\n event\ud800" + "x" * 1000)).startswith(b"+TERM no event?xxx")
    assert len(never_again(ValueError("ü" * 1000))) < 500


@given(st.integers(1, 10**6), st.floats(0.001, 10), st.floats(10, 1000), st.floats(0, 1))
def test_delays_grow_to_the_maximum(deliveries: int, initial: float, maximum: float, draw: float) -> None:
    delay = retry_delay(deliveries, initial=initial, maximum=maximum, draw=draw)
    later = retry_delay(deliveries + 1, initial=initial, maximum=maximum, draw=draw)
    assert 0.75 * initial <= delay <= later <= maximum


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"stream": "a.b"}, "stream"),
        ({"durable": ""}, "durable"),
        ({"subjects": ("a..b",)}, "no empty token"),
        ({"batch": 0}, "batch"),
        ({"batch": 50, "max_ack_pending": 10}, "max_ack_pending = 10 is less than batch = 50"),
        ({"retry_initial": 5, "retry_maximum": 1}, "retry_maximum = 1.0 is less than retry_initial = 5.0"),
        ({"api_prefix": "a b"}, "api_prefix"),
        ({"heartbeat": 100}, "heartbeat"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        ReceiverConfig(**{"stream": "S", "durable": "d", **changes})


def test_the_configuration_needs_no_nats_client() -> None:
    program = """
import sys
sys.modules["nats"] = None
from oms_events.errors import MissingExtraError
from oms_events.receiving import ReceiverConfig
ReceiverConfig(stream="S", durable="d")
try:
    from oms_events.receiving import JetStreamReceiver
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "NATS needs an extra: pip install 'oms-events[nats]'\n"
