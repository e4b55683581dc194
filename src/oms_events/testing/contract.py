"""The contract of `Publisher` as tests: subclass it beside your own publisher's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import EventRejectedError, PublishError, TransientError, UnknownOutcomeError
from oms_events.events import EncodedEvent, build_event, encode
from oms_events.publishing import Publisher, Receipt

_TYPE = "com.foundry.oms.contract.checked"
_TIMEOUT = 10.0


def make_event(data: Any = None, **attributes: Any) -> CloudEvent:
    """An event for contract tests, of type `com.foundry.oms.contract.checked` and source `/contract`."""
    return build_event(_TYPE, "/contract", data, **attributes)


def _encoded(count: int) -> list[EncodedEvent]:
    return [encode(make_event({"number": number})) for number in range(count)]


class PublisherContract:
    """Subclass as `class TestMine(PublisherContract)` and give it what follows; pytest runs the rest.

    - a fixture `publisher`: an open publisher to a platform that works; close it after the yield;
    - `stored(publisher)`: what the platform has stored so far, read back as CloudEvents, waiting until at
      least `count` are there;
    - `unopened(publisher)`: another publisher to the same platform, as its constructor made it;
    - `too_large(publisher)`: an event that it must refuse for its size;
    - `outage(publisher)`: an async context manager inside which the platform does not answer.

    Tests that need one of the last three are skipped, with the reason, while it gives None.
    """

    async def stored(self, publisher: Publisher, count: int) -> list[CloudEvent]:
        raise NotImplementedError("give the contract a way to read events back")

    def unopened(self, publisher: Publisher) -> Publisher | None:
        return None

    def too_large(self, publisher: Publisher) -> CloudEvent | None:
        return None

    def outage(self, publisher: Publisher) -> AbstractAsyncContextManager[object] | None:
        return None

    async def _read_back(self, publisher: Publisher, events: list[EncodedEvent]) -> dict[str, CloudEvent]:
        found = {event.get_id(): event for event in await self.stored(publisher, len(events))}
        return {event.id: found[event.id] for event in events}

    @pytest.mark.asyncio
    async def test_is_a_publisher(self, publisher: Publisher) -> None:
        assert isinstance(publisher, Publisher)
        assert publisher.traits == publisher.traits
        assert publisher.traits.max_batch >= 1

    @pytest.mark.asyncio
    async def test_gives_a_receipt_per_event_and_has_stored_them(self, publisher: Publisher) -> None:
        events = _encoded(25)
        answers = await publisher.publish(events, timeout=_TIMEOUT)
        assert [type(answer) for answer in answers] == [Receipt] * 25
        back = await self._read_back(publisher, events)
        assert [back[event.id].get_data() for event in events] == [event.data for event in events]

    @pytest.mark.asyncio
    async def test_keeps_every_attribute_and_form_of_data(self, publisher: Publisher) -> None:
        time = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
        events = [
            encode(event)
            for event in (
                make_event(
                    {"nested": {"list": [1, 2.5, None, "ü"]}}, subject="a/b c", time=time, branch="feature/ä"
                ),
                make_event([1, 2, 3], datacontenttype="application/json"),
                make_event({"large": 2**64, "small": -(2**63) - 1}),
                make_event("just text", datacontenttype="text/plain"),
                make_event("", datacontenttype="text/plain"),
                make_event(b"\x00\xff bytes", datacontenttype="application/octet-stream"),
                make_event(None),
                make_event({}, partitionkey="key 1", sequence="0001", correlationid='quoted "id" %41'),
                make_event({}, number=-(2**31), yes=True, no=False, expirytime=time, until=time),
            )
        ]
        answers = await publisher.publish(events, timeout=_TIMEOUT)
        assert [type(answer) for answer in answers] == [Receipt] * len(events)
        back = await self._read_back(publisher, events)
        for event in events:
            assert _as_text(back[event.id].get_attributes()) == _as_text(event.attributes)
            # The wire of a binary content mode cannot tell empty text from no data.
            assert back[event.id].get_data() == event.data or (back[event.id].get_data(), event.data) == (None, "")

    @pytest.mark.asyncio
    async def test_nothing_to_publish_gives_nothing(self, publisher: Publisher) -> None:
        assert list(await publisher.publish([], timeout=_TIMEOUT)) == []

    @pytest.mark.asyncio
    @pytest.mark.parametrize("timeout", [0.0, -1.0])
    async def test_without_time_left_nothing_is_sent(self, publisher: Publisher, timeout: float) -> None:
        events = _encoded(12)
        answers = await publisher.publish(events, timeout=timeout)
        assert [type(answer) for answer in answers] == [TransientError] * 12
        (other,) = _encoded(1)
        await publisher.publish([other], timeout=_TIMEOUT)
        ids = {stored.get_id() for stored in await self.stored(publisher, 1)}
        assert other.id in ids
        assert ids.isdisjoint(event.id for event in events)

    @pytest.mark.asyncio
    async def test_before_it_is_open_it_has_an_answer_per_event(self, publisher: Publisher) -> None:
        unopened = self.unopened(publisher)
        if unopened is None:
            pytest.skip("`unopened` gave None: override it to return a publisher that was not opened yet")
        events = _encoded(3)
        answers = await unopened.publish(events, timeout=_TIMEOUT)
        await unopened.close()
        assert len(answers) == 3
        assert all(isinstance(answer, Receipt | PublishError) for answer in answers)

    @pytest.mark.asyncio
    async def test_concurrent_calls_get_their_own_answers(self, publisher: Publisher) -> None:
        batches = [_encoded(size) for size in (1, 7, 30, 2)]
        answers = await asyncio.gather(*(publisher.publish(batch, timeout=_TIMEOUT) for batch in batches))
        assert [len(answer) for answer in answers] == [1, 7, 30, 2]
        assert all(isinstance(receipt, Receipt) for answer in answers for receipt in answer)
        everything = [event for batch in batches for event in batch]
        assert len(await self._read_back(publisher, everything)) == 40

    @pytest.mark.asyncio
    async def test_an_event_too_large_is_rejected_and_harms_no_other(self, publisher: Publisher) -> None:
        big = self.too_large(publisher)
        if big is None:
            pytest.skip("`too_large` gave None: override it to return an event over the platform's size limit")
        before, after = _encoded(2)
        answers = await publisher.publish([before, encode(big), after], timeout=_TIMEOUT)
        assert [type(answer) for answer in answers] == [Receipt, EventRejectedError, Receipt]
        await self._read_back(publisher, [before, after])

    @pytest.mark.asyncio
    async def test_the_same_event_again_is_stored_once_if_it_says_so(self, publisher: Publisher) -> None:
        (event,) = _encoded(1)
        answers = [(await publisher.publish([event], timeout=_TIMEOUT))[0] for _ in range(2)]
        assert all(isinstance(answer, Receipt) for answer in answers)
        if publisher.traits.deduplicates:
            assert [answer.duplicate for answer in answers if isinstance(answer, Receipt)] == [False, True]
            (other,) = _encoded(1)
            await publisher.publish([other], timeout=_TIMEOUT)
            ids = [stored.get_id() for stored in await self.stored(publisher, 2)]
            assert ids.count(event.id) == 1

    @pytest.mark.asyncio
    async def test_a_check_passes_while_the_platform_works(self, publisher: Publisher) -> None:
        await publisher.check()

    @pytest.mark.asyncio
    async def test_opening_and_closing_again_is_harmless(self, publisher: Publisher) -> None:
        await publisher.open()
        await publisher.open()
        await publisher.close()
        await publisher.close()
        (event,) = _encoded(1)
        (answer,) = await publisher.publish([event], timeout=_TIMEOUT)
        assert isinstance(answer, PublishError)

    @pytest.mark.asyncio
    async def test_cancelling_a_call_leaves_the_publisher_usable(self, publisher: Publisher) -> None:
        task = asyncio.create_task(_publish(publisher, _encoded(50)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        (event,) = _encoded(1)
        (answer,) = await publisher.publish([event], timeout=_TIMEOUT)
        assert isinstance(answer, Receipt)

    @pytest.mark.asyncio
    async def test_silence_is_answered_within_the_timeout_and_ends(self, publisher: Publisher) -> None:
        outage = self.outage(publisher)
        if outage is None:
            pytest.skip("`outage` gave None: override it to return a context in which the platform is silent")
        events = _encoded(12)
        loop = asyncio.get_running_loop()
        async with outage:
            started = loop.time()
            answers = await publisher.publish(events, timeout=0.5)
            assert loop.time() - started < 0.5 + 1.0
            assert len(answers) == 12
            assert all(isinstance(answer, TransientError | UnknownOutcomeError) for answer in answers)
            with pytest.raises(PublishError):
                async with asyncio.timeout(_TIMEOUT):
                    await publisher.check()
        again = await _until_delivered(publisher, _encoded(1)[0])
        assert isinstance(again, Receipt)


def _as_text(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The canonical texts of CloudEvents 1.0, section 3.1: headers have no other types."""
    return {name: _canonical(value) for name, value in attributes.items()}


def _canonical(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


async def _publish(publisher: Publisher, events: list[EncodedEvent]) -> object:
    return await publisher.publish(events, timeout=_TIMEOUT)


async def _until_delivered(publisher: Publisher, event: EncodedEvent) -> Receipt | PublishError:
    """After an outage a client may need a moment to notice; it must need no more than the timeout."""
    async with asyncio.timeout(3 * _TIMEOUT):
        while True:
            (answer,) = await publisher.publish([event], timeout=1.0)
            if isinstance(answer, Receipt):
                return answer
            await asyncio.sleep(0.05)
