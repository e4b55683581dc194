"""Server URLs, however written, keep their secrets to themselves."""

from __future__ import annotations

import pytest

from oms_events.errors import ConfigurationError
from oms_events.publishers.jetstream.config import NatsConfig


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
