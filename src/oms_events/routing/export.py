"""Routing rules as EventBridge rules: what a regular expression says, in exact values, prefixes and wildcards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from oms_events.routing.conditions import Condition
from oms_events.routing.wildcards import write_wildcard

MAX_ALTERNATIVES: Final = 20
"""Alternatives that one pattern may have when its groups are written out."""

MAX_LENGTH: Final = 2_048
"""Characters of an EventBridge event pattern (EventBridge quotas, adjustable there)."""

Wildcard = tuple[str, ...]
"""The literals around the stars of a wildcard."""

_ANYTHING: Final[Wildcard] = ("", "")
_SPECIAL: Final = frozenset("\\.+*?()[{^$|")


def event_pattern(event_type_pattern: str, condition: Condition | None) -> dict[str, Any]:
    """The pattern of an EventBridge rule for the `wrapped` mapping, which has the event in `detail.cloudEvents`.

    Raises `ValueError` that names the part EventBridge cannot say. AWS may still refuse wildcards as too
    complex: it limits how much the stars of one rule overlap, and takes 30 rules with wildcards per bus.
    """
    try:
        wildcards = to_wildcards(event_type_pattern)
    except ValueError as error:
        raise ValueError(
            f"event_type_pattern = {event_type_pattern!r} cannot be exported to EventBridge: {error}"
        ) from None
    fields = {} if condition is None else condition.to_pattern()
    constrains_type = condition is not None and condition.names("type")
    if _ANYTHING not in wildcards and constrains_type:
        raise ValueError(
            "conditions = {'type': ...} cannot be exported to EventBridge beside event_type_pattern, as a "
            "field takes one list; say it in the pattern alone, or in the conditions with pattern '.*'"
        )
    if not constrains_type:
        fields = {"type": _alternatives(wildcards), **fields}
    pattern = {"detail": {"cloudEvents": fields}}
    length = len(json.dumps(pattern, ensure_ascii=False, separators=(",", ":")))
    if length > MAX_LENGTH:
        raise ValueError(
            f"the exported pattern has {length} characters, and EventBridge takes {MAX_LENGTH}; "
            "split the rule in several"
        )
    return pattern


def _alternatives(wildcards: Iterable[Wildcard]) -> list[Any]:
    if _ANYTHING in wildcards:
        return [{"exists": True}]
    return [_alternative(parts) for parts in wildcards]


def _alternative(parts: Wildcard) -> Any:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2 and not parts[1]:
        return {"prefix": parts[0]}
    if len(parts) == 2 and not parts[0]:
        return {"suffix": parts[1]}
    return {"wildcard": write_wildcard(parts)}


def to_wildcards(pattern: str) -> tuple[Wildcard, ...]:
    """The wildcards that together match exactly what a regular expression matches as a whole.

    Reads literals, escaped punctuation, `.*`, groups, alternatives, `?`, and `^`, `$` at the ends. Raises
    `ValueError` that names the first other part.
    """
    return _Reader(pattern).read()


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def read(self) -> tuple[Wildcard, ...]:
        self._take("^")
        found = self._read_alternatives()
        if self._at < len(self._text):
            raise self._refuse(self._text[self._at], "it stands at no end of the pattern")
        return tuple(dict.fromkeys(found))

    def _read_alternatives(self) -> list[Wildcard]:
        found = self._read_sequence()
        while self._take("|"):
            found = [*found, *self._read_sequence()]
            self._limit(len(found))
        return found

    def _read_sequence(self) -> list[Wildcard]:
        found: list[Wildcard] = [("",)]
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if self._text[self._at :] == "$":
                self._at += 1
                break
            atoms = self._read_atom()
            if self._take("?"):
                self._take("?")
                atoms = [*atoms, ("",)]
            if self._at < len(self._text) and self._text[self._at] in "*+{":
                raise self._refuse(self._text[self._at], "EventBridge has no repetition but '.*'")
            self._limit(len(found) * len(atoms))
            found = [_concatenate(first, second) for first in found for second in atoms]
        return found

    def _read_atom(self) -> list[Wildcard]:
        char = self._text[self._at]
        if self._take(".*"):
            self._take("?")
            return [_ANYTHING]
        if self._take("("):
            self._read_group_name()
            found = self._read_alternatives()
            self._take(")")
            return found
        if char == "\\":
            escaped = self._text[self._at + 1]
            if escaped.isalnum():
                raise self._refuse(f"\\{escaped}", "only escaped punctuation is one character")
            self._at += 2
            return [(escaped,)]
        if char == ".":
            raise self._refuse(".", "EventBridge has no single wild character; write '\\.' for a dot, or '.*'")
        if char in _SPECIAL:
            raise self._refuse(char, "EventBridge knows literals and '.*' only")
        self._at += 1
        return [(char,)]

    def _read_group_name(self) -> None:
        if self._take("?P<") or self._take("?<"):
            self._at = self._text.index(">", self._at) + 1
        elif not self._take("?:") and self._text.startswith("?", self._at):
            raise self._refuse("(?", "EventBridge has no flags; write the cases out")

    def _take(self, token: str) -> bool:
        taken = self._text.startswith(token, self._at)
        if taken:
            self._at += len(token)
        return taken

    def _limit(self, count: int) -> None:
        if count > MAX_ALTERNATIVES:
            raise ValueError(f"its groups make more than {MAX_ALTERNATIVES} alternatives; split the rule")

    def _refuse(self, part: str, reason: str) -> ValueError:
        return ValueError(f"{part!r} at position {self._at}: {reason}")


def _concatenate(first: Wildcard, second: Wildcard) -> Wildcard:
    parts = (*first[:-1], first[-1] + second[0], *second[1:])
    return (parts[0], *filter(None, parts[1:-1]), parts[-1]) if len(parts) > 1 else parts
