"""A replay of an EventBridge archive, as AWS describes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

_OVER: Final = frozenset(("COMPLETED", "CANCELLED", "FAILED"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReplay:
    """A replay of an archive: its range by the events' times, and up to which of them it has come (`reached`).

    `state` is AWS's: STARTING, RUNNING, CANCELLING, COMPLETED, CANCELLED or FAILED, and `reason` why. `archive`,
    `bus` and `rules` are ARNs; a listing tells neither `bus` nor `rules`. Times are in UTC.
    """

    name: str
    state: str
    reason: str = ""
    archive: str = ""
    bus: str = ""
    rules: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    reached: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in _OVER

    @property
    def is_complete(self) -> bool:
        """Whether all events of the range were put on the bus."""
        return self.state == "COMPLETED"

    @property
    def progress(self) -> float:
        """What part of the range it has been through, from 0 to 1."""
        if self.is_complete:
            return 1.0
        if self.start is None or self.end is None or self.reached is None or self.start >= self.end:
            return 0.0
        return min(1.0, max(0.0, (self.reached - self.start) / (self.end - self.start)))


def read_replay(described: Mapping[str, Any]) -> ArchiveReplay:
    """The replay of an answer of DescribeReplay, or of one of ListReplays."""
    destination = described.get("Destination") or {}
    times = {
        field: described[name].astimezone(UTC)
        for field, name in (
            ("start", "EventStartTime"),
            ("end", "EventEndTime"),
            ("reached", "EventLastReplayedTime"),
            ("began", "ReplayStartTime"),
            ("ended", "ReplayEndTime"),
        )
        if described.get(name) is not None
    }
    return ArchiveReplay(
        name=described["ReplayName"],
        state=described["State"],
        reason=described.get("StateReason") or "",
        archive=described.get("EventSourceArn") or "",
        bus=destination.get("Arn") or "",
        rules=tuple(destination.get("FilterArns") or ()),
        **times,
    )
