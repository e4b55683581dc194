"""Partitions as Hive writes them in paths, `ds=2026-09-09/symbol=AAPL`, and what they say about a start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

DATES: Final = ("ds", "dt", "date")
"""Partitions that may be the day, in the order in which they count."""
PARTS: Final = ("year", "month", "day")
"""Partitions that are the day together."""

_NONE: Final = "__HIVE_DEFAULT_PARTITION__"
"""What Hive writes for null."""
_DATE: Final = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})")
_PART: Final = re.compile(r"[0-9]{1,4}")
_FIRST_YEAR: Final = 1000
"""Years have four digits."""


def read_partitions(path: str) -> Mapping[str, str]:
    """The parts `name=value` of a path, percent-decoded; of one name the first. Null partitions are left out."""
    found: dict[str, str] = {}
    for part in path.split("/"):
        name, equals, value = part.partition("=")
        if equals and name and value and value != _NONE:
            found.setdefault(unquote(name), unquote(value))
    return MappingProxyType(found)


def day_of(partitions: Mapping[str, str]) -> str | None:
    """The day of `ds=`, `dt=` or `date=`, else of `year=`, `month=` and `day=`, as YYYY-MM-DD, where it is one."""
    days = (day for name in DATES if (day := day_from(partitions.get(name, ""))) is not None)
    return next(days, None) or _day_of_parts([partitions.get(name, "") for name in PARTS])


def says_day(partitions: Mapping[str, str]) -> bool:
    """Whether a partition means to say the day."""
    return any(name in partitions for name in (*DATES, *PARTS))


def _day_of_parts(parts: Sequence[str]) -> str | None:
    if not all(_PART.fullmatch(part) for part in parts):
        return None
    year, month, day = map(int, parts)
    try:
        return date(year, month, day).isoformat() if year >= _FIRST_YEAR else None
    except ValueError:
        return None


def day_from(text: str) -> str | None:
    """YYYY-MM-DD or YYYYMMDD as YYYY-MM-DD; None for anything else."""
    match = _DATE.fullmatch(text)
    try:
        return None if match is None else date(*map(int, match.groups())).isoformat()
    except ValueError:
        return None


def fields_of(partitions: Mapping[str, str]) -> dict[str, Any]:
    """The request's fields that partitions name: `symbol`, `domain`, and `table_name` or `table`."""
    fields: dict[str, Any] = {}
    if symbol := partitions.get("symbol"):
        fields["symbols"] = [symbol]
    if domain := partitions.get("domain"):
        fields["domain"] = domain
    if table := partitions.get("table_name") or partitions.get("table"):
        fields["table_name"] = table
    return fields
