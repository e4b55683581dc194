"""What waits in the delay queue runs in a service: when the quota lets it, once, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from oms_events.errors import ConfigurationError, QueueError
from oms_events.triggers.delayed_starts import DelayedStarts
from oms_events.triggers.sending.delay import MemoryDelayQueue, SqsDelayQueue
from tests.triggers.pipelines import Scene, event, limited
from tests.triggers.sending.conftest import MakeQueue

pytestmark = pytest.mark.asyncio


class Unreachable(MemoryDelayQueue):
    """A queue that cannot be read for its first three times."""

    attempts = 0

    async def receive_batch(
        self, *, limit: int = 1, hidden_for: int = 360, wait: int = 0
    ) -> Mapping[str, Any] | None:
        self.attempts += 1
        if self.attempts <= 3:
            raise QueueError("the queue is away") if self.attempts < 3 else OSError("something else")
        return await super().receive_batch(limit=limit, hidden_for=hidden_for, wait=wait)


class Slow(MemoryDelayQueue):
    """A queue whose answer takes as long as the test wants."""

    asked = False
    gate: asyncio.Event

    async def receive_batch(
        self, *, limit: int = 1, hidden_for: int = 360, wait: int = 0
    ) -> Mapping[str, Any] | None:
        self.asked = True
        await self.gate.wait()
        return await super().receive_batch(limit=limit, hidden_for=hidden_for, wait=wait)


async def _delayed(scene: Scene, count: int = 1) -> None:
    """So many starts wait, behind one that has run."""
    statuses = [(await scene.handle(event(f"event-{number}"))).status for number in range(count + 1)]
    assert statuses == ["success", *["delayed"] * count]


async def test_starts_run_in_order_when_the_quota_lets_them() -> None:
    scene = Scene(limited(event=1))
    await _delayed(scene, 2)
    async with scene.pipeline, DelayedStarts(scene.pipeline, scene.delay, clock=scene.clock) as later:
        await scene.clock.advance(59)
        assert len(scene.handler.starts) == 1
        await scene.clock.advance(150)
        assert [start.cause_id for start in scene.handler.starts] == ["event-0", "event-1", "event-2"]
        assert scene.delay.documents == []
        # Opened twice is opened once.
        await later.open()
    assert not [task for task in asyncio.all_tasks() if "delayed-starts" in task.get_name()]


async def test_a_start_that_fails_stays_and_comes_again() -> None:
    scene = Scene(limited(event=1))
    await _delayed(scene)
    await scene.clock.advance(120)
    scene.handler.error = RuntimeError("upstream is away")
    async with scene.pipeline, DelayedStarts(scene.pipeline, scene.delay, time_limit=30, clock=scene.clock):
        await scene.clock.advance(10)
        assert (len(scene.handler.starts), len(scene.delay.documents)) == (2, 1)
        scene.handler.error = None
        await scene.clock.advance(70)
        assert (len(scene.handler.starts), len(scene.delay.documents)) == (2, 1)
        await scene.clock.advance(20)
        assert (len(scene.handler.starts), len(scene.delay.documents)) == (3, 0)


async def test_leaving_finishes_the_start_that_runs_and_takes_no_other() -> None:
    scene = Scene(limited(event=2))
    for number in range(4):
        await scene.handle(event(f"event-{number}"))
    await scene.clock.advance(120)
    scene.handler.gate, scene.handler.entered = asyncio.Event(), asyncio.Event()
    async with scene.pipeline:
        later = DelayedStarts(scene.pipeline, scene.delay, clock=scene.clock)
        await later.open()
        await scene.handler.entered.wait()
        closing = asyncio.create_task(later.close())
        await asyncio.sleep(0)
        scene.handler.gate.set()
        await closing
        assert (len(scene.handler.starts), len(scene.delay.documents)) == (3, 1)
        # Opened again it goes on.
        await later.open()
        await scene.clock.advance(1)
        await later.close()
    assert (len(scene.handler.starts), scene.delay.documents) == (4, [])


async def test_leaving_waits_for_the_queues_answer_and_no_longer() -> None:
    scene = Scene()
    delay = Slow(clock=scene.clock)
    delay.gate = asyncio.Event()
    async with asyncio.timeout(5):
        later = DelayedStarts(scene.pipeline, delay, clock=scene.clock)
        await later.open()
        await asyncio.sleep(0)
        assert delay.asked
        closing = asyncio.create_task(later.close())
        await asyncio.sleep(0)
        assert not closing.done()
        delay.gate.set()
        await closing


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_start_that_takes_too_long_is_cancelled_and_its_message_comes_again(is_cancelled: bool) -> None:
    scene = Scene(limited(event=1))
    await _delayed(scene)
    await scene.clock.advance(120)
    scene.handler.gate, scene.handler.entered = asyncio.Event(), asyncio.Event()
    async with scene.pipeline:
        later = DelayedStarts(scene.pipeline, scene.delay, clock=scene.clock)
        await later.open()
        await scene.handler.entered.wait()
        if is_cancelled:
            closing = asyncio.create_task(later.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await scene.clock.advance(360)
        else:
            await later.close(timeout=0)
    assert not [task for task in asyncio.all_tasks() if "delayed-starts" in task.get_name()]
    assert len(scene.records) == 1
    batch = await scene.delay.receive_batch()
    assert batch is not None
    assert batch["Records"][0]["attributes"]["ApproximateReceiveCount"] == "2"


async def test_a_queue_that_fails_is_asked_again_later_and_later(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(limited(event=1))
    delay = Unreachable(clock=scene.clock)
    later = DelayedStarts(scene.pipeline, delay, clock=scene.clock, draw=lambda: 1.0)
    with caplog.at_level(logging.WARNING, logger="oms_events"):
        async with later:
            asked = ((0, 1), (0.9, 1), (1.1, 2), (2.9, 2), (3.1, 3), (6.9, 3), (7.1, 4), (11.9, 4), (12.1, 5))
            for time, attempts in asked:
                await scene.clock.advance(time - scene.clock.monotonic())
                assert delay.attempts == attempts
    told = [record.getMessage() for record in caplog.records]
    assert "the queue is away; asked again in 2.0 s" in told[1]
    assert "OSError" in (caplog.records[2].exc_text or "")


async def test_times_outside_of_their_limits_are_refused() -> None:
    scene = Scene()
    with pytest.raises(ConfigurationError) as caught:
        DelayedStarts(scene.pipeline, scene.delay, time_limit=900, poll=0)
    assert len(caught.value.problems) == 2


async def test_starts_wait_and_run_on_sqs(make_queue: MakeQueue, sqs: Any) -> None:
    config = await make_queue(fifo=True)
    async with SqsDelayQueue(config, client=sqs) as delay:
        scene = Scene(limited(event=1), delay=delay)
        async with scene.pipeline:
            await _delayed(scene, 2)
            await scene.clock.advance(120)
            scene.handler.entered.clear()
            async with DelayedStarts(scene.pipeline, delay, poll=0.05):
                async with asyncio.timeout(10):
                    await scene.handler.entered.wait()
            # The third is held for the quota, or was not received yet: it is there all the same.
            assert len(scene.handler.starts) == 2
        counts = await sqs.get_queue_attributes(QueueUrl=config.queue_url, AttributeNames=["All"])
    left = counts["Attributes"]
    assert int(left["ApproximateNumberOfMessages"]) + int(left["ApproximateNumberOfMessagesNotVisible"]) == 1
