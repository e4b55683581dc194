"""What the NATS server and the emulator have in common: a port, a folder, a life of starts and stops."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from oms_events.devstack.processes import DevstackError, Process

LOOPBACK = "127.0.0.1"

# Below the ranges that Linux (32768-60999) and macOS (49152-65535) take ports of outgoing connections from:
# no stranger's connection can take the port while its server is down, and a client that reconnects to the
# dead port cannot get connected to itself.
_PORTS = range(20000, 32000)
_PORT_ATTEMPTS = 5
_POLL = 0.02


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now.

    Another program may take it before you do: be ready to try again with another.
    """
    for _ in range(200):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise DevstackError(f"no free port on {LOOPBACK} between {_PORTS.start} and {_PORTS.stop}")


class LocalServer(ABC):
    """A server process on one loopback port, that can be stopped, killed, paused and started again.

    Use it as an async context manager. The port and the data folder stay the same from the first start to
    `close`, which ends the process and removes the folder; so does leaving the context, for whatever reason.
    Nothing here is bound to an event loop: a server started on one loop may be controlled from another.
    """

    def __init__(self, *, name: str, port: int | None, startup_timeout: float) -> None:
        self._name = name
        self._port = port
        self._startup_timeout = startup_timeout
        self._folder: Path | None = None
        self._process: Process | None = None

    @property
    def port(self) -> int:
        """The port, from the first start on."""
        if self._port is None:
            raise DevstackError(f"{self._name} has no port yet: use it inside `async with`, or start it first")
        return self._port

    @property
    def running(self) -> bool:
        """Whether the process lives (it does while it is paused)."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process id of the server while it runs."""
        return self._live().pid

    @property
    def output(self) -> tuple[str, ...]:
        """The last lines that the server wrote since it was last started."""
        return self._process.output if self._process else ()

    async def start(self) -> None:
        """Starts the server, or starts it again on the same port with the same data; waits until it answers.

        Raises DevstackError with the server's last output when it ends or does not answer in time. An error
        or a cancellation leaves no process behind.
        """
        if self.running:
            return
        # One that ended by itself has left its guard, and perhaps children.
        await self.kill()
        await self._prepare()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="oms-events-"))
        attempts = 1 if self._port is not None else _PORT_ATTEMPTS
        for attempt in range(attempts):
            port = self._port or free_port()
            try:
                self._process = await self._launch(port, self._folder)
            except _PortTakenError:
                if attempt + 1 == attempts:
                    raise
            else:
                self._port = port
                return

    async def stop(self) -> None:
        """Ends the server in good order; its port and data stay, for the next `start`."""
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """Ends the server as a crash would, with SIGKILL; its port and data stay, for the next `start`."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Makes the server hang: it takes connections, and answers nothing, until `resume`."""
        self._live().pause()

    def resume(self) -> None:
        """Lets a paused server go on."""
        self._live().resume()

    async def close(self) -> None:
        """Ends the server and removes its data."""
        try:
            await self.stop()
        finally:
            folder, self._folder = self._folder, None
            if folder is not None:
                # A thread goes on to the end when its waiter is cancelled.
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def _prepare(self) -> None:
        """Makes what the server needs before it can be started."""

    @abstractmethod
    def _command(self, port: int, folder: Path) -> Sequence[str]:
        """The command line; may write into the folder."""

    @abstractmethod
    def _environment(self, port: int, folder: Path) -> Mapping[str, str]:
        """All environment variables of the server: nothing of ours is passed on."""

    @abstractmethod
    async def _answers(self, port: int) -> bool:
        """Whether this very server, and no other, answers on the port and is ready for work."""

    def _live(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            raise DevstackError(f"{self._name} is not running: start it first")
        return self._process

    async def _launch(self, port: int, folder: Path) -> Process:
        process = Process.spawn(
            self._command(port, folder),
            name=self._name,
            environment=self._environment(port, folder),
            directory=folder,
            scratch=folder,
        )
        try:
            async with asyncio.timeout(self._startup_timeout):
                while not await self._answers(port):
                    if process.returncode is not None:
                        raise _startup_failure(process, port)
                    await asyncio.sleep(_POLL)
        except TimeoutError as error:
            process.kill()
            raise process.failure(
                f"did not answer on {LOOPBACK}:{port} within {self._startup_timeout:g} s"
            ) from error
        except BaseException:
            process.kill()
            raise
        return process


class _PortTakenError(DevstackError):
    pass


def _startup_failure(process: Process, port: int) -> DevstackError:
    process.kill()
    if any("already in use" in line for line in process.output):
        return _PortTakenError(str(process.failure(f"port {port} is taken by another program: free it")))
    return process.failure(f"ended with status {process.returncode} while it was started")
