from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from oms_events._aws.config import AwsConfig
from oms_events._aws.http import _read_context
from oms_events._aws.sending import Sending
from oms_events._aws.session import open_client
from oms_events.errors import PlatformDeniedError, TransientError
from tests.aws.conftest import CERTIFICATES, Serve

PASSWORD = "hunter2"
CA = str(CERTIFICATES / "ca.pem")
KEYS = {"aws_region": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
ENTRY = {"Source": "s", "DetailType": "d", "Detail": "{}", "EventBusName": "default"}


async def put(**settings: Any) -> Any:
    """One ordinary call and then one direct call."""
    client = await open_client(AwsConfig(**KEYS, **settings), "events", connections=2)
    try:
        await client.call("DescribeEventBus", {"Name": "default"})
        assert client.direct
        return await client.send("PutEvents", {"Entries": [ENTRY]}, Sending())
    finally:
        await client.close()


async def test_an_authority_of_ones_own_is_trusted_when_told(tls_endpoint: Serve) -> None:
    async with tls_endpoint("server.pem") as url:
        assert (await put(endpoint_url=url, ca_bundle=CA))["FailedEntryCount"] == 0
        with pytest.raises(PlatformDeniedError, match="CERTIFICATE_VERIFY_FAILED"):
            await put(endpoint_url=url)


async def test_authorities_are_read_once_and_again_when_their_file_was_renewed(
    tls_endpoint: Serve, tmp_path: Path
) -> None:
    mine = tmp_path / "ca.pem"
    mine.write_bytes(CERTIFICATES.joinpath("ca.pem").read_bytes())
    async with tls_endpoint("server.pem") as url:
        reads = _read_context.cache_info().misses
        for _ in range(2):
            assert (await put(endpoint_url=url, ca_bundle=str(mine)))["FailedEntryCount"] == 0
        assert _read_context.cache_info().misses == reads + 1
        mine.write_bytes((CERTIFICATES / "client.pem").read_bytes())
        with pytest.raises(PlatformDeniedError, match="CERTIFICATE_VERIFY_FAILED"):
            await put(endpoint_url=url, ca_bundle=str(mine))


async def test_a_certificate_of_another_host_is_refused(tls_endpoint: Serve) -> None:
    async with tls_endpoint("other.pem") as url:
        with pytest.raises(PlatformDeniedError, match="Hostname mismatch"):
            await put(endpoint_url=url, ca_bundle=CA)


async def test_a_client_certificate_is_shown_where_it_is_asked_for(tls_endpoint: Serve) -> None:
    async with tls_endpoint("server.pem", mutual=True) as url:
        mine = str(CERTIFICATES / "client.pem")
        for form in (mine, (mine, mine)):
            answer = await put(endpoint_url=url, ca_bundle=CA, client_cert=form)
            assert answer["FailedEntryCount"] == 0
        # The server's reset may overtake its word on why.
        with pytest.raises((PlatformDeniedError, TransientError)):
            await put(endpoint_url=url, ca_bundle=CA)


async def test_a_proxy_is_used_with_its_password_and_checks_stay_on(tls_endpoint: Serve, tunnel: Serve) -> None:
    seen: list[str] = []
    mine = str(CERTIFICATES / "client.pem")
    async with tls_endpoint("server.pem", mutual=True) as url, tunnel(seen) as proxy:
        proxies = {"https": f"http://user:{PASSWORD}@{proxy}"}
        answer = await put(endpoint_url=url, proxies=proxies, ca_bundle=CA, client_cert=mine)
        assert answer["FailedEntryCount"] == 0
        assert seen[0].startswith(f"CONNECT {url.removeprefix('https://')} ")
        assert "Basic dXNlcjpodW50ZXIy" in seen[0]
        with pytest.raises(PlatformDeniedError, match="CERTIFICATE_VERIFY_FAILED"):
            await put(endpoint_url=url, proxies=proxies, client_cert=mine)


async def test_a_proxy_that_is_gone_is_transient_and_shows_no_password() -> None:
    with pytest.raises(TransientError) as caught:
        await put(endpoint_url="https://localhost:1", proxies={"https": f"http://user:{PASSWORD}@127.0.0.1:1"})
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
