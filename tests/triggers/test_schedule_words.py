from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oms_events.triggers.schedule_words import explain_schedule
from oms_events.triggers.schedules import parse_schedule


def words(fields: str) -> str:
    return explain_schedule(parse_schedule(f"cron({fields})"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("0 22 * * ? *", "At 22:00 UTC every day"),
        ("0 22 ? * * *", "At 22:00 UTC every day"),
        ("5,35 14 * * ? *", "At 14:05 and 14:35 UTC every day"),
        ("0 0/6 * * ? *", "At 00:00, 06:00, 12:00 and 18:00 UTC every day"),
        ("0 */2 * * ? *", "At minute 0 of every 2nd hour from 0 to 22 UTC every day"),
        ("0 8-17 * * ? *", "At minute 0 of the hours 8 to 17 UTC every day"),
        ("* * * * ? *", "Every minute"),
        ("* 14 * * ? *", "Every minute from 14:00 to 14:59 UTC every day"),
        ("* 8,10 * * ? *", "Every minute of the hours 8 and 10 UTC every day"),
        ("*/5 * * * ? *", "Every 5 minutes"),
        ("0/5 8-17 ? * MON-FRI *", "Every 5 minutes from 08:00 to 17:55 UTC, Monday to Friday"),
        ("0/10 * ? * MON-FRI *", "Every 10 minutes, Monday to Friday (UTC)"),
        ("1/10 * * * ? *", "At every 10th minute from 1 to 51 of every hour"),
        ("4/8 * * * ? *", "At every 8th minute from 4 to 52 of every hour"),
        ("0 * * * ? *", "At minute 0 of every hour"),
        ("0/15 * * * ? *", "At minutes 0, 15, 30 and 45 of every hour"),
        ("0/15 * ? * MON-FRI *", "At minutes 0, 15, 30 and 45 of every hour, Monday to Friday (UTC)"),
        ("10-20,45 * * * ? *", "At minutes 10 to 20 and 45 of every hour"),
        (
            "0/30 20-2 ? * MON-FRI *",
            "At minutes 0 and 30 of the hours 0 to 2 and 20 to 23 UTC, Monday to Friday",
        ),
        ("0 18 ? * MON-FRI *", "At 18:00 UTC, Monday to Friday"),
        ("0 18 ? * MON *", "At 18:00 UTC every Monday"),
        ("0 18 ? * SAT,SUN *", "At 18:00 UTC every Saturday and Sunday"),
        ("0 18 ? * 1,3,4,5 *", "At 18:00 UTC every Tuesday, Wednesday, Thursday and Sunday"),
        ("0 18 ? * FRI,SAT,SUN *", "At 18:00 UTC, Friday to Sunday"),
        ("0 18 ? * FRI-MON *", "At 18:00 UTC, Friday to Monday"),
        ("0 18 1-7 JUN ? *", "At 18:00 UTC on days 1 to 7 of June"),
        ("0 18 ? * L *", "At 18:00 UTC every Saturday"),
        ("0 8 1 * ? *", "At 08:00 UTC on day 1 of every month"),
        ("0 8 1,15-17 * ? *", "At 08:00 UTC on days 1 and 15 to 17 of every month"),
        ("0 8 1/2 * ? *", "At 08:00 UTC on every 2nd day from 1 to 31 of every month"),
        ("0 8 31 * ? *", "At 08:00 UTC on day 31 of every month, where there is one"),
        ("0 8 29 FEB ? *", "At 08:00 UTC on day 29 of February, where there is one"),
        ("0 8 30 APR ? *", "At 08:00 UTC on day 30 of April"),
        ("0 10 1 1,4,7,10 ? *", "At 10:00 UTC on day 1 of January, April, July and October"),
        ("0 9 L * ? *", "At 09:00 UTC on the last day of every month"),
        ("0 9 3W * ? *", "At 09:00 UTC on the weekday nearest to day 3 of every month"),
        ("0 9 31W * ? *", "At 09:00 UTC on the weekday nearest to day 31 of every month, where there is one"),
        ("15 10 ? * 6L *", "At 10:15 UTC on the last Friday of every month"),
        ("0 9 ? * 3#2 *", "At 09:00 UTC on the second Tuesday of every month"),
        ("0 9 ? MAR MON#5 *", "At 09:00 UTC on the fifth Monday of March, where there is one"),
        ("0 9 * JAN,MAR-MAY ? *", "At 09:00 UTC every day in January and March to May"),
        ("0 9 ? JUN MON *", "At 09:00 UTC every Monday in June"),
        ("7 * * JUN ? *", "At minute 7 of every hour in June (UTC)"),
        ("7 * 5 * ? *", "At minute 7 of every hour, on day 5 of every month (UTC)"),
        ("* * * * ? 2027", "Every minute, in 2027 (UTC)"),
        ("0 9 25 DEC ? 2027", "At 09:00 UTC on day 25 of December, in 2027"),
        ("15 10 ? * 6L 2019-2022", "At 10:15 UTC on the last Friday of every month, in the years 2019 to 2022"),
        ("0 9 * * ? 2026-2032/3", "At 09:00 UTC every day, in the years 2026, 2029 and 2032"),
        ("0 9 * * ? 2027-2199", "At 09:00 UTC every day, from 2027 on"),
        ("0 9 * * ? 2026/3", "At 09:00 UTC every day, in every 3rd year from 2026 to 2197"),
    ],
)
def test_a_cron_is_said_in_words(fields: str, said: str) -> None:
    assert words(fields) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate(1 minute)", "Every minute, from when the rule was made"),
        ("rate(5 minutes)", "Every 5 minutes, from when the rule was made"),
        ("rate(1 day)", "Every day, from when the rule was made"),
    ],
)
def test_a_rate_is_said_in_words(text: str, said: str) -> None:
    assert explain_schedule(parse_schedule(text)) == said


FIELDS = {
    "minutes": ("{} * * * ? *", 0, 59),
    "minutes of some hours": ("{} 3,4,9-20 ? * 2 *", 0, 59),
    "hours": ("1,2,3,5,8,13,21 {} * * ? *", 0, 23),
    "hours of every minute": ("* {} * * ? *", 0, 23),
    "days": ("0 9 {} 1 ? *", 1, 31),
    "months": ("0 9 1 {} ? *", 1, 12),
    "weekdays": ("0 9 ? * {} *", 1, 7),
    "years": ("0 9 1 1 ? {}", 2020, 2040),
}


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=25)
@given(data=st.data())
def test_what_differs_is_said_differently(name: str, data: st.DataObject) -> None:
    fields, lowest, highest = FIELDS[name]
    spans = st.tuples(
        st.integers(lowest, highest), st.integers(lowest, highest), st.integers(1, 15)
    ).map(lambda three: range(min(three[:2]), max(three[:2]) + 1, three[2]))  # fmt: skip
    # Steps and runs, which the words shorten, and what comes of a value more or less.
    values = st.tuples(spans, st.sets(st.integers(lowest, highest), max_size=1)).map(
        lambda pair: frozenset(pair[0]) ^ pair[1]
    )
    one, other = data.draw(values), data.draw(values)
    assume(one != other and one and other)
    texts = {words(fields.format(",".join(map(str, sorted(each))))) for each in (one, other)}
    assert len(texts) == 2
