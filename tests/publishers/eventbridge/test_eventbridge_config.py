from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from oms_events.errors import ConfigurationError
from oms_events.publishers.eventbridge import EventBridgeConfig

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"event_bus_name": "my bus"}, "event_bus_name = 'my bus'"),
        ({"event_bus_name": ""}, "event_bus_name = ''"),
        ({"event_bus_name": "b" * 257}, "at most 256"),
        ({"event_bus_name": "partner/bus"}, "event_bus_name = 'partner/bus'"),
        ({"max_batch": 11}, "max_batch = 11"),
        ({"source_prefix": "."}, "source_prefix = '.'"),
        ({"source_prefix": "aws.mine"}, "begin with 'aws'"),
        ({"mapping": "plain", "source_prefix": "com.acme"}, "'plain' leaves the source unchanged"),
        ({"detail_types": {"a": "A"}}, "mapping 'plain' only"),
        ({"mapping": "plain", "detail_types": {"a.b": "A" * 129}}, "see a.b"),
        ({"resources": ("a" * 2049,)}, "1 to 2048"),
        ({"endpoint_url": "127.0.0.1:4566"}, "endpoint_url = '127.0.0.1:4566'"),
        ({"endpoint_url": "http://host:port"}, "endpoint_url = 'http://host:port'"),
        ({"endpoint_url": "http://me@host"}, "endpoint_url must not carry credentials"),
        ({"aws_access_key_id": "a"}, "give both"),
        ({"aws_session_token": "a"}, "aws_session_token needs"),
        ({"profile_name": "p", "aws_access_key_id": "a", "aws_secret_access_key": "b"}, "not both"),
        ({"role_arn": "admin"}, "role_arn = 'admin'"),
        ({"role_external_id": "12"}, "need role_arn"),
        ({"role_arn": "arn:aws:iam::123456789012:role/r", "role_duration": 900}, "role_duration = 900"),
        ({"proxies": {"socks": "socks://h"}}, "unknown scheme socks"),
        ({"bus": "b"}, "unknown field 'bus'"),
        (
            {"event_bus_name": "arn:aws:events:eu-west-1:123456789012:event-bus/b", "aws_region": "us-east-1"},
            "must be the same",
        ),
    ],
)
def test_a_bad_setting_is_named(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        EventBridgeConfig(**fields)


def test_all_contradictions_are_told_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        EventBridgeConfig(aws_session_token="t", sts_endpoint_url="http://sts")
    assert "aws_session_token" in str(caught.value)
    assert "sts_endpoint_url" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"aws_access_key_id": SECRET},
        {"aws_secret_access_key": SECRET},
        {"aws_session_token": SECRET},
        {"proxies": {"ftp": f"http://user:{SECRET}@proxy"}},
        {"endpoint_url": f"http://user:{SECRET}@localhost"},
        {"endpoint_url": f"ftp://user:{SECRET}@localhost"},
        {"endpoint_url": f"user:{SECRET}@localhost"},
        {"endpoint_url": f"https://user:#{SECRET}@localhost"},
        {"endpoint_url": f"https://user:1/{SECRET}@localhost"},
        {"sts_endpoint_url": f"user:{SECRET}@localhost", "role_arn": "arn:aws:iam::123456789012:role/r"},
    ],
)
def test_a_rejected_secret_is_not_in_the_message(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EventBridgeConfig(**fields)
    assert SECRET not in str(caught.value)


def test_an_accepted_secret_is_not_in_the_repr() -> None:
    config = EventBridgeConfig(
        aws_access_key_id="AKID", aws_secret_access_key=SECRET, aws_session_token=SECRET,
        proxies={"https": f"http://user:{SECRET}@proxy:3128"},
    )  # fmt: skip
    assert SECRET not in repr(config) + str(config) + config.model_dump_json()


def test_names_and_arns_of_buses_are_taken() -> None:
    for name in ("default", "oms-events_1.x", "arn:aws-us-gov:events:us-gov-west-1:123456789012:event-bus/b"):
        assert EventBridgeConfig(event_bus_name=name).event_bus_name == name


def test_importing_the_package_loads_no_aws_library() -> None:
    code = (
        "import sys, oms_events.publishers.eventbridge as e; e.EventBridgePublisher(e.EventBridgeConfig());"
        "print(sorted({'aioboto3', 'aiobotocore', 'boto3', 'botocore', 'aiohttp'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_without_aioboto3_opening_names_the_extra() -> None:
    code = (
        "import asyncio, sys; sys.modules['aioboto3'] = None\n"
        "import oms_events.publishers.eventbridge as e\n"
        "from oms_events.errors import MissingExtraError\n"
        "try: asyncio.run(e.EventBridgePublisher(e.EventBridgeConfig()).open())\n"
        "except MissingExtraError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "EventBridgePublisher needs an extra: pip install 'oms-events[aws]'"
