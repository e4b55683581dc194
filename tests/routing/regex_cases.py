"""Strategies for properties: regular expressions of a safe grammar and event types over a small alphabet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TYPES = st.text("ab.", min_size=1, max_size=6)

_LITERALS = st.sampled_from(["a", "b", "ab", r"\."])


def _combine(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(parts, min_size=1, max_size=3).map("".join),
        st.lists(parts, min_size=2, max_size=3).map(lambda items: f"({'|'.join(items)})"),
        parts.map(lambda part: f"(?:{part})?"),
    )


EXPORTABLE = st.recursive(st.one_of(_LITERALS, st.just(".*")), _combine, max_leaves=5).filter(
    lambda text: text.count("|") + text.count("?") < 5
)
"""Patterns that EventBridge can say."""

PATTERNS = st.recursive(
    st.one_of(_LITERALS, st.sampled_from([".*", ".", ".+", "[ab]", "[^a]", "a{1,2}", "b*"])),
    _combine,
    max_leaves=5,
)
"""Patterns that `re` and RE2 read alike."""

CONDITIONS: st.SearchStrategy[dict[str, Any] | None] = st.one_of(
    st.none(),
    st.sampled_from(["main", "dev"]).map(lambda branch: {"branch": branch}),
    st.sampled_from([{"exists": False}, {"prefix": "m"}, {"anything-but": "dev"}, {"wildcard": "*e*"}]).map(
        lambda test: {"branch": [test]}
    ),
    st.integers(0, 3).map(lambda bound: {"data.n": [{"numeric": [">", bound]}]}),
    st.just({"$or": [{"branch": "dev"}, {"data": {"n": [1, 2]}}]}),
)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES},
    optional={"branch": st.sampled_from(["main", "dev"]), "data": st.integers(0, 3).map(lambda n: {"n": n})},
)
