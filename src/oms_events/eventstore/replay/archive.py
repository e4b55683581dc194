"""Replay from an EventBridge archive: AWS does it; this starts, watches and cancels it. Needs the extra `aws`."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from oms_events._aio import Clock, SystemClock
from oms_events._aws.config import AwsConfig
from oms_events._aws.control import ControlClient, open_control
from oms_events._config import suggestion
from oms_events.errors import (
    AccessError,
    ConfigurationError,
    MissingExtraError,
    ProvisioningError,
    ReplayError,
)
from oms_events.eventstore.replay.archive_replays import ArchiveReplay, read_replay
from oms_events.eventstore.replay.config import check_replay_name, new_replay_name
from oms_events.eventstore.time_ranges import TimeRange

if TYPE_CHECKING:
    import aioboto3

_ARCHIVE_ARN: Final = re.compile(r"arn:aws[\w-]*:events:(?P<region>[\w-]+):\d{12}:archive/(?P<name>[\w.-]+)")
_RULE_ARN: Final = re.compile(r"arn:aws[\w-]*:events:[\w-]+:\d{12}:rule/(?:(?P<bus>\S+)/)?(?P<name>[\w.-]+)")
_ARCHIVE_NAME: Final = re.compile(r"[\w.-]{1,48}", re.ASCII)
_READY: Final = frozenset(("ENABLED", "UPDATING", "UPDATE_FAILED"))
"""In these states an archive has events."""
_NOT_FOUND: Final = "ResourceNotFoundException"
_LATE: Final = timedelta(minutes=10)
"""So long after it was sent an event may get into the archive (user guide, "Archiving events")."""
_AHEAD: Final = timedelta(minutes=1)
"""By so much clocks may differ."""

OnReplay = Callable[[ArchiveReplay], None]


class ArchiveReplays:
    """The replays of EventBridge archives in one account and region; an async context manager.

    EventBridge puts archived events on their bus again, with `replay-name` in their envelope, minute by minute of
    the range and within a minute in no order. Give a `session` (aioboto3) or a `client` (its `events` client) to
    use your own; neither is ever closed. Needs `events:DescribeArchive`, `StartReplay`, `DescribeReplay`,
    `CancelReplay`, `ListReplays`, and `DescribeRule` where rules are named; `ListArchives` makes errors clearer.
    All methods raise `AccessError` for credentials and permissions, `ProvisioningError` for what else AWS says.
    """

    def __init__(
        self,
        config: AwsConfig,
        *,
        session: aioboto3.Session | None = None,
        client: Any = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._session = session
        self._borrowed = client
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._stack = AsyncExitStack()
        self._control: ControlClient | None = None

    async def __aenter__(self) -> Self:
        """Makes the client; the first call connects.

        Raises `ConfigurationError` for a missing region, profile or file, `MissingExtraError` without aioboto3.
        """
        opening = open_control(self._config, "events", session=self._session, client=self._borrowed)
        try:
            self._control = await self._stack.enter_async_context(opening)
        except MissingExtraError as error:
            raise MissingExtraError(error.extra, needed_for="replaying archives") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control = None
        await self._stack.aclose()

    async def start(
        self,
        archive: str,
        time_range: TimeRange,
        *,
        name: str | None = None,
        rules: Sequence[str] = (),
        on_warning: Callable[[str], None] | None = None,
    ) -> ArchiveReplay:
        """Starts a replay of an archive (its name or ARN) and gives it as it is then; AWS goes on by itself.

        The range needs its start, and ends now unless it says when; it counts by the events' own times, in whole
        seconds. With `rules` (names, or ARNs) only these rules of the bus see the events. `on_warning` is told
        what the replay may miss, and when it was started but could not be looked at: then it is given as STARTING.
        Raises `ReplayError` when there is no such archive or it is not enabled, when the name is taken, and when
        too many replays run; `ConfigurationError` for a range, name or rule that cannot be. Cancelled, or with
        another error, it may have been started: give it a `name`, and look for that.
        """
        now = self._clock.now()
        time_range = _whole_seconds(_checked(time_range, now), now)
        if name is None:
            name = new_replay_name(now, self._rng)
        check_replay_name(name)
        described = await self._archive(archive)
        warn = on_warning or (lambda text: None)
        for text in _warnings(described, time_range, now):
            warn(text)
        bus = str(described["EventSourceArn"])
        destination: dict[str, Any] = {"Arn": bus}
        if rules:
            destination["FilterArns"] = [await self._rule(rule, bus, warn) for rule in rules]
        # Tells our own replay from one of that name that was there: a lost answer makes the client ask twice.
        mark = f"oms-events {self._rng.getrandbits(128):032x}"
        try:
            await self._call(
                "StartReplay",
                ReplayName=name,
                Description=mark,
                EventSourceArn=described["ArchiveArn"],
                EventStartTime=time_range.start,
                EventEndTime=time_range.end,
                Destination=destination,
            )
        except ProvisioningError as error:
            if error.code == "LimitExceededException":
                problem = "too many replays are running (10, unless AWS raised it); wait for one, or cancel one"
                raise ReplayError(f"{problem}: {error}") from error
            if error.code != "ResourceAlreadyExistsException":
                raise
            if (await self._described(name)).get("Description") != mark:
                problem = f"there is a replay {name!r} already, running or ended; choose another name"
                raise ReplayError(problem) from error
        try:
            return await self.describe(name)
        except (ProvisioningError, ReplayError) as error:
            # It runs, whatever hides that: whoever heard only of the error would start another.
            warn(f"replay {name!r} was started, but could not be looked at: {error}")
            return ArchiveReplay(
                name=name,
                state="STARTING",
                archive=str(described["ArchiveArn"]),
                bus=bus,
                rules=tuple(destination.get("FilterArns", ())),
                start=time_range.start,
                end=time_range.end,
            )

    async def describe(self, name: str) -> ArchiveReplay:
        """A replay as it is now. Raises `ReplayError` when there is none of this name."""
        return read_replay(await self._described(name))

    async def follow(
        self, name: str, *, on_progress: OnReplay | None = None, interval: float = 5.0
    ) -> ArchiveReplay:
        """Looks at a replay every `interval` seconds until it has ended, and gives it; cancelled, it goes on.

        `on_progress` gets it each time. How it ended, which may be badly, its state says. Raises as `describe`.
        """
        while True:
            found = await self.describe(name)
            if on_progress is not None:
                on_progress(found)
            if found.is_over:
                return found
            await self._clock.sleep(interval)

    async def cancel(self, name: str) -> ArchiveReplay:
        """Has AWS end a replay, which takes a while; what was put on the bus stays there.

        Raises `ReplayError` when there is none of this name, or it has ended.
        """
        found = await self.describe(name)
        if found.is_over:
            raise ReplayError(f"replay {name!r} has ended already: {found.state}")
        try:
            await self._call("CancelReplay", ReplayName=name)
        except ProvisioningError as error:
            now = await self.describe(name)
            if now.is_over:
                raise ReplayError(f"replay {name!r} has ended meanwhile: {now.state}") from error
            raise
        return await self.describe(name)

    async def replays(self, archive: str | None = None) -> AsyncIterator[ArchiveReplay]:
        """All replays that AWS remembers, or those of an archive. Raises as `start` for an archive."""
        parameters: dict[str, Any] = {}
        if archive is not None:
            parameters["EventSourceArn"] = (await self._archive(archive, must_be_ready=False))["ArchiveArn"]
        while True:
            page = await self._call("ListReplays", **parameters)
            for one in page.get("Replays", ()):
                yield read_replay(one)
            if not page.get("NextToken"):
                return
            parameters["NextToken"] = page["NextToken"]

    # ------------------------------------------------------------------ inside

    async def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        if self._control is None:
            raise ReplayError("not open; use it inside `async with ArchiveReplays(...)`")
        return await self._control.call(operation, **parameters)

    async def _described(self, name: str) -> Mapping[str, Any]:
        check_replay_name(name)
        try:
            return await self._call("DescribeReplay", ReplayName=name)
        except ProvisioningError as error:
            if error.code != _NOT_FOUND:
                raise
            raise ReplayError(f"there is no replay {name!r} of an archive {self._place}") from error

    async def _archive(self, archive: str, *, must_be_ready: bool = True) -> Mapping[str, Any]:
        found = _ARCHIVE_ARN.fullmatch(archive)
        name = found["name"] if found else archive
        if _ARCHIVE_NAME.fullmatch(name) is None:
            problem = f"archive = {archive!r}: give its name, or its ARN (arn:aws:events:...:archive/NAME)"
            raise ConfigurationError("replay", [problem])
        try:
            described = await self._call("DescribeArchive", ArchiveName=name)
        except ProvisioningError as error:
            if error.code != _NOT_FOUND:
                raise
            problem = f"there is no archive {name!r} {self._place}; {await self._known_archives(name)}"
            raise ReplayError(problem) from error
        if found and described["ArchiveArn"] != archive:
            raise ReplayError(f"the archive {name!r} {self._place} is {described['ArchiveArn']}, not {archive}")
        if must_be_ready and described["State"] not in _READY:
            reason = f" ({described['StateReason']})" if described.get("StateReason") else ""
            raise ReplayError(f"archive {name!r} is {described['State']}{reason}, not ENABLED; enable it first")
        return described

    async def _known_archives(self, name: str) -> str:
        try:
            known = [one["ArchiveName"] for one in (await self._call("ListArchives")).get("Archives", ())]
        except ProvisioningError:
            return "check its name and the region"
        return suggestion(name, known) or f"there are: {', '.join(sorted(known)) or 'none'}"

    async def _rule(self, rule: str, bus: str, warn: Callable[[str], None]) -> str:
        """The ARN of a rule of the bus."""
        before, _, bus_name = bus.rpartition(":event-bus/")
        found = _RULE_ARN.fullmatch(rule)
        of_bus = (found["bus"] or "default") if found else bus_name
        name = found["name"] if found else rule
        if of_bus != bus_name:
            problem = f"rule = {rule!r} is of the bus {of_bus!r}, but the archive's events go to {bus_name!r}"
            raise ConfigurationError("replay", [problem])
        try:
            described = await self._call("DescribeRule", Name=name, EventBusName=bus_name)
        except AccessError as error:
            warn(f"whether there is a rule {name!r} could not be seen: {error}")
            return rule if found else f"{before}:rule/{name if bus_name == 'default' else f'{bus_name}/{name}'}"
        except ProvisioningError as error:
            if error.code != _NOT_FOUND:
                raise
            raise ReplayError(f"there is no rule {name!r} on the bus {bus_name!r}; check its name") from error
        if described.get("State") == "DISABLED":
            warn(f"rule {name!r} is disabled: it takes nothing")
        return str(described["Arn"])

    @property
    def _place(self) -> str:
        return "" if self._control is None else f"in region {self._control.region}"


def _checked(time_range: TimeRange, now: datetime) -> TimeRange:
    problems = []
    if time_range.start is None:
        problems.append("start is missing: say from when on archived events are replayed")
    elif time_range.start >= now.replace(microsecond=0):
        start = time_range.start.isoformat()
        problems.append(f"start = {start} is now, or is in the future: nothing is there to replay")
    if time_range.end is not None and time_range.end > now + _AHEAD:
        problems.append(f"end = {time_range.end.isoformat()} is in the future; end it now at the latest")
    if problems:
        raise ConfigurationError("replay", problems)
    return time_range


def _whole_seconds(time_range: TimeRange, now: datetime) -> TimeRange:
    """The request has no parts of seconds: those that are begun count, but for the one that is now."""
    start, end = time_range.start or now, time_range.end or now
    if end.microsecond:
        end += timedelta(seconds=1)
    return TimeRange(start.replace(microsecond=0), min(end, now).replace(microsecond=0))


def _warnings(archive: Mapping[str, Any], time_range: TimeRange, now: datetime) -> Sequence[str]:
    found = []
    start, end = time_range.start or now, time_range.end or now
    if end > now - _LATE:
        found.append(
            "events get into the archive up to 10 minutes after they were sent: what is newer may be missing, and "
            "can be replayed later"
        )
    made = archive.get("CreationTime")
    if made is not None and start < made:
        found.append(f"the archive has nothing from before it was made, {made.astimezone(UTC).isoformat()}")
    days = archive.get("RetentionDays")
    if days and start < now - timedelta(days=days):
        found.append(f"the archive keeps events for {days} days: what is older is gone")
    return found
