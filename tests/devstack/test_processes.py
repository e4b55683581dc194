from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from oms_events.devstack import DevstackError, NatsServer, free_port
from oms_events.devstack.processes import Process
from oms_events.devstack.server import LocalServer
from tests.devstack.support import alive, children, needs_proc, until

pytestmark = needs_proc

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "


def spawn(script: str, folder: Path) -> Process:
    return Process.spawn([sys.executable, "-c", script], name="child", environment=os.environ, directory=folder)


async def test_output_is_kept_within_bounds(tmp_path: Path) -> None:
    script = "for n in range(50_000): print(n)\nprint('x' * 100_000)\nimport sys; sys.exit(3)"
    process = spawn(script, tmp_path)
    try:
        assert await process.wait() == 3
    finally:
        await process.stop()
    assert len(process.output) == 200
    assert "49999" in process.output
    assert sum(len(line) for line in process.output) < 200 * 4096
    assert str(process.failure("it broke")).startswith("child: it broke; its last output:\n  xxx")


async def test_stop_is_polite_first(tmp_path: Path) -> None:
    script = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    process = spawn(script + "print('ready', flush=True); time.sleep(60)", tmp_path)
    await until(lambda: "ready" in process.output)
    await process.stop()
    assert process.returncode == 7


async def test_stop_kills_what_does_not_listen_and_what_it_started(tmp_path: Path) -> None:
    script = DEAF + (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    before = children(os.getpid())
    process = spawn(script, tmp_path)
    await until(lambda: len(process.output) == 2)
    grandchild = int(process.output[1])
    assert alive(grandchild)
    await process.stop(grace=0.05)
    assert process.returncode == -signal.SIGKILL
    await until(lambda: not alive(grandchild))
    assert children(os.getpid()) == before


async def test_cancelled_stop_still_kills(tmp_path: Path) -> None:
    process = spawn(DEAF + "time.sleep(60)", tmp_path)
    await until(lambda: "deaf" in process.output)
    stopping = asyncio.create_task(process.stop(grace=30))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert process.returncode == -signal.SIGKILL


PARENT = """
import multiprocessing, os, sys, time
from pathlib import Path
from oms_events.devstack.processes import Process

command = [sys.executable, "-c", "import time; time.sleep(60)"]
process = Process.spawn(command, name="child", environment=os.environ, directory=Path.cwd())
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print(process.pid, worker.pid, flush=True)
time.sleep(60)
"""


async def test_a_forked_worker_that_lives_on_does_not_keep_a_process_alive(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    assert parent.stdout is not None
    child, worker = map(int, (await parent.stdout.readline()).split())
    try:
        assert alive(child)
        parent.kill()
        await until(lambda: not alive(child))
        assert alive(worker)
    finally:
        os.kill(worker, signal.SIGKILL)
        # Not before: the worker has inherited the output that this reads to its end.
        await parent.communicate()


async def test_unknown_program_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    before = children(os.getpid())
    with pytest.raises(DevstackError, match="child: could not run /no/such/program"):
        Process.spawn(["/no/such/program"], name="child", environment={}, directory=tmp_path)
    assert children(os.getpid()) == before


def test_free_ports_are_free_and_never_ephemeral() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10
    assert all(20000 <= port < 32000 for port in ports)


class LateServer(LocalServer):
    """Finds its port taken a number of times, as when another program was quicker."""

    def __init__(self, *, taken: int, port: int | None = None, silent: bool = False) -> None:
        super().__init__(name="late", port=port, startup_timeout=10)
        self._taken = taken
        self._silent = silent
        self.tried: list[int] = []

    async def _prepare(self) -> None:
        pass

    def _command(self, port: int, folder: Path) -> Sequence[str]:
        self.tried.append(port)
        taken = len(self.tried) <= self._taken
        script = "print('address already in use')" if taken else "import time; time.sleep(60)"
        return [sys.executable, "-c", script]

    def _environment(self, port: int, folder: Path) -> Mapping[str, str]:
        return {}

    async def _answers(self, port: int) -> bool:
        return len(self.tried) > self._taken and not self._silent


async def test_port_taken_in_between_is_replaced_by_another() -> None:
    async with LateServer(taken=2) as server:
        assert len(set(server.tried)) == 3
        assert server.port == server.tried[-1]
        await server.stop()
        await server.start()
        assert server.port == server.tried[-1] == server.tried[-2]


async def test_port_that_was_asked_for_is_not_replaced() -> None:
    port = free_port()
    with pytest.raises(DevstackError, match=f"port {port} is taken"):
        async with LateServer(taken=1, port=port):
            pass


async def test_cancelled_start_leaves_no_process_and_no_folder() -> None:
    before = children(os.getpid())
    server = LateServer(taken=0, silent=True)
    starting = asyncio.create_task(server.__aenter__())
    await until(lambda: len(children(os.getpid())) == len(before) + 2)
    folder = server._folder
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children(os.getpid()) == before
    assert folder is not None
    assert not folder.exists()


async def test_server_that_ended_by_itself_can_be_started_again() -> None:
    before = children(os.getpid())
    async with NatsServer() as server:
        port = server.port
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: not server.running)
        await server.start()
        assert server.port == port
        assert len(children(os.getpid())) == len(before) + 2
    assert children(os.getpid()) == before


async def test_methods_say_when_the_server_does_not_run() -> None:
    server = NatsServer()
    assert not server.running
    with pytest.raises(DevstackError, match="no port yet"):
        _ = server.url
    with pytest.raises(DevstackError, match="not running"):
        server.pause()
    await server.stop()
    await server.close()
