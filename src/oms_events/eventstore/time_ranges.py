"""Times as people write them, and ranges of time. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

_TIMESTAMP: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?P<zone>[Zz]|[+-]\d{2}:\d{2})?)?",
    re.ASCII,
)
_AGO: Final = re.compile(
    r"(?P<amount>an?\b|\d+(?:\.\d+)?)\s*"
    r"(?:(?P<seconds>s|secs?|seconds?)|(?P<minutes>m|mins?|minutes?)|(?P<hours>h|hrs?|hours?)|(?P<days>d|days?)"
    r"|(?P<weeks>w|weeks?))(?:\s+ago)?",
    re.ASCII,
)
_UNITS: Final = ("seconds", "minutes", "hours", "days", "weeks")
_REMEDY: Final = "write 2026-01-31T12:00:00Z, 2026-01-31 (midnight UTC), 'now', '90 minutes ago' or '2d ago'"


def parse_time(text: str, *, now: datetime) -> datetime:
    """The time that a text says, in UTC: a timestamp, "now", or how long ago, such as "1 hour ago" or "90s ago".

    A timestamp is as in RFC 3339, and tells its zone; a date alone is its midnight in UTC. The "ago" may be left
    out. `now` is an aware time. Raises `ValueError`, which says what to write.
    """
    if now.tzinfo is None:
        raise ValueError(f"now = {now.isoformat()}: give it with its zone, such as UTC")
    words = text.strip()
    if words.lower() == "now":
        return now.astimezone(UTC)
    if found := _AGO.fullmatch(words.lower()):
        return _ago(text, found, now)
    if found := _TIMESTAMP.fullmatch(words):
        return _timestamp(text, words, found)
    raise ValueError(f"{text!r} is no time; {_REMEDY}")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `start` on and before `end` (aware times); None is no bound.

    Raises `ValueError` for a time without its zone, and for a range in which no time is.
    """

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for name, time in (("start", self.start), ("end", self.end)):
            if time is not None and time.tzinfo is None:
                raise ValueError(f"{name} = {time.isoformat()}: give it with its zone, such as UTC")
        if self.start is not None and self.end is not None and self.start >= self.end:
            text = (
                f"the start ({self.start.isoformat()}) is not before the end ({self.end.isoformat()}): nothing is "
                "in between; the end itself is not in the range"
            )
            raise ValueError(text)

    @classmethod
    def parse(cls, start: str | None, end: str | None, *, now: datetime) -> Self:
        """The range between two times as `parse_time` reads them. Raises `ValueError`."""
        return cls(
            None if start is None else parse_time(start, now=now),
            None if end is None else parse_time(end, now=now),
        )

    def __contains__(self, time: datetime) -> bool:
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def __str__(self) -> str:
        start = "the beginning" if self.start is None else self.start.isoformat()
        return f"from {start} on" if self.end is None else f"from {start} until before {self.end.isoformat()}"


def _ago(text: str, found: re.Match[str], now: datetime) -> datetime:
    amount = found["amount"]
    unit = next(unit for unit in _UNITS if found[unit])
    try:
        return (now - timedelta(**{unit: 1.0 if amount in ("a", "an") else float(amount)})).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is before the year 1; {_REMEDY}") from None


def _timestamp(text: str, words: str, found: re.Match[str]) -> datetime:
    is_date = words == found["date"]
    if found["zone"] is None and not is_date:
        raise ValueError(f"{text!r} has no zone; add Z for UTC, or an offset such as +01:00")
    try:
        time = datetime.fromisoformat(words.upper())
        return time.replace(tzinfo=UTC) if is_date else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no time: {error}; {_REMEDY}") from None
