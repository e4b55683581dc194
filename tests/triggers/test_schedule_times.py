from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from oms_events.triggers.schedule_times import next_runs
from oms_events.triggers.schedules import Cron, DaysOfMonth, DaysOfWeek, parse_schedule

NOW = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)


def runs(text: str, after: datetime = NOW, *, count: int = 4) -> list[str]:
    return [f"{run:%a %Y-%m-%d %H:%M}" for run in islice(next_runs(parse_schedule(text), after=after), count)]


# ------------------------------------------------------- what the user guide says, read a second time

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
WINDOW = timedelta(days=500)
COMPARED = 25


def matches(field: str, value: int, lowest: int, names: tuple[str, ...] = ()) -> bool:
    """Whether one value satisfies a field, by its text alone; nothing is expanded."""

    def number(word: str) -> int:
        return names.index(word) + lowest if word in names else int(word)

    for item in field.split(","):
        base, _, step = item.partition("/")
        if base == "*":
            first, last = lowest, 9999
        elif "-" in base:
            first, last = (number(word) for word in base.split("-"))
        else:
            first = number(base)
            last = 9999 if step else first
        inside = first <= value <= last if first <= last else value >= first or value <= last
        # Past the end of the field it goes on counting: 24 hours, which is all that may be passed.
        distance = value - first if value >= first else value + 24 - first
        if inside and distance % int(step or 1) == 0:
            return True
    return False


def in_month(day: date) -> list[date]:
    first = day.replace(day=1)
    return [one for one in (first + timedelta(days=n) for n in range(31)) if one.month == day.month]


def is_day(day: date, of_month: str, of_week: str) -> bool:
    if of_month == "?":
        number = day.isoweekday() % 7 + 1
        if of_week == "L":
            return number == 7
        if of_week.endswith("L"):
            name = of_week[:-1]
            is_last = (day + timedelta(days=7)).month != day.month
            return is_last and number == (WEEKDAYS.index(name) + 1 if name in WEEKDAYS else int(name))
        weekday, hash_, nth = of_week.partition("#")
        if hash_:
            return matches(weekday, number, 1, WEEKDAYS) and (day.day + 6) // 7 == int(nth)
        return matches(of_week, number, 1, WEEKDAYS)
    if of_month == "L":
        return day == in_month(day)[-1]
    if of_month.endswith("W"):
        near = int(of_month[:-1])
        working = [one for one in in_month(day) if one.isoweekday() <= 5]
        return near <= len(in_month(day)) and day == min(working, key=lambda one: abs(one.day - near))
    return matches(of_month, day.day, 1)


def minute_by_minute(text: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every minute of the matching days is looked at."""
    minutes, hours, of_month, month, of_week, year = text.removeprefix("cron(").removesuffix(")").split()
    day = after.date()
    while day <= until.date():
        if (
            matches(year, day.year, 1970)
            and matches(month, day.month, 1, MONTHS)
            and is_day(day, of_month, of_week)
        ):
            for minute in range(24 * 60):
                at = datetime(day.year, day.month, day.day, *divmod(minute, 60), tzinfo=UTC)
                if after < at <= until and matches(hours, at.hour, 0) and matches(minutes, at.minute, 0):
                    yield at
        day += timedelta(days=1)


def fields(lowest: int, highest: int, *, names: tuple[str, ...] = (), wraps: bool = False, steps: bool = True):  # type: ignore[no-untyped-def]
    """Texts of a field: everything, values, ranges, steps, lists."""

    def word(value: int) -> str:
        return names[value - lowest] if names and value % 2 else str(value)

    def ranged(pair: tuple[int, int]) -> str:
        first, last = pair if wraps else sorted(pair)
        return f"{word(first)}-{word(last)}"

    values = st.integers(lowest, highest)
    item = st.one_of(values.map(word), st.tuples(values, values).map(ranged))
    if steps:
        stepped = st.one_of(st.just("*"), values.map(word), st.tuples(values, values).map(ranged))
        by = st.integers(1, min(highest, 20))
        item = st.one_of(item, st.tuples(stepped, by).map(lambda pair: f"{pair[0]}/{pair[1]}"))
    return st.one_of(st.just("*"), item, st.lists(item, min_size=2, max_size=3).map(",".join))


DAYS = st.one_of(
    st.tuples(
        st.one_of(fields(1, 31), st.just("L"), st.integers(1, 31).map("{}W".format)),
        st.just("?"),
    ),
    st.tuples(
        st.just("?"),
        st.one_of(
            fields(1, 7, names=WEEKDAYS, steps=False),
            st.just("L"),
            st.sampled_from([*WEEKDAYS, *"1234567"]).map("{}L".format),
            st.tuples(st.integers(1, 7), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
        ),
    ),
)
CRONS = st.tuples(
    fields(0, 59), fields(0, 23, wraps=True), DAYS, fields(1, 12, names=MONTHS),
    st.sampled_from(["*", "2024-2026", "2025/2", "2026,2028"]),
).map(lambda parts: f"cron({parts[0]} {parts[1]} {parts[2][0]} {parts[3]} {parts[2][1]} {parts[4]})")  # fmt: skip
ZONES = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(
    datetime(2024, 1, 1),  # noqa: DTZ001 - the strategy adds a zone
    datetime(2027, 12, 31),  # noqa: DTZ001
    timezones=ZONES,
)


def check(text: str, after: datetime) -> None:
    try:
        schedule = parse_schedule(text)
    except ValueError as error:
        # 30 February.
        assume("there is no such day" not in str(error))
        raise
    after_utc = after.astimezone(UTC)
    until = after_utc + WINDOW
    expected = list(islice(minute_by_minute(text, after_utc, until), COMPARED))
    found = [run for run in islice(next_runs(schedule, after=after), COMPARED) if run <= until]
    assert found == expected
    assert all(run.tzinfo is UTC for run in found)


@settings(max_examples=80)
@given(CRONS, MOMENTS)
@example("cron(0/30 20-2 ? * MON-FRI *)", NOW)
@example("cron(0 9 1W * ? *)", NOW)
@example("cron(0 9 31W * ? *)", NOW)
@example("cron(0 9 29W 2 ? *)", datetime(2027, 2, 1, tzinfo=UTC))
@example("cron(0 22 * * ? *)", datetime(2026, 10, 1, 22, 0, tzinfo=UTC))
def test_a_cron_runs_at_the_minutes_that_the_user_guide_says(text: str, after: datetime) -> None:
    check(text, after)


@pytest.mark.nightly
@settings(max_examples=1_500)
@given(CRONS, MOMENTS)
def test_many_crons_run_at_the_minutes_that_the_user_guide_says(text: str, after: datetime) -> None:
    check(text, after)


# ------------------------------------------------------- by hand, from a calendar


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cron(0 22 * * ? *)", ["Thu 2026-10-01 22:00", "Fri 2026-10-02 22:00"]),
        ("cron(0 12 * * ? *)", ["Fri 2026-10-02 12:00", "Sat 2026-10-03 12:00"]),
        # Sat 31 October: the weekday nearest to 31 stays in the month; Sunday 1 November has Monday 2.
        ("cron(0 9 31W OCT ? *)", ["Fri 2026-10-30 09:00", "Fri 2027-10-29 09:00"]),
        ("cron(0 9 1W NOV ? *)", ["Mon 2026-11-02 09:00", "Mon 2027-11-01 09:00"]),
        ("cron(0 9 1W MAY ? *)", ["Mon 2027-05-03 09:00", "Mon 2028-05-01 09:00"]),
        # Months without a 31st have no weekday near it.
        ("cron(0 9 31W * ? *)", ["Fri 2026-10-30 09:00", "Thu 2026-12-31 09:00"]),
        ("cron(15 10 ? * 6L *)", ["Fri 2026-10-30 10:15", "Fri 2026-11-27 10:15"]),
        ("cron(0 9 ? * 3#2 *)", ["Tue 2026-10-13 09:00", "Tue 2026-11-10 09:00"]),
        ("cron(0 9 ? * 5#5 *)", ["Thu 2026-10-29 09:00", "Thu 2026-12-31 09:00"]),
        ("cron(0 9 L * ? *)", ["Sat 2026-10-31 09:00", "Mon 2026-11-30 09:00"]),
        ("cron(0 9 ? * L *)", ["Sat 2026-10-03 09:00", "Sat 2026-10-10 09:00"]),
        ("cron(0 0 29 FEB ? *)", ["Tue 2028-02-29 00:00", "Sun 2032-02-29 00:00"]),
        ("cron(0 0 29 FEB ? 2027-2100/7)", ["Sat 2048-02-29 00:00", "Sat 2076-02-29 00:00"]),
        ("cron(0 0 1 1 ? 2199)", ["Tue 2199-01-01 00:00"]),
        ("cron(15 10 ? * 6L 2019-2022)", []),
    ],
)
def test_runs_are_found_however_seldom_they_are(text: str, expected: list[str]) -> None:
    assert runs(text, count=2) == expected


def test_a_schedule_ends_with_the_year_2199_and_is_quick_about_it() -> None:
    began = time.perf_counter()
    # Five Sundays in February: a leap year that begins on a Thursday; 2100 is none.
    sundays = [run.year for run in next_runs(parse_schedule("cron(0 0 ? FEB 1#5 *)"), after=NOW)]
    assert sundays == [2032, 2060, 2088, 2128, 2156, 2184]
    last = list(next_runs(parse_schedule("cron(59 23 31 12 ? *)"), after=datetime(2198, 1, 1, tzinfo=UTC)))
    assert [run.year for run in last] == [2198, 2199]
    # Nothing like it can be written, and it ends all the same.
    never = Cron("", (0,), (0,), DaysOfMonth((30, 31)), (2,), tuple(range(1970, 2200)))
    assert list(next_runs(never, after=datetime.min.replace(tzinfo=UTC))) == []
    assert list(next_runs(Cron("", (), (0,), DaysOfWeek((1,)), (2,), (2030,)), after=NOW)) == []
    # A search minute by minute takes a minute.
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("rate(5 minutes)", None, ["12:05", "12:10", "12:15"]),
        ("rate(5 minutes)", NOW - timedelta(minutes=3), ["12:02", "12:07", "12:12"]),
        ("rate(5 minutes)", NOW - timedelta(minutes=10), ["12:05", "12:10", "12:15"]),
        ("rate(1 hour)", NOW + timedelta(hours=3), ["16:00", "17:00", "18:00"]),
        ("rate(7 days)", NOW - timedelta(days=3650, minutes=1), ["11:59", "11:59", "11:59"]),
    ],
)
def test_a_rate_counts_from_when_its_rule_was_made(text: str, start: datetime | None, expected: list[str]) -> None:
    found = list(islice(next_runs(parse_schedule(text), after=NOW, start=start), 3))
    assert [f"{run:%H:%M}" for run in found] == expected
    assert found[0] > NOW
    assert found[1] - found[0] == found[2] - found[1]


def test_a_rate_ends_too() -> None:
    assert len(list(next_runs(parse_schedule("rate(36500 days)"), after=NOW))) == 1
    assert list(next_runs(parse_schedule("rate(9999999 days)"), after=NOW)) == []
    assert list(next_runs(parse_schedule("rate(1 minute)"), after=NOW.replace(year=2200))) == []


EDGES: list[tuple[datetime, Callable[[list[datetime]], bool]]] = [
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), lambda found: found[0].year == 1970),
    (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), lambda found: not found),
]


@pytest.mark.parametrize(("after", "is_right"), EDGES)
def test_times_that_utc_does_not_have_are_before_or_after_all(
    after: datetime, is_right: Callable[[list[datetime]], bool]
) -> None:
    assert is_right(list(islice(next_runs(parse_schedule("cron(0 0 1 1 ? *)"), after=after), 1)))


@pytest.mark.parametrize("name", ["after", "start"])
def test_a_time_without_its_zone_is_refused_at_once(name: str) -> None:
    times = {"after": NOW, name: NOW.replace(tzinfo=None)}
    with pytest.raises(ValueError, match=f"{name} = 2026-10-01T12:00:00: give it with its zone"):
        next_runs(parse_schedule("rate(1 day)"), **times)
