"""Patterns on event types: RE2 wrapped, alone and as a set."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oms_events.routing.patterns import PatternSet, compile_pattern
from tests.routing.regex_cases import PATTERNS, TYPES


@given(pattern=PATTERNS, text=TYPES)
def test_patterns_mean_what_re_fullmatch_means(pattern, text):
    matched = compile_pattern(pattern).fullmatch(text) is not None
    assert matched is (re.fullmatch(pattern, text, re.DOTALL) is not None)


@given(patterns=st.lists(PATTERNS, max_size=60), text=TYPES)
def test_a_set_answers_as_its_patterns_one_by_one(patterns, text):
    compiled = [compile_pattern(pattern) for pattern in patterns]
    expected = [at for at, pattern in enumerate(compiled) if pattern.fullmatch(text) is not None]
    assert list(PatternSet(compiled).matches(text)) == expected


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)*b", r"(.*a){20}b", r"^(\w+\s?)*$"])
def test_patterns_that_would_hang_backtracking_are_quick(pattern):
    compiled = [compile_pattern(pattern)] * 30
    started = time.perf_counter()
    compiled[0].fullmatch("a" * 5_000 + "!")
    PatternSet(compiled).matches("a" * 5_000 + "!")
    assert time.perf_counter() - started < 2.0


def test_patterns_too_large_for_one_automaton_still_answer():
    large = [compile_pattern(f".*a.{{300}}x{number}") for number in range(300)]
    assert list(PatternSet(large).matches("a" + "b" * 300 + "x7")) == [7]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?=a)b", "no lookahead"),
        ("(?<!a)b", "no lookahead, lookbehind"),
        (r"(a)\1", "backreference"),
        ("a++", "bad repetition operator: \\+\\+"),
        ("(", r"not a regular expression: missing \)"),
        ("[a-", "missing ]"),
        ("*.created", "no argument for repetition operator"),
        ("a{5000}", "invalid repetition size"),
        ("\udc80", "surrogates not allowed"),
    ],
)
def test_refused_patterns_say_why(pattern, says, capfd):
    with pytest.raises(ValueError, match=says):
        compile_pattern(pattern)
    assert capfd.readouterr() == ("", "")
