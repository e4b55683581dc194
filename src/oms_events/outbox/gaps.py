"""Which sequence numbers of a partition were seen, and which are missing below them. Pure.

A query may show a record without an earlier one whose transaction committed before. So before a record is taken,
the missing numbers nearest below it are looked for by a serializable read: what is there then goes first, what is
not had not committed before the record's own transaction began, and is never waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

REACH: Final = 100
"""How many missing numbers below a record are looked for: one call's worth (API_TransactGetItems: 100)."""
_KEPT: Final = 2000


class Gaps:
    """The numbers of one partition, as one relay has seen them.

    `low` is the number below which an earlier relay had seen everything. A number that has been missing for
    `horizon` seconds is not looked for any more: only a writer that was stopped for so long between its
    reservation and its commit could still use it.
    """

    def __init__(self, *, low: int = 0, horizon: float) -> None:
        self.top: int | None = low - 1 if low > 0 else None
        self.late = 0
        self._horizon = horizon
        self._missing: dict[int, float] = {}
        self._due: set[int] = set()
        self._void: set[int] = set()

    @property
    def low(self) -> int:
        """The number below which all were seen; 0 when nothing is known."""
        if self.top is None:
            return 0
        return min(self._missing, default=self.top + 1)

    def follows(self, number: int, now: float) -> bool:
        """Whether a record comes right after all that was seen, with nothing to look for below it."""
        if self.top is None:
            return False
        self._expire(now)
        return number == self._after_void(self.top) and not self._missing

    def is_missing(self, number: int) -> bool:
        """Whether a number was missing below a record, and did not show since."""
        return number in self._missing

    def see(self, numbers: Sequence[int], now: float) -> list[int]:
        """Takes the numbers of a page, ascending, and gives the missing ones to look for."""
        follows = self.top is not None and numbers[:1] == [self.top + 1] and numbers[-1] == self.top + len(numbers)
        if follows and not (self._missing or self._due or self._void):
            # Nearly every page: it goes on where the last one ended, and misses nothing.
            self.top = numbers[-1]
            return []
        self._expire(now)
        fresh: list[int] = []
        opened: list[int] = []
        for number in numbers:
            if number in self._missing:
                del self._missing[number]
                self.late += 1
            elif self.top is not None and number <= self.top:
                continue
            else:
                first = number - REACH if self.top is None else max(self.top + 1, number - REACH)
                opened += [n for n in range(max(1, first), number) if n not in self._void]
                self._void = {n for n in self._void if n > number}
                self.top = number
            fresh.append(number)
        if not fresh and not self._due:
            return []
        self._missing.update(dict.fromkeys(opened, now))
        if len(self._missing) > _KEPT:
            self._missing = dict(sorted(self._missing.items())[-_KEPT:])
        if fresh:
            below = sorted(number for number in self._missing if number < fresh[0])
            among = [number for number in self._missing if fresh[0] < number < fresh[-1]]
            # What could not be looked for the last time is due still: its page was not taken.
            self._due.update(below[-REACH:], among)
        self._due.intersection_update(self._missing)
        return sorted(self._due)

    def looked(self, found: Iterable[int]) -> None:
        """The numbers that `see` gave were looked for, and these were there."""
        self._due.clear()
        for number in found:
            self._missing.pop(number, None)

    def void(self, numbers: Iterable[int]) -> None:
        """The transactions of these were certainly refused."""
        for number in numbers:
            if self._missing.pop(number, None) is None and (self.top is None or number > self.top):
                self._void.add(number)
        if len(self._void) > _KEPT:
            # The rest are gaps like others: they are looked for.
            self._void = set(sorted(self._void)[-_KEPT:])

    def _after_void(self, number: int) -> int:
        number += 1
        while number in self._void:
            number += 1
        return number

    def _expire(self, now: float) -> None:
        if self._missing:
            expired = [number for number, since in self._missing.items() if now - since > self._horizon]
            for number in expired:
                del self._missing[number]
