from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import nats
import pytest
from click.testing import CliRunner, Result
from cloudevents.core.v1.event import CloudEvent

from oms_events.cli.app import app
from oms_events.devstack import NatsServer
from oms_events.publishers.jetstream import from_nats_message

COMMAND = [sys.executable, "-c", "from oms_events.cli.main import main; main()"]


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of the test run without settings of its own, and with those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMS_", "AWS_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true", "TERM": "xterm", **env}


@dataclass
class Cli:
    """The command, in this process or in one of its own; `env` are its settings."""

    env: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: object, **env: str) -> Result:
        wanted = clean({**self.env, **env})
        removed = dict.fromkeys(os.environ.keys() - wanted.keys())
        return CliRunner(env={**removed, **wanted}).invoke(app, [str(argument) for argument in arguments])

    def start(self, *arguments: object, **streams: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=clean(self.env),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
        )

    def on_terminal(self, *arguments: object, **streams: int) -> tuple[int, str]:
        """Exit code and what a terminal of 100 columns shows, which is stdout and stderr unless given."""
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        process = self.start(*arguments, **{"stdout": theirs, "stderr": theirs, **streams})
        os.close(theirs)
        shown = b""
        # Linux ends a terminal that all have left with an error.
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65_536):
                shown += data
        os.close(ours)
        process.communicate(timeout=10)
        return process.returncode, shown.decode()


@pytest.fixture
def cli() -> Cli:
    return Cli()


@dataclass
class NatsCli(Cli):
    """The command with NATS as its only platform, and a stream of the test's own behind it."""

    stream: str = ""
    url: str = ""

    def stored(self) -> list[CloudEvent]:
        """What the stream has, in order."""
        return asyncio.run(_read(self.url, self.stream))


@pytest.fixture
def nats_cli(oms_nats_server: NatsServer, tmp_path: Any) -> Iterator[NatsCli]:
    """Its settings file is in the environment of no other test."""
    name = f"cli-{uuid.uuid4().hex}"
    asyncio.run(_on_jetstream(oms_nats_server.url, lambda js: js.add_stream(name=name, subjects=[f"{name}.>"])))
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f"[nats]\nservers = [{json.dumps(oms_nats_server.url)}]\n"
        f"[jetstream]\nstream = '{name}'\nsubject = '{name}.{{type}}'\nverify_subjects = ['{name}.>']\n"
    )
    yield NatsCli({"SETTINGS": str(settings)}, stream=name, url=oms_nats_server.url)
    asyncio.run(_on_jetstream(oms_nats_server.url, lambda js: js.delete_stream(name)))


async def _on_jetstream(url: str, use: Callable[[Any], Any]) -> Any:
    client = await nats.connect(url)
    try:
        return await use(client.jetstream())
    finally:
        await client.close()


async def _read(url: str, stream: str) -> list[CloudEvent]:
    async def read(js: Any) -> list[CloudEvent]:
        count = (await js.stream_info(stream)).state.messages
        consumer = await js.subscribe(f"{stream}.>", ordered_consumer=True)
        messages = [await consumer.next_msg(timeout=10) for _ in range(count)]
        return [from_nats_message(message.headers, message.data) for message in messages]

    found: list[CloudEvent] = await _on_jetstream(url, read)
    return found


def event_json(number: int | str, **attributes: Any) -> str:
    """A CloudEvent that the default rules send to NATS alone."""
    values = {"specversion": "1.0", "id": str(number), "type": "com.foundry.oms.action.started", "source": "/t"}
    return json.dumps({**values, "data": {"number": number}, **attributes})
