"""Conditions: what holds for all of them."""

from __future__ import annotations

from functools import cache

from hypothesis import assume, given
from hypothesis import strategies as st

from oms_events.events import build_event, encode
from oms_events.routing.conditions import compile_condition
from oms_events.routing.wildcards import covers, parse_wildcard, write_wildcard

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 1.5]), st.text("ab1", max_size=2)
)
_TEXTS = st.text("ab*\\", max_size=6)
_WILDCARDS = st.lists(st.text("ab", max_size=2), min_size=1, max_size=4).map(
    lambda parts: (parts[0], *filter(None, parts[1:-1]), parts[-1]) if len(parts) > 1 else tuple(parts)
)


def _event(data):
    return encode(build_event("t", "s", data))


@given(wanted=_SCALARS, value=st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3)))
def test_plain_equality_is_the_list_of_one(wanted, value):
    event = _event({"x": value})
    plain = compile_condition({"data.x": wanted})
    listed = compile_condition({"data": {"x": [wanted]}})
    values = value if isinstance(value, list) else [value]
    expected = any(type(item) is type(wanted) and item == wanted for item in values)
    assert plain.matches(event) == listed.matches(event) == expected
    assert plain.to_pattern() == listed.to_pattern()


@given(alternatives=st.lists(_SCALARS, min_size=1, max_size=3), value=_SCALARS)
def test_a_list_matches_when_one_of_its_values_does(alternatives, value):
    event = _event({"x": value})
    assert compile_condition({"data.x": alternatives}).matches(event) == any(
        compile_condition({"data.x": one}).matches(event) for one in alternatives
    )


@given(parts=st.lists(_TEXTS, min_size=1, max_size=4), text=st.text("ab*\\", max_size=8))
def test_wildcards_match_as_the_naive_reference(parts, text):
    parts = [parts[0], *filter(None, parts[1:-1]), *parts[1:][-1:]]
    wildcard = write_wildcard(parts)
    assume(wildcard)
    assert parse_wildcard(wildcard) == tuple(parts)
    expected = _naive(tuple(parts), text)
    assert compile_condition({"data.x": [{"wildcard": wildcard}]}).matches(_event({"x": text})) is expected


@cache
def _naive(parts, text):
    first, *rest = parts
    if not rest:
        return text == first
    return text.startswith(first) and any(
        _naive(tuple(rest), text[at:]) for at in range(len(first), len(text) + 1)
    )


@given(general=_WILDCARDS, special=_WILDCARDS, fillings=st.lists(st.text("abc", max_size=3), min_size=4))
def test_a_wildcard_that_covers_another_matches_all_its_texts(general, special, fillings):
    text = special[0] + "".join(fill + part for fill, part in zip(fillings, special[1:], strict=False))
    assert _naive(special, text)
    if covers(general, special):
        assert _naive(general, text)


@given(general=_WILDCARDS, special=_WILDCARDS)
def test_a_wildcard_that_does_not_cover_another_misses_one_of_its_texts(general, special):
    assert covers(general, special) or not _naive(general, "?".join(special))


@given(value=_SCALARS, excluded=st.text("ab1", max_size=2))
def test_anything_but_is_the_opposite_of_equality_on_present_values(value, excluded):
    event = _event({"x": value})
    equal = compile_condition({"data.x": [excluded]}).matches(event)
    assert compile_condition({"data.x": [{"anything-but": excluded}]}).matches(event) is not equal


@given(value=st.one_of(_SCALARS, st.lists(_SCALARS, max_size=2), st.dictionaries(st.just("y"), _SCALARS)))
def test_a_field_either_exists_or_does_not(value):
    event = _event({"x": value})
    exists, missing = (compile_condition({"data.x": [{"exists": flag}]}).matches(event) for flag in (True, False))
    assert exists is not missing


@given(value=_SCALARS, wanted=_SCALARS)
def test_why_not_speaks_exactly_when_it_does_not_match(value, wanted):
    event = _event({"x": value})
    condition = compile_condition({"data.x": wanted})
    assert (condition.why_not(event) is None) is condition.matches(event)
