from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from oms_events.devstack import DevStack, DevstackError, NatsServer, run_in_thread
from tests.devstack.support import alive, aws_client, children, needs_proc, until

pytestmark = needs_proc

PARENT = """
import asyncio, json
from oms_events.devstack import DevStack

async def main():
    async with DevStack(with_proxy=True) as stack:
        servers = (stack.nats, stack.aws)
        print(json.dumps({"pids": [server.pid for server in servers],
                          "folders": [str(server._folder) for server in servers]}), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_all_parts_work_together_and_are_gone_afterwards() -> None:
    before = children(os.getpid())
    async with DevStack(with_proxy=True, bus_name="mine") as stack:
        settings = stack.environment()
        assert settings["OMS_NATS_URL"] == stack.nats.url
        assert settings["AWS_ENDPOINT_URL"] == stack.proxy.endpoint_url != stack.aws.endpoint_url
        assert settings["AWS_REGION"] == stack.aws.region
        assert settings["OMS_EVENTBRIDGE_BUS_NAME"] == "mine"
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= settings.keys()
        client = await nats.connect(settings["OMS_NATS_URL"], allow_reconnect=False)
        await client.close()
        async with aws_client("events", stack.aws, settings["AWS_ENDPOINT_URL"]) as events:
            await events.list_event_buses()
        assert len(stack.proxy.calls) == 1
    assert children(os.getpid()) == before


async def test_cancelled_stack_stops_everything() -> None:
    before = children(os.getpid())
    opened = asyncio.Event()

    async def use() -> None:
        async with DevStack():
            opened.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await asyncio.wait_for(opened.wait(), 30)
    assert len(children(os.getpid())) == len(before) + 4
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children(os.getpid()) == before


async def test_one_part_that_fails_ends_the_other_and_raises_its_own_error() -> None:
    before = children(os.getpid())
    with pytest.raises(DevstackError, match="Parse error"):
        async with DevStack(nats=NatsServer(config="nonsense {")):
            pass
    assert children(os.getpid()) == before


async def test_proxy_that_was_not_asked_for_is_a_clear_error() -> None:
    with pytest.raises(DevstackError, match="with_proxy=True"):
        _ = DevStack().proxy


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_nothing_outlives_a_parent_that_is_signalled(number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    seen = json.loads(await asyncio.wait_for(parent.stdout.readline(), 30))
    family = [*seen["pids"], *children(parent.pid)]
    assert len(set(family)) == 4
    assert all(alive(pid) for pid in family)
    parent.send_signal(number)
    await asyncio.wait_for(parent.wait(), 10)
    await until(lambda: not any(alive(pid) for pid in family))
    await until(lambda: not any(Path(folder).exists() for folder in seen["folders"]))


def test_synchronous_code_keeps_a_stack_open_in_a_thread() -> None:
    with run_in_thread(NatsServer()) as server:
        assert server.running
    assert not server.running
    with pytest.raises(DevstackError, match="Parse error"), run_in_thread(NatsServer(config="nonsense {")):
        pass


async def test_only_the_proxy_needs_aiohttp() -> None:
    script = """
import asyncio, sys
sys.modules["aiohttp"] = None
from oms_events.devstack import FaultProxy, NatsServer
from oms_events.errors import MissingExtraError
async def main():
    async with NatsServer() as server:
        assert server.running
    try:
        async with FaultProxy("http://127.0.0.1:1"):
            pass
    except MissingExtraError as error:
        print(error)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert "oms-events[devstack]" in output.decode()
    assert process.returncode == 0


NO_LOOP = """
import os, resource, threading
from contextlib import asynccontextmanager
from oms_events.devstack import run_in_thread

@asynccontextmanager
async def manager():
    yield

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
handles = []
try:
    while True:
        handles.append(os.dup(0))
except OSError:
    pass
try:
    with run_in_thread(manager()):
        pass
except OSError as error:
    print(error.strerror, threading.active_count())
"""


def test_a_thread_that_cannot_have_a_loop_says_so() -> None:
    run = subprocess.run([sys.executable, "-c", NO_LOOP], capture_output=True, text=True, timeout=20, check=True)
    assert run.stdout == "Too many open files 1\n", run.stderr
    assert "never awaited" not in run.stderr
