from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from oms_events._aws.config import AwsConfig
from oms_events._aws.control import open_control
from oms_events._aws.session import _make_session, open_client
from oms_events.devstack import FaultProxy, Reset, ServerError, Throttle
from oms_events.errors import ConfigurationError

PROFILES = """\
[profile dev]
region = eu-west-3
aws_access_key_id = key
aws_secret_access_key = secret
"""
ROLE = "arn:aws:iam::000000000000:role/publisher"


@pytest.fixture
def ghost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a profile that does not exist; `dev` does."""
    file = tmp_path / "config"
    file.write_text(PROFILES)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "ghost")


@pytest.fixture(params=["client", "control"])
def region_of(request: pytest.FixtureRequest) -> Any:
    """Opens a client either way, and gives the region that its calls would go to."""

    async def opened(config: AwsConfig) -> str | None:
        if request.param == "control":
            async with open_control(config, "sqs") as control:
                return control.region
        async with AsyncExitStack() as stack:
            client = await open_client(config, "sqs", connections=1)
            stack.push_async_callback(client.close)
            return client.region

    return opened


@pytest.mark.usefixtures("ghost")
@pytest.mark.parametrize("role", [None, ROLE])
async def test_a_profile_that_is_given_goes_before_the_environments(region_of: Any, role: str | None) -> None:
    assert await region_of(AwsConfig(profile_name="dev", role_arn=role)) == "eu-west-3"


@pytest.mark.usefixtures("ghost")
@pytest.mark.parametrize(
    ("profile", "words"), [(None, r"AWS_PROFILE: .*ghost"), ("no", r"profile_name: .*\(no\)")]
)
async def test_a_profile_that_is_not_there_is_a_mistake_of_the_configuration(
    region_of: Any, profile: str | None, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        await region_of(AwsConfig(profile_name=profile, aws_region="eu-west-1"))


def test_many_sessions_do_not_lengthen_the_way_of_the_loader_they_share() -> None:
    def paths() -> list[str]:
        config = AwsConfig(
            aws_region="eu-west-1", role_arn=ROLE, aws_access_key_id="key", aws_secret_access_key="secret"
        )
        session = _make_session(config, "sqs")
        return list(session._session.get_component("data_loader").search_paths)

    first = paths()
    assert paths() == first
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("fault", [Throttle(), ServerError(status=503), Reset()])
async def test_a_control_client_calls_again_after_a_fault(oms_fault_proxy: FaultProxy, fault: Any) -> None:
    oms_fault_proxy.script(fault, operation="ListTables")
    config = AwsConfig(
        aws_region="us-east-1",
        endpoint_url=oms_fault_proxy.endpoint_url,
        aws_access_key_id=SecretStr("test"),
        aws_secret_access_key=SecretStr("test"),
    )
    async with open_control(config, "dynamodb") as control:
        assert "TableNames" in await control.call("ListTables")
    assert len(oms_fault_proxy.calls_of("ListTables")) == 2
