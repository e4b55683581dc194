from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable
from typing import Any

import aioboto3
import pytest
from aiobotocore.config import AioConfig

from oms_events.devstack import (
    Denied,
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
from oms_events.errors import (
    AddressDeniedError,
    EventRejectedError,
    PlatformDeniedError,
    PublishError,
    TransientError,
    UnknownOutcomeError,
)
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.publishers.eventbridge import EventBridgeConfig, EventBridgePublisher, from_eventbridge_event
from oms_events.publishing import Receipt

Configure = Callable[..., EventBridgeConfig]


def encoded(count: int, **attributes: Any) -> list[EncodedEvent]:
    return [encode(build_event("com.foundry.oms.a.b", "/oms/main", {"n": n}, **attributes)) for n in range(count)]


@pytest.fixture
async def publisher(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy, direct_calls: bool
) -> EventBridgePublisher:
    made: EventBridgePublisher = await opened(endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls)
    assert made.describe()["direct_calls"] is direct_calls
    return made


async def test_three_entries_of_ten_fail_and_seven_are_stored(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy, bus: Any
) -> None:
    oms_fault_proxy.script(PartialFailure(indices=(0, 4, 9)))
    results = await publisher.publish(encoded(10), timeout=5)
    failed = [index for index, result in enumerate(results) if isinstance(result, PublishError)]
    assert failed == [0, 4, 9]
    assert {type(results[index]) for index in failed} == {TransientError}
    stored = [from_eventbridge_event(body).get_data() for body in await bus.received(7)]
    assert stored == [{"n": n} for n in (1, 2, 3, 5, 6, 7, 8)]
    assert len(oms_fault_proxy.calls_of("PutEvents")) == 1


@pytest.mark.parametrize(
    ("code", "kind", "throttled"),
    [
        ("ThrottlingException", TransientError, True),
        ("NotAuthorizedForSourceException", AddressDeniedError, False),
        ("MalformedDetail", EventRejectedError, False),
    ],
)
async def test_an_entry_fails_as_its_code_says(
    publisher: EventBridgePublisher,
    oms_fault_proxy: FaultProxy,
    code: str,
    kind: type[PublishError],
    throttled: bool,
) -> None:
    oms_fault_proxy.script(PartialFailure(indices=(1,), code=code))
    results = await publisher.publish(encoded(2), timeout=5)
    assert [type(result) for result in results] == [Receipt, kind]
    assert isinstance(results[1], PublishError)
    assert (results[1].code, results[1].throttled) == (code, throttled)


@pytest.mark.parametrize(
    ("fault", "kind", "throttled"),
    [
        (Throttle(), TransientError, True),
        (Throttle(code="TooManyRequestsException"), TransientError, True),
        (ServerError(), UnknownOutcomeError, False),
        (ServerError(status=503, code="ServiceUnavailable"), UnknownOutcomeError, False),
        (Reset(), UnknownOutcomeError, False),
        (Denied(), PlatformDeniedError, False),
        (Denied(code="ExpiredTokenException"), PlatformDeniedError, False),
        (Denied(code="UnrecognizedClientException"), PlatformDeniedError, False),
        (Denied(code="ResourceNotFoundException"), PlatformDeniedError, False),
        (Denied(code="InvalidSignatureException", status=403), PlatformDeniedError, False),
        (Denied(code="NeverHeardOfException"), TransientError, False),
    ],
    ids=lambda value: getattr(value, "code", None),
)
async def test_a_whole_call_fails_as_the_table_says_and_is_not_repeated(
    publisher: EventBridgePublisher,
    oms_fault_proxy: FaultProxy,
    fault: Any,
    kind: type[PublishError],
    throttled: bool,
) -> None:
    oms_fault_proxy.script(fault, operation="PutEvents")
    results = await publisher.publish(encoded(3), timeout=5)
    assert [type(result) for result in results] == [kind] * 3
    assert all(isinstance(result, PublishError) and result.throttled is throttled for result in results)
    assert len(oms_fault_proxy.calls_of("PutEvents")) == 1
    (again,) = await publisher.publish(encoded(1), timeout=5)
    assert isinstance(again, Receipt)


async def test_a_lost_answer_is_unknown_and_the_events_are_stored(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy, bus: Any
) -> None:
    oms_fault_proxy.script(LoseAnswer(), operation="PutEvents")
    results = await publisher.publish(encoded(2), timeout=5)
    assert [type(result) for result in results] == [UnknownOutcomeError] * 2
    assert len(await bus.received(2)) == 2


async def test_one_refused_entry_does_not_condemn_its_call(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy, bus: Any
) -> None:
    refusal = Denied(code="ValidationException")
    oms_fault_proxy.script(refusal, Forward(), refusal, Forward(), operation="PutEvents")
    results = await publisher.publish(encoded(3), timeout=5)
    assert [type(result) for result in results] == [Receipt, EventRejectedError, Receipt]
    assert [call.entries for call in oms_fault_proxy.calls_of("PutEvents")] == [3, 1, 1, 1]
    assert len(await bus.received(2)) == 2


async def test_a_deadline_while_singling_out_keeps_what_was_stored(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(Denied(code="ValidationException"), Forward(), Hang(), operation="PutEvents")
    results = await publisher.publish(encoded(3), timeout=0.7)
    assert [type(result) for result in results] == [Receipt, UnknownOutcomeError, TransientError]


async def test_silence_is_unknown_for_what_was_sent_and_transient_for_the_rest(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    publisher = await opened(
        endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls, max_concurrent_calls=1
    )
    oms_fault_proxy.script(Forward(), Hang(), operation="PutEvents")
    results = await publisher.publish(encoded(30), timeout=0.7)
    kinds = [type(result) for result in results]
    assert kinds == [Receipt] * 10 + [UnknownOutcomeError] * 10 + [TransientError] * 10


async def test_the_read_timeout_ends_silence_before_the_deadline(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    publisher = await opened(
        endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls, read_timeout=0.2
    )
    oms_fault_proxy.script(Hang(), operation="PutEvents")
    async with asyncio.timeout(5):
        (result,) = await publisher.publish(encoded(1), timeout=60)
    assert isinstance(result, UnknownOutcomeError)


async def test_no_time_left_sends_nothing(publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy) -> None:
    results = await publisher.publish(encoded(12), timeout=0)
    assert [type(result) for result in results] == [TransientError] * 12
    assert oms_fault_proxy.calls_of("PutEvents") == ()


async def test_a_refused_connection_is_transient(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    port = free_port()
    publisher = EventBridgePublisher(EventBridgeConfig(
        aws_region="us-east-1", aws_access_key_id="a", aws_secret_access_key="b",
        endpoint_url=f"http://127.0.0.1:{port}", direct_calls=direct_calls,
    ))  # fmt: skip
    with pytest.raises(TransientError, match="not sent"):
        await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=1)
    assert isinstance(result, TransientError)
    await publisher.close()


async def test_an_endpoint_that_is_gone_is_transient_for_the_direct_way(
    opened: Callable[..., Any], direct_calls: bool, oms_aws_emulator: Any
) -> None:
    async with FaultProxy(oms_aws_emulator.endpoint_url) as proxy:
        publisher = await opened(endpoint_url=proxy.endpoint_url, direct_calls=direct_calls)
    results = await publisher.publish(encoded(2), timeout=5)
    assert [type(result) for result in results] == [TransientError] * 2
    with pytest.raises(TransientError):
        await publisher.check()


async def test_a_bus_that_does_not_exist_takes_nothing_until_it_does(
    configure: Configure, aws: Callable[[str], Any], oms_fault_proxy: FaultProxy, bus: Any
) -> None:
    name = f"{bus.name}-late"
    publisher = EventBridgePublisher(configure(event_bus_name=name, endpoint_url=oms_fault_proxy.endpoint_url))
    for attempt in (publisher.open, publisher.check):
        with pytest.raises(PlatformDeniedError, match=f"{name}.*ResourceNotFoundException"):
            await attempt()
        (result,) = await publisher.publish(encoded(1), timeout=5)
        assert isinstance(result, PlatformDeniedError)
    assert oms_fault_proxy.calls_of("PutEvents") == ()
    await aws("events").create_event_bus(Name=name)
    await publisher.check()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    assert isinstance(result, Receipt)
    await aws("events").delete_event_bus(Name=name)
    for attempt in (publisher.check, publisher.open):
        with pytest.raises(PlatformDeniedError):
            await attempt()
        (result,) = await publisher.publish(encoded(1), timeout=5)
        assert isinstance(result, PlatformDeniedError)
    await aws("events").create_event_bus(Name=name)
    await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    assert isinstance(result, Receipt)
    await publisher.close()


async def test_a_check_that_fails_for_a_moment_does_not_stop_publishing(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(Throttle(), ServerError(), Reset(), operation="DescribeEventBus")
    for _ in range(3):
        with pytest.raises(TransientError):
            await publisher.check()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    assert isinstance(result, Receipt)


async def test_a_role_that_may_not_look_at_the_bus_needs_verify_bus_off(
    configure: Configure, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.always(Denied(), operation="DescribeEventBus")
    strict = EventBridgePublisher(configure(endpoint_url=oms_fault_proxy.endpoint_url))
    with pytest.raises(PlatformDeniedError, match="verify_bus=False"):
        await strict.open()
    await strict.close()
    trusting = EventBridgePublisher(configure(endpoint_url=oms_fault_proxy.endpoint_url, verify_bus=False))
    await trusting.open()
    (result,) = await trusting.publish(encoded(1), timeout=5)
    assert isinstance(result, Receipt)
    await trusting.check()
    oms_fault_proxy.always(Denied(code="ExpiredTokenException"), operation="DescribeEventBus")
    with pytest.raises(PlatformDeniedError):
        await trusting.check()
    await trusting.close()


async def test_missing_credentials_are_denied(configure: Configure) -> None:
    publisher = EventBridgePublisher(configure(aws_access_key_id=None, aws_secret_access_key=None))
    with pytest.raises(PlatformDeniedError, match="credentials"):
        await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    assert isinstance(result, PlatformDeniedError)
    await publisher.close()


async def test_what_aws_repeats_of_a_signature_is_not_shown(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy
) -> None:
    text = "The signature does not match.\n\nThe canonical string was\nx-amz-security-token:hunter2"
    oms_fault_proxy.script(Denied(code="SignatureDoesNotMatch", message=text), operation="PutEvents")
    (result,) = await publisher.publish(encoded(1), timeout=5)
    assert isinstance(result, PlatformDeniedError)
    assert "hunter2" not in "".join(traceback.format_exception(result))


async def test_closing_ends_calls_in_flight_truthfully(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    publisher = await opened(
        endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls, max_concurrent_calls=1
    )
    oms_fault_proxy.always(Hang(), operation="PutEvents")
    task = asyncio.create_task(publisher.publish(encoded(20), timeout=60))
    await oms_fault_proxy.wait_for_calls(1, operation="PutEvents")
    async with asyncio.timeout(5):
        await publisher.close()
        results = await task
    assert [type(result) for result in results] == [UnknownOutcomeError] * 10 + [TransientError] * 10
    with pytest.raises(TransientError, match="not open"):
        await publisher.check()


async def test_closing_ends_an_opening_and_it_may_be_opened_again(
    configure: Configure, oms_fault_proxy: FaultProxy
) -> None:
    publisher = EventBridgePublisher(configure(endpoint_url=oms_fault_proxy.endpoint_url))
    oms_fault_proxy.script(Hang(), operation="DescribeEventBus")
    task = asyncio.create_task(publisher.open())
    await oms_fault_proxy.wait_for_calls(1)
    async with asyncio.timeout(5):
        await publisher.close()
        with pytest.raises(TransientError, match="closed"):
            await task
    await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    await publisher.close()
    assert isinstance(result, Receipt)


async def test_a_cancelled_publish_frees_its_slots(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy
) -> None:
    oms_fault_proxy.script(*[Hang()] * 8, operation="PutEvents")
    task = asyncio.create_task(publisher.publish(encoded(200), timeout=60))
    await oms_fault_proxy.wait_for_calls(8, operation="PutEvents")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    results = await publisher.publish(encoded(100), timeout=5)
    assert all(isinstance(result, Receipt) for result in results)
    assert publisher.describe()["calls_in_flight"] == 0


async def test_with_faults_at_random_every_outcome_is_true(
    publisher: EventBridgePublisher, oms_fault_proxy: FaultProxy, bus: Any
) -> None:
    mix = {
        Throttle(): 0.1, ServerError(): 0.1, Reset(): 0.1, LoseAnswer(): 0.1,
        PartialFailure(indices=(1, 3)): 0.2, Hang(seconds=0.05): 0.1,
    }  # fmt: skip
    oms_fault_proxy.seeded(7, mix, operation="PutEvents")
    events = encoded(500)
    results = await publisher.publish(events, timeout=20)
    stored = {n for n, result in enumerate(results) if isinstance(result, Receipt)}
    unknown = {n for n, result in enumerate(results) if isinstance(result, UnknownOutcomeError)}
    found = {json.loads(body)["detail"]["cloudEvents"]["data"]["n"] for body in await bus.received(len(stored))}
    assert stored
    assert unknown
    assert stored <= found <= stored | unknown


@pytest.mark.parametrize("lend", ["client", "session"])
async def test_over_a_foreign_http_session_silence_is_never_called_unsent(
    configure: Configure, oms_fault_proxy: FaultProxy, lend: str
) -> None:
    session = aioboto3.Session("a", "b", region_name="us-east-1")
    session._session.set_default_client_config(AioConfig(read_timeout=5))
    async with session.client("events", endpoint_url=oms_fault_proxy.endpoint_url) as client:
        lent: Any = {"client": client} if lend == "client" else {"session": session}
        publisher = EventBridgePublisher(configure(endpoint_url=oms_fault_proxy.endpoint_url), **lent)
        await publisher.open()
        oms_fault_proxy.script(Hang(), operation="PutEvents")
        (result,) = await publisher.publish(encoded(1), timeout=0.5)
        await publisher.close()
    assert isinstance(result, UnknownOutcomeError)
