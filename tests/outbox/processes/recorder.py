"""A platform that drops no duplicates: it appends what it accepts to a file that all processes share."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from oms_events.errors import PublishError, TransientError, UnknownOutcomeError
from oms_events.events import EncodedEvent
from oms_events.publishing import PublisherTraits, Receipt


class Acceptance(NamedTuple):
    """One event that was taken: what it is, and the digest of all of it."""

    identity: str
    digest: str


def read_acceptances(path: Path) -> list[Acceptance]:
    """What was accepted by now, in order."""
    lines = path.read_text().splitlines() if path.exists() else ()
    return [Acceptance(*line.split("\t")) for line in lines]


class Recorder:
    """Accepts an event by one appending write, which neither a kill nor another process can tear.

    A share `faults` of the events is refused for now, and as many are accepted without an answer.
    """

    def __init__(self, path: Path, *, faults: float, seed: str) -> None:
        self._path = path
        self._faults = faults
        self._rng = random.Random(seed)
        self._file: int | None = None

    @property
    def traits(self) -> PublisherTraits:
        return PublisherTraits()

    async def open(self) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    async def check(self) -> None:
        if self._file is None:
            raise TransientError("the recorder is not open")

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        answers: dict[int, Receipt | PublishError] = {}
        # In any order, as some platforms do: two events of one key in a call would show.
        for place in self._rng.sample(range(len(events)), len(events)):
            answers[place] = self._take(events[place])
        # As on a real platform, an event is accepted some time before its publisher knows.
        await asyncio.sleep(self._rng.uniform(0, min(0.01, timeout)))
        return [answers[place] for place in range(len(events))]

    def _take(self, event: EncodedEvent) -> Receipt | PublishError:
        draw = self._rng.random()
        if self._file is None or draw < self._faults:
            return TransientError("not now")
        digest = hashlib.sha256(event.json).hexdigest()[:16]
        os.write(self._file, f"{event.identity}\t{digest}\n".encode())
        if draw < 2 * self._faults:
            return UnknownOutcomeError("accepted, but nobody says so")
        return Receipt(id=event.identity)
