"""Wildcards as EventBridge writes them: `*` is any text, `\\*` and `\\\\` are the characters themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oms_events.routing.patterns import Pattern, compile_pattern


def parse_wildcard(text: str) -> tuple[str, ...]:
    """The literals around the stars of a wildcard; one literal when it has no star. Raises `ValueError`."""
    parts = [""]
    at = 0
    while at < len(text):
        char = text[at]
        if char == "*":
            if text[at + 1 : at + 2] == "*":
                raise ValueError(f"wildcard {text!r} has consecutive stars; one matches any text")
            parts.append("")
        elif char == "\\":
            at += 1
            if text[at : at + 1] not in ("*", "\\"):
                raise ValueError(
                    f"wildcard {text!r} has a backslash before another character than '*' or '\\'; "
                    "double the backslash"
                )
            parts[-1] += text[at]
        else:
            parts[-1] += char
        at += 1
    return tuple(parts)


def write_wildcard(parts: Iterable[str]) -> str:
    """The wildcard with these literals around its stars."""
    return "*".join(part.replace("\\", "\\\\").replace("*", "\\*") for part in parts)


def compile_wildcard(parts: Iterable[str]) -> Pattern:
    """A pattern that matches whole texts as the wildcard does, in time linear in the text."""
    return compile_pattern("(?s)" + ".*".join(map(escape, parts)))


def compile_ignoring_case(prefix: str, suffix: str, text: str) -> Pattern:
    """A pattern for `text` in any case between two patterns.

    As in EventBridge's engine, a character stands for itself, its lower and its upper case, without further
    folding.
    """
    return compile_pattern(f"(?s){prefix}{''.join(map(_in_any_case, text))}{suffix}")


def escape(text: str) -> str:
    """The text as a pattern that matches it alone."""
    return "".join(char if char.isalnum() or char == "_" or ord(char) > 127 else f"\\x{{{ord(char):x}}}"
                   for char in text)  # fmt: skip


def _in_any_case(char: str) -> str:
    variants = sorted({char, char.lower(), char.upper()})
    return escape(char) if len(variants) == 1 else f"(?:{'|'.join(map(escape, variants))})"


def covers(general: Sequence[str], special: Sequence[str]) -> bool:
    """Whether every text of the wildcard `special` is one of `general`, both given as literals around stars.

    The stars of `special` stand for a character that no literal has, so only a star of `general` takes it.
    """
    if len(general) == 1:
        return tuple(general) == tuple(special)
    text = sample_of(special, beside=general)
    first, *middle, last = general
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def sample_of(wildcard: Sequence[str], *, beside: Sequence[str] = ()) -> str:
    """A text that the wildcard matches, with a private-use character that no literal has for each star."""
    used = set("".join((*wildcard, *beside)))
    star = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in used)
    return star.join(wildcard)
