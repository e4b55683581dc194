from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from oms_events.errors import ConfigurationError
from oms_events.publishers.jetstream import JetStreamOptions, NatsConfig, StreamPolicy, StreamSpec


def test_secrets_in_urls_are_moved_to_their_fields() -> None:
    config = NatsConfig(servers="nats://me:pass%40word@a:4222, nats://me:pass%40word@b:4222")  # type: ignore[arg-type]
    assert config.servers == ("nats://a:4222", "nats://b:4222")
    assert config.user == "me"
    assert config.password is not None
    assert config.password.get_secret_value() == "pass@word"
    assert "pass" not in repr(config).replace("password", "")
    token = NatsConfig(servers=["s3cret@a"]).token  # type: ignore[arg-type]
    assert token is not None
    assert token.get_secret_value() == "s3cret"


def test_a_server_may_have_no_scheme() -> None:
    assert NatsConfig(servers="localhost:4222").servers == ("nats://localhost:4222",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"servers": []}, "no server"),
        ({"servers": "http://a"}, "no NATS URL"),
        ({"servers": ["nats://a:b@x", "nats://c:d@y"]}, "different users"),
        ({"user": "a"}, "go together"),
        ({"user": "a", "password": "b", "token": "c"}, "user and token are different ways"),
        ({"cert_file": "a.pem"}, "cert_file and key_file"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"server": "x"}, "unknown field 'server'"),
    ],
)
def test_a_connection_that_cannot_work_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        NatsConfig(**values)


@pytest.mark.parametrize("values", [{"servers": "tls://a"}, {"ca_file": "ca.pem"}, {"tls": True}])
def test_tls_is_wanted_by_scheme_file_or_word(values: dict[str, Any]) -> None:
    assert NatsConfig(**values).wants_tls
    assert not NatsConfig().wants_tls


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"subject": "a..b"}, "empty token"),
        ({"policy": StreamPolicy.CREATE}, r"needs stream = StreamSpec"),
        ({"policy": StreamPolicy.UPDATE, "stream": "NAME"}, r"needs stream = StreamSpec"),
        ({"verify_subjects": ("a.>.b",)}, "at the end"),
        ({"verify_subjects": ("a.b*",)}, "token of its own"),
        ({"max_pending": 0}, "max_pending"),
    ],
)
def test_options_that_cannot_work_are_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        JetStreamOptions(**values)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "a.b"}, "stream's name"),
        ({"subjects": ()}, "subjects"),
        ({"subjects": ("a b",)}, "white space"),
        ({"replicas": 6}, "replicas"),
        ({"max_age": 60, "duplicate_window": 90}, "shorten the window"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        StreamSpec(**{"name": "S", "subjects": ("s.>",), **values})


def test_without_nats_py_configuration_imports_and_the_publisher_names_the_extra() -> None:
    program = """
import sys
sys.modules["nats"] = None
from oms_events.publishers.jetstream import JetStreamOptions, NatsConfig, from_nats_message
from oms_events.errors import MissingExtraError
try:
    from oms_events.publishers.jetstream import JetStreamPublisher
except MissingExtraError as error:
    assert error.extra == "nats", error
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "NATS needs an extra: pip install 'oms-events[nats]'\n"
