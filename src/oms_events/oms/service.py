"""`EnhancedEventService`: builds OMS events and publishes them, through the outbox or at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Literal, Self, overload

from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import RouterClosedError
from oms_events.oms import builders
from oms_events.oms.environment import router_from_environment
from oms_events.publishing import EventPublisher, OutboxWriter, PublishResults

RouterFactory = Callable[[], AbstractAsyncContextManager[EventPublisher]]
"""Makes the service's own router: entered at the first publish, left when the service is closed."""


class EnhancedEventService:
    """Builds OMS events and publishes them.

    A `router` that is given is borrowed: it must be open, and is never closed here. Without one the service
    makes its own of the environment (`oms_events.oms.environment`), or with `router_factory`, when it first
    publishes at once, and closes it in `close()`; when that fails, the next publish tries again. With an
    `outbox`, events are stored there unless `immediate` is set.
    """

    create_schema_change_event = staticmethod(builders.create_schema_change_event)
    create_branch_event = staticmethod(builders.create_branch_event)
    create_proposal_event = staticmethod(builders.create_proposal_event)
    create_action_event = staticmethod(builders.create_action_event)
    create_system_event = staticmethod(builders.create_system_event)

    def __init__(
        self,
        router: EventPublisher | None = None,
        *,
        outbox: OutboxWriter | None = None,
        router_factory: RouterFactory = router_from_environment,
    ) -> None:
        self._router = router
        self._outbox = outbox
        self._router_factory = router_factory
        self._owned = AsyncExitStack()
        self._own_router: EventPublisher | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the router that the service made, if any; idempotent. A closed service publishes no more."""
        self._closed = True
        async with self._lock:
            await self._owned.aclose()

    @overload
    async def publish_event(
        self, event: CloudEvent, immediate: Literal[True], *, timeout: float | None = None
    ) -> PublishResults: ...

    @overload
    async def publish_event(
        self, event: CloudEvent, immediate: bool = False, *, timeout: float | None = None
    ) -> PublishResults | None: ...

    async def publish_event(
        self, event: CloudEvent, immediate: bool = False, *, timeout: float | None = None
    ) -> PublishResults | None:
        """Publishes one event: its results, or None when the outbox has it and will deliver it.

        `timeout`, in seconds, is the deadline for publishing at once. Raises what the router and the outbox
        raise, `ConfigurationError` when the environment describes no router, `RouterClosedError` after
        `close()`.
        """
        if self._outbox is not None and not immediate:
            self._refuse_when_closed()
            await self._outbox.add(event)
            return None
        router = await self._open_router()
        return await router.publish_event(event, timeout=timeout)

    @overload
    async def publish_event_batch(
        self, events: Sequence[CloudEvent], immediate: Literal[True], *, timeout: float | None = None
    ) -> list[PublishResults]: ...

    @overload
    async def publish_event_batch(
        self, events: Sequence[CloudEvent], immediate: bool = False, *, timeout: float | None = None
    ) -> list[PublishResults] | None: ...

    async def publish_event_batch(
        self, events: Sequence[CloudEvent], immediate: bool = False, *, timeout: float | None = None
    ) -> list[PublishResults] | None:
        """Publishes events in one call: results aligned with them, or None when the outbox has them all.

        Raises as `publish_event` does. When the outbox refuses one event, those before it were added:
        whether they stay is for the transaction that the outbox writes in.
        """
        if self._outbox is not None and not immediate:
            self._refuse_when_closed()
            for event in events:
                await self._outbox.add(event)
            return None
        router = await self._open_router()
        return await router.publish_events(events, timeout=timeout)

    async def _open_router(self) -> EventPublisher:
        self._refuse_when_closed()
        if self._router is not None:
            return self._router
        if self._own_router is not None:
            return self._own_router
        # Concurrent first publishes wait here, and find the router that the first of them made.
        async with self._lock:
            self._refuse_when_closed()
            if self._own_router is None:
                self._own_router = await self._owned.enter_async_context(self._router_factory())
            return self._own_router

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RouterClosedError("the event service is closed: publish inside `async with service:`")
