"""The stream that takes the subjects of the events."""

from __future__ import annotations

from typing import Any

import pytest

from oms_events import JetStreamOptions, NatsConfig
from oms_events.devstack import NatsServer
from oms_events.devstack.background import run_in_thread
from oms_events.publishers.jetstream import StreamSpec
from tests.provisioning.checks.broken import (
    NOT_CHECKED,
    PROBLEM,
    WARNING,
    Broken,
    Expected,
    assert_exactly,
    assert_told,
    broken,
)
from tests.provisioning.checks.checked import EVENTS, SCHEMA, STREAM, SUBJECT, SYSTEM, World, Worlds

BROKEN = [
    broken(
        "no stream",
        lambda world: world.js.delete_stream(world.name),
        ("stream", "{}", PROBLEM, "does not exist"),
        parts=STREAM,
    ),
    broken(
        "a stream that covers some of the subjects",
        lambda world: world.js.update_stream(name=world.name, subjects=[f"{world.name}.shop.>"]),
        ("stream", "{}.oms.schema.created", PROBLEM, SCHEMA),
        ("stream", "{}.oms.system.error", PROBLEM, SYSTEM),
        parts=STREAM,
    ),
]


@pytest.mark.parametrize("case", BROKEN)
async def test_of_one_broken_thing_exactly_that_is_told(worlds: Worlds, case: Broken) -> None:
    await assert_told(worlds, case)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stream": None}, []),
        ({"stream": None, "subject": "nowhere.{type}"}, [("stream", f"nowhere.{SUBJECT}", PROBLEM, "no stream")]),
        ({"stream": "none"}, [("stream", "none", PROBLEM, "does not exist")]),
        (
            {"stream": StreamSpec(name="new", subjects=("new.>",)), "subject": "new.{type}", "policy": "create"},
            [("stream", "new", WARNING, "makes it when it opens")],
        ),
        (
            {"stream": StreamSpec(name="new", subjects=("other.>",)), "subject": "new.{type}", "policy": "create"},
            [("stream", "new", WARNING, "when it opens"), ("stream", f"new.{SUBJECT}", PROBLEM, "does not cover")],
        ),
    ],
)
async def test_streams_are_asked_for_as_the_options_say(
    stream_world: World, options: dict[str, Any], expected: list[Expected]
) -> None:
    wanted = JetStreamOptions(**{"subject": f"{stream_world.name}.{{type}}", **options})
    report = await stream_world.check(jetstream=wanted, events=EVENTS[1:2])
    assert_exactly(report, expected, stream_world.name)
    assert "new" not in {info.config.name for info in await stream_world.js.streams_info()}


async def test_a_stream_that_never_acknowledges_is_a_problem(worlds: Worlds) -> None:
    async with worlds(*STREAM) as world:
        await world.js.update_stream(name=world.name, subjects=[f"{world.name}.>"], no_ack=True)
        assert_exactly(await world.check(), [("stream", "{}", PROBLEM, "no_ack = true")], world.name)


async def test_a_server_that_does_not_answer_is_not_checked(stream_world: World) -> None:
    report = await stream_world.check(nats=NatsConfig(servers=("nats://127.0.0.1:1",), connect_timeout=0.5))
    assert_exactly(report, [("stream", "{}", NOT_CHECKED, "127.0.0.1:1")], stream_world.name)


async def test_who_may_not_ask_about_streams_is_told_so(stream_world: World) -> None:
    user = 'users: [{user: a, password: b, permissions: {publish: {deny: ["$JS.API.>"]}}}]'
    options = stream_world.configuration.jetstream.model_copy(update={"request_timeout": 0.2})
    with run_in_thread(NatsServer(config=f"authorization {{ {user} }}")) as server:
        config = NatsConfig(servers=(server.url,), user="a", password="b")
        report = await stream_world.check(nats=config, jetstream=options)
    assert_exactly(report, [("stream", "{}", NOT_CHECKED, "no permission for $JS.API")], stream_world.name)
