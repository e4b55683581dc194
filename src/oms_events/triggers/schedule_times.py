"""When a schedule runs: the times of a `Cron` or `Rate` after a moment. Pure."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from oms_events.triggers.schedules import LAST_YEAR, Cron, DaysOfMonth, DaysOfWeek, Rate

_END: Final = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
_SUNDAY: Final = 1
_SATURDAY: Final = 7


def next_runs(schedule: Cron | Rate, *, after: datetime, start: datetime | None = None) -> Iterator[datetime]:
    """The times, in UTC and in order, at which a schedule runs strictly after `after`, until the end of 2199.

    A rate runs one interval after `start`, when its rule was made, and every interval from then on; without
    `start` it counts from `after`. A cron takes no notice of it. Raises `ValueError` for times without their zone.
    EventBridge is exact to the minute, and may start a run some seconds late (user guide, "Creating a scheduled
    rule").
    """
    for name, time in (("after", after), ("start", start)):
        if time is not None and time.tzinfo is None:
            raise ValueError(f"{name} = {time.isoformat()}: give it with its zone, such as UTC")
    moment = _utc(after)
    if isinstance(schedule, Rate):
        return _rate_runs(schedule.interval, moment, moment if start is None else _utc(start))
    return _cron_runs(schedule, moment)


def days_in(days: DaysOfMonth | DaysOfWeek, year: int, month: int) -> Sequence[int]:
    """The days of a month that a cron names, sorted; none where that month has no such day.

    The weekday nearest to a day lies in the same month: on Saturday 1st it is Monday 3rd.
    """
    weekday_of_first, length = monthrange(year, month)
    # 1 is Sunday in a cron, and 0 Monday in the calendar.
    first_weekday = (weekday_of_first + 1) % 7 + 1
    if isinstance(days, DaysOfWeek):
        return _days_of_week(days, first_weekday, length)
    if days.is_last:
        return (length,)
    near = days.nearest_weekday_to
    if near is None:
        return [day for day in days.values if day <= length]
    if near > length:
        return ()
    weekday = (first_weekday + near - 2) % 7 + 1
    if weekday == _SATURDAY:
        return (near - 1 if near > 1 else near + 2,)
    if weekday == _SUNDAY:
        return (near + 1 if near < length else near - 2,)
    return (near,)


def _days_of_week(days: DaysOfWeek, first_weekday: int, length: int) -> Sequence[int]:
    if days.nth is not None:
        weekday, number = days.nth
        day = 1 + (weekday - first_weekday) % 7 + 7 * (number - 1)
        return (day,) if day <= length else ()
    if days.last is not None:
        day = 1 + (days.last - first_weekday) % 7
        return (day + (length - day) // 7 * 7,)
    firsts = [1 + (weekday - first_weekday) % 7 for weekday in days.values]
    return sorted(day for first in firsts for day in range(first, length + 1, 7))


def _cron_runs(cron: Cron, after: datetime) -> Iterator[datetime]:
    for day in _days_from(cron, after.date()):
        for hour in cron.hours:
            for minute in cron.minutes:
                run = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                if run > after:
                    yield run


def _days_from(cron: Cron, first: date) -> Iterator[date]:
    # At most 230 years of 12 months are looked at, however seldom there is such a day.
    for year in cron.years:
        if year < first.year:
            continue
        for month in cron.months:
            if (year, month) < (first.year, first.month):
                continue
            for number in days_in(cron.days, year, month):
                day = date(year, month, number)
                if day >= first:
                    yield day


def _rate_runs(interval: timedelta, after: datetime, start: datetime) -> Iterator[datetime]:
    passed = max((after - start) // interval, 0)
    # Not by adding to the last run: a long interval would leave what a datetime can hold.
    while start < _END and (passed + 1) * interval < _END - start:
        passed += 1
        yield start + passed * interval


def _utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        # In UTC it is before the year 1, or after 9999; runs are far from both.
        return time.replace(tzinfo=UTC)
