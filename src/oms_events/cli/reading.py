"""Input that may block for ever, read so that it holds up neither the event loop nor our end."""

from __future__ import annotations

import asyncio
import io
import os
import select
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Final

from oms_events.cli.parsing import Item, Parser

_CHUNK: Final = 1024 * 1024
_LINGER: Final = 0.005

Request = tuple[asyncio.AbstractEventLoop, "asyncio.Future[bytes]"]


@contextmanager
def open_input(name: str) -> Iterator[io.FileIO]:
    """The file of that name, or standard input for `-`, without a buffer: its lock would block our end."""
    if name == "-":
        with io.FileIO(sys.stdin.fileno(), closefd=False) as file:
            yield file
        return
    with open(name, "rb", buffering=0) as file:  # noqa: PTH123 - Path.open has another type
        yield file


def read_items(file: io.FileIO, parser: Parser) -> Iterator[Item]:
    """The items of a whole file, one by one; blocks."""
    while not parser.ended and (chunk := file.read(_CHUNK)):
        yield from parser.feed(chunk)
    yield from parser.finish()


async def read_batches(
    file: io.FileIO, parser: Parser, *, on_bytes: Callable[[int], None]
) -> AsyncIterator[list[Item]]:
    """The items of a file or pipe as they come, about a megabyte of input at a time at most.

    `on_bytes` is told how many bytes were read.
    """
    reader = _Reader(file)
    try:
        while not parser.ended and (chunk := await reader.read()):
            on_bytes(len(chunk))
            if items := parser.feed(chunk):
                yield items
    finally:
        reader.stop()
    if items := parser.finish():
        yield items


class _Reader:
    """A thread that reads on request. It is a daemon, so a read that never returns ends with the process."""

    def __init__(self, file: io.FileIO) -> None:
        # Not the file object: closed meanwhile, it would raise in the thread what nobody hears.
        self._handle = file.fileno()
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="oms-events-input", daemon=True).start()

    async def read(self) -> bytes:
        """What is there, at least one byte, up to a megabyte; nothing at the end. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        wanted: asyncio.Future[bytes] = loop.create_future()
        self._requests.put((loop, wanted))
        return await wanted

    def stop(self) -> None:
        self._requests.put(None)

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            loop, wanted = request
            result: bytes | OSError
            try:
                result = self._read()
            except OSError as error:
                result = error
            # A loop that is closed by now waits for nothing.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, wanted, result)

    def _read(self) -> bytes:
        data = os.read(self._handle, _CHUNK)
        # A pipe gives 64 KB at most: a little patience makes full batches of what a fast writer sends.
        while data and len(data) < _CHUNK and self._has_more():
            more = os.read(self._handle, _CHUNK - len(data))
            if not more:
                break
            data += more
        return data

    def _has_more(self) -> bool:
        if os.name != "posix":
            return False
        ready, _, _ = select.select([self._handle], [], [], _LINGER)
        return bool(ready)


def _settle(wanted: asyncio.Future[bytes], result: bytes | OSError) -> None:
    if wanted.done():
        return
    if isinstance(result, bytes):
        wanted.set_result(result)
    else:
        wanted.set_exception(result)
