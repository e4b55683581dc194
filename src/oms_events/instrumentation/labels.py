"""Bounds for labels with values from outside: each new one is a series that is kept, and may be paid for."""

from __future__ import annotations

from typing import Final

OTHER: Final = "other"
"""What stands for all values beyond the bound."""


class BoundedLabels:
    """Lets the first `limit` different values through, and gives `other` for every later one.

    Values that belong together (a domain and its table) are bounded together, so that series never mix.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[tuple[str, ...]] = set()

    def __call__(self, *values: str) -> tuple[str, ...]:
        if values not in self._seen:
            if len(self._seen) >= self._limit:
                return (OTHER,) * len(values)
            self._seen.add(values)
        return values
