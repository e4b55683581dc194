"""Worker processes that a test starts, strikes and replaces; none of them outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from tests.outbox.processes.gates import READY
from tests.outbox.processes.ground import Ground

_ROOT: Final = Path(__file__).parents[3]
_START: Final = 30.0
_END: Final = 30.0


class Worker:
    """One process in a group of its own. Made by `Fleet.start`."""

    def __init__(self, kind: str, name: str, process: asyncio.subprocess.Process) -> None:
        self.kind = kind
        self.name = name
        self.paused = False
        self._process = process
        self._heard: set[str] = set()
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=f"output-of-{name}")

    @property
    def is_ready(self) -> bool:
        """Whether it takes part by now."""
        return READY in self._heard

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def hears(self, text: str, *, within: float) -> bool:
        """Whether the worker says this within so many seconds, or has said it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while text not in self._heard:
                    if self._reading.done():
                        return False
                    self._news.clear()
                    await self._news.wait()
                return True
        return False

    async def comes_to(self, place: str, *, within: float) -> bool:
        """Arms a place, and says whether the worker has come there within so many seconds and waits for `go`."""
        self._heard.discard(f"at {place}")
        self._tell(f"arm {place}")
        return await self.hears(f"at {place}", within=within)

    def go(self) -> None:
        """Lets it go on from where it waits."""
        self._tell("go")

    def _tell(self, text: str) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(f"{text}\n".encode())

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def pause(self) -> None:
        self.paused = True
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)
        self.paused = False

    async def kill(self) -> None:
        """Ends it as a crash does."""
        self.send(signal.SIGKILL)
        await self._end()

    async def end(self) -> int:
        """Ends it cleanly, and gives its exit code."""
        self.send(signal.SIGTERM)
        return await self._end()

    async def _end(self) -> int:
        async with asyncio.timeout(_END):
            await self._reading
            code = await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._heard.add(line.decode().strip())
            self._news.set()
        self._news.set()


class Fleet:
    """The workers of one test. Leaving it kills those that are left."""

    def __init__(self, ground: Ground) -> None:
        self.workers: list[Worker] = []
        self._ground = ground
        self._started = 0

    async def start(self, kind: str) -> Worker:
        """Starts a worker and does not wait until it is ready."""
        self._started += 1
        name = f"{kind}-{self._started}"
        with _errors(self._ground, name) as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.outbox.processes.worker", kind, name, self._ground.to_json()),
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                # Not a session of its own: if we die, the kernel ends a group that has stopped members.
                process_group=0,
            )
        worker = Worker(kind, name, process)
        self.workers.append(worker)
        return worker

    async def start_ready(self, *kinds: str) -> list[Worker]:
        workers = [await self.start(kind) for kind in kinds]
        for worker in workers:
            await self.until_ready(worker)
        return workers

    async def until_ready(self, worker: Worker) -> None:
        assert await worker.hears(READY, within=_START), f"{worker.name} did not start:\n{self.complaints()}"

    def alive(self, kind: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.kind == kind and worker.is_alive]

    async def end_all(self, kind: str) -> None:
        """Ends all of a kind cleanly, at once."""
        workers = self.alive(kind)
        for worker in workers:
            await self.until_ready(worker)
        codes = await asyncio.gather(*(worker.end() for worker in workers))
        assert not any(codes), f"{[worker.name for worker in workers]} ended with {codes}\n{self.complaints()}"

    async def kill_all(self, kind: str) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.alive(kind)))

    def complaints(self) -> str:
        """Tracebacks that workers wrote."""
        texts = {path.stem: path.read_text() for path in Path(self._ground.folder).glob("*.stderr")}
        return "\n".join(f"{name}: {text}" for name, text in sorted(texts.items()) if "Traceback" in text)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.workers))


def _errors(ground: Ground, name: str) -> BinaryIO:
    return Path(ground.folder, f"{name}.stderr").open("wb")
