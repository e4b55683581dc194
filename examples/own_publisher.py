"""A publisher of your own: events as lines of JSON in a file, each on the disk before it is acknowledged."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oms_events import (
    EncodedEvent,
    EventRejectedError,
    EventRouter,
    PlatformDeniedError,
    PublishError,
    PublisherTraits,
    Receipt,
    TransientError,
    UnknownOutcomeError,
    build_event,
)


# [start:publisher]
class JsonLinesPublisher:
    """Appends events to a file, one structured JSON CloudEvent per line."""

    def __init__(self, path: Path, *, max_size: int = 1_000_000) -> None:
        self._path = path
        self._max_size = max_size
        self._is_open = False

    @property
    def traits(self) -> PublisherTraits:
        return PublisherTraits(gather=True, max_batch=100, linger=0.002, deduplicates=False)

    async def open(self) -> None:
        try:
            await asyncio.to_thread(self._path.touch)
        except OSError as error:
            raise PlatformDeniedError(f"cannot write {self._path}: {error}; check the folder") from error
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def check(self) -> None:
        if not self._is_open:
            raise TransientError("the publisher is not open; call open() first")
        await self.open()

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        if not self._is_open:
            return [TransientError("the publisher is not open; call open() first")] * len(events)
        if timeout <= 0:
            return [TransientError("not written: no time is left")] * len(events)
        answers: list[Receipt | PublishError] = [self._answer(event) for event in events]
        lines = [event.json for event, answer in zip(events, answers, strict=True) if isinstance(answer, Receipt)]
        try:
            async with asyncio.timeout(timeout):
                await asyncio.to_thread(_append, self._path, lines)
        except (TimeoutError, OSError) as error:
            # Some of the lines may be in the file: nobody knows, and that is what the answer says.
            failure = UnknownOutcomeError(f"writing {self._path} did not end well: {error!r}")
            return [failure if isinstance(answer, Receipt) else answer for answer in answers]
        return answers

    def _answer(self, event: EncodedEvent) -> Receipt | PublishError:
        if event.size > self._max_size:
            return EventRejectedError(f"the event has {event.size} bytes; at most {self._max_size} are taken")
        return Receipt(id=event.identity)

    def describe(self) -> dict[str, Any]:
        """Optional: shown in the router's status. Never put a secret here."""
        return {"kind": "json-lines", "path": str(self._path)}


def _append(path: Path, lines: list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


# [end:publisher]


# [start:use]
async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        async with EventRouter({"archive": JsonLinesPublisher(path)}) as router:
            results = await router.publish_event(build_event("shop.order.placed", "/shop/web", {"total": 12}))
            print(results["archive"].outcome, router.get_platform_status()["platforms"]["archive"]["publisher"])
        print(path.read_text(encoding="utf-8"), end="")


# [end:use]

if __name__ == "__main__":
    asyncio.run(main())
