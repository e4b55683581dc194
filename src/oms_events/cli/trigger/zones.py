"""Time zones by their names."""

from __future__ import annotations

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import click

from oms_events._config import suggestion


def to_zone(text: str) -> tzinfo:
    """The zone of a name of the time zone database. Raises `BadParameter`.

    UTC needs no database; Windows and small container images have none.
    """
    if text.upper() in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A folder of the database, such as America, is an OSError.
        known = available_timezones()
    if not known:
        raise click.BadParameter(
            f"{text!r}: this machine has no time zone database; pip install tzdata, or leave --tz out for UTC"
        )
    hint = suggestion(text, known) or "give a name such as Asia/Seoul, America/New_York or UTC"
    raise click.BadParameter(f"{text!r} is no time zone; {hint}")
