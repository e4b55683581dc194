"""What a schedule says, when it runs next, and when that is in Seoul."""

# [start:imports]
from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

from oms_events.triggers import explain_schedule, next_runs, parse_schedule

# [end:imports]


# [start:next]
def show(expression: str, zone: str, *, after: datetime) -> None:
    schedule = parse_schedule(expression)
    print(explain_schedule(schedule))
    for run in islice(next_runs(schedule, after=after), 3):
        print(f"  {run:%a %H:%M} UTC is {run.astimezone(ZoneInfo(zone)):%a %H:%M} in {zone}")


# [end:next]


# [start:wrong]
def check(expression: str) -> None:
    try:
        parse_schedule(expression)
    except ValueError as error:
        print(error)


# [end:wrong]


def main() -> None:
    after = datetime(2026, 10, 23, tzinfo=UTC)
    show("cron(0 22 * * ? *)", "Asia/Seoul", after=after)
    show("cron(0 22 * * ? *)", "Europe/Berlin", after=after)
    show("cron(30 8 ? * 6L *)", "America/New_York", after=after)
    check("cron(0 24 * * MON *)")


if __name__ == "__main__":
    main()
