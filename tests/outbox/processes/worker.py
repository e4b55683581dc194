"""A worker process: `python -m tests.outbox.processes.worker processor|writer <name> <ground as JSON>`."""

from __future__ import annotations

import asyncio
import sys

from tests.outbox.processes.gates import READY, STOPPED, Gates
from tests.outbox.processes.ground import Ground
from tests.outbox.processes.relaying import relaying
from tests.outbox.processes.writing import writing

KINDS = {"processor": relaying, "writer": writing}


async def main(kind: str, name: str, ground: Ground) -> None:
    gates = Gates()
    await gates.open()
    async with KINDS[kind](name, ground, gates):
        gates.say(READY)
        await gates.stop.wait()
    gates.say(STOPPED)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Ground.from_json(sys.argv[3])))
