from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.sending import Sending
from oms_events._aws.session import AwsClient, open_client
from oms_events.devstack import AwsEmulator, Denied, FaultProxy, Hang, ServerError, Throttle
from oms_events.errors import PlatformDeniedError, PublishError, TransientError

PUT = {"Entries": [{"Source": "s", "DetailType": "d", "Detail": "{}", "EventBusName": "default"}]}


def config(proxy: FaultProxy, **changes: Any) -> AwsConfig:
    return AwsConfig(
        aws_region="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
        endpoint_url=proxy.endpoint_url, sts_endpoint_url=proxy.endpoint_url, read_timeout=5.0,
        role_arn="arn:aws:iam::000000000000:role/publisher", role_external_id="ext", role_duration=1800,
    ).model_copy(update=changes)  # fmt: skip


@pytest.fixture(params=[True, False], ids=["direct", "ordinary"])
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def short_lived(oms_fault_proxy: FaultProxy, direct: bool) -> AsyncIterator[AwsClient]:
    """Credentials that live 900 seconds: always within the time before their end in which botocore renews."""
    client = await open_client(config(oms_fault_proxy, role_duration=900), "events", connections=2, direct=direct)
    yield client
    await client.close()


async def test_a_role_is_assumed_once_for_many_calls(oms_fault_proxy: FaultProxy, direct: bool) -> None:
    client = await open_client(config(oms_fault_proxy), "events", connections=2, direct=direct)
    await client.call("DescribeEventBus", {"Name": "default"})
    for _ in range(3):
        await client.send("PutEvents", PUT, Sending())
    await client.close()
    (call,) = oms_fault_proxy.calls_of("AssumeRole")
    sent = {name: value for name, (value,) in parse_qs(call.body.decode()).items()}
    assert sent["RoleArn"] == "arn:aws:iam::000000000000:role/publisher"
    assert (sent["RoleSessionName"], sent["ExternalId"], sent["DurationSeconds"]) == ("oms-events", "ext", "1800")


async def test_a_role_is_renewed_before_its_credentials_expire(
    short_lived: AwsClient, oms_fault_proxy: FaultProxy
) -> None:
    await short_lived.call("DescribeEventBus", {"Name": "default"})
    for _ in range(2):
        before = len(oms_fault_proxy.calls_of("AssumeRole"))
        answer = await short_lived.send("PutEvents", PUT, Sending())
        assert answer["FailedEntryCount"] == 0
        assert len(oms_fault_proxy.calls_of("AssumeRole")) > before


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Denied(code="AccessDenied", status=403), PlatformDeniedError),
        (Throttle(code="Throttling"), TransientError),
        (ServerError(), TransientError),
        (Hang(), TransientError),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_role_that_is_not_given_means_that_nothing_was_sent(
    oms_fault_proxy: FaultProxy, direct: bool, fault: Any, kind: type[PublishError]
) -> None:
    oms_fault_proxy.always(fault, operation="AssumeRole")
    quick = config(oms_fault_proxy, read_timeout=0.5)
    client = await open_client(quick, "events", connections=2, direct=direct)
    with pytest.raises(kind):
        await client.send("PutEvents", PUT, Sending())
    await client.close()
    assert oms_fault_proxy.calls_of("PutEvents") == ()


async def test_a_failed_renewal_keeps_credentials_that_are_still_good(
    short_lived: AwsClient, oms_fault_proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await short_lived.call("DescribeEventBus", {"Name": "default"})
    oms_fault_proxy.always(Throttle(), operation="AssumeRole")
    assert (await short_lived.send("PutEvents", PUT, Sending()))["FailedEntryCount"] == 0
    assert "Refreshing temporary credentials failed" in caplog.text


async def test_the_emulator_takes_the_credentials_of_the_role(oms_aws_emulator: AwsEmulator) -> None:
    settings = config_of(oms_aws_emulator)
    client = await open_client(settings, "sts", connections=1, direct=False)
    answer = await client.call("GetCallerIdentity", {})
    await client.close()
    assert "assumed-role/publisher/oms-events" in answer["Arn"]


def config_of(emulator: AwsEmulator) -> AwsConfig:
    return AwsConfig(
        aws_region="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
        endpoint_url=emulator.endpoint_url, sts_endpoint_url=emulator.endpoint_url,
        role_arn="arn:aws:iam::000000000000:role/publisher",
    )  # fmt: skip
