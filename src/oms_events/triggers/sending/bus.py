"""The handler that publishes a start's chunks to one event bus, by a router of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from oms_events._aio import LoopBound
from oms_events.instrumentation.hooks import Hook
from oms_events.publishers.eventbridge.config import EventBridgeConfig
from oms_events.publishing import Platform
from oms_events.routing.router import EventRouter
from oms_events.triggers.sending.publishing import EVENT_TYPE, SOURCE, EventSender
from oms_events.triggers.start import Start


class BusSender:
    """Publishes one event per chunk of a start to an event bus, as `EventSender` does with a router of yours.

    Opens at the first start, or as `async with`. `timeout`, in seconds, is the deadline for all events of a start.
    """

    def __init__(
        self,
        bus: EventBridgeConfig,
        *,
        event_type: str = EVENT_TYPE,
        source: str = SOURCE,
        timeout: float | None = None,
        hooks: Iterable[Hook] = (),
    ) -> None:
        self._bus = bus
        self._options: dict[str, Any] = {"event_type": event_type, "source": source, "timeout": timeout}
        self._hooks = tuple(hooks)
        self._opening = LoopBound(asyncio.Lock)
        self._router = self._make_router()

    async def open(self) -> None:
        """Opens the router; idempotent, also after `close`. Raises as `EventRouter.__aenter__` does."""
        async with self._opening():
            if not self._router.is_open:
                # A router is opened once.
                self._router = self._make_router()
                await self._router.__aenter__()

    async def close(self) -> None:
        """Closes the router; idempotent."""
        await self._router.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __call__(self, start: Start) -> dict[str, Any]:
        """Publishes the chunks; answers and raises as `EventSender` does."""
        await self.open()
        return await self._sender(start)

    def plan(self, start: Start) -> dict[str, Any]:
        """What would be published; does no I/O."""
        return self._sender.plan(start)

    @property
    def _sender(self) -> EventSender:
        return EventSender(self._router, **self._options, hooks=self._hooks)

    def _make_router(self) -> EventRouter:
        # Imported here, so that the extra is needed only by those who publish so.
        from oms_events.publishers.eventbridge.publisher import EventBridgePublisher

        return EventRouter({Platform.EVENTBRIDGE: EventBridgePublisher(self._bus)}, hooks=self._hooks)
