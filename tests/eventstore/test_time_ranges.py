from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oms_events.eventstore.time_ranges import TimeRange, parse_time

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-03-01T11:00:00+00:00"),
        (" Now ", "2026-03-01T11:00:00+00:00"),
        ("1 hour ago", "2026-03-01T10:00:00+00:00"),
        ("an hour ago", "2026-03-01T10:00:00+00:00"),
        ("a day ago", "2026-02-28T11:00:00+00:00"),
        ("30 minutes ago", "2026-03-01T10:30:00+00:00"),
        ("2 Days Ago", "2026-02-27T11:00:00+00:00"),
        ("90s ago", "2026-03-01T10:58:30+00:00"),
        ("1.5h", "2026-03-01T09:30:00+00:00"),
        ("2w", "2026-02-15T11:00:00+00:00"),
        ("15min ago", "2026-03-01T10:45:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31t12:00z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31 12:00:00.25+01:00", "2026-01-31T11:00:00.250000+00:00"),
        ("2026-01-31T12:00:00.123456789-00:30", "2026-01-31T12:30:00.123456+00:00"),
    ],
)
def test_a_time_is_read(text: str, expected: str) -> None:
    found = parse_time(text, now=NOW)
    assert found.isoformat() == expected
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("2026-01-31T12:00:00", "no zone; add Z for UTC"),
        ("", "write 2026-01-31T12:00:00Z"),
        ("ago", "'90 minutes ago'"),
        ("yesterday", "'2d ago'"),
        ("1 fortnight ago", "write"),
        ("a", "write"),
        ("-1 hour ago", "write"),
        ("1e3 s", "write"),
        ("٣ hours ago", "write"),
        ("2026-1-31", "write"),
        ("20260131", "write"),
        ("2026-W05-6", "write"),
        ("2026-02-30", "day is out of range"),
        ("2026-01-31T25:00:00Z", "hour must be in"),
        ("2026-01-31T12:00:00+25:00", "write"),
        ("0001-01-01T00:00:00+14:00", "write"),
        ("99999999 weeks ago", "before the year 1"),
        ("9" * 400 + "h", "before the year 1"),
        ("1 hour ago 2026", "write"),
    ],
)
def test_what_is_no_time_is_refused_with_what_to_write(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))) as raised:
        parse_time(text, now=NOW)
    assert remedy in str(raised.value)


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    try:
        found = parse_time(text, now=NOW)
    except ValueError:
        return
    assert found.tzinfo is UTC


@given(st.datetimes(min_value=NOW.replace(year=1900, tzinfo=None), timezones=st.timezones()))
def test_what_isoformat_writes_is_read_back(time: datetime) -> None:
    written = time.isoformat()
    # Before standard time zones had offsets of seconds, which RFC 3339 does not have.
    assume(re.fullmatch(r".*[+-]\d\d:\d\d", written))
    assert parse_time(written, now=NOW) == datetime.fromisoformat(written)


def test_now_must_have_its_zone() -> None:
    with pytest.raises(ValueError, match="with its zone"):
        parse_time("now", now=NOW.replace(tzinfo=None))


def test_a_range_has_its_start_and_not_its_end() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    day = TimeRange(start, end)
    assert start in day
    assert end - timedelta(microseconds=1) in day
    assert end not in day
    assert start - timedelta(microseconds=1) not in day
    assert end in TimeRange(start)
    assert start in TimeRange()
    assert start not in TimeRange(None, start)
    assert str(day) == "from 2026-01-01T00:00:00+00:00 until before 2026-01-02T00:00:00+00:00"


def test_a_range_is_read_from_texts() -> None:
    assert TimeRange.parse("2 hours ago", "now", now=NOW) == TimeRange(NOW - timedelta(hours=2), NOW)
    assert TimeRange.parse(None, None, now=NOW) == TimeRange()


@pytest.mark.parametrize(("start", "end"), [("now", "1 hour ago"), ("2026-01-01", "2026-01-01")])
def test_a_range_with_nothing_in_it_is_refused(start: str, end: str) -> None:
    with pytest.raises(ValueError, match="is not before the end"):
        TimeRange.parse(start, end, now=NOW)


def test_a_bound_without_its_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="start = 2026-03-01T12:00:00: give it with its zone"):
        TimeRange(NOW.replace(tzinfo=None))
