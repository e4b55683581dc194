"""What a check found: one finding for each thing that was looked at, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from oms_events.errors import AccessError, ConfigurationError, OmsEventsError

_NAMED: Final = 3
"""So many names stand in one message."""


class Level(StrEnum):
    """How a finding is: a problem loses events or fails calls, a warning may one day."""

    OK = "ok"
    PROBLEM = "problem"
    WARNING = "warning"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: where (`area`), what (`subject`), how it is, and what to do (`remedy`, empty for nothing)."""

    area: str
    subject: str
    level: Level
    message: str
    remedy: str = ""


Fault = tuple[Level, str, str]
"""What is wrong with a thing that has other faults too: level, message and remedy."""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one check, in the order in which things depend on each other."""

    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        """Whether there is no problem; what was not checked is none."""
        return not self.at(Level.PROBLEM)

    @property
    def complete(self) -> bool:
        """Whether everything could be checked."""
        return not self.at(Level.NOT_CHECKED)

    def at(self, level: Level) -> Sequence[Finding]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level is level)


def ok(area: str, subject: str, message: str) -> Finding:
    """As it should be."""
    return Finding(area, subject, Level.OK, message)


def problem(area: str, subject: str, message: str, remedy: str) -> Finding:
    """What loses events, or fails calls."""
    return Finding(area, subject, Level.PROBLEM, message, remedy)


def warning(area: str, subject: str, message: str, remedy: str) -> Finding:
    """What may be meant so, or may be a problem one day."""
    return Finding(area, subject, Level.WARNING, message, remedy)


def unchecked(area: str, subject: str, message: str, remedy: str) -> Finding:
    """What nobody knows."""
    return Finding(area, subject, Level.NOT_CHECKED, message, remedy)


def some(names: Iterable[str]) -> str:
    """Names in one phrase: the first few, and how many more."""
    found = list(dict.fromkeys(names))
    rest = len(found) - _NAMED
    return ", ".join(found[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def failed(area: str, subject: str, error: OmsEventsError) -> Finding:
    """The finding of a check that was denied or went wrong."""
    return Finding(area, subject, *fault_of(error))


def fault_of(error: OmsEventsError, what: str = "") -> Fault:
    """A part of a check (`what`, with its colon) that was denied or went wrong."""
    if isinstance(error, AccessError):
        remedy = "allow it, or look with credentials that may"
    else:
        remedy = "see that it can be reached with these settings, and check again"
    return Level.NOT_CHECKED, f"{what}{error}", remedy


async def collected(area: str, subject: str, findings: AsyncIterator[Finding]) -> list[Finding]:
    """The findings of one check; one that fails on its way says so after what it found before.

    Raises `ConfigurationError`: who looks, and where, is wrong, and that says nothing of what is deployed.
    """
    found: list[Finding] = []
    try:
        async for finding in findings:
            found.append(finding)  # noqa: PERF401 - what came before an error counts
    except ConfigurationError:
        raise
    except OmsEventsError as error:
        found.append(failed(area, subject, error))
    return found


async def together(checks: Iterable[tuple[str, str, AsyncIterator[Finding]]]) -> list[Finding]:
    """The findings of checks that run at the same time, in the order of the checks (area, subject, check).

    Raises what `collected` raises, once all of them have ended.
    """
    # An error must not leave the others running: their clients are closed next.
    parts = await asyncio.gather(*(collected(*check) for check in checks), return_exceptions=True)
    found: list[Finding] = []
    for part in parts:
        if isinstance(part, BaseException):
            raise part
        found += part
    return found
