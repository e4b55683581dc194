"""Server URLs, however written, keep their secrets to themselves."""

from __future__ import annotations

import pytest

from oms_events._nats.config import NatsConfig
from oms_events.errors import ConfigurationError


def test_a_url_without_scheme_gives_its_login_to_the_fields() -> None:
    config = NatsConfig(servers=("user:hunter2@host:4222",))
    assert config.servers == ("nats://host:4222",)
    assert config.user == "user"
    assert config.password is not None
    assert config.password.get_secret_value() == "hunter2"


def test_a_password_may_hold_what_urls_are_made_of() -> None:
    config = NatsConfig(servers=("nats://user:p://w@rd@host:4222",))
    assert config.servers == ("nats://host:4222",)
    assert config.password is not None
    assert config.password.get_secret_value() == "p://w@rd"


@pytest.mark.parametrize("server", ["user:hunter2@", "http://user:hunter2@host", "hunter2@:4222"])
def test_a_url_that_is_none_shows_no_secret(server: str) -> None:
    with pytest.raises(ConfigurationError, match="is no NATS URL") as caught:
        NatsConfig(servers=(server,))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["nats://me:hun,ter2@a:4222", "me:h,u,n,ter2@a:1,b:2", "nats://b:1,me:hunter2@a:1"]
)
def test_a_comma_in_a_login_is_refused_and_shown_nowhere(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a comma in a password as %2C") as caught:
        NatsConfig(servers=text)
    assert "ter2" not in str(caught.value)


def test_a_comma_in_a_login_may_be_escaped() -> None:
    config = NatsConfig(servers="nats://me:hun%2Cter2@a:4222,b:4222, tls://c")
    assert config.servers == ("nats://a:4222", "nats://b:4222", "tls://c")
    assert config.password is not None
    assert config.password.get_secret_value() == "hun,ter2"


def test_half_a_password_in_the_place_of_a_port_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="port is no number") as caught:
        NatsConfig(servers=("nats://me:hun", "ter2@a:4222"))
    assert "hun" not in str(caught.value)
