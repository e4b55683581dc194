"""Processors and writers are killed and paused while others go on; afterwards every promise is looked at."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from oms_events._aws.dynamodb import DynamoClient
from tests.outbox.processes.chaos import Chaos
from tests.outbox.processes.checker import Report, check
from tests.outbox.processes.findings import find, overhearing
from tests.outbox.processes.fleet import Fleet
from tests.outbox.processes.gates import REMOVING
from tests.outbox.processes.ground import Ground
from tests.outbox.processes.relaying import relaying

pytestmark = [pytest.mark.serial, pytest.mark.slow]

_DRAIN = 60.0


async def one_round(ground: Ground, dynamo: DynamoClient, seed: int) -> tuple[Report, Counter[str]]:
    rng = random.Random(seed)
    ground = replace(ground, faults=0.02)
    async with overhearing(ground) as attempts, Fleet(ground) as fleet:
        chaos = Chaos(fleet, rng, lease=ground.lease)
        await chaos.run(others=2)
        await fleet.end_all("writer")
        if rng.random() < 0.5:
            await fleet.end_all("processor")
        else:
            await fleet.kill_all("processor")
        async with relaying("last", ground, None) as processor:
            assert await processor.drain(_DRAIN), processor.status()
        assert not fleet.complaints()
        return check(await find(ground, dynamo, attempts)), chaos.counts


async def prove(ground: Ground, dynamo: DynamoClient, seed: int) -> None:
    report, done = await one_round(ground, dynamo, seed)
    strikes = ", ".join(f"{what}: {number}" for what, number in sorted(done.items()))
    print(f"\nround {seed}: {strikes}\n  {report}")
    assert not report.problems, report
    # The round was worth its name: the strikes had their effects.
    assert report.counts["events"] > 30
    assert report.counts["events of refused transactions"] > 0
    if not done[f"never came to {REMOVING}"]:
        assert report.counts["duplicates on recorder"] > 0


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_invented_or_reordered(ground: Ground, dynamo: DynamoClient, seed: int) -> None:
    await prove(ground, dynamo, seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [3, 4, *range(100, 150)])
async def test_nothing_is_lost_invented_or_reordered_for_long(
    ground: Ground, dynamo: DynamoClient, seed: int
) -> None:
    await prove(ground, dynamo, seed)
