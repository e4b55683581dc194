from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aioboto3
import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events.devstack import AwsEmulator, FaultProxy, Hang
from oms_events.errors import ConfigurationError, EventRejectedError, TransientError
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.publishers.eventbridge import EventBridgeConfig, EventBridgePublisher, from_eventbridge_event
from oms_events.publishing import Publisher, Receipt
from oms_events.testing.contract import PublisherContract

TIME = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)


def encoded(count: int, data: Any = None) -> list[EncodedEvent]:
    return [encode(build_event("com.foundry.oms.a.b", "/oms/main", data or {"n": n})) for n in range(count)]


class TestContract(PublisherContract):
    @pytest.fixture
    async def publisher(
        self,
        configure: Callable[..., EventBridgeConfig],
        oms_fault_proxy: FaultProxy,
        bus: Any,
        direct_calls: bool,
    ) -> AsyncIterator[EventBridgePublisher]:
        self.bus = bus
        self.proxy = oms_fault_proxy
        self.config = configure(endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls)
        publisher = EventBridgePublisher(self.config)
        await publisher.open()
        yield publisher
        await publisher.close()

    def unopened(self, publisher: Publisher) -> Publisher:
        return EventBridgePublisher(self.config)

    async def stored(self, publisher: Publisher, count: int) -> list[CloudEvent]:
        return [from_eventbridge_event(body) for body in await self.bus.received(count)]

    def too_large(self, publisher: Publisher) -> CloudEvent:
        return build_event("a.b", "/s", "x" * 1_000_000)

    @contextlib.asynccontextmanager
    async def outage(self, publisher: Publisher) -> AsyncIterator[None]:
        self.proxy.always(Hang())
        yield
        self.proxy.clear()
        self.proxy.release()


@pytest.mark.parametrize("mapping", ["wrapped", "plain"])
async def test_a_queue_behind_a_rule_gets_every_field(
    opened: Callable[..., Any], bus: Any, direct_calls: bool, mapping: str
) -> None:
    publisher = await opened(mapping=mapping, resources=("arn:aws:oms:::x",), direct_calls=direct_calls)
    event = build_event(
        "com.foundry.oms.object_type.created", "/oms/main", {"naïve": "漢字 😀 \"quoted\" \\ \u0000"},
        id="ü-1", time=TIME, subject="object_type/User", branch="feature/ä", datacontenttype="application/json",
    )  # fmt: skip
    (receipt,) = await publisher.publish([encode(event)], timeout=5)
    (body,) = await bus.received(1)
    message = json.loads(body)
    assert message["id"] == receipt.id
    assert message["resources"] == ["arn:aws:oms:::x"]
    expected = ("oms.main", "Object Type Created") if mapping == "wrapped" else ("/oms/main", "created")
    assert (message["source"], message["detail-type"]) == expected
    back = from_eventbridge_event(body)
    assert back.get_attributes() == event.get_attributes()
    assert back.get_data() == event.get_data()


async def test_the_time_of_the_event_is_sent(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    publisher = await opened(endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls)
    await publisher.publish([encode(build_event("a.b", "/s", time=TIME))], timeout=5)
    (call,) = oms_fault_proxy.calls_of("PutEvents")
    assert json.loads(call.body)["Entries"][0]["Time"] == int(TIME.timestamp())


async def test_a_batch_goes_out_in_full_calls_and_bad_events_cost_no_other(
    opened: Callable[..., Any], bus: Any, oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    publisher = await opened(endpoint_url=oms_fault_proxy.endpoint_url, mapping="plain", direct_calls=direct_calls)
    events = encoded(103)
    for index in (0, 50, 102):
        events[index] = encode(build_event("a.b", "/s", "no object"))
    results = await publisher.publish(events, timeout=10)
    assert [index for index, result in enumerate(results) if isinstance(result, EventRejectedError)] == [
        0,
        50,
        102,
    ]
    assert sum(isinstance(result, Receipt) for result in results) == 100
    assert [call.entries for call in oms_fault_proxy.calls_of("PutEvents")] == [10] * 10
    assert len(await bus.received(100)) == 100


async def test_calls_stay_under_the_size_limit(
    opened: Callable[..., Any], bus: Any, oms_fault_proxy: FaultProxy, direct_calls: bool
) -> None:
    publisher = await opened(endpoint_url=oms_fault_proxy.endpoint_url, direct_calls=direct_calls)
    # Quotes: escaped in the request they are twice as long, but count once.
    results = await publisher.publish(encoded(5, '"' * 200_000), timeout=20)
    assert [type(result) for result in results] == [Receipt] * 5
    assert sorted(call.entries for call in oms_fault_proxy.calls_of("PutEvents")) == [1, 2, 2]
    assert len(await bus.received(5)) == 5


async def test_calls_at_the_same_time_are_bounded_over_all_publishes(
    opened: Callable[..., Any], oms_fault_proxy: FaultProxy
) -> None:
    publisher = await opened(endpoint_url=oms_fault_proxy.endpoint_url, max_concurrent_calls=3)
    oms_fault_proxy.always(Hang(), operation="PutEvents")
    tasks = [asyncio.create_task(publisher.publish(encoded(40), timeout=0.5)) for _ in range(3)]
    results = [result for task in tasks for result in await task]
    assert len(oms_fault_proxy.calls_of("PutEvents")) == 3
    assert sum(isinstance(result, TransientError) for result in results) == 90


async def test_a_borrowed_client_is_used_and_left_open(
    configure: Callable[..., EventBridgeConfig], aws: Callable[[str], Any], bus: Any
) -> None:
    publisher = EventBridgePublisher(configure(endpoint_url="http://127.0.0.1:1"), client=aws("events"))
    await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    await publisher.close()
    assert isinstance(result, Receipt)
    assert len(await bus.received(1)) == 1
    assert (await aws("events").describe_event_bus(Name=bus.name))["Name"] == bus.name


async def test_a_borrowed_session_gives_credentials_and_region(
    configure: Callable[..., EventBridgeConfig], oms_aws_emulator: AwsEmulator
) -> None:
    config = configure(aws_region=None, aws_access_key_id=None, aws_secret_access_key=None)
    session = aioboto3.Session("key", "secret", region_name=oms_aws_emulator.region)
    publisher = EventBridgePublisher(config, session=session)
    await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    await publisher.close()
    assert isinstance(result, Receipt)
    assert publisher.describe()["credentials"] == "borrowed"


async def test_the_ordinary_chain_gives_credentials_and_region(
    configure: Callable[..., EventBridgeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    publisher = EventBridgePublisher(
        configure(aws_region=None, aws_access_key_id=None, aws_secret_access_key=None)
    )
    await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    await publisher.close()
    assert isinstance(result, Receipt)


async def test_a_profile_gives_credentials_and_region(
    configure: Callable[..., EventBridgeConfig], tmp_path: Any
) -> None:
    (tmp_path / "config").write_text(
        "[profile oms]\nregion=us-east-1\naws_access_key_id=a\naws_secret_access_key=b\n"
    )
    publisher = EventBridgePublisher(
        configure(aws_region=None, aws_access_key_id=None, aws_secret_access_key=None, profile_name="oms")
    )
    await publisher.open()
    (result,) = await publisher.publish(encoded(1), timeout=5)
    await publisher.close()
    assert isinstance(result, Receipt)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aws_region": None}, "aws_region"),
        ({"profile_name": "none", "aws_access_key_id": None, "aws_secret_access_key": None}, "profile_name"),
        ({"ca_bundle": "/nowhere/ca.pem"}, "ca_bundle = '/nowhere/ca.pem'"),
        ({"client_cert": ("/nowhere/c.pem", "/nowhere/k.pem")}, "client_cert = '/nowhere/k.pem'"),
    ],
)
async def test_settings_that_only_files_can_disprove_are_named_when_opening(
    configure: Callable[..., EventBridgeConfig], changes: dict[str, Any], expected: str
) -> None:
    publisher = EventBridgePublisher(configure(**changes))
    with pytest.raises(ConfigurationError, match=expected):
        await publisher.open()
    await publisher.close()


async def test_description_and_repr_hold_no_secret(configure: Callable[..., EventBridgeConfig]) -> None:
    secret = "hunter2-hunter2"
    publisher = EventBridgePublisher(
        configure(
            aws_secret_access_key=secret, aws_session_token=secret, proxies={"https": f"http://u:{secret}@p"}
        )
    )
    await publisher.open()
    shown = f"{publisher.describe()} {publisher!r}"
    assert secret not in shown
    assert "'open': True" in shown
    await publisher.close()
    assert publisher.describe()["open"] is False
