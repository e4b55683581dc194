"""A publisher that keeps events in memory: for tests, and as the plainest reading of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudevents.core.v1.event import CloudEvent

from oms_events.errors import EventRejectedError, PublishError, TransientError
from oms_events.events import EncodedEvent, parse_event
from oms_events.publishing import PublisherTraits, Receipt


class MemoryPublisher:
    """Stores events in order, each `(source, id)` once; `max_size` is in bytes of the structured JSON form."""

    def __init__(self, *, traits: PublisherTraits | None = None, max_size: int = 1_000_000) -> None:
        self._traits = traits or PublisherTraits(deduplicates=True)
        self._max_size = max_size
        self._stored: dict[str, int] = {}
        self._copies: list[bytes] = []
        self._is_open = False
        self.calls: list[int] = []

    @property
    def traits(self) -> PublisherTraits:
        return self._traits

    @property
    def events(self) -> list[CloudEvent]:
        """What was stored, in order, read back from its wire form."""
        return [parse_event(copy) for copy in self._copies]

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def check(self) -> None:
        """Raises `TransientError` when the publisher is not open."""
        if not self._is_open:
            raise TransientError("the memory publisher is not open")

    async def publish(self, events: Sequence[EncodedEvent], *, timeout: float) -> Sequence[Receipt | PublishError]:
        self.calls.append(len(events))
        return [self._store(event, timeout) for event in events]

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "stored": len(self._copies)}

    def _store(self, event: EncodedEvent, timeout: float) -> Receipt | PublishError:
        if not self._is_open:
            return TransientError("the memory publisher is not open")
        if event.size > self._max_size:
            return EventRejectedError(f"the event has {event.size} bytes; at most {self._max_size} are taken")
        if timeout <= 0:
            return TransientError("not sent: no time is left")
        known = self._stored.get(event.identity)
        if known is not None and self._traits.deduplicates:
            return Receipt(id=event.identity, sequence=known, duplicate=True)
        self._copies.append(event.json)
        self._stored[event.identity] = len(self._copies)
        return Receipt(id=event.identity, sequence=len(self._copies))
