"""Child processes that never outlive us: bounded output, an orderly stop, an end also when we are killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from oms_events.errors import OmsEventsError

_log = logging.getLogger("oms_events.devstack")

_KEPT_LINES = 200
_LINE_LIMIT = 4096
_POLL = 0.01
_KILL_WAIT = 10.0

# The guard leads the process group that the server joins and reads a pipe that only we hold open: when we
# die, however that happens, it reads the end of the pipe, and takes the whole group with it. The group id
# cannot be reused while the guard lives, so no signal of ours can ever hit a stranger. HUP is ignored because
# a group that is orphaned while paused gets one before the guard has done its work.
_GUARD = (
    'trap "" HUP; read -r server; read -r _; '
    'kill -KILL "$server"; if [ -n "$1" ]; then rm -rf -- "$1"; fi; kill -KILL 0'
)


_PIPES: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _let_go() -> None:
    """A fork of us, such as a worker of multiprocessing, has our ends of the pipes, and may live longer."""
    for pipe in _PIPES:
        pipe.close()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


class DevstackError(OmsEventsError):
    """A part of the devstack could not be made, started or asked; the message has its last words."""


class Process:
    """A running child process in a group of its own. It is bound to no event loop: any may stop it."""

    def __init__(self, name: str, server: subprocess.Popen[bytes], guard: subprocess.Popen[bytes]) -> None:
        self._name = name
        self._server = server
        self._guard = guard
        self._paused = False
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(
            target=self._read, args=(server.stdout,), name=f"{name}-output", daemon=True
        )
        self._reader.start()

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str],
        directory: Path,
        scratch: Path | None = None,
    ) -> Self:
        """Starts `command` in `directory`; `scratch` is a folder to remove if we die before we can do it.

        Synchronous on purpose: spawning takes a few milliseconds, and between the birth of the process and
        our holding it there must be no point at which a cancellation could lose it.
        """
        if os.name != "posix":
            raise DevstackError(f"{name}: the devstack runs on Linux and macOS only")
        guard = subprocess.Popen(  # noqa: S603 - the command is our own
            ["/bin/sh", "-c", _GUARD, "oms-events-guard", str(scratch or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,
        )
        _PIPES.add(_pipe(guard))
        try:
            server = subprocess.Popen(  # noqa: S603 - the command is our own
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                process_group=guard.pid,
            )
            os.write(_pipe(guard).fileno(), b"%d\n" % server.pid)
        except (OSError, subprocess.SubprocessError) as error:
            _end_guard(guard)
            raise DevstackError(f"{name}: could not run {command[0]}: {error}") from error
        except BaseException:
            _end_guard(guard)
            raise
        return cls(name, server, guard)

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._server.poll()

    @property
    def output(self) -> tuple[str, ...]:
        """The last lines that it wrote, at most 200."""
        return tuple(self._lines)

    def pause(self) -> None:
        """Stops the process in its tracks, and returns when it has stopped (within microseconds)."""
        if self._paused or self.returncode is not None:
            return
        self._server.send_signal(signal.SIGSTOP)
        # Its threads go on for a moment, and could answer what was asked after the pause.
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            self._paused = os.WIFSTOPPED(status)
            if not self._paused:
                self._server.returncode = os.waitstatus_to_exitcode(status)

    def resume(self) -> None:
        """Lets the process go on."""
        self._paused = False
        self._server.send_signal(signal.SIGCONT)

    async def wait(self) -> int:
        """Waits until the process has ended. Cancelling leaves it running."""
        while (code := self.returncode) is None:  # noqa: ASYNC110 - an Event belongs to one loop
            await asyncio.sleep(_POLL)
        return code

    async def stop(self, *, grace: float = 5.0) -> None:
        """Ends the process: SIGTERM, then after `grace` seconds, or when cancelled, SIGKILL to its group."""
        try:
            if self.returncode is None:
                self._server.terminate()
                self.resume()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends the process and everything that it started, at once, and takes them off the process table."""
        _end_guard(self._guard)
        try:
            self._server.wait(_KILL_WAIT)
        except subprocess.TimeoutExpired:
            _log.error("%s: process %d did not end after SIGKILL", self._name, self.pid)
        self._reader.join(1.0)

    def failure(self, what: str) -> DevstackError:
        """An error that says what happened, and the last that the process said."""
        words = "\n".join(f"  {line}" for line in self.output[-15:]) or "  (it wrote nothing)"
        return DevstackError(f"{self._name}: {what}; its last output:\n{words}")

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(_LINE_LIMIT):
                self._lines.append(line.decode(errors="replace").rstrip())


def _pipe(guard: subprocess.Popen[bytes]) -> IO[bytes]:
    if guard.stdin is None:
        raise DevstackError("the guard of a process has no pipe")
    return guard.stdin


def _end_guard(guard: subprocess.Popen[bytes]) -> None:
    if guard.returncode is None:
        # macOS answers EPERM when nothing but zombies is left in the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait(_KILL_WAIT)
    _pipe(guard).close()
