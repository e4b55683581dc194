"""Bounds for labels with values from outside: each new one is a series that is kept, and may be paid for."""

from __future__ import annotations

from typing import Final

OTHER: Final = "other"
"""What stands for all values beyond the bound."""
UNKNOWN: Final = "unknown"
"""The domain of starts that are none."""
ADMITTED: Final = frozenset(("success", "duplicate", "delayed", "dry_run", "failed"))
"""Statuses of starts that their quota let through, or that wait for it: their domains get series."""


class BoundedLabels:
    """Lets the first `limit` different values through, and gives `other` for every later one.

    Values that belong together (a domain and its table) are bounded together, so that series never mix. What
    `always` has is let through besides. With `is_trusted` false values are let through only that are known: what
    anybody may make up takes no place from what runs here.
    """

    def __init__(self, limit: int, *, always: str | None = None) -> None:
        self._limit = limit
        self._seen: set[tuple[str, ...]] = set()
        self._always = always

    def __call__(self, *values: str, is_trusted: bool = True) -> tuple[str, ...]:
        if values not in self._seen and values != (self._always,):
            if not is_trusted or len(self._seen) >= self._limit:
                return (OTHER,) * len(values)
            self._seen.add(values)
        return values
