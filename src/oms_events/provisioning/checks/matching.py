"""Which patterns take which of the events that are sent: asked of the service itself, as seldom as will do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oms_events.provisioning.checks.samples import Sent
from oms_events.provisioning.checks.services import Services


class Matcher:
    """Tries patterns with TestEventPattern; the same pattern and event are asked about once.

    `account` and `region` are the bus's: the events are delivered there.
    """

    def __init__(self, services: Services, sent: Sequence[Sent], *, account: str, region: str) -> None:
        self._services = services
        self._documents = {one.name: one.delivered(account=account, region=region) for one in sent}
        self._sent = {one.name: one for one in sent}
        self._known: dict[tuple[str, str], bool] = {}

    @property
    def names(self) -> Sequence[str]:
        """The events, by name."""
        return tuple(self._documents)

    def marks(self, name: str) -> str:
        """An event's source and detail type, in words."""
        source, detail_type = self._sent[name].marks
        return f"source {source!r}, detail-type {detail_type!r}"

    async def takes(self, pattern: str, name: str) -> bool:
        """Whether a pattern takes an event. Raises a `ProvisioningError`."""
        key = (pattern, name)
        if key not in self._known:
            answer = await self._services.call(
                "events", "TestEventPattern", EventPattern=pattern, Event=self._documents[name]
            )
            self._known[key] = answer["Result"]
        return self._known[key]

    async def first(self, pattern: str) -> str | None:
        """One event that a pattern takes, those first whose words stand in it; None when it takes none."""
        for name in sorted(self._sent, key=lambda name: not self._is_likely(pattern, name)):
            if await self.takes(pattern, name):
                return name
        return None

    def _is_likely(self, pattern: str, name: str) -> bool:
        sent = self._sent[name]
        return sent.event_type in pattern or sent.marks[1] in pattern

    async def taken(self, pattern: str | None) -> set[str]:
        """All events that a pattern takes; no pattern takes all."""
        if pattern is None:
            return set(self._documents)
        names = self.names
        answers = await asyncio.gather(*(self.takes(pattern, name) for name in names))
        return {name for name, takes in zip(names, answers, strict=True) if takes}
