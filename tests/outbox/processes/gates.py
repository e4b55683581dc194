"""Places in a worker where the test that started it may strike."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Final

PUBLISHING: Final = "publishing"
"""A processor is about to publish."""
REMOVING: Final = "removing"
"""A processor's events were accepted, and it is about to remove their records."""
REMOVED: Final = "removed"
"""A processor has removed records."""
RESERVED: Final = "reserved"
"""A writer has reserved its sequence numbers, and is about to commit."""
COMMITTED: Final = "committed"
"""A writer's commit was answered, and it has told nobody yet."""

READY: Final = "ready"
STOPPED: Final = "stopped"


class Gates:
    """Speaks with the test over stdin and stdout, one word or two to a line.

    `arm <place>`: the next time that the worker comes to the place it says `at <place>`, and waits for `go`.
    SIGTERM asks it to end in good order; the end of stdin, as when the test has died, ends it at once.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._go = asyncio.Event()
        self._armed: set[str] = set()
        self._listening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._listening = asyncio.create_task(self._listen(reader), name="gates")

    def say(self, text: str) -> None:
        print(text, flush=True)

    async def at(self, place: str) -> None:
        if place in self._armed:
            self._armed.discard(place)
            self._go.clear()
            self.say(f"at {place}")
            await self._go.wait()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            word, _, place = line.decode().strip().partition(" ")
            if word == "arm":
                self._armed.add(place)
            else:
                self._go.set()
        os._exit(3)
