from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import TransientError, UnknownOutcomeError
from oms_events.events import build_event, encode
from oms_events.publishing import Publisher, PublisherTraits, Receipt
from oms_events.testing import Fault, FlakyPublisher, MemoryPublisher
from oms_events.testing.contract import PublisherContract


class TestMemoryPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self) -> AsyncIterator[MemoryPublisher]:
        publisher = MemoryPublisher(max_size=10_000)
        await publisher.open()
        yield publisher
        await publisher.close()

    async def stored(self, publisher: Publisher, count: int) -> list[CloudEvent]:
        assert isinstance(publisher, MemoryPublisher)
        return publisher.events

    def unopened(self, publisher: Publisher) -> Publisher:
        return MemoryPublisher()

    def too_large(self, publisher: Publisher) -> CloudEvent:
        return build_event("t", "/s", "x" * 20_000)


class TestMemoryPublisherThatKeepsDuplicates(TestMemoryPublisher):
    @pytest.fixture
    async def publisher(self) -> AsyncIterator[MemoryPublisher]:
        publisher = MemoryPublisher(max_size=10_000, traits=PublisherTraits(gather=True, max_batch=10))
        await publisher.open()
        yield publisher
        await publisher.close()


class TestFlakyPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self) -> AsyncIterator[FlakyPublisher]:
        self.memory = MemoryPublisher(max_size=10_000)
        publisher = FlakyPublisher(self.memory)
        await publisher.open()
        yield publisher
        await publisher.close()

    async def stored(self, publisher: Publisher, count: int) -> list[CloudEvent]:
        return self.memory.events

    def unopened(self, publisher: Publisher) -> Publisher:
        return FlakyPublisher(MemoryPublisher())

    def too_large(self, publisher: Publisher) -> CloudEvent:
        return build_event("t", "/s", "x" * 20_000)

    @contextlib.asynccontextmanager
    async def outage(self, publisher: Publisher) -> AsyncIterator[None]:
        assert isinstance(publisher, FlakyPublisher)
        publisher.down()
        yield
        publisher.up()


async def test_a_scripted_fault_hits_its_call_and_its_events_only() -> None:
    memory = MemoryPublisher()
    flaky = FlakyPublisher(memory)
    await flaky.open()
    lost = UnknownOutcomeError("answer lost")
    flaky.script(
        Fault(TransientError("throttled", throttled=True), only=frozenset({1})), Fault(lost, stored=True), None
    )
    events = [encode(build_event("t", "/s", number)) for number in range(3)]
    first = await flaky.publish(events, timeout=1)
    assert [type(answer) for answer in first] == [Receipt, TransientError, Receipt]
    assert await flaky.publish(events, timeout=1) == [lost] * 3
    assert [event.get_data() for event in memory.events] == [0, 2, 1]
    third = await flaky.publish(events, timeout=1)
    assert all(isinstance(answer, Receipt) and answer.duplicate for answer in third)
    assert flaky.calls == [3, 3, 3]


async def test_a_hanging_call_is_unknown_after_its_timeout() -> None:
    flaky = FlakyPublisher(MemoryPublisher())
    await flaky.open()
    flaky.script(Fault(hang=True))
    (answer,) = await flaky.publish([encode(build_event("t", "/s"))], timeout=0.01)
    assert isinstance(answer, UnknownOutcomeError)
