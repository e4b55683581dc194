from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import ConfigurationError, InvalidEventError, RouterClosedError
from oms_events.events import EncodedEvent, encode
from oms_events.oms.builders import create_action_event
from oms_events.oms.service import EnhancedEventService
from oms_events.publishing import Outcome, PublishResult, PublishResults


@dataclass
class MemoryRouter:
    """Stores every event on one platform, `memory`, while it is open."""

    is_open: bool = True
    stored: list[EncodedEvent] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)

    async def publish_event(self, event: CloudEvent, *, timeout: float | None = None) -> PublishResults:
        (results,) = await self.publish_events([event], timeout=timeout)
        return results

    async def publish_events(
        self, events: Sequence[CloudEvent], *, timeout: float | None = None
    ) -> list[PublishResults]:
        if not self.is_open:
            raise RouterClosedError("the memory router is closed")
        self.timeouts.append(timeout)
        self.stored.extend(map(encode, events))
        result = PublishResult("memory", Outcome.DELIVERED, attempts=1)
        return [PublishResults({"memory": result}, delivered=True, rule=None, strategy=None) for _ in events]


@dataclass
class RouterMaker:
    """Opens a `MemoryRouter` each time it is called, once `gate` is open; the first `failures` times it fails."""

    failures: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    made: list[MemoryRouter] = field(default_factory=list)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[MemoryRouter]:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ConfigurationError("environment", ["no platform; set OMS_NATS_URL"])
        router = MemoryRouter()
        self.made.append(router)
        try:
            yield router
        finally:
            router.is_open = False


@dataclass
class MemoryOutbox:
    added: list[CloudEvent] = field(default_factory=list)

    async def add(self, event: CloudEvent) -> None:
        encode(event)
        self.added.append(event)


def started(job: str = "job-1") -> CloudEvent:
    return create_action_event(action_type="reindex", job_id=job, status="started")


@pytest.fixture
def maker() -> RouterMaker:
    maker = RouterMaker()
    maker.gate.set()
    return maker


async def test_without_an_outbox_events_go_to_the_router_at_once() -> None:
    router = MemoryRouter()
    async with EnhancedEventService(router) as service:
        event = service.create_system_event(event_subtype="error", component="search", status="down")
        results = await service.publish_event(event, timeout=3.0)
        assert results is not None
        assert results["memory"].success
        batch = await service.publish_event_batch([started("a"), started("b")])
        assert batch is not None
        assert [results.delivered for results in batch] == [True, True]
    assert [stored.event.get_subject() for stored in router.stored] == ["search", "a", "b"]
    assert router.timeouts == [3.0, None]


async def test_a_router_that_was_given_is_never_closed() -> None:
    router = MemoryRouter()
    async with EnhancedEventService(router):
        pass
    assert router.is_open


async def test_with_an_outbox_events_are_stored_unless_immediate() -> None:
    router, outbox = MemoryRouter(), MemoryOutbox()
    first, second, third, now, also_now = map(started, ("1", "2", "3", "4", "5"))
    async with EnhancedEventService(router, outbox=outbox) as service:
        assert await service.publish_event(first) is None
        assert await service.publish_event_batch([second, third]) is None
        assert (await service.publish_event(now, immediate=True)).delivered
        assert len(await service.publish_event_batch([also_now], True)) == 1
    assert outbox.added == [first, second, third]
    assert [stored.event for stored in router.stored] == [now, also_now]


async def test_what_the_outbox_refuses_is_raised_and_the_rest_not_added() -> None:
    outbox = MemoryOutbox()
    bad = CloudEvent({"type": "t", "source": "/s"}, data={"x": float("nan")})
    async with EnhancedEventService(outbox=outbox) as service:
        with pytest.raises(InvalidEventError):
            await service.publish_event_batch([started("1"), bad, started("3")])
    assert [event.get_subject() for event in outbox.added] == ["1"]


async def test_the_own_router_is_made_at_the_first_publish_and_closed_with_the_service(maker: RouterMaker) -> None:
    async with EnhancedEventService(router_factory=maker) as service:
        assert maker.made == []
        await service.publish_event(started())
        await service.publish_event(started())
        (router,) = maker.made
        assert router.is_open
    assert not router.is_open


async def test_concurrent_first_publishes_make_one_router(maker: RouterMaker) -> None:
    maker.gate.clear()
    async with EnhancedEventService(router_factory=maker) as service, asyncio.timeout(5):
        publishing = [asyncio.ensure_future(service.publish_event(started())) for _ in range(20)]
        await asyncio.sleep(0)
        maker.gate.set()
        assert all(results is not None and results.delivered for results in await asyncio.gather(*publishing))
        (router,) = maker.made
        assert len(router.stored) == 20


async def test_a_cancelled_or_failed_first_publish_leaves_the_next_free_to_try(maker: RouterMaker) -> None:
    maker.gate.clear()
    maker.failures = 1
    async with EnhancedEventService(router_factory=maker) as service, asyncio.timeout(5):
        cancelled = asyncio.ensure_future(service.publish_event(started()))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        maker.gate.set()
        with pytest.raises(ConfigurationError):
            await service.publish_event(started())
        results = await service.publish_event(started())
        assert results is not None
        assert results.delivered


async def test_closing_waits_for_the_router_that_is_being_made_and_closes_it(maker: RouterMaker) -> None:
    maker.gate.clear()
    service = EnhancedEventService(router_factory=maker)
    async with asyncio.timeout(5):
        publishing = asyncio.ensure_future(service.publish_event(started()))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(service.close())
        await asyncio.sleep(0)
        maker.gate.set()
        await asyncio.wait([publishing, closing])
    (router,) = maker.made
    assert not router.is_open
    await closing


async def test_a_closed_service_publishes_no_more(maker: RouterMaker) -> None:
    service = EnhancedEventService(router_factory=maker, outbox=MemoryOutbox())
    await service.close()
    await service.close()
    for immediate in (False, True):
        with pytest.raises(RouterClosedError, match="closed"):
            await service.publish_event(started(), immediate)
        with pytest.raises(RouterClosedError, match="closed"):
            await service.publish_event_batch([started()], immediate)
    assert maker.made == []
