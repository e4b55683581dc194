"""What a schedule says, in words. Pure."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from oms_events.triggers.schedules import FIRST_YEAR, LAST_YEAR, Cron, DaysOfMonth, DaysOfWeek, Rate, Values

_ALL_MINUTES: Final = tuple(range(60))
_ALL_HOURS: Final = tuple(range(24))
_ALL_DAYS: Final = tuple(range(1, 32))
_WEEK: Final = tuple(range(1, 8))
_ALL_MONTHS: Final = tuple(range(1, 13))
_ALL_YEARS: Final = tuple(range(FIRST_YEAR, LAST_YEAR + 1))

_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NTH: Final = ("first", "second", "third", "fourth", "fifth")
_CLOCK_TIMES: Final = 6
"""So many times of a day are told one by one; more by their minutes and hours."""
_LISTED: Final = 4
"""So many values with a step are told one by one; more by the step."""
_LEAP_YEAR: Final = 2000
_COMMON_YEAR: Final = 2001


def explain_schedule(schedule: Cron | Rate) -> str:
    """When a schedule runs, in words and in UTC: "At 22:00 UTC every day", "At 18:00 UTC, Monday to Friday"."""
    if isinstance(schedule, Rate):
        every = schedule.unit if schedule.value == 1 else f"{schedule.value} {schedule.unit}s"
        return f"Every {every}, from when the rule was made"
    times = _times(schedule)
    days = _days(schedule)
    if days == "every day":
        # As in "at 22:00 UTC every day"; what runs every hour or minute does so every day.
        days = "" if times.endswith(("hour", "minute", "minutes")) else f" {days}"
    elif days:
        is_short = times.endswith("UTC") and not days[0].isupper()
        days = f" {days}" if is_short else f", {days}"
    text = f"{times}{days}{_when(schedule)}"
    # The days too are those of UTC.
    return text if " UTC" in text or text == times else f"{text} (UTC)"


def _times(cron: Cron) -> str:
    minutes, hours = cron.minutes, cron.hours
    if len(minutes) * len(hours) <= _CLOCK_TIMES:
        clock = [f"{hour:02}:{minute:02}" for hour in hours for minute in minutes]
        return f"At {_listed(clock)} UTC"
    step = _step(minutes)
    # The same distance from the last one to the first of the next hour.
    is_even = step is not None and minutes[0] == 0 and minutes[-1] + step == len(_ALL_MINUTES)
    if is_even and len(minutes) > _LISTED:
        every = "Every minute" if step == 1 else f"Every {step} minutes"
        if hours == _ALL_HOURS:
            return every
        if _is_run(hours):
            return f"{every} from {hours[0]:02}:00 to {hours[-1]:02}:{minutes[-1]:02} UTC"
        return f"{every} of {_numbers('hour', hours)} UTC"
    of = "every hour" if hours == _ALL_HOURS else f"{_numbers('hour', hours)} UTC"
    return f"At {_numbers('minute', minutes)} of {of}"


def _days(cron: Cron) -> str:
    """Which days; months only where they belong to them."""
    days = cron.days
    months = "every month" if cron.months == _ALL_MONTHS else _month_names(cron.months)
    if isinstance(days, DaysOfWeek):
        if days.last is not None:
            return f"on the last {_WEEKDAYS[days.last - 1]} of {months}"
        if days.nth is not None:
            weekday, number = days.nth
            missing = ", where there is one" if number == len(_NTH) else ""
            return f"on the {_NTH[number - 1]} {_WEEKDAYS[weekday - 1]} of {months}{missing}"
        return _weekdays(days.values)
    if days.is_last:
        return f"on the last day of {months}"
    if (near := days.nearest_weekday_to) is not None:
        return f"on the weekday nearest to day {near} of {months}{_where(near, cron.months)}"
    if days.values == _ALL_DAYS:
        return "every day"
    missing = _where(days.values[0], cron.months) if len(days.values) == 1 else ""
    return f"on {_numbers('day', days.values)} of {months}{missing}"


def _when(cron: Cron) -> str:
    """Months that the days have not told yet, and years."""
    days = cron.days
    is_told = days.values != _ALL_DAYS if isinstance(days, DaysOfMonth) else not days.values
    months = "" if is_told or cron.months == _ALL_MONTHS else f" in {_month_names(cron.months)}"
    if cron.years == _ALL_YEARS:
        return months
    if _is_run(cron.years) and cron.years[-1] == LAST_YEAR:
        return f"{months}, from {cron.years[0]} on"
    single = len(cron.years) == 1
    years = str(cron.years[0]) if single else _numbers("year", cron.years)
    return f"{months}, in {years}"


def _weekdays(values: Values) -> str:
    if values == _WEEK:
        return "every day"
    # A week of people begins on Monday.
    week = sorted(values, key=lambda day: (day - 2) % 7)
    names = [_WEEKDAYS[day - 1] for day in week]
    places = [(day - 2) % 7 for day in week]
    # Where the run begins: after a day that is missing.
    begins = [at for at, place in enumerate(places) if (place - 1) % 7 not in places]
    if len(names) > 2 and len(begins) == 1:
        return f"{names[begins[0]]} to {names[begins[0] - 1]}"
    return f"every {_listed(names)}"


def _month_names(months: Values) -> str:
    return _listed([_span(run, [_MONTHS[month - 1] for month in run]) for run in _runs(months)])


def _where(day: int, months: Values) -> str:
    """That not all of the months have the day, in every year."""
    missing = any(day > monthrange(year, month)[1] for month in months for year in (_LEAP_YEAR, _COMMON_YEAR))
    return ", where there is one" if missing else ""


def _numbers(noun: str, values: Values) -> str:
    """`minute 5`, `days 1 and 15 to 17`, `every 2nd hour from 0 to 22`."""
    if len(values) == 1:
        return f"{noun} {values[0]}"
    step = _step(values)
    if step is not None and step > 1 and len(values) > _LISTED:
        return f"every {_ordinal(step)} {noun} from {values[0]} to {values[-1]}"
    text = _listed([_span(run, [str(value) for value in run]) for run in _runs(values)])
    return f"the {noun}s {text}" if noun in ("hour", "year") else f"{noun}s {text}"


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"


def _step(values: Values) -> int | None:
    """The distance between all values, where it is one."""
    steps = {after - before for before, after in pairwise(values)}
    return steps.pop() if len(steps) == 1 else None


def _is_run(values: Sequence[int]) -> bool:
    return values[-1] - values[0] == len(values) - 1


def _runs(values: Values) -> list[list[int]]:
    """The values in groups without gaps; two neighbours stay single."""
    runs: list[list[int]] = []
    for value in values:
        if runs and runs[-1][-1] == value - 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return [part for run in runs for part in ([run] if len(run) > 2 else [[value] for value in run])]


def _span(run: Sequence[int], names: Sequence[str]) -> str:
    return names[0] if len(run) == 1 else f"{names[0]} to {names[-1]}"


def _listed(items: Sequence[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
