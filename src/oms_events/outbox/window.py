"""The records of one partition that are in memory, and which of them may be published now. Pure.

For each key and platform there is a line of lanes; only its first may be published. A pass reads the partition
from its first record on. What cannot be published in it stays in the table ("is left"): then all later records of
that key and platform are left too, until a new pass begins, so that nothing overtakes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from oms_events.events import EncodedEvent
from oms_events.outbox.records import PlatformState, StoredRecord, open_platforms
from oms_events.publishing import Plan

_MAX_CLOSED: Final = 50_000


class Lane:
    """The platforms of a record that are published to together: one, or those of a FAILOVER plan.

    `platforms` are those in whose lines it stands, `plan` has those that are still to be tried. `attempts` and
    `tried_for` count toward the limits, `tries` toward the pause.
    """

    __slots__ = (
        "attempts",
        "counted_at",
        "entry",
        "failed",
        "in_flight",
        "open",
        "plan",
        "platforms",
        "tried_for",
        "tries",
        "unknown_since",
    )

    def __init__(self, entry: Entry, plan: Plan, *, goes_on: bool) -> None:
        self.entry = entry
        self.plan = plan
        self.platforms = plan.platforms
        # What was written down is the record's: of several platforms nobody knows whose failures they were.
        state = entry.record.state
        self.attempts = state.attempts if goes_on else 0
        self.tried_for = state.tried_for if goes_on else 0.0
        self.tries = 0
        self.failed = False
        self.in_flight = False
        self.open = True
        self.counted_at: float | None = None
        self.unknown_since: float | None = None


class Entry:
    """A record in memory: its event, its plan, its state so far, and the lanes that are open."""

    __slots__ = ("dirty", "event", "lanes", "last_error", "obsolete", "plan", "record", "states", "writes")

    def __init__(self, record: StoredRecord, event: EncodedEvent, plan: Plan) -> None:
        self.record = record
        self.event = event
        self.plan = plan
        self.states: dict[str, PlatformState] = dict(record.state.states)
        self.last_error: str | None = None
        self.lanes: list[Lane] = []
        self.dirty = False
        self.writes = 0
        self.obsolete = False


Line = list[Lane]


class Window:
    """What is in memory of a partition.

    `left` counts the records that the current pass left in the table, `waiting` the lanes that failed and wait.
    """

    def __init__(self, *, keyed: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self.bytes = 0
        self.left = 0
        self.waiting = 0
        self.waiting_bytes = 0
        self._keyed = keyed
        self._lines: dict[tuple[str, str], Line] = {}
        self._closed: set[tuple[str, str]] = set()
        self._closed_platforms: set[str] = set()
        # Platforms for which more keys were left than are remembered: all keys count as left.
        self._full: set[str] = set()

    def begin_pass(self, gated: Iterable[str]) -> None:
        """A new pass begins at the first record; `gated` platforms take nothing now."""
        self._closed.clear()
        self._full.clear()
        self._closed_platforms = set(gated)
        self.left = 0

    def close_platform(self, platform: str) -> list[Entry]:
        """For the rest of this pass nothing is loaded for a platform; gives the entries whose lanes were left.

        A lane that is being published, or waits after a failure, stays.
        """
        self._closed_platforms.add(platform)
        touched = []
        for entry in list(self.entries.values()):
            for lane in list(entry.lanes):
                if not (lane.in_flight or lane.failed) and self._is_shut(lane.platforms):
                    touched += self._leave_with_followers(lane)
        return touched

    def load(
        self, record: StoredRecord, event: EncodedEvent, plan: Plan, *, known: Entry | None = None
    ) -> Sequence[Lane]:
        """Takes a record in the order of the pass, and gives its lanes that may be published now.

        `known` is its entry, when something is still being written for it.
        """
        entry = self.entries.get(record.sk) or known
        if entry is None and len(plan.platforms) == 1 and not record.state.states:
            return self._load_plain(record, event, plan)
        if entry is None:
            entry = Entry(record, event, plan)
        elif not entry.writes:
            _refresh(entry, record)
        plan = entry.plan
        if PlatformState.HELD in entry.states.values():
            self._hold(entry)
        busy = {platform for lane in entry.lanes for platform in lane.platforms}
        is_open = open_platforms(plan, entry.states)
        owed = tuple(platform for platform in is_open if platform not in busy)
        if plan.first_that_works and busy:
            return ()
        if entry.obsolete and owed:
            # What is true of it is read anew when its last lane has ended: until then nothing may overtake it.
            self._close(record.key, owed)
            self.left += 1
        if entry.obsolete or not owed:
            return ()
        return self._add_lanes(entry, owed, goes_on=len(plan.platforms) == 1 or plan.first_that_works)

    def _add_lanes(self, entry: Entry, owed: tuple[str, ...], *, goes_on: bool) -> Sequence[Lane]:
        record, plan = entry.record, entry.plan
        parts = [owed] if plan.first_that_works else [(platform,) for platform in owed]
        ready = []
        was_left = False
        for platforms in parts:
            if self._is_closed(record.key, platforms):
                self._close(record.key, platforms)
                was_left = True
                continue
            is_whole = platforms == plan.platforms
            lane_plan = plan if is_whole else Plan(plan.rule, plan.strategy, platforms, plan.first_that_works)
            lane = Lane(entry, lane_plan, goes_on=goes_on)
            entry.lanes.append(lane)
            if self._line_up(lane):
                ready.append(lane)
        self.left += was_left
        if entry.lanes and record.sk not in self.entries:
            self.entries[record.sk] = entry
            self.bytes += record.size
        return ready

    def _load_plain(self, record: StoredRecord, event: EncodedEvent, plan: Plan) -> Sequence[Lane]:
        """Nearly every record: new, and owed to one platform."""
        if self._is_closed(record.key, plan.platforms):
            self._close(record.key, plan.platforms)
            self.left += 1
            return ()
        entry = self.entries[record.sk] = Entry(record, event, plan)
        self.bytes += record.size
        lane = Lane(entry, plan, goes_on=True)
        entry.lanes.append(lane)
        return (lane,) if self._line_up(lane) else ()

    def finish(self, lane: Lane) -> Sequence[Lane]:
        """The lane needs no more attempts: the key goes on. Gives the lanes that may be published now."""
        entry = lane.entry
        self._take_out(lane)
        key = entry.record.key
        ready: list[Lane] = []
        if key is not None and self._keyed:
            for platform in lane.platforms:
                line = self._lines[key, platform]
                if len(line) == 1:
                    del self._lines[key, platform]
                    continue
                line.remove(lane)
                if self._is_first(line[0]) and line[0] not in ready:
                    ready.append(line[0])
        self._drop_if_done(entry)
        return ready

    def fail(self, lane: Lane) -> list[Entry]:
        """The lane waits for another attempt, and its key with it; gives the entries whose lanes were left."""
        if not lane.failed:
            lane.failed = True
            self.waiting += 1
            self.waiting_bytes += lane.entry.record.size
        return self._leave_followers(lane)

    def leave(self, lane: Lane) -> list[Entry]:
        """The lane is left in the table, and its key with it; gives the entries whose lanes were left."""
        return self._leave_with_followers(lane)

    def _leave_with_followers(self, lane: Lane) -> list[Entry]:
        if not lane.open:
            return []
        touched = self._leave_followers(lane)
        self._leave_one(lane)
        return [*touched, lane.entry]

    def _leave_followers(self, lane: Lane) -> list[Entry]:
        key = lane.entry.record.key
        if key is None or not self._keyed:
            return []
        self._close(key, lane.platforms)
        found: dict[Lane, None] = {}
        todo = [lane]
        while todo:
            first = todo.pop()
            for platform in first.platforms:
                line = self._lines[key, platform]
                for follower in line[line.index(first) + 1 :]:
                    if follower not in found:
                        found[follower] = None
                        todo.append(follower)
        for follower in found:
            self._leave_one(follower)
        return [follower.entry for follower in found]

    def _leave_one(self, lane: Lane) -> None:
        entry, key = lane.entry, lane.entry.record.key
        self._take_out(lane)
        self.left += 1
        if key is not None and self._keyed:
            self._close(key, lane.platforms)
            for platform in lane.platforms:
                line = self._lines[key, platform]
                line.remove(lane)
                if not line:
                    del self._lines[key, platform]
        self._drop_if_done(entry)

    def _take_out(self, lane: Lane) -> None:
        lane.entry.lanes.remove(lane)
        lane.open = False
        if lane.failed:
            self.waiting -= 1
            self.waiting_bytes -= lane.entry.record.size

    def _drop_if_done(self, entry: Entry) -> None:
        if not entry.lanes and self.entries.pop(entry.record.sk, None) is not None:
            self.bytes -= entry.record.size

    def _line_up(self, lane: Lane) -> bool:
        """Puts the lane at the end of its lines, and says whether it is the first of them all."""
        key = lane.entry.record.key
        if key is None or not self._keyed:
            return True
        is_first = True
        for platform in lane.platforms:
            line = self._lines.get((key, platform))
            if line is None:
                self._lines[key, platform] = [lane]
            else:
                line.append(lane)
                is_first = False
        return is_first

    def _is_first(self, lane: Lane) -> bool:
        key = lane.entry.record.key
        return key is None or all(self._lines[key, platform][0] is lane for platform in lane.platforms)

    def _hold(self, entry: Entry) -> None:
        key = entry.record.key
        self.left += not entry.lanes and not open_platforms(entry.plan, entry.states)
        if key is not None and self._keyed:
            self._close(key, [name for name, state in entry.states.items() if state is PlatformState.HELD])

    def hold_key(self, key: str, platforms: Iterable[str]) -> None:
        """Later records of a key are left in this pass: an earlier one waits for somebody else."""
        self._close(key, platforms)

    def _is_closed(self, key: str | None, platforms: Sequence[str]) -> bool:
        if self._closed_platforms and self._is_shut(platforms):
            return True
        if key is None or not self._keyed:
            return False
        if self._full and not self._full.isdisjoint(("*", *platforms)):
            return True
        for platform in platforms:
            if self._closed and ((key, platform) in self._closed or (key, "*") in self._closed):
                return True
            line = self._lines.get((key, platform))
            if line and line[0].failed:
                return True
        return False

    def _is_shut(self, platforms: Sequence[str]) -> bool:
        return all(platform in self._closed_platforms for platform in platforms)

    def _close(self, key: str | None, platforms: Iterable[str]) -> None:
        if key is None or not self._keyed:
            return
        if len(self._closed) < _MAX_CLOSED:
            self._closed.update((key, platform) for platform in platforms)
        else:
            self._full.update(platforms)


def _refresh(entry: Entry, record: StoredRecord) -> None:
    """A held dead letter was requeued or purged while the record was in memory for another platform."""
    for platform, state in list(entry.states.items()):
        if state is PlatformState.HELD and record.state.states.get(platform) is not PlatformState.HELD:
            entry.states.pop(platform)
            if platform in record.state.states:
                entry.states[platform] = record.state.states[platform]
            entry.record = record
