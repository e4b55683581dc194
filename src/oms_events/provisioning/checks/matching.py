"""Which patterns take which of the events that are sent: asked of the service itself, as seldom as will do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from oms_events.provisioning.checks.samples import Sent
from oms_events.provisioning.checks.services import Services


class Matcher:
    """Tries patterns with TestEventPattern; `account` and `region` are the bus's: events are delivered there.

    A pattern whose plain source or detail type is another than the event's is not asked about.
    """

    def __init__(self, services: Services, sent: Sequence[Sent], *, account: str, region: str) -> None:
        self.sent = tuple(sent)
        """The events; answers call them by their places here."""
        self._services = services
        self._documents = [one.delivered(account=account, region=region) for one in sent]

    async def taken(self, pattern: str | None) -> set[int]:
        """The events that a pattern takes; no pattern takes all. Raises a `ProvisioningError`."""
        if pattern is None:
            return set(range(len(self.sent)))
        wanted = orjson.loads(pattern)
        likely = [place for place, one in enumerate(self.sent) if _may_take(wanted, one)]
        answers = await asyncio.gather(*(self._takes(pattern, place) for place in likely))
        return {place for place, takes in zip(likely, answers, strict=True) if takes}

    async def _takes(self, pattern: str, place: int) -> bool:
        event = self._documents[place]
        answer = await self._services.call("events", "TestEventPattern", EventPattern=pattern, Event=event)
        takes: bool = answer["Result"]
        return takes


def _may_take(pattern: Any, sent: Sent) -> bool:
    """False only for what EventBridge surely refuses: most rules are for other types than an event's."""
    source, detail_type = sent.marks
    return _may_be(pattern.get("source"), source) and _may_be(pattern.get("detail-type"), detail_type)


def _may_be(wanted: Any, value: str) -> bool:
    if not isinstance(wanted, list):
        return True
    return any(one == value if isinstance(one, str) else not _has_other_prefix(one, value) for one in wanted)


def _has_other_prefix(wanted: Any, value: str) -> bool:
    match wanted:
        case {"prefix": str(prefix), **rest} if not rest:
            return not value.startswith(prefix)
        case _:
            return False
