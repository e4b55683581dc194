from __future__ import annotations

import orjson
import pytest

from oms_events.errors import FailureClass, PublishError
from oms_events.publishers.jetstream.acks import read_ack
from oms_events.publishing import Receipt


def test_an_ack_is_a_receipt() -> None:
    assert read_ack(b'{"stream":"S", "seq":7}', None) == Receipt(None, "S", 7, False)
    assert read_ack(b'{"stream":"S", "seq":7, "duplicate": true}', None) == Receipt(None, "S", 7, True)


@pytest.mark.parametrize(
    ("code", "number", "failure"),
    [
        (400, 10054, FailureClass.EVENT_REJECTED),
        (400, 10097, FailureClass.EVENT_REJECTED),
        (503, 10039, FailureClass.PLATFORM_DENIED),
        (503, 10076, FailureClass.PLATFORM_DENIED),
        (503, 10077, FailureClass.TRANSIENT),
        (503, 10008, FailureClass.TRANSIENT),
        (500, 10047, FailureClass.TRANSIENT),
        (409, 10158, FailureClass.UNKNOWN),
        (400, 10002, FailureClass.TRANSIENT),
        (400, 10060, FailureClass.ADDRESS_DENIED),
        (400, 10109, FailureClass.ADDRESS_DENIED),
    ],
)
def test_refusals_have_their_class(code: int, number: int, failure: FailureClass) -> None:
    body = {"error": {"code": code, "err_code": number, "description": "why"}, "stream": "S", "seq": 0}
    error = read_ack(orjson.dumps(body), None)
    assert isinstance(error, PublishError)
    assert error.failure is failure
    assert error.code == str(number)
    assert "why" in str(error)


def test_too_many_requests_is_throttling() -> None:
    error = read_ack(b'{"error":{"code":429,"err_code":10167,"description":"slow down"}}', None)
    assert isinstance(error, PublishError)
    assert error.failure is FailureClass.TRANSIENT
    assert error.throttled


def test_nobody_listening_is_the_addresss_fault() -> None:
    error = read_ack(b"", "503")
    assert isinstance(error, PublishError)
    assert error.failure is FailureClass.ADDRESS_DENIED


@pytest.mark.parametrize("payload", [b"", b"+OK", b"[]", b"{}", b'{"stream":"S"}', b'{"error":"text"}'])
def test_what_is_no_ack_leaves_the_outcome_unknown(payload: bytes) -> None:
    error = read_ack(payload, None)
    assert isinstance(error, PublishError)
    assert error.failure is FailureClass.UNKNOWN
