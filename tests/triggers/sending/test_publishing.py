"""Chunks that go on as events: through a router, and through an outbox."""

from __future__ import annotations

from typing import Any

import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events import EventRouter, MemoryOutbox, MemoryPublisher
from oms_events.errors import (
    ConfigurationError,
    EventRejectedError,
    StartRefusedError,
    TransientError,
    TriggerError,
)
from oms_events.instrumentation.hooks import ChunksSent
from oms_events.resilience.backoff import RetryConfig
from oms_events.routing.config import DestinationConfig, RouterConfig
from oms_events.testing import Fault, FlakyPublisher
from oms_events.triggers.sending.chunks import chunks_of
from oms_events.triggers.sending.publishing import EVENT_TYPE, SOURCE, EventSender
from tests.triggers.sending.conftest import make_start

ONCE = RouterConfig(destination=DestinationConfig(retry=RetryConfig(max_attempts=1)))
START = make_start(symbols=3, chunk_size=2, fence=1, cause_id="cause-1")


def attributes(event: CloudEvent) -> dict[str, Any]:
    return {name: value for name, value in event.get_attributes().items() if name not in ("time", "specversion")}


async def test_each_chunk_is_an_event_that_says_where_it_belongs() -> None:
    memory = MemoryPublisher()
    async with EventRouter({"memory": memory}) as router:
        result = await EventSender(router)(START)
    chunks = chunks_of(START)
    assert result == {"chunks": 2, "symbols": 3, "events": [f"{chunk.chunk_id}.1" for chunk in chunks]}
    assert [event.get_data() for event in memory.events] == [chunk.document for chunk in chunks]
    assert attributes(memory.events[1]) == {
        # With the fence: platforms must not take a later run's for this one.
        "id": f"{chunks[1].chunk_id}.1",
        "type": EVENT_TYPE,
        "source": SOURCE,
        "datacontenttype": "application/json",
        "partitionkey": "market:prices",
        "correlationid": "flow-1",
        "causationid": "cause-1",
    }


async def test_a_start_within_a_flow_has_the_flows_correlation_id() -> None:
    memory = MemoryPublisher()
    start = make_start(symbols=1, flow_id="the-flow")
    async with EventRouter({"memory": memory}) as router:
        await EventSender(router, event_type="acme.ingest", source="acme")(start)
    (event,) = memory.events
    assert (event.get_type(), event.get_source()) == ("acme.ingest", "acme")
    assert event.get_extension("correlationid") == "the-flow"
    assert event.get_data()["correlation_id"] == "flow-1"


async def test_what_is_not_delivered_fails_the_start_which_then_publishes_the_same_events() -> None:
    memory = MemoryPublisher()
    flaky = FlakyPublisher(memory)
    details: list[Any] = []
    async with EventRouter({"memory": flaky}, config=ONCE) as router:
        sender = EventSender(router, hooks=[details.append])
        flaky.script(Fault(TransientError("connection refused"), only=frozenset((1,))))
        with pytest.raises(TriggerError, match=r"1 of 2 chunks were not delivered: memory failed") as failed:
            await sender(START)
        assert isinstance(failed.value.__cause__, TransientError)
        assert not isinstance(failed.value, StartRefusedError)
        await sender(START)
    assert details == [ChunksSent(1, 1), ChunksSent(2, 0)]
    ids = [chunk.deduplication_id for chunk in chunks_of(START)]
    assert [event.get_id() for event in memory.events] == ids


async def test_what_is_rejected_for_good_refuses_the_start() -> None:
    flaky = FlakyPublisher(MemoryPublisher())
    async with EventRouter({"memory": flaky}, config=ONCE) as router:
        flaky.down(EventRejectedError("too large"))
        with pytest.raises(StartRefusedError, match=r"2 of 2 chunks .* memory rejected: too large"):
            await EventSender(router)(START)


async def test_an_outbox_has_all_chunks_or_none() -> None:
    async with MemoryOutbox() as outbox:
        sender = EventSender(outbox)
        start = make_start(symbols=100, chunk_size=1)
        await sender(start)
        ids = [chunk.chunk_id for chunk in chunks_of(start)]
        assert [event.get_id() for event in outbox.pending()] == ids


async def test_an_outbox_that_can_only_add_gets_one_event_after_the_other() -> None:
    class Adding:
        def __init__(self) -> None:
            self.added: list[CloudEvent] = []

        async def add(self, event: CloudEvent) -> None:
            self.added.append(event)

    outbox = Adding()
    await EventSender(outbox)(START)
    assert [event.get_id() for event in outbox.added] == [chunk.deduplication_id for chunk in chunks_of(START)]


def test_a_plan_says_what_would_be_published() -> None:
    plan = EventSender(MemoryOutbox()).plan(START)
    assert plan == {
        "event_type": EVENT_TYPE,
        "source": SOURCE,
        "chunks": 2,
        "symbols": 3,
        "documents": [chunk.document for chunk in chunks_of(START)],
    }


async def test_what_can_be_no_event_refuses_the_start() -> None:
    sender = EventSender(MemoryOutbox(), event_type="")
    for act in (lambda: sender.plan(START), lambda: sender(START)):
        with pytest.raises(StartRefusedError, match="INVALID_EVENT: no event can be made of this start"):
            await act()  # type: ignore[misc]


def test_what_is_neither_router_nor_outbox_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give a router or an outbox"):
        EventSender(object())  # type: ignore[arg-type]
