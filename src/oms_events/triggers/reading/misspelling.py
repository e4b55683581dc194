"""Keys of what comes in that are nearly those which a start cannot do without. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice, takewhile
from typing import Any, Final

from oms_events.triggers.problems import Code, Problem
from oms_events.triggers.reading.models import joined

_DANGEROUS: Final = ("symbols", "dry_run", "force_symbols", "override_config")
"""Unread, each lets start what nobody asked for: everything, in earnest, or by other options."""
_SIGNS: Final = re.compile(r"[\W_]+")
_LONGEST: Final = 50
"""Characters of a key that is looked at."""
_NAMED: Final = 20
"""Keys that an answer names."""


def misspelt(unknown: Mapping[str, Any], *, place: str = "") -> list[Problem]:
    """The keys, of those that no request has, which are `symbols` and the like but for case, signs or one letter.

    `place` is where they stand in what came in; at most 20 are named.
    """
    found = ((name, meant) for name in unknown if (meant := _meant(name)) is not None)
    return [
        Problem(
            Code.UNKNOWN_SHAPE,
            f"did you mean {meant!r}? This key is not read",
            joined(place, name),
            unknown[name],
        )
        for name, meant in islice(found, _NAMED)
    ]


def _meant(name: str) -> str | None:
    if len(name) > _LONGEST:
        return None
    plain = _plain(name)
    return next((known for known in _DANGEROUS if _is_near(plain, _plain(known))), None)


def _plain(name: str) -> str:
    return _SIGNS.sub("", name).casefold()


def _is_near(one: str, other: str) -> bool:
    """Whether they are the same but for one letter: another, one more or less, or two that changed places."""
    start = _same(one, other)
    one, other = one[start:], other[start:]
    end = min(_same(one[::-1], other[::-1]), len(one), len(other))
    one, other = one[: len(one) - end], other[: len(other) - end]
    return max(len(one), len(other)) <= 1 or (len(one) == 2 and one == other[::-1])


def _same(one: str, other: str) -> int:
    """Letters that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
