"""What the relays of one processor share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from oms_events._aio import Clock
from oms_events.instrumentation.hooks import Hooks, OutboxAlert
from oms_events.outbox.alarm import Alarm
from oms_events.outbox.config import ProcessorConfig
from oms_events.outbox.dispatch import Dispatcher
from oms_events.outbox.gates import Gates
from oms_events.outbox.settlement import Settler
from oms_events.outbox.store import OutboxStore
from oms_events.publishing import PlanPublisher


@dataclass(slots=True)
class Totals:
    """What a processor did since it was made."""

    delivered: int = 0
    dead_lettered: int = 0
    retried: int = 0


@dataclass(slots=True)
class Shared:
    """The parts and counts that the relays of one processor have in common."""

    store: OutboxStore
    router: PlanPublisher
    config: ProcessorConfig
    clock: Clock
    draw: Callable[[], float]
    hooks: Hooks
    dispatcher: Dispatcher
    settler: Settler
    alarm: Alarm
    progress: Callable[[], None]
    bytes_in_memory: Callable[[], int]
    bytes_waiting: Callable[[], int]
    gates: Gates = field(init=False)
    totals: Totals = field(default_factory=Totals)
    troubles: dict[str, str] = field(default_factory=dict)
    """What a platform denies us now, by platform."""
    _alerted: set[str] = field(default_factory=set)
    _cramped: set[asyncio.Event] = field(default_factory=set)

    def wall_ms(self) -> int:
        """The wall clock, in ms since 1970."""
        return int(self.clock.now().timestamp() * 1000)

    def alert_once(self, kind: str, text: str) -> None:
        """Tells an operator, once in the life of this processor for the same text."""
        if text not in self._alerted:
            self._alerted.add(text)
            self.hooks(OutboxAlert(kind, text))

    def needs_room(self, event: asyncio.Event) -> None:
        """Sets the event when some relay of this processor has given memory free."""
        self._cramped.add(event)

    def gave_room(self) -> None:
        """A relay has given memory free."""
        while self._cramped:
            self._cramped.pop().set()
