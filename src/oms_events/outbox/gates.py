"""Platforms that take nothing now: their events stay in the table until it is time to try again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from oms_events._aio import Clock
from oms_events.outbox.alarm import Alarm

_FIRST: Final = 0.5
_LONGEST: Final = 15.0
_LOOK: Final = 0.5
"""Seconds between two looks at whether the platform is available again, which cost nothing."""


class Gates:
    """Shuts a platform's gate when it skipped an event, and opens it after a while, or when it is available.

    The pause doubles from 0.5 s to 15 s while nothing gets through.
    """

    def __init__(
        self,
        *,
        is_available: Callable[[str], bool],
        alarm: Alarm,
        clock: Clock,
        on_shut: Callable[[str], None],
        on_open: Callable[[str], None],
    ) -> None:
        self.shut_platforms: set[str] = set()
        self._is_available = is_available
        self._alarm = alarm
        self._clock = clock
        self._on_shut = on_shut
        self._on_open = on_open
        self._pauses: dict[str, float] = {}

    def shut(self, platform: str) -> None:
        """The platform takes nothing now."""
        if platform in self.shut_platforms:
            return
        self.shut_platforms.add(platform)
        pause = self._pauses[platform] = min(_LONGEST, self._pauses.get(platform, _FIRST / 2) * 2)
        self._look_later(platform, self._clock.monotonic() + pause)
        self._on_shut(platform)

    def worked(self, platform: str) -> None:
        """The platform took an event."""
        if self._pauses:
            self._pauses.pop(platform, None)

    def _look_later(self, platform: str, until: float) -> None:
        when = min(until, self._clock.monotonic() + _LOOK)
        self._alarm.at(when, partial(self._look, platform, until))

    def _look(self, platform: str, until: float) -> None:
        if self._clock.monotonic() < until and not self._is_available(platform):
            self._look_later(platform, until)
            return
        self.shut_platforms.discard(platform)
        self._on_open(platform)
