"""What a replay has at hand: which events may go now, and up to where all are settled. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from oms_events.events import EncodedEvent
from oms_events.publishing import Plan

Position = Any
"""Where something is in a stream, as JSON has it."""


class Planned(NamedTuple):
    """An event as it will be sent, where to, and where it is in whose history."""

    event: EncodedEvent
    plan: Plan
    aggregate_id: str
    sequence: int


class Lane:
    """An event on its way: its plan for the platforms that are left, and what was refused so far."""

    __slots__ = ("frontier", "is_settled", "plan", "planned", "position", "refused", "size", "tries")

    def __init__(self, planned: Planned, frontier: Frontier, position: Position) -> None:
        self.planned = planned
        self.plan = planned.plan
        self.frontier = frontier
        self.position = position
        self.size = len(planned.event.head) + len(planned.event.payload)
        self.tries = 0
        self.refused: dict[str, str] = {}
        self.is_settled = False


class Frontier:
    """How far a stream is settled: the last position before which nothing is open."""

    def __init__(self, name: str, position: Position | None) -> None:
        self.name = name
        self.position = position
        self.has_ended = False
        self._open: deque[Lane] = deque()

    @property
    def open(self) -> int:
        """How many events are not behind it."""
        return len(self._open)

    def expect(self, lane: Lane) -> None:
        """The stream goes on with this event."""
        self._open.append(lane)

    def pass_to(self, position: Position) -> None:
        """The stream has nothing more that matters up to that position."""
        if self._open:
            self._open[-1].position = position
        else:
            self.position = position

    def move(self) -> None:
        """Something was settled."""
        while self._open and self._open[0].is_settled:
            self.position = self._open.popleft().position


class Window:
    """Events that were read and are not settled. `ordered`: of one aggregate only the first may go."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._lines: dict[str, deque[Lane]] = {}
        self._ready: deque[Lane] = deque()
        self._again: deque[Lane] = deque()
        self.count = 0
        self.bytes = 0

    def add(self, lane: Lane) -> None:
        """Takes the next event of a stream."""
        lane.frontier.expect(lane)
        self.count += 1
        self.bytes += lane.size
        if self._ordered:
            line = self._lines.get(lane.planned.aggregate_id)
            if line is not None:
                line.append(lane)
                return
            self._lines[lane.planned.aggregate_id] = deque((lane,))
        self._ready.append(lane)

    def take(self, limit: int) -> list[Lane]:
        """Events that may go now; each is then answered by `settle`, or later by `try_again`.

        Those that failed before come in batches of their own: the others shall not wait for their timeouts.
        """
        queue = self._again or self._ready
        return [queue.popleft() for _ in range(min(limit, len(queue)))]

    def try_again(self, lane: Lane) -> None:
        """It may go once more."""
        self._again.append(lane)

    def settle(self, lane: Lane) -> None:
        """It is done with; the next one of its aggregate may go."""
        lane.is_settled = True
        self.count -= 1
        self.bytes -= lane.size
        lane.frontier.move()
        if not self._ordered:
            return
        line = self._lines[lane.planned.aggregate_id]
        line.popleft()
        if line:
            self._ready.append(line[0])
        else:
            del self._lines[lane.planned.aggregate_id]
