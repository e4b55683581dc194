"""Partitions as Hive writes them in paths, `ds=2026-09-09/symbol=AAPL`, and what they say about a start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from oms_events.triggers.request import TABLE_NAME

DATES: Final = ("ds", "dt", "date")
"""Partitions that may be the day, in the order in which they count."""

_NONE: Final = "__HIVE_DEFAULT_PARTITION__"
"""What Hive writes for null."""
_DATE: Final = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})")
_TABLE_PATH: Final = 2


def read_partitions(path: str) -> Mapping[str, str]:
    """The parts `name=value` of a path, percent-decoded; of one name the first. Null partitions are left out."""
    found: dict[str, str] = {}
    for part in path.split("/"):
        name, equals, value = part.partition("=")
        if equals and name and value and value != _NONE:
            found.setdefault(unquote(name), unquote(value))
    return MappingProxyType(found)


def day_of(partitions: Mapping[str, str]) -> str | None:
    """The day of `ds=`, `dt=` or `date=` as YYYY-MM-DD, where one of them is a date."""
    return next((day for name in DATES if (day := day_from(partitions.get(name, ""))) is not None), None)


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


def fields_of_key(key: str, partitions: Mapping[str, str]) -> dict[str, Any]:
    """The request's fields that an object's key names: by its partitions, or by `{domain}/{table_name}/`.

    Only a key with exactly two folders before its partitions and its name is taken to say domain and table, and
    only where both are letters and `_`: with more or fewer nobody knows which they are.
    """
    fields = fields_of(partitions)
    folders = key.split("/")[:-1]
    plain = [folder for folder in folders if "=" not in folder]
    if len(plain) == _TABLE_PATH and plain == folders[:_TABLE_PATH] and all(map(TABLE_NAME.fullmatch, plain)):
        fields.setdefault("domain", plain[0])
        fields.setdefault("table_name", plain[1])
    return fields
