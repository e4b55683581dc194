"""Strikes at processes, some at random moments, some at chosen places, while others go on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final, NamedTuple

from oms_events._aio import cancel_and_wait
from tests.outbox.processes.fleet import Fleet, Worker
from tests.outbox.processes.gates import COMMITTED, PUBLISHING, REMOVING, RESERVED

KILL: Final = "killed"
PAUSE: Final = "paused"
LEAVE: Final = "left"
_REACH: Final = 5.0
"""Seconds in which a worker should come to the place where it is to be struck."""


class Strike(NamedTuple):
    """What is done to one worker of a kind; without a place, wherever it is."""

    kind: str
    action: str
    place: str | None = None


AIMED: Final = (
    Strike("processor", KILL, REMOVING),
    Strike("writer", KILL, RESERVED),
    Strike("writer", PAUSE, RESERVED),
)
"""Those of every round: accepted and not removed, reserved and never committed, reserved and committed late."""
OTHERS: Final = (
    Strike("processor", KILL),
    Strike("processor", KILL, PUBLISHING),
    Strike("processor", LEAVE),
    Strike("processor", PAUSE),
    Strike("processor", PAUSE, PUBLISHING),
    Strike("processor", PAUSE, REMOVING),
    Strike("writer", KILL),
    Strike("writer", KILL, COMMITTED),
    Strike("writer", PAUSE),
)


class Chaos:
    """Does `AIMED` and some `OTHERS`, in any order; pauses outlast the `lease`. `counts` says what was done."""

    def __init__(self, fleet: Fleet, rng: random.Random, *, lease: float) -> None:
        self.counts: Counter[str] = Counter()
        self._fleet = fleet
        self._rng = rng
        self._lease = lease
        self._pauses: list[asyncio.Task[None]] = []

    async def run(self, *, others: int) -> None:
        """Starts the workers and strikes; in the end none is paused, and nobody is missing."""
        await self._fleet.start_ready("processor", "processor", "writer", "writer", "writer")
        strikes = [*AIMED, *self._rng.sample(OTHERS, others)]
        self._rng.shuffle(strikes)
        try:
            for strike in strikes:
                # Whatever the workers are doing then: that is what is wanted.
                await asyncio.sleep(self._rng.uniform(0, 0.4))
                await self._strike(strike)
            await asyncio.gather(*self._pauses)
        finally:
            await cancel_and_wait(*self._pauses)

    async def _strike(self, strike: Strike) -> None:
        victim = await self._victim(strike.kind)
        if strike.place is not None and not await victim.comes_to(strike.place, within=_REACH):
            self.counts[f"never came to {strike.place}"] += 1
        self.counts[f"{strike.kind}s {strike.action}{f' at {strike.place}' if strike.place else ''}"] += 1
        if strike.action == PAUSE:
            self._pauses.append(asyncio.create_task(self._pause(victim), name=f"pause-of-{victim.name}"))
            return
        if strike.action == KILL:
            await victim.kill()
        else:
            assert await victim.end() == 0, f"{victim.name} did not end well:\n{self._fleet.complaints()}"
        await self._fleet.start(strike.kind)

    async def _victim(self, kind: str) -> Worker:
        """One that takes part and is not paused; if need be, waits until there is one."""
        while not (able := [w for w in self._fleet.alive(kind) if w.is_ready and not w.paused]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return self._rng.choice(able)

    async def _pause(self, victim: Worker) -> None:
        victim.pause()
        await asyncio.sleep(self._lease * self._rng.uniform(1.3, 1.7))
        victim.resume()
        victim.go()
