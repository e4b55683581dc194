"""What an operator's change is for, and how it is carried out: several at once, but one of a key at a time."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from oms_events._aio import Clock
from oms_events.errors import (
    OmsEventsError,
    StorageDeniedError,
    StorageOutcomeUnknownError,
    StorageUnavailableError,
)
from oms_events.resilience.backoff import RetryConfig

_LANES: Final = 16
_RETRY: Final = RetryConfig(max_attempts=8, initial=0.1, maximum=5.0)

OnDone = Callable[[int], None]
"""Is told how many more have been dealt with."""


@dataclass(frozen=True, slots=True)
class Group:
    """How many were selected of one kind: `text` is one of their reasons, or their plan's strategy."""

    platform: str
    code: str
    text: str
    count: int


class Chosen(NamedTuple):
    """One that was selected: its id, its order key, and its generation, which a dead letter does not have."""

    id: str
    key: str | None
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What a change is for: exactly what was there when it was made, in order.

    `missing` are the ids that were asked for and not found.
    """

    chosen: tuple[Chosen, ...] = ()
    groups: tuple[Group, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of a selection: changed, already gone (somebody else was first), and failed, by id.

    `stopped` says why the rest was not tried. `unsure` are changed or gone: an answer was lost, and then it was
    gone.
    """

    done: int = 0
    gone: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    stopped: str | None = None
    unsure: int = 0


class UnsureChangeError(OmsEventsError):
    """Refused after a try without an answer: that try made the change, or somebody else another one."""


class Selector:
    """Gathers a selection."""

    def __init__(self) -> None:
        self._chosen: dict[str, Chosen] = {}
        self._groups: dict[tuple[str, str], Group] = {}

    def add(self, chosen: Chosen, *, platform: str, code: str, text: str) -> None:
        if chosen.id in self._chosen:
            return
        self._chosen[chosen.id] = chosen
        group = self._groups.get((platform, code)) or Group(platform, code, text, 0)
        self._groups[platform, code] = replace(group, count=group.count + 1)

    def finish(self, missing: set[str]) -> Selection:
        """The selection; the largest group comes first."""
        groups = sorted(self._groups.values(), key=lambda group: -group.count)
        return Selection(tuple(self._chosen.values()), tuple(groups), tuple(sorted(missing)))


class Worker:
    """Carries a change out. What DynamoDB cannot do now is tried again for some seconds; then all stops."""

    def __init__(self, change: Callable[[Chosen], Awaitable[bool]], on_done: OnDone | None) -> None:
        self._change = change
        self._on_done = on_done
        self._done = 0
        self._gone = 0
        self._failed: dict[str, str] = {}
        self._stopped: str | None = None
        self._unsure = 0

    async def carry_out(self, selection: Selection) -> Changes:
        """Changes all that was selected, those of one key one after the other, in order."""
        lanes: list[list[Chosen]] = [[] for _ in range(_LANES)]
        for number, chosen in enumerate(selection.chosen):
            at = number if chosen.key is None else zlib.crc32(chosen.key.encode())
            lanes[at % _LANES].append(chosen)
        async with asyncio.TaskGroup() as group:
            for lane in filter(None, lanes):
                group.create_task(self._run(lane), name="oms-events-outbox-change")
        return Changes(self._done, self._gone, self._failed, self._stopped, self._unsure)

    async def _run(self, lane: list[Chosen]) -> None:
        for chosen in lane:
            if self._stopped is not None:
                return
            try:
                if await self._change(chosen):
                    self._done += 1
                else:
                    self._gone += 1
            except (StorageDeniedError, StorageUnavailableError, StorageOutcomeUnknownError) as error:
                self._failed[chosen.id] = self._stopped = str(error)
            except UnsureChangeError:
                self._unsure += 1
            except OmsEventsError as error:
                self._failed[chosen.id] = str(error)
            if self._on_done is not None:
                self._on_done(1)


async def steadily(change: Callable[[], Awaitable[bool]], *, clock: Clock, rng: random.Random) -> bool:
    """Makes one conditional change, again when it was not done or got no answer; says whether it took.

    Raises what the store raises, `StorageUnavailableError` and `StorageOutcomeUnknownError` after some seconds,
    and `UnsureChangeError`.
    """
    unanswered = False
    attempt = 1
    while True:
        try:
            if await change():
                return True
        except (StorageUnavailableError, StorageOutcomeUnknownError) as error:
            if attempt == _RETRY.max_attempts:
                raise
            unanswered = unanswered or isinstance(error, StorageOutcomeUnknownError)
            pause = max(_RETRY.delay(attempt, rng.random), error.retry_after or 0.0)
        else:
            if unanswered:
                raise UnsureChangeError("refused after a try that got no answer")
            return False
        attempt += 1
        await clock.sleep(pause)
