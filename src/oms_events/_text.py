"""Text that came from others, made fit for a line of a log or a terminal. Pure."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text without control characters, which could forge lines or command the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
