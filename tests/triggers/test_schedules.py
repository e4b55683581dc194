from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oms_events.triggers.schedules import Cron, DaysOfMonth, DaysOfWeek, Rate, Values, parse_schedule

ALL_DAYS = DaysOfMonth(tuple(range(1, 32)))


def cron(text: str) -> Cron:
    parsed = parse_schedule(f"cron({text})")
    assert isinstance(parsed, Cron)
    return parsed


def test_a_cron_says_which_minutes_hours_days_months_and_years() -> None:
    parsed = cron("0 22 * * ? *")
    assert (parsed.minutes, parsed.hours, parsed.days) == ((0,), (22,), ALL_DAYS)
    assert parsed.months == tuple(range(1, 13))
    assert (parsed.years[0], parsed.years[-1], len(parsed.years)) == (1970, 2199, 230)


# The user guide's own examples, and what its text says of each sign.
@pytest.mark.parametrize(
    ("text", "minutes", "hours"),
    [
        ("0 10 * * ? *", (0,), (10,)),
        ("0/15 * * * ? *", (0, 15, 30, 45), tuple(range(24))),
        ("*/20 8-17 ? * MON-FRI *", (0, 20, 40), tuple(range(8, 18))),
        ("1/10 0 1 * ? *", (1, 11, 21, 31, 41, 51), (0,)),
        ("5,35 14 * * ? *", (5, 35), (14,)),
        ("10-50/20,3 2/6 * * ? *", (3, 10, 30, 50), (2, 8, 14, 20)),
        ("59 23 * * ? *", (59,), (23,)),
        ("0/30 20-2 ? * MON-FRI *", (0, 30), (0, 1, 2, 20, 21, 22, 23)),
        ("0 21-5/4 * * ? *", (0,), (1, 5, 21)),
    ],
)
def test_values_ranges_lists_and_steps_are_expanded(text: str, minutes: Values, hours: Values) -> None:
    parsed = cron(text)
    assert (parsed.minutes, parsed.hours) == (minutes, hours)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0 9 1,15-17 * ? *", DaysOfMonth((1, 15, 16, 17))),
        ("0 9 1/10 * ? *", DaysOfMonth((1, 11, 21, 31))),
        ("0 9 L * ? *", DaysOfMonth(is_last=True)),
        ("0 9 3W * ? *", DaysOfMonth(nearest_weekday_to=3)),
        ("0 9 29 FEB ? *", DaysOfMonth((29,))),
        ("0 9 ? * * *", DaysOfWeek((1, 2, 3, 4, 5, 6, 7))),
        ("0 9 ? * MON-FRI *", DaysOfWeek((2, 3, 4, 5, 6))),
        ("0 9 ? * SUN,7 *", DaysOfWeek((1, 7))),
        # In use, and taken by EventBridge.
        ("0 9 ? * SAT-SUN *", DaysOfWeek((1, 7))),
        ("0 9 ? * 6-2 *", DaysOfWeek((1, 2, 6, 7))),
        ("0 9 ? * Mon-fri *", DaysOfWeek((2, 3, 4, 5, 6))),
        ("0 9 ? * friL *", DaysOfWeek(last=6)),
        ("0 9 ? * L *", DaysOfWeek((7,))),
        ("0 9 ? * 6L *", DaysOfWeek(last=6)),
        ("0 9 ? * FRIL *", DaysOfWeek(last=6)),
        ("0 9 ? * 3#2 *", DaysOfWeek(nth=(3, 2))),
        ("0 9 ? * MON#1 *", DaysOfWeek(nth=(2, 1))),
    ],
)
def test_days_are_said_by_the_month_or_by_the_week(text: str, days: DaysOfMonth | DaysOfWeek) -> None:
    assert cron(text).days == days


def test_months_and_years_have_names_ranges_and_steps() -> None:
    parsed = cron("0 9 1 jan,Mar-MAY,12 ? 2026-2032/3")
    assert str(parsed) == "cron(0 9 1 jan,Mar-MAY,12 ? 2026-2032/3)"
    assert (parsed.months, parsed.years) == ((1, 3, 4, 5, 12), (2026, 2029, 2032))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("60 9 * * ? *", "Minutes = '60': give 0-59"),
        ("-1 9 * * ? *", "Minutes = '-1'"),
        ("/5 9 * * ? *", "Minutes = '/5': give 0-59, a range a-b with a below b, a step a/b"),
        ("0/0 9 * * ? *", "Minutes = '0/0'"),
        ("0/60 9 * * ? *", "Minutes = '0/60'"),
        ("1,,2 9 * * ? *", "Minutes = '1,,2'"),
        ("? 9 * * ? *", "Minutes = '?'"),
        ("0 24 * * ? *", "Hours = '24': give 0-23"),
        ("50-10 9 * * ? *", "Minutes = '50-10': give 0-59, a range a-b with a below b"),
        ("0 9 ? NOV-FEB * *", "Month = 'NOV-FEB'"),
        (f"0,{','.join(['10'] * 90)} 9 * * ? *", "at most 256 characters"),
        ("0 20-24 * * ? *", "Hours = '20-24': give 0-23, a range a-b, a step a/b"),
        ("0 9 0 * ? *", "Day-of-month = '0': give 1-31"),
        ("0 9 32W * ? *", "Day-of-month = '32W'"),
        (
            "0 9 LW * ? *",
            "Day-of-month = 'LW': give 1-31, a range a-b with a below b, a step a/b, a list a,b, or *; L",
        ),
        ("0 9 1,L * ? *", "L or 3W stand alone"),
        ("0 9 30 2 ? *", "Day-of-month = '30', Month = '2': there is no such day"),
        ("0 9 31 2,4,6 ? *", "there is no such day"),
        ("0 9 31W APR ? *", "there is no such day"),
        ("0 9 1 13 ? *", "Month = '13': give 1-12 or JAN-DEC"),
        ("0 9 1 Janu ? *", "Month = 'Janu'"),
        ("0 9 ? * 0 *", "Day-of-week = '0': give 1-7 or SUN-SAT, a range a-b, a list"),
        ("0 9 ? * 2/2 *", "Day-of-week = '2/2'"),
        ("0 9 ? * 3#6 *", "Day-of-week = '3#6'"),
        ("0 9 ? * 3#1,6#3 *", "L, 6L or 3#2 stand alone"),
        ("0 9 ? * 8L *", "Day-of-week = '8L'"),
        ("0 9 * * ? 1969", "Year = '1969': give 1970-2199"),
        ("0 9 * * ? 2200", "Year = '2200'"),
        ("0 9 * * * *", "Day-of-month = '*', Day-of-week = '*': write ? in one of them, and only one"),
        ("0 9 1 * MON *", "Day-of-month = '1', Day-of-week = 'MON': write ? in one of them"),
        ("0 9 ? * ? *", "Day-of-month = '?', Day-of-week = '?': write ? in one of them"),
        ("0 9 * * ?", "has 5 fields, not 6: Minutes Hours Day-of-month Month Day-of-week Year"),
        ("", "has 0 fields"),
        ("0 ٩ * * ? *", "Hours = '٩'"),
    ],
)
def test_a_cron_that_eventbridge_would_refuse_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - what it says is looked at
        parse_schedule(f"cron({text})")
    assert said in str(raised.value)


def test_all_problems_of_a_cron_are_told_at_once() -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        parse_schedule("cron(60 24 32 13 8 1969)")
    for said in (
        "Minutes = '60'",
        "Hours",
        "Day-of-month = '32'",
        "Month",
        "Day-of-week = '8'",
        "Year",
        "write ?",
    ):
        assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("rate(1 minute)", timedelta(minutes=1)),
        ("rate(5 minutes)", timedelta(minutes=5)),
        ("rate(1 hour)", timedelta(hours=1)),
        ("rate(36 hours)", timedelta(hours=36)),
        ("rate(7 days)", timedelta(days=7)),
    ],
)
def test_a_rate_is_an_interval(text: str, interval: timedelta) -> None:
    parsed = parse_schedule(text)
    assert isinstance(parsed, Rate)
    assert (parsed.interval, str(parsed)) == (interval, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate(1 hours)", "it is singular for 1 and plural for more; write rate(1 hour)"),
        ("rate(5 minute)", "write rate(5 minutes)"),
        ("rate(0 minutes)", "write a whole number above zero and minutes, hours or days"),
        ("rate(-5 minutes)", "above zero"),
        ("rate(1.5 hours)", "above zero"),
        ("rate(5 weeks)", "minutes, hours or days"),
        ("rate(5)", "such as rate(5 minutes)"),
        ("at(2026-01-31T00:00:00)", "is no schedule; write cron(0 22 * * ? *) or rate(5 minutes)"),
        ("0 22 * * ? *", "is no schedule"),
        ("cron 0 22 * * ? *", "is no schedule"),
        ("", "is no schedule"),
    ],
)
def test_another_schedule_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        parse_schedule(text)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", [" cron(0  22 *\t* ?  *) ", "cron( 0 22 * * ? * )"])
def test_blanks_do_not_matter(text: str) -> None:
    assert str(parse_schedule(text)) == "cron(0 22 * * ? *)"
    assert str(parse_schedule(" rate( 5   minutes ) ")) == "rate(5 minutes)"


@given(st.lists(st.integers(0, 59), min_size=1), st.integers(0, 59), st.integers(1, 59))
def test_a_list_is_its_values_and_a_step_goes_to_the_end(values: list[int], start: int, step: int) -> None:
    assert cron(f"{','.join(map(str, values))} 9 * * ? *").minutes == tuple(sorted(set(values)))
    assert cron(f"{start}/{step} 9 * * ? *").minutes == tuple(range(start, 60, step))


@given(st.text(alphabet="0123456789*?,-/LW#MONFRI()cronate ", max_size=40))
@example("cron(9999999999 * * * ? *)")
@example("rate(99999999999999 days)")
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    for written in (text, f"cron({text})", f"rate({text})"):
        with suppress(ValueError):
            parsed = parse_schedule(written)
            assert parse_schedule(str(parsed)) == parsed
