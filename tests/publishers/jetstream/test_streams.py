from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client

from oms_events.errors import PlatformDeniedError
from oms_events.publishers.jetstream import (
    JetStreamOptions,
    JetStreamPublisher,
    Storage,
    StreamPolicy,
    StreamSpec,
)
from tests.publishers.jetstream.conftest import Stream, make_stream


@pytest.fixture
async def name(client: Client) -> AsyncIterator[str]:
    name = f"S{uuid.uuid4().hex}"
    yield name
    for info in await client.jsm().streams_info():
        if (info.config.name or "").startswith(name):
            await client.jsm().delete_stream(info.config.name or "")


async def opened(client: Client, policy: StreamPolicy, stream: StreamSpec | str | None, **options: Any) -> Any:
    """Opens a publisher; gives what the server then has."""
    options = {"policy": policy, "stream": stream, **options}
    async with JetStreamPublisher(client, options=JetStreamOptions(**options)) as publisher:
        known = publisher.describe()["stream"]
    return (await client.jsm().stream_info(known)).config if known else None


def spec(name: str, **values: Any) -> StreamSpec:
    return StreamSpec(**{"name": name, "subjects": (f"{name}.>",), **values})


async def test_a_stream_is_made_as_specified(client: Client, name: str) -> None:
    config = await opened(
        client,
        StreamPolicy.CREATE,
        spec(
            name,
            description="all of it",
            max_age=3600,
            max_bytes=10_000_000,
            max_msgs=1000,
            max_msgs_per_subject=100,
            max_msg_size=5000,
            retention="interest",
            storage="memory",
            discard="new",
            duplicate_window=30.5,
            allow_msg_ttl=True,
            allow_atomic=True,
            deny_delete=True,
            deny_purge=True,
        ),
    )
    assert config.subjects == [f"{name}.>"]
    assert (config.max_age, config.duplicate_window) == (3600, 30.5)
    assert (config.max_bytes, config.max_msgs, config.max_msgs_per_subject) == (10_000_000, 1000, 100)
    assert (config.max_msg_size, config.num_replicas) == (5000, 1)
    assert (config.retention, config.storage, config.discard) == ("interest", "memory", "new")
    assert config.allow_direct
    assert config.allow_msg_ttl
    assert config.allow_atomic
    assert config.deny_delete
    assert config.deny_purge
    assert config.description == "all of it"


async def test_a_minimal_stream_has_the_defaults(client: Client, name: str) -> None:
    config = await opened(client, StreamPolicy.CREATE, spec(name))
    assert (config.storage, config.retention, config.max_msgs, config.max_age) == ("file", "limits", -1, 0)
    assert config.duplicate_window == 120


async def test_a_short_life_shortens_the_default_window(client: Client, name: str) -> None:
    config = await opened(client, StreamPolicy.CREATE, spec(name, max_age=60))
    assert config.duplicate_window == 60


async def test_an_equal_stream_is_left_alone(client: Client, name: str) -> None:
    for _ in range(2):
        await opened(client, StreamPolicy.CREATE, spec(name, max_msgs=5, max_age=90, duplicate_window=20))
    await client.jsm().update_stream(name=name, subjects=[f"{name}.>"], max_msgs=5, max_bytes=777_777)
    # What the specification does not say is not its business.
    config = await opened(client, StreamPolicy.CREATE, spec(name, max_msgs=5))
    assert config.max_bytes == 777_777


async def test_create_refuses_a_stream_that_differs(client: Client, name: str) -> None:
    await opened(client, StreamPolicy.CREATE, spec(name, max_msgs=5, max_age=60))
    with pytest.raises(
        PlatformDeniedError, match=r"max_age is 60\.0 and 90\.0 is wanted, max_msgs is 5 and 6 .*policy = update"
    ):
        await opened(client, StreamPolicy.CREATE, spec(name, max_msgs=6, max_age=90))


async def test_update_changes_what_differs_and_keeps_the_rest(client: Client, name: str) -> None:
    await opened(client, StreamPolicy.UPDATE, spec(name, subjects=(f"{name}.a", f"{name}.b"), max_msgs=5))
    config = await opened(
        client, StreamPolicy.UPDATE, spec(name, subjects=(f"{name}.b", f"{name}.c"), max_age=600)
    )
    assert config.subjects == [f"{name}.a", f"{name}.b", f"{name}.c"]
    assert (config.max_msgs, config.max_age) == (5, 600)


async def test_what_cannot_be_changed_is_named(client: Client, name: str) -> None:
    await opened(client, StreamPolicy.CREATE, spec(name))
    with pytest.raises(
        PlatformDeniedError, match=r"storage is 'file' and 'memory' is wanted.*storage type.*delete the stream"
    ):
        await opened(client, StreamPolicy.UPDATE, spec(name, storage=Storage.MEMORY))


async def test_more_replicas_than_servers_is_named(client: Client, name: str) -> None:
    with pytest.raises(PlatformDeniedError, match="replicas"):
        await opened(client, StreamPolicy.CREATE, spec(name, replicas=3))


async def test_subjects_of_another_stream_are_named(client: Client, name: str) -> None:
    other = f"{name}-other"
    await opened(client, StreamPolicy.CREATE, spec(other, subjects=(f"{name}.x.>",)))
    with pytest.raises(PlatformDeniedError, match=rf"overlap those of \{{'{other}': \['{name}.x.>'\]\}}"):
        await opened(client, StreamPolicy.CREATE, spec(name))


async def test_verify_takes_a_stream_that_covers(client: Client, stream: Stream) -> None:
    covered = (f"{stream.name}.oms.schema.*",)
    for given in (stream.name, None):
        config = await opened(client, StreamPolicy.VERIFY, given, verify_subjects=covered)
        assert config.name == stream.name
    await opened(client, StreamPolicy.VERIFY, spec(stream.name, subjects=covered, max_msgs=77))


async def test_verify_refuses_a_stream_that_is_missing(client: Client, name: str) -> None:
    with pytest.raises(PlatformDeniedError, match=f"stream '{name}' does not exist; create it"):
        await opened(client, StreamPolicy.VERIFY, name)
    with pytest.raises(PlatformDeniedError, match=f"no stream covers subject '{name}.a'"):
        await opened(client, StreamPolicy.VERIFY, None, verify_subjects=(f"{name}.a",))


async def test_verify_refuses_a_stream_that_covers_only_a_part(client: Client) -> None:
    async with make_stream(client) as stream:
        with pytest.raises(PlatformDeniedError, match=r"do not cover \['oms.other'\]; add them"):
            await opened(client, StreamPolicy.VERIFY, stream.name, verify_subjects=("oms.other",))
        with pytest.raises(PlatformDeniedError, match="no stream covers"):
            await opened(client, StreamPolicy.VERIFY, None, verify_subjects=("*.oms",))


async def test_a_stream_that_never_acknowledges_is_refused(client: Client) -> None:
    async with make_stream(client, no_ack=True) as stream:
        with pytest.raises(PlatformDeniedError, match="no_ack = true"):
            await opened(client, StreamPolicy.VERIFY, stream.name)


async def test_none_asks_nothing(client: Client, name: str) -> None:
    publisher = JetStreamPublisher(
        client, options=JetStreamOptions(policy=StreamPolicy.NONE, stream=name, api_prefix="$JS.nobody.API")
    )
    async with publisher:
        assert publisher.describe()["connected"]


async def test_a_switch_is_turned_off(client: Client, name: str) -> None:
    await opened(client, StreamPolicy.CREATE, spec(name, allow_direct=True))
    config = await opened(client, StreamPolicy.UPDATE, spec(name, allow_direct=False))
    assert not config.allow_direct


async def test_a_shorter_life_shortens_the_window_that_was_not_asked_for(client: Client, name: str) -> None:
    await opened(client, StreamPolicy.CREATE, spec(name))
    config = await opened(client, StreamPolicy.UPDATE, spec(name, max_age=60))
    assert (config.max_age, config.duplicate_window) == (60, 60)
    config = await opened(client, StreamPolicy.UPDATE, spec(name, max_age=600))
    assert (config.max_age, config.duplicate_window) == (600, 60)


@pytest.mark.parametrize("policy", [StreamPolicy.CREATE, StreamPolicy.UPDATE])
async def test_an_existing_stream_that_takes_nothing_is_not_taken_for_made(
    client: Client, name: str, policy: StreamPolicy
) -> None:
    await client.jsm().add_stream(name=name, subjects=[f"{name}.>"], no_ack=True)
    with pytest.raises(PlatformDeniedError, match="no_ack = true"):
        await opened(client, policy, spec(name))
    await client.jsm().update_stream(name=name, subjects=[f"{name}.>"], no_ack=False, sealed=True)
    with pytest.raises(PlatformDeniedError, match="sealed = true"):
        await opened(client, policy, spec(name))
