"""Times as guards keep them: whole microseconds, so that nothing is rounded. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

SECOND: Final = 1_000_000
KEPT_LONGER: Final = 86_400
"""Seconds that an item stays after it has nothing to say any more: more than hosts' clocks differ."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def since_epoch(moment: datetime) -> int:
    """A time (aware) in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """The time (UTC) of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def span(seconds: float) -> int:
    """A length of time in microseconds."""
    return round(seconds * SECOND)


def seconds_of(microseconds: int) -> float:
    """A length of time in seconds; none is below 0."""
    return max(0, microseconds) / SECOND


def expiry(until: int) -> int:
    """The second (epoch) from which an item may be deleted that says something until `until`."""
    return until // SECOND + KEPT_LONGER
