"""Schedule expressions of EventBridge rules, `cron(...)` and `rate(...)`, read and checked. Pure.

As in the EventBridge user guide, "Setting a schedule pattern for scheduled rules", which has an example of hours
that go through midnight; and as rules in use have them: names in any case, and weekdays that go through the end of
the week (`SAT-SUN`). What else it does not describe and other crons take (`LW`, `L-3`, ranges that go backwards in
other fields) is refused: it can be written otherwise. Times are UTC.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

Values = tuple[int, ...]
"""All values that a field takes, sorted."""
Unit = Literal["minute", "hour", "day"]

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199
MAX_EXPRESSION: Final = 256
"""Characters ("PutRule", EventBridge API reference)."""

_ANY: Final = "?"
_LEAP_YEAR: Final = 2000
_WEEKS: Final = ("1", "2", "3", "4", "5")
_UNITS: Final[Mapping[str, Unit]] = {"minute": "minute", "hour": "hour", "day": "day"}
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_RATE: Final = re.compile(r"(?P<value>[1-9][0-9]{0,6})\s+(?P<unit>(?:minute|hour|day)s?)")
_EXPRESSION: Final = re.compile(r"(cron|rate)\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DaysOfMonth:
    """Which days: by their numbers, the last one (`L`), or the weekday nearest to a day of the month (`3W`)."""

    values: Values = ()
    is_last: bool = False
    nearest_weekday_to: int | None = None


@dataclass(frozen=True, slots=True)
class DaysOfWeek:
    """Which weekdays, 1 (Sunday) to 7: all of them, the month's last one (`6L`), or its n-th (`3#2`: 3 and 2)."""

    values: Values = ()
    last: int | None = None
    nth: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes at which all fields match. `days` is said by the month or by the week, never by both."""

    text: str
    minutes: Values
    hours: Values
    days: DaysOfMonth | DaysOfWeek
    months: Values
    years: Values

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Rate:
    """Every so often, from the moment at which the rule was made."""

    value: int
    unit: Unit

    @property
    def interval(self) -> timedelta:
        return timedelta(**{f"{self.unit}s": self.value})

    def __str__(self) -> str:
        return f"rate({self.value} {self.unit}{'' if self.value == 1 else 's'})"


def parse_schedule(text: str) -> Cron | Rate:
    """The schedule of an expression; `str` of it is the expression with single blanks.

    Raises `ValueError` with everything that is wrong, each with field, value and remedy.
    """
    text = text.strip()
    if len(text) > MAX_EXPRESSION:
        raise ValueError(
            f"a schedule has at most {MAX_EXPRESSION} characters, and this has {len(text):,}; shorten it"
        )
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no schedule; write cron(0 22 * * ? *) or rate(5 minutes)")
    return _rate(found[2]) if found[1] == "rate" else _cron(found[2])


def _rate(text: str) -> Rate:
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            f"rate({text}): write a whole number above zero and minutes, hours or days, such as rate(5 minutes)"
        )
    rate = Rate(int(found["value"]), _UNITS[found["unit"].removesuffix("s")])
    if not str(rate).endswith(f" {found['unit']})"):
        raise ValueError(f"unit = {found['unit']!r}: it is singular for 1 and plural for more; write {rate}")
    return rate


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: Sequence[str] = ()
    has_steps: bool = True
    wraps: bool = False

    def number(self, text: str) -> int | None:
        """A value that this field can have; None for another."""
        if (name := text.upper()) in self.names:
            return self.names.index(name) + self.first
        number = int(text) if _NUMBER.fullmatch(text) else -1
        return number if self.first <= number <= self.last else None

    def span(self, item: str) -> Sequence[int] | None:
        """The values of one item of a list; None when it is none."""
        base, slash, step = item.partition("/")
        first, dash, last = (str(self.first), "-", str(self.last)) if base == "*" else base.partition("-")
        start = self.number(first)
        # From one value on, steps go to the end of the field.
        end = self.number(last) if dash else (self.last if slash else start)
        width = 1
        if slash:
            width = int(step) if self.has_steps and _NUMBER.fullmatch(step) else 0
        if start is None or end is None or not 1 <= width <= self.last:
            return None
        if start <= end:
            return range(start, end + 1, width)
        # 20-2: through midnight, with a step that goes on there; SAT-SUN: into the next week.
        return [*range(start, self.last + 1), *range(self.first, end + 1)][::width] if self.wraps else None

    @property
    def syntax(self) -> str:
        """What it takes, for those who wrote something else."""
        names = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        steps = ", a step a/b" if self.has_steps else ""
        order = "" if self.wraps else " with a below b"
        return f"give {self.first}-{self.last}{names}, a range a-b{order}{steps}, a list a,b, or *"


_MINUTE: Final = _Field("Minutes", 0, 59)
_HOUR: Final = _Field("Hours", 0, 23, wraps=True)
_DAY: Final = _Field("Day-of-month", 1, 31)
_MONTH: Final = _Field(
    "Month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)
_WEEKDAY: Final = _Field(
    "Day-of-week", 1, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), has_steps=False, wraps=True
)
_YEAR: Final = _Field("Year", FIRST_YEAR, LAST_YEAR)


def _cron(text: str) -> Cron:
    parts = text.split()
    if len(parts) != 6:
        raise ValueError(
            f"cron({text}) has {len(parts)} fields, not 6: Minutes Hours Day-of-month Month Day-of-week Year"
        )
    minutes, hours, day, month, weekday, year = parts
    problems: list[str] = []
    if (day == _ANY) == (weekday == _ANY):
        problems.append(f"Day-of-month = {day!r}, Day-of-week = {weekday!r}: write ? in one of them, and only one")
    of_month, of_week = _days_of_month(day, problems), _days_of_week(weekday, problems)
    cron = Cron(
        text=f"cron({' '.join(parts)})",
        minutes=_values(_MINUTE, minutes, problems),
        hours=_values(_HOUR, hours, problems),
        days=of_month if weekday == _ANY else of_week,
        months=_values(_MONTH, month, problems),
        years=_values(_YEAR, year, problems),
    )
    if not problems and _never_comes(of_month, cron.months):
        problems.append(f"Day-of-month = {day!r}, Month = {month!r}: there is no such day; change one")
    if problems:
        raise ValueError("; ".join(problems))
    return cron


def _days_of_month(text: str, problems: list[str]) -> DaysOfMonth:
    if text == "L":
        return DaysOfMonth(is_last=True)
    if text.endswith("W") and (day := _DAY.number(text[:-1])):
        return DaysOfMonth(nearest_weekday_to=day)
    return DaysOfMonth(() if text == _ANY else _values(_DAY, text, problems, "; L or 3W stand alone"))


def _days_of_week(text: str, problems: list[str]) -> DaysOfWeek:
    if text == "L":
        return DaysOfWeek((_WEEKDAY.last,))
    if text.endswith("L") and (last := _WEEKDAY.number(text[:-1])):
        return DaysOfWeek(last=last)
    day, _, week = text.partition("#")
    if week in _WEEKS and (nth := _WEEKDAY.number(day)):
        return DaysOfWeek(nth=(nth, int(week)))
    return DaysOfWeek(() if text == _ANY else _values(_WEEKDAY, text, problems, "; L, 6L or 3#2 stand alone"))


def _values(field: _Field, text: str, problems: list[str], more: str = "") -> Values:
    spans = [field.span(item) for item in text.split(",")]
    if None in spans:
        problems.append(f"{field.name} = {text!r}: {field.syntax}{more}")
    return tuple(sorted({value for span in spans if span is not None for value in span}))


def _never_comes(days: DaysOfMonth, months: Values) -> bool:
    """Whether none of the months has any of the days, as with 30 February."""
    first = days.nearest_weekday_to or min(days.values, default=1)
    return first > max(monthrange(_LEAP_YEAR, month)[1] for month in months)
