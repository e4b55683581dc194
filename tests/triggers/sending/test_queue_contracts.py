"""Queues, delay queues and dead letters keep their contracts, on the emulator's SQS and in memory.

What the emulator has otherwise than SQS: every entry of a batch that fails is the sender's fault, receipt handles
whose time is over still delete and hide, nothing is refused for being hidden longer than 12 hours, and the
dead-letter queue of a function gets the record that a destination would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from oms_events.testing import ManualClock
from oms_events.testing.trigger_queues_contract import (
    SMALL,
    DeadLettersContract,
    DelayQueueContract,
    MessageQueueContract,
)
from oms_events.triggers.sending.dead_letters import MemoryDeadLetters, SqsDeadLetters
from oms_events.triggers.sending.delay import MemoryDelayQueue, SqsDelayQueue
from oms_events.triggers.sending.memory_queue import MemoryQueue
from oms_events.triggers.sending.redrive import DeadLetterAdmin
from oms_events.triggers.sending.sqs import SqsQueue
from oms_events.triggers.start import Queued
from tests.triggers.sending.conftest import MakeQueue


class TestSqs(MessageQueueContract):
    @pytest.fixture
    async def standard(self, make_queue: MakeQueue) -> AsyncIterator[SqsQueue]:
        async with SqsQueue(await make_queue()) as queue:
            yield queue

    @pytest.fixture
    async def fifo(self, make_queue: MakeQueue) -> AsyncIterator[SqsQueue]:
        async with SqsQueue(await make_queue(fifo=True)) as queue:
            yield queue


class TestMemory(MessageQueueContract):
    @pytest.fixture
    def standard(self) -> MemoryQueue:
        return MemoryQueue(clock=ManualClock())

    @pytest.fixture
    def fifo(self) -> MemoryQueue:
        return MemoryQueue(fifo=True, clock=ManualClock())


class TestSqsDelay(DelayQueueContract):
    @pytest.fixture
    async def delay(self, make_queue: MakeQueue, sqs: Any) -> AsyncIterator[SqsDelayQueue]:
        async with SqsDelayQueue(await make_queue(fifo=True), client=sqs) as delay:
            yield delay


class TestMemoryDelay(DelayQueueContract):
    @pytest.fixture
    def delay(self) -> MemoryDelayQueue:
        return MemoryDelayQueue(clock=ManualClock())


class TestSqsDeadLetters(DeadLettersContract):
    @pytest.fixture
    async def both(self, make_queue: MakeQueue, sqs: Any) -> AsyncIterator[tuple[SqsDeadLetters, DeadLetterAdmin]]:
        config = await make_queue(
            attributes={"MaximumMessageSize": str(SMALL)}, max_message_bytes=SMALL, retry={"max_attempts": 1}
        )
        async with (
            SqsDeadLetters(config, client=sqs) as dead,
            DeadLetterAdmin(config, client=sqs, wait=0) as admin,
        ):
            yield dead, admin

    @pytest.fixture
    def dead(self, both: tuple[SqsDeadLetters, DeadLetterAdmin]) -> SqsDeadLetters:
        return both[0]

    @pytest.fixture
    def admin(self, both: tuple[SqsDeadLetters, DeadLetterAdmin]) -> DeadLetterAdmin:
        return both[1]


class TestMemoryDeadLetters(DeadLettersContract):
    @pytest.fixture
    def dead(self) -> MemoryDeadLetters:
        return MemoryDeadLetters(max_message_bytes=SMALL)

    @pytest.fixture
    def admin(self, dead: MemoryDeadLetters) -> DeadLetterAdmin:
        return DeadLetterAdmin(dead.queue)


# ---------------------------------------------------------------------- time, in memory


async def test_in_memory_time_is_as_in_sqs() -> None:
    clock = ManualClock()
    delay = MemoryDelayQueue(delay=60, clock=clock)
    await delay.put({"start": 1}, group="g", key="1")
    assert await delay.receive_batch() is None
    await clock.advance(60)
    batch = await delay.receive_batch(hidden_for=360)
    assert batch is not None
    await clock.advance(359)
    assert await delay.receive_batch() is None
    await clock.advance(1)
    # The first receipt handle holds nothing now.
    again = await delay.receive_batch()
    assert again is not None
    with pytest.raises(Exception, match="holds no message"):
        await delay.settle(batch)
    await delay.settle(again)
    assert delay.documents == []


async def test_a_start_is_held_for_less_than_sqs_takes_from_the_receipt_on() -> None:
    clock = ManualClock()
    delay = MemoryDelayQueue(clock=clock)
    await delay.put({"start": 1}, group="g", key="1")
    batch = await delay.receive_batch()
    assert batch is not None
    (record,) = batch["Records"]
    await delay.hold(Queued(record["messageId"], record["receiptHandle"]), 86_400)
    await clock.advance(42_299)
    assert await delay.receive_batch() is None
    await clock.advance(1)
    assert await delay.receive_batch() is not None


async def test_in_memory_a_deduplication_id_is_known_for_five_minutes() -> None:
    clock = ManualClock()
    delay = MemoryDelayQueue(clock=clock)
    for wait in (0, 299, 1):
        await clock.advance(wait)
        await delay.put({"start": 1}, group="g", key="1")
    assert delay.documents == [{"start": 1}] * 2
