from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.sending import Sending
from oms_events._aws.session import open_client
from oms_events.errors import PublishError, UnknownOutcomeError
from oms_events.publishers.eventbridge.answers import read_answer

SECRET = "the-secret"
PUT = {"Entries": [{"Source": "ü", "DetailType": "d", "Detail": '{"a":"😀"}', "EventBusName": "default"}]}
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=KEY/(.*?), SignedHeaders=(.*?), Signature=(\w+)")


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """Checks Signature Version 4 as AWS documents it, from the bytes that arrived."""
    match = _SCOPE.fullmatch(headers["authorization"])
    assert match
    scope, signed, signature = match.groups()
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed.split(";"))
    canonical = f"POST\n/\n\n{lines}\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{digest}"
    sent = datetime.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    fresh = abs(datetime.datetime.now(datetime.UTC) - sent) < datetime.timedelta(minutes=5)
    return fresh and hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), signature)


@contextlib.asynccontextmanager
async def endpoint(requests: list[tuple[dict[str, str], bytes]], answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                requests.append((headers, body))
                text = answer if headers["x-amz-target"].endswith(".PutEvents") else b"{}"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def put(url: str, *, direct: bool, **settings: Any) -> Any:
    config = AwsConfig(
        aws_region="eu-west-1", aws_access_key_id="KEY", aws_secret_access_key=SECRET, endpoint_url=url, **settings
    )
    client = await open_client(config, "events", connections=1, direct=direct)
    try:
        await client.call("DescribeEventBus", {"Name": "default"})
        assert client.direct is direct
        return await client.send("PutEvents", PUT, Sending())
    finally:
        await client.close()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("settings", [{}, {"aws_session_token": "a-token"}], ids=["key", "token"])
async def test_requests_are_signed_as_they_arrive(direct: bool, settings: dict[str, str]) -> None:
    requests: list[tuple[dict[str, str], bytes]] = []
    async with endpoint(requests, b'{"Entries":[]}') as url:
        assert (await put(url, direct=direct, **settings))["Entries"] == []
    assert [headers["x-amz-target"] for headers, _ in requests] == [
        "AWSEvents.DescribeEventBus",
        "AWSEvents.PutEvents",
    ]
    assert all(is_signed(headers, body) for headers, body in requests)
    assert not is_signed(requests[1][0], requests[1][1] + b" ")
    assert requests[1][0].get("x-amz-security-token") == settings.get("aws_session_token")
    assert requests[1][0]["content-type"] == "application/x-amz-json-1.1"
    assert "Botocore" in requests[1][0]["user-agent"]
    assert "/eu-west-1/events/aws4_request" in requests[1][0]["authorization"]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("answer", [b"<html>no JSON", b"\xff\xfe"])
async def test_an_answer_that_cannot_be_read_is_unknown(direct: bool, answer: bytes) -> None:
    async with endpoint([], answer) as url:
        try:
            (outcome,) = read_answer(await put(url, direct=direct), 1)
        except PublishError as error:
            outcome = error
        assert isinstance(outcome, UnknownOutcomeError)


async def test_before_the_first_ordinary_call_there_is_nothing_to_copy() -> None:
    requests: list[tuple[dict[str, str], bytes]] = []
    async with endpoint(requests, b'{"Entries":[]}') as url:
        config = AwsConfig(
            aws_region="eu-west-1", aws_access_key_id="KEY", aws_secret_access_key=SECRET, endpoint_url=url
        )
        client = await open_client(config, "events", connections=1)
        assert not client.direct
        await client.send("PutEvents", PUT, Sending())
        assert client.direct
        await client.close()
    assert len(requests) == 1
