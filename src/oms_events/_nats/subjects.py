"""Subjects and filters: what is wrong with one, and what a filter takes. Pure."""

from __future__ import annotations

import re


def subject_problem(subject: str) -> str | None:
    """What is wrong with a subject or filter, or None."""
    tokens = subject.split(".")
    if not subject or not all(tokens) or re.search(r"[\s\x00-\x1f\x7f]", subject):
        return f"{subject!r} is no subject: no empty token and no white space may be in it"
    if any(len(part) > 1 and set(part) & {"*", ">"} for part in tokens):
        return f"{subject!r}: a wildcard is a token of its own"
    if ">" in tokens[:-1]:
        return f"{subject!r}: '>' stands at the end"
    return None


def covers(pattern: str, subject: str) -> bool:
    """Whether a stream's filter takes every subject that `subject`, maybe with wildcards, stands for."""
    patterns, tokens = pattern.split("."), subject.split(".")
    for index, expected in enumerate(patterns):
        if expected == ">":
            return len(tokens) > index
        if index >= len(tokens) or tokens[index] == ">":
            return False
        if expected not in ("*", tokens[index]):
            return False
    return len(patterns) == len(tokens)
