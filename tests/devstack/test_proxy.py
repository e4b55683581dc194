from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from oms_events.devstack import (
    AwsEmulator,
    Delay,
    Denied,
    DevstackError,
    FaultProxy,
    Forward,
    Hang,
    LoseAnswer,
    PartialFailure,
    Reset,
    ServerError,
    Throttle,
    free_port,
)
from tests.devstack.support import Inbox, aws_client


def entries(inbox: Inbox, count: int) -> list[dict[str, str]]:
    return [inbox.entry(number) for number in range(count)]


async def test_without_faults_calls_and_answers_pass_unchanged(
    oms_fault_proxy: FaultProxy, oms_aws_emulator: AwsEmulator, events: Any, inbox: Inbox
) -> None:
    answer = await events.put_events(Entries=entries(inbox, 3))
    assert answer["FailedEntryCount"] == 0
    assert await inbox.numbers(3) == [0, 1, 2]
    (call,) = oms_fault_proxy.calls
    assert (call.operation, call.entries, call.fault, call.status) == ("PutEvents", 3, None, 200)
    assert call.size == len(call.body)
    assert json.loads(call.body)["Entries"] == entries(inbox, 3)


async def test_errors_of_the_service_pass_unchanged(oms_fault_proxy: FaultProxy, events: Any) -> None:
    with pytest.raises(ClientError) as caught:
        await events.describe_event_bus(Name="there-is-none")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert oms_fault_proxy.calls[0].status == 400


async def test_rest_services_pass_too(oms_fault_proxy: FaultProxy, oms_aws_emulator: AwsEmulator) -> None:
    body = bytes(range(256)) * 8000
    async with aws_client("s3", oms_aws_emulator, oms_fault_proxy.endpoint_url) as s3:
        await s3.create_bucket(Bucket="devstack")
        await s3.put_object(Bucket="devstack", Key="a b/ü?.bin", Body=body)
        head = await s3.head_object(Bucket="devstack", Key="a b/ü?.bin")
        assert head["ContentLength"] == len(body)
        answer = await s3.get_object(Bucket="devstack", Key="a b/ü?.bin")
        assert await answer["Body"].read() == body
        oms_fault_proxy.script(Denied(code="AccessDenied", status=403))
        with pytest.raises(ClientError, match="AccessDenied"):
            await s3.list_objects_v2(Bucket="devstack")


async def test_query_protocol_operations_have_names(
    oms_fault_proxy: FaultProxy, oms_aws_emulator: AwsEmulator
) -> None:
    async with aws_client("sns", oms_aws_emulator, oms_fault_proxy.endpoint_url) as sns:
        await sns.list_topics()
        oms_fault_proxy.script(Throttle(code="Throttling"), operation="ListTopics")
        with pytest.raises(ClientError, match="Throttling"):
            await sns.list_topics()
    assert [call.operation for call in oms_fault_proxy.calls] == ["ListTopics", "ListTopics"]


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Throttle(), "ThrottlingException", 400),
        (Denied(), "AccessDeniedException", 400),
        (ServerError(), "InternalException", 500),
        (ServerError(503, code="ServiceUnavailable"), "ServiceUnavailable", 503),
    ],
)
async def test_refusals_store_nothing(
    oms_fault_proxy: FaultProxy,
    events: Any,
    inbox: Inbox,
    fault: Throttle | Denied | ServerError,
    code: str,
    status: int,
) -> None:
    oms_fault_proxy.script(fault, operation="PutEvents")
    with pytest.raises(ClientError) as caught:
        await events.put_events(Entries=[inbox.entry(1)])
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    await events.put_events(Entries=[inbox.entry(2)])
    assert await inbox.numbers(1) == [2]
    assert [(call.fault, call.status) for call in oms_fault_proxy.calls] == [(fault, status), (None, 200)]


async def test_partial_failure_is_aligned_and_stores_only_the_others(
    oms_fault_proxy: FaultProxy, events: Any, inbox: Inbox
) -> None:
    oms_fault_proxy.script(PartialFailure((1, 4), code="ThrottlingException"), PartialFailure(count=2))
    first = await events.put_events(Entries=entries(inbox, 6))
    assert first["FailedEntryCount"] == 2
    assert [entry.get("ErrorCode") for entry in first["Entries"]] == [
        None,
        "ThrottlingException",
        None,
        None,
        "ThrottlingException",
        None,
    ]
    assert len({entry["EventId"] for entry in first["Entries"] if "EventId" in entry}) == 4
    assert await inbox.numbers(4) == [0, 2, 3, 5]
    second = await events.put_events(Entries=entries(inbox, 2))
    assert [entry["ErrorCode"] for entry in second["Entries"]] == ["InternalFailure"] * 2
    await events.put_events(Entries=[inbox.entry(9)])
    assert await inbox.numbers(1) == [9]


# What the AWS client makes of it: after a reset it even says that it could not connect, though it had sent.
BROKEN = [(False, EndpointConnectionError), (True, ConnectionClosedError)]


@pytest.mark.parametrize(("orderly", "error"), BROKEN)
async def test_reset_breaks_the_connection_before_anything_is_stored(
    oms_fault_proxy: FaultProxy, events: Any, inbox: Inbox, orderly: bool, error: type[Exception]
) -> None:
    oms_fault_proxy.script(Reset(orderly=orderly))
    with pytest.raises(error):
        await events.put_events(Entries=[inbox.entry(1)])
    await events.put_events(Entries=[inbox.entry(2)])
    assert await inbox.numbers(1) == [2]


async def test_reset_is_seen_as_a_reset_on_the_wire(oms_fault_proxy: FaultProxy) -> None:
    oms_fault_proxy.script(Reset())
    port = int(oms_fault_proxy.endpoint_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()


@pytest.mark.parametrize(("orderly", "error"), BROKEN)
async def test_lost_answer_leaves_the_event_stored(
    oms_fault_proxy: FaultProxy, events: Any, inbox: Inbox, orderly: bool, error: type[Exception]
) -> None:
    oms_fault_proxy.script(LoseAnswer(orderly=orderly))
    with pytest.raises(error):
        await events.put_events(Entries=[inbox.entry(1)])
    assert await inbox.numbers(1) == [1]
    (call,) = oms_fault_proxy.calls
    assert (call.fault, call.status) == (LoseAnswer(orderly=orderly), None)


async def test_hanging_call_gets_no_answer_until_it_is_released(
    oms_fault_proxy: FaultProxy, events: Any, inbox: Inbox
) -> None:
    oms_fault_proxy.script(Hang())
    hanging = asyncio.create_task(events.put_events(Entries=[inbox.entry(1)]))
    await oms_fault_proxy.wait_for_calls(1, operation="PutEvents")
    await events.put_events(Entries=[inbox.entry(2)])
    assert not hanging.done()
    oms_fault_proxy.release()
    with pytest.raises(EndpointConnectionError):
        await hanging
    assert await inbox.numbers(1) == [2]


async def test_hang_ends_after_its_seconds(oms_fault_proxy: FaultProxy, events: Any) -> None:
    oms_fault_proxy.script(Hang(0.05))
    with pytest.raises(EndpointConnectionError):
        await events.list_event_buses()


async def test_delay_comes_before_the_answer(oms_fault_proxy: FaultProxy, events: Any, inbox: Inbox) -> None:
    oms_fault_proxy.script(Delay(0.3))
    before = time.monotonic()
    await events.put_events(Entries=[inbox.entry(1)])
    assert time.monotonic() - before >= 0.3
    assert await inbox.numbers(1) == [1]


async def test_closing_the_proxy_lets_hanging_calls_go(oms_aws_emulator: AwsEmulator) -> None:
    async with FaultProxy(oms_aws_emulator.endpoint_url) as proxy:
        proxy.always(Hang())
        url = proxy.endpoint_url
        async with aiohttp.ClientSession() as session:
            hanging = asyncio.create_task(session.get(url))
            await proxy.wait_for_calls(1)
            before = time.monotonic()
            await proxy.__aexit__(None, None, None)
            assert time.monotonic() - before < 5.0
            with pytest.raises(aiohttp.ClientError):
                await hanging
    with pytest.raises(DevstackError, match="not open"):
        _ = proxy.endpoint_url


async def test_upstream_that_is_gone_looks_like_a_broken_connection() -> None:
    async with FaultProxy(f"http://127.0.0.1:{free_port()}") as proxy, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(proxy.endpoint_url)
        assert proxy.calls[0].status is None


async def test_seeded_mix_is_played_to_real_calls(oms_fault_proxy: FaultProxy, events: Any, inbox: Inbox) -> None:
    stored = []
    oms_fault_proxy.seeded(3, {Throttle(): 0.3, PartialFailure(count=1): 0.3}, operation="PutEvents")
    for number in range(20):
        try:
            answer = await events.put_events(Entries=[inbox.entry(number)])
        except ClientError:
            continue
        if answer["FailedEntryCount"] == 0:
            stored.append(number)
    assert 0 < len(stored) < 20
    assert await inbox.numbers(len(stored)) == stored
    played = [call.fault for call in oms_fault_proxy.calls]
    assert {type(fault) for fault in played} == {Throttle, PartialFailure, type(None)}


async def test_calls_can_be_counted_forgotten_and_kept_without_bodies(oms_aws_emulator: AwsEmulator) -> None:
    async with (
        FaultProxy(oms_aws_emulator.endpoint_url, keep_bodies=False) as proxy,
        aws_client("events", oms_aws_emulator, proxy.endpoint_url) as client,
    ):
        proxy.script(Forward(), Throttle())
        await client.list_event_buses()
        assert proxy.pending_faults == 1
        proxy.clear()
        await client.list_rules()
        (call,) = proxy.calls_of("ListRules")
        assert call.body == b""
        assert call.size > 0
        proxy.forget_calls()
        assert proxy.calls == ()
        with pytest.raises(DevstackError, match="0 of 1 calls"):
            await proxy.wait_for_calls(1, timeout=0.05)
