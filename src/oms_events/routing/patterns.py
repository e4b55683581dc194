"""Regular expressions on event types, on RE2: time linear in the text, so no pattern can hang the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

import re2

_SET_FROM = 24
"""Below this many patterns one by one is faster to build and to ask than a set automaton."""

_SET_MEMORY = 32 << 20
"""Bytes that the automaton of one set may take: it grows with use, and starts anew when it is full."""


class Pattern(Protocol):
    """A compiled pattern."""

    @property
    def pattern(self) -> str: ...

    def fullmatch(self, text: str) -> object | None: ...


def _options(*, max_mem: int | None = None) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    # Event types have no lines, and `.*` is to mean all of them.
    options.dot_nl = True
    if max_mem is not None:
        options.max_mem = max_mem
    return options


def compile_pattern(text: str) -> Pattern:
    """Compiles a pattern that is to match whole texts. Raises `ValueError` that says what to do."""
    try:
        return cast("Pattern", re2.compile(text, options=_options()))
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(_remedy(text, error)) from None


def _remedy(text: str, error: Exception) -> str:
    reason = error.args[0] if isinstance(error, re2.error) and error.args else str(error)
    if isinstance(reason, bytes):
        reason = reason.decode(errors="replace")
    if "(?" in text or "\\" in text:
        return (
            f"RE2 refuses it: {reason}; RE2 has no lookahead, lookbehind, backreference or possessive "
            "quantifier: write the pattern without, or split it into rules of different priority"
        )
    return f"not a regular expression: {reason}; escape literal characters with a backslash"


class PatternSet:
    """Many patterns asked at once: which of them match the whole text."""

    __slots__ = ("_patterns", "_set")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._set = _build_set(self._patterns) if len(self._patterns) >= _SET_FROM else None

    def matches(self, text: str) -> Sequence[int]:
        """The positions of the patterns that match, ascending."""
        if self._set is not None:
            found = self._set.Match(text)
            # Without the last pattern, which matches all, the automaton ran out of memory and knows nothing.
            if found and len(self._patterns) in found:
                return sorted(found)[:-1]
        return [at for at, pattern in enumerate(self._patterns) if pattern.fullmatch(text) is not None]


def _build_set(patterns: Sequence[Pattern]) -> re2.Set | None:
    together = re2.Set.FullMatchSet(_options(max_mem=_SET_MEMORY))
    for pattern in patterns:
        together.Add(pattern.pattern)
    together.Add(".*")
    try:
        together.Compile()
    except re2.error:
        return None
    return together
